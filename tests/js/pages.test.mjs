import assert from "node:assert/strict";
import test from "node:test";
import { anchorOf, pageOf, placesOf } from "../../js/lib/pages.mjs";

test("a link to a page of ours names it, in both languages and from the folder of either", () => {
  assert.deepEqual(pageOf("ZImageAdvice.md"), { name: "ZImageAdvice", anchor: "" });
  assert.deepEqual(pageOf("../ZImageAdvice/zh.md#%E6%AD%A5%E6%95%B0"), { name: "ZImageAdvice", anchor: "步数" });
  assert.deepEqual(pageOf("../ZImageLive.md#keep"), { name: "ZImageLive", anchor: "keep" });
});

test("any other link is the browser's", () => {
  const others = [null, undefined, "", "#steps", "advice.md", "https://example.org/ZImageAdvice.md", "/ZImageAdvice.md", "ZImageAdvice.html"];
  for (const href of others) assert.equal(pageOf(href), null, href);
});

test("a page is looked for in the user's language first", () => {
  assert.deepEqual(placesOf("ZImageLive", "zh"), ["ZImageLive/zh.md", "ZImageLive.md"]);
  assert.deepEqual(placesOf("ZImageLive", "en"), ["ZImageLive.md"]);
});

test("a heading's anchor is the one that GitHub gives it", () => {
  assert.equal(anchorOf("4, 8, 9 and 12 steps"), "4-8-9-and-12-steps");
  assert.equal(anchorOf("Shift 3 or 6?"), "shift-3-or-6");
  assert.equal(anchorOf("“cfg 1.0 到 1.5”"), "cfg-10-到-15");
});
