import assert from "node:assert/strict";
import test from "node:test";
import { translateNode } from "../../js/lib/translate.mjs";

const WORDS = {
  size_image: { name: "图像" },
  mode_steps: { name: "步数", tooltip: "越多越精细" },
  positive: { tooltip: "要画什么", placeholder: "画什么" },
};

test("widgets of a dynamic combo get their tooltip, text boxes their placeholder", () => {
  const steps = { name: "mode.steps", tooltip: "More steps" };
  const positive = { name: "positive", element: { placeholder: "what to draw" } };
  translateNode({ widgets: [steps, positive] }, WORDS);
  assert.equal(steps.tooltip, "越多越精细");
  assert.equal(positive.element.placeholder, "画什么");
  assert.equal(positive.tooltip, undefined, "the host finds it itself");
});

test("what has no words stays as it is", () => {
  const other = { name: "mode.cfg", tooltip: "How strongly", element: { placeholder: "text" } };
  translateNode({ widgets: [other] }, WORDS);
  translateNode({}, WORDS);
  assert.deepEqual(other, { name: "mode.cfg", tooltip: "How strongly", element: { placeholder: "text" } });
});

test("the host names the sockets of a dynamic combo, unless the user has named them", () => {
  const inputs = [{ name: "size.image", label: "image" }, { name: "size.image", label: "mine" }, { name: "model" }];
  translateNode({ inputs }, WORDS);
  assert.deepEqual(inputs.map((input) => input.label), [undefined, "mine", undefined]);
});
