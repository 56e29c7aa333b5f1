// Live mode against a host of its own: a clock that is moved by hand, and a queue that ends when told to.
import assert from "node:assert/strict";
import test from "node:test";
import { Live } from "../../js/lib/live.mjs";
import { asTyped, livePrompt, previewPoints, recipe } from "../../js/lib/prompts.mjs";
import { reason, speaker } from "../../js/lib/words.mjs";

const DEFINITIONS = {
  VAEDecode: { output: ["IMAGE"] },
  ImageUpscale: { output: ["IMAGE"] },
  SaveImage: { output: ["IMAGE"], output_node: true },
  PreviewImage: { output: [], output_node: true },
  SaveLatent: { output: [], output_node: true },
  ZImageSampler: { output: ["LATENT"] },
  KSampler: { output: ["LATENT"] },
  LoadImage: { output: ["IMAGE", "MASK"] },
  CLIPTextEncode: { output: ["CONDITIONING"] },
};
const define = (type) => DEFINITIONS[type];
const node = (class_type, inputs) => ({ class_type, inputs });

function graph(text = "a cat", sampler = node("ZImageSampler", { positive: ["1", 0], seed: 1 })) {
  return {
    1: node("CLIPTextEncode", { text }),
    2: sampler,
    3: node("VAEDecode", { samples: ["2", 0] }),
    4: node("ImageUpscale", { image: ["3", 0] }),
    5: node("SaveImage", { images: ["4", 0], filename_prefix: "mine" }),
    6: node("SaveLatent", { samples: ["2", 0] }),
  };
}

const ksampler = (inputs) => node("KSampler", { positive: ["1", 0], seed: 1, steps: 8, cfg: 1, ...inputs });

test("the picture shows where the user looks for it, straight from the decoder", () => {
  assert.deepEqual(previewPoints(graph(), define), [{ sampler: "2", picture: ["3", 0], display: "5" }]);
});

test("a live prompt asks for previews alone and keeps every other node", () => {
  const before = graph();
  const { prompt, targets, draws } = livePrompt(before, define, true);
  assert.deepEqual(targets, ["5"]);
  assert.deepEqual(prompt[5], { class_type: "PreviewImage", inputs: { images: ["3", 0] }, _meta: undefined });
  assert.deepEqual(Object.keys(prompt), Object.keys(before));
  assert.equal(prompt[2].inputs.draft, true);
  assert.equal(before[2].inputs.draft, undefined);
  assert.equal(before[5].class_type, "SaveImage");
  assert.deepEqual(draws, [{ sampler: "2", kind: "ours" }]);
  assert.equal(livePrompt(before, define, false).prompt[2].inputs.draft, undefined);
});

test("a batch shows with its seeds", () => {
  const batch = graph();
  batch[5] = node("ZImagePickSeeds", { latent: ["2", 0], images: ["3", 0], seeds: "2" });
  const { prompt, targets } = livePrompt(batch, (type) => (type === "ZImagePickSeeds" ? { output: ["LATENT", "IMAGE"], output_node: true } : define(type)), true);
  assert.deepEqual(targets, ["5"]);
  assert.deepEqual(prompt[5], batch[5]);
});

test("a later sampler waits for the user", () => {
  const two = graph();
  two[7] = node("KSampler", { latent_image: ["2", 0], steps: 20, cfg: 4 });
  two[8] = node("VAEDecode", { samples: ["7", 0] });
  two[9] = node("PreviewImage", { images: ["8", 0] });
  assert.deepEqual(previewPoints(two, define).map((point) => point.sampler), ["2"]);
});

test("a picture that only a later sampler gives is drafted by both, and is the later one's", () => {
  const chain = graph();
  chain[3].inputs.samples = ["8", 0];
  chain[7] = node("LatentUpscale", { samples: ["2", 0] });
  chain[8] = node("ZImageSampler", { latent: ["7", 0], positive: ["1", 0], seed: 1 });
  const { prompt, targets, draws } = livePrompt(chain, define, true);
  assert.deepEqual(targets, ["5"]);
  assert.deepEqual(draws, [{ sampler: "8", kind: "ours" }, { sampler: "2", kind: "ours" }]);
  assert.deepEqual([prompt[2].inputs.draft, prompt[8].inputs.draft], [true, true]);
});

test("a picture further off is preferred to a nearer one of a later sampler", () => {
  const two = graph();
  two[3].inputs.samples = ["10", 0];
  two[7] = node("KSampler", { latent_image: ["2", 0], steps: 20, cfg: 4 });
  two[8] = node("VAEDecode", { samples: ["7", 0] });
  two[9] = node("PreviewImage", { images: ["8", 0] });
  two[10] = node("LatentCut", { samples: ["11", 0] });
  two[11] = node("LatentCut", { samples: ["2", 0] });
  assert.deepEqual(previewPoints(two, define), [{ sampler: "2", picture: ["3", 0], display: "5" }]);
});

