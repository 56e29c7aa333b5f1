import assert from "node:assert/strict";
import test from "node:test";
import { amount, describe, fromWidgets } from "../../js/lib/sizes.mjs";

const listed = { size: "1024 px", "size.aspect": "3:2 - 1248x832", batch_size: 1, swap: false };
const custom = (width, height, swap = false) =>
  ({ size: "custom", "size.width": width, "size.height": height, batch_size: 1, swap });
const notes = (values) => describe(fromWidgets(values), "en").notes;

test("a listed size, and swapped", () => {
  assert.deepEqual(describe(fromWidgets(listed), "en"), {
    facts: [
      "1248x832, 1.04 megapixels, 4056 image tokens.",
      "About 440 MB to draw (890 MB above cfg 1) and 1.6 GB to decode, beside the weights.",
    ],
    notes: [],
  });
  assert.match(describe(fromWidgets({ ...listed, swap: true }), "en").facts[0], /^832x1248, /);
  assert.match(describe(fromWidgets({ ...listed, batch_size: 2 }), "en").facts[0], /tokens, 2 pictures\.$/);
});

test("a free size is snapped, warned of, refused", () => {
  assert.deepEqual(notes(custom(1024, 1008)), []);
  assert.deepEqual(notes(custom(1000, 1024, true)), ["1024x1000 was snapped to 1024x1008: sides are multiples of 16."]);
  assert.match(notes(custom(496, 512))[0], /^496x512 is beyond the official range/);
  assert.deepEqual(notes(custom(9000, 1024)), ["9000x1024 cannot be drawn: sides must be from 16 to 8192."]);
});

test("the demo's sizes are its own", () => {
  const demo = { ...listed, size: "demo", "size.aspect": "1:1 - 128x128" };
  assert.deepEqual(notes(demo), []);
});

test("what comes by a link is known when it runs", () => {
  const { size, swap, ...rest } = listed;
  assert.deepEqual(fromWidgets({ swap, ...rest, size: "fit image" }), { later: "fitsLater" });
  assert.deepEqual(fromWidgets({ size, ...rest }), { later: "knownLater" });
  assert.deepEqual(fromWidgets({ size: "custom", "size.width": 64, batch_size: 1, swap }), { later: "knownLater" });
  const { batch_size: _, ...unbatched } = listed;
  assert.match(notes(unbatched)[0], /one picture/);
});

test("what the node says of a run", () => {
  const ran = { width: 1152, height: 896, batch: 1, demo: false, asked: null, picture: [1000, 800], scale: 1.152 };
  const fit = (crop, locale) => describe({ ...ran, crop }, locale).facts[2];
  assert.equal(fit([0, 26], "en"), "1000x800 -> 1152x896: scaled by 1.152, 26 px of the height cropped.");
  assert.equal(fit([3, 26], "en"), "1000x800 -> 1152x896: scaled by 1.152, 3 px of the width and 26 px of the height cropped.");
  assert.equal(fit([0, 0], "zh"), "1000x800 -> 1152x896：缩放 1.152 倍，无裁剪。");
});

test("bytes as a person rounds them", () => {
  assert.deepEqual([1, 14e6, 16e6, 949e6, 951e6, 1.25e9, 26e9].map(amount),
    ["10 MB", "10 MB", "20 MB", "950 MB", "1 GB", "1.3 GB", "26 GB"]);
});
