// Live mode against a host of its own: a clock that is moved by hand, and a queue that ends when told to.
import assert from "node:assert/strict";
import test from "node:test";
import { Live } from "../../js/lib/live.mjs";
import { livePrompt, previewPoints, recipe } from "../../js/lib/prompts.mjs";

const DEFINITIONS = {
  VAEDecode: { output: ["IMAGE"] },
  ImageUpscale: { output: ["IMAGE"] },
  SaveImage: { output: ["IMAGE"], output_node: true },
  PreviewImage: { output: [], output_node: true },
  SaveLatent: { output: [], output_node: true },
  ZImageSampler: { output: ["LATENT"] },
  KSampler: { output: ["LATENT"] },
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

test("a later sampler waits for the user", () => {
  const two = graph();
  two[7] = node("KSampler", { latent_image: ["2", 0], steps: 20, cfg: 4 });
  two[8] = node("VAEDecode", { samples: ["7", 0] });
  two[9] = node("PreviewImage", { images: ["8", 0] });
  assert.deepEqual(previewPoints(two, define).map((point) => point.sampler), ["2"]);
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