test("what is saved on the way to the sampler is not saved by live mode", () => {
  const saving = graph("a", node("ZImageSampler", { positive: ["1", 0], latent: ["9", 0] }));
  saving[7] = node("LoadImage", { image: "mine.png" });
  saving[8] = node("SaveImage", { images: ["7", 0] });
  saving[9] = node("VAEEncode", { pixels: ["8", 0] });
  const { prompt } = livePrompt(saving, define, true);
  assert.deepEqual(prompt[9].inputs.pixels, ["7", 0]);
  assert.deepEqual(saving[9].inputs.pixels, ["8", 0]);
});

test("a node that decodes and saves in one is no preview", () => {
  const both = graph();
  both[3] = node("SaveImage", { samples: ["2", 0] });
  assert.deepEqual(livePrompt(both, define, true).targets, []);
});

test("drafts with the host's samplers", () => {
  const draw = (inputs) => livePrompt(graph("a", ksampler(inputs)), define, true);
  assert.deepEqual(draw({}).draws, [{ sampler: "2", kind: "host", steps: 4, of: 8 }]);
  assert.equal(draw({}).prompt[2].inputs.steps, 4);
  assert.deepEqual(draw({ steps: 30, cfg: 4 }).draws, [{ sampler: "2", kind: "host", steps: 10, of: 30 }]);
  assert.equal(draw({ steps: 4 }).draws[0].kind, "full");
  const custom = graph("a", node("SamplerCustomAdvanced", { sigmas: ["7", 0], guider: ["8", 0] }));
  custom[7] = node("BasicScheduler", { steps: 20 });
  custom[8] = node("CFGGuider", { cfg: 5 });
  assert.equal(livePrompt(custom, define, true).prompt[7].inputs.steps, 7);
  custom[7] = node("ZImageSigmas", { steps: 0 });
  assert.equal(livePrompt(custom, define, true).draws[0].kind, "full");
});

test("what is not drawn does not count", () => {
  const of = (prompt) => recipe(livePrompt(prompt, define, true));
  const renamed = graph();
  renamed[5].inputs.filename_prefix = "other";
  assert.equal(of(renamed), of(graph()));
  assert.notEqual(of(graph("a dog")), of(graph()));
});

test("texts as they were typed", () => {
  const thrown = graph("a red cat");
  const widgets = { 1: [{ name: "text", value: "a {red|blue} cat", dynamicPrompts: true }, { name: "other", value: 1 }] };
  const typed = asTyped(thrown, (id) => widgets[id] ?? []);
  assert.equal(typed[1].inputs.text, "a {red|blue} cat");
  assert.deepEqual(Object.keys(typed[1].inputs), ["text"]);
  assert.deepEqual({ ...typed, 1: thrown[1] }, thrown);
  const linked = { ...thrown, 1: node("CLIPTextEncode", { text: ["9", 0] }) };
  assert.deepEqual(asTyped(linked, (id) => widgets[id] ?? [])[1].inputs.text, ["9", 0]);
});

test("an error is one line, and values may hold a per cent sign", () => {
  const refused = (error) => ({ message: "failed", response: { node_errors: { 3: { class_type: "X", errors: [error] } } } });
  const own = { type: "custom_validation_failed", message: "Custom validation failed", details: "file - no file 'a'" };
  assert.equal(reason(refused(own), () => "Loader"), "Loader: no file 'a'");
  const host = { message: "Required input is missing", details: "vae" };
  assert.equal(reason(refused(host), () => undefined), "X: Required input is missing: vae");
  assert.equal(reason({ message: "failed", response: { error: host, node_errors: {} } }), "Required input is missing: vae");
  assert.equal(reason(new Error("no server")), "no server");
  assert.equal(reason("too hot\n"), "too hot");
  assert.equal(speaker("en")("hostDraft", "50% off", 4, 8), "50% off: the draft runs 4 of its 8 steps.");
});

function setUp(output = graph()) {
  const host = {
    output, time: 0, timers: [], queued: [], cancelled: [], said: [],
    graph: async () => ({ output: host.output, workflow: { of: JSON.stringify(host.output) } }),
    define,
    queue: async (prompt, targets, workflow) => {
      host.queued.push({ prompt, targets, workflow });
      return `id ${host.queued.length}`;
    },
    cancel: async (id) => host.cancelled.push(id),
    after(ms, run) {
      const timer = { at: host.time + ms, run };
      host.timers.push(timer);
      return () => (host.timers = host.timers.filter((one) => one !== timer));
    },
    delays: () => ({ pause: 400, rest: 1200 }),
    show: (state, detail) => host.said.push([state, detail]),
  };
  const live = new Live(host);
  async function pass(ms) {
    const end = host.time + ms;
    for (;;) {
      const next = host.timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      host.timers = host.timers.filter((timer) => timer !== next);
      host.time = next.at;
      await next.run();
    }
    host.time = end;
  }
  const edit = (text) => {
    host.output = graph(text);
    live.touch();
  };
  const isDraft = (i) => host.queued[i].prompt[2].inputs.draft === true;
  return { host, live, pass, edit, isDraft };
}

test("a draft after a pause, the full run after a rest, then nothing", async () => {
  const { host, live, pass, edit, isDraft } = setUp();
  live.start();
  await pass(399);
  assert.equal(host.queued.length, 0);
  edit("a cat, typed on");
  await pass(399);
  assert.equal(host.queued.length, 0);
  await pass(1);
  assert.equal(host.queued.length, 1);
  assert.ok(isDraft(0));
  await pass(60000);
  assert.equal(host.queued.length, 1); // it is not done yet
  live.pictured("id 1");
  live.ended("id 1");
  await pass(1199);
  assert.equal(host.queued.length, 1);
  await pass(1);
  assert.equal(host.queued.length, 2);
  assert.ok(!isDraft(1));
  live.pictured("id 2");
  live.ended("id 2");
  live.touch();
  await pass(60000);
  assert.equal(host.queued.length, 2);
  assert.deepEqual(host.cancelled, []);
  assert.equal(live.shown.full, true);
});

test("an edit cancels its own stale run, and only that", async () => {
  const { host, live, pass, edit } = setUp();
  live.start();
  await pass(400);
  edit("a dog");
  await pass(400);
  assert.deepEqual(host.cancelled, ["id 1"]);
  live.ended("id 1", "interrupted"); // comes late
  live.ended("somebody else's");
  live.pictured("somebody else's");
  assert.equal(live.shown, null);
  live.ended("id 2");
  edit("a bird");
  await pass(1600); // the draft of the bird, not the full dog
  assert.equal(host.queued.length, 3);
  assert.equal(host.queued[2].prompt[1].inputs.text, "a bird");
  assert.deepEqual(host.cancelled, ["id 1"]);
});

test("whoever is typing has not rested", async () => {
  const { host, live, pass } = setUp();
  live.start();
  await pass(400);
  live.ended("id 1");
  await pass(1000);
  live.touch();
  await pass(399);
  assert.equal(host.queued.length, 1);
  await pass(5000); // nothing was changed after all
  assert.equal(host.queued.length, 2);
});

test("the picture on screen is kept as it was drawn", async () => {
  const { live, pass, edit } = setUp();
  live.start();
  await pass(400);
  live.pictured("id 1");
  edit("a dog");
  await pass(400);
  assert.equal(live.shown.output[1].inputs.text, "a cat");
  assert.equal(live.shown.output[5].class_type, "SaveImage");
  assert.equal(live.shown.workflow.of, JSON.stringify(graph()));
  assert.equal(live.shown.full, false);
});

test("a run of the user's own is left alone, and the seed it moves on is not drawn", async () => {
  const { host, live, pass, edit } = setUp();
  live.start();
  await pass(400);
  await live.queued();
  assert.deepEqual(host.cancelled, ["id 1"]); // ours, which the user's own run makes needless
  host.output = graph("a cat", node("ZImageSampler", { positive: ["1", 0], seed: 2 }));
  await pass(60000);
  assert.equal(host.queued.length, 1);
  edit("a dog");
  await pass(400);
  assert.equal(host.queued.length, 2);
});

test("turned off, it draws nothing and leaves nothing running", async () => {
  const { host, live, pass, edit } = setUp();
  edit("before it was on");
  await pass(60000);
  assert.equal(host.queued.length, 0);
  live.start();
  await pass(400);
  await live.stop();
  assert.deepEqual(host.cancelled, ["id 1"]);
  edit("after");
  await pass(60000);
  assert.equal(host.queued.length, 1);
});

test("an answer that comes after a newer edit is cancelled", async () => {
  const { host, live, pass, edit } = setUp();
  let answer;
  const queue = host.queue;
  host.queue = () => new Promise((resolve) => (answer = () => resolve("slow")));
  live.start();
  const passing = pass(400);
  while (!answer) await null;
  host.queue = queue;
  host.output = graph("a dog");
  const looking = live.look();
  answer();
  await Promise.all([passing, looking]);
  assert.deepEqual(host.cancelled, ["slow"]);
  assert.equal(live.job.id, "id 1");
  edit("a bird");
});

test("a server that is gone is said, and it goes on when it is back", async () => {
  const { host, live, pass, edit } = setUp();
  live.start();
  await pass(400);
  const cancel = host.cancel;
  host.cancel = async () => {
    throw new Error("no server");
  };
  edit("a dog");
  await pass(400);
  assert.deepEqual([host.said.at(-1)[0], host.said.at(-1)[1].message], ["error", "no server"]);
  host.cancel = cancel;
  edit("a bird");
  await pass(400);
  assert.equal(host.queued.at(-1).prompt[1].inputs.text, "a bird");
});

test("what cannot be drawn is said", async () => {
  const { host, live, pass, edit } = setUp({ 1: node("CLIPTextEncode", { text: "alone" }) });
  live.start();
  await pass(400);
  assert.deepEqual(host.said.at(-1), ["nothing", undefined]);
  host.queue = async () => {
    throw new Error("no model");
  };
  edit("a cat");
  await pass(400);
  assert.equal(host.said.at(-1)[0], "error");
  assert.equal(host.said.at(-1)[1].message, "no model");
  host.graph = async () => {
    throw new Error("a widget of another pack");
  };
  live.touch();
  await pass(400);
  assert.deepEqual([host.said.at(-1)[0], host.said.at(-1)[1].message], ["error", "a widget of another pack"]);
});

test("an edit right after the user's own run is drawn", async () => {
  const { host, live, pass, edit } = setUp();
  live.start();
  await pass(400);
  edit("a cat, typed on");
  await live.queued();
  assert.equal(host.said.at(-1)[0], "yours"); // and not that a draft is being drawn
  edit("a cat, typed on at once");
  await pass(400);
  assert.equal(host.queued.length, 2);
  assert.equal(host.queued[1].prompt[1].inputs.text, "a cat, typed on at once");
});

test("an answer that comes after the user's own run was queued is cancelled", async () => {
  const { host, live, pass } = setUp();
  let answer;
  host.queue = () => new Promise((resolve) => (answer = () => resolve("slow")));
  live.start();
  const passing = pass(400);
  while (!answer) await null;
  await live.queued();
  answer();
  await passing;
  assert.deepEqual(host.cancelled, ["slow"]);
});

test("an answer to a drawing from before live was turned off and on is cancelled", async () => {
  const { host, live, pass } = setUp();
  let answer;
  const queue = host.queue;
  host.queue = () => new Promise((resolve) => (answer = () => resolve("slow")));
  live.start();
  const passing = pass(400);
  while (!answer) await null;
  await live.stop();
  host.queue = queue;
  live.start();
  await live.look();
  answer();
  await passing;
  assert.deepEqual(host.cancelled, ["slow"]);
  assert.equal(live.job.id, "id 1");
});

test("dice that the host throws for {this|that} are no edit", async () => {
  const { host, live, pass } = setUp();
  let thrown = 0;
  let text = "a {red|blue} cat";
  host.graph = async () => ({ output: graph(`cat ${++thrown}`), typed: graph(text) });
  live.start();
  await pass(400);
  live.touch();
  await pass(400);
  assert.equal(host.queued.length, 1);
  live.ended("id 1");
  await pass(1200);
  assert.equal(host.queued[1].prompt[1].inputs.text, host.queued[0].prompt[1].inputs.text); // the draft's choice
  text = "a {red|blue} dog";
  live.touch();
  await pass(400);
  assert.equal(host.queued.length, 3);
});

test("nothing is drawn in the middle of a word of an input method", async () => {
  const { host, live, pass, edit } = setUp();
  live.start();
  await pass(400);
  live.ended("id 1");
  edit("a n");
  live.hold();
  await pass(60000);
  assert.equal(host.queued.length, 1); // neither the half word nor the full run
  edit("a 你");
  await pass(400);
  assert.equal(host.queued[1].prompt[1].inputs.text, "a 你");
});

test("what was refused is tried again when the user goes on", async () => {
  const { host, live, pass } = setUp();
  const queue = host.queue;
  host.queue = async () => {
    throw new Error("no such file");
  };
  live.start();
  await pass(400);
  assert.equal(host.said.at(-1)[0], "error");
  host.queue = queue; // the file was put there, and the graph is as it was
  live.touch();
  await pass(400);
  assert.equal(host.queued.length, 1);
});

test("a prompt that the server lost is drawn again", async () => {
  const { host, live, pass } = setUp();
  live.start();
  await pass(400);
  live.lost("somebody else's");
  await pass(60000);
  assert.equal(host.queued.length, 1);
  live.lost("id 1");
  await pass(400);
  assert.equal(host.queued.length, 2);
});
