// "Refine with Base" on graphs of as much of LiteGraph as it touches.
import assert from "node:assert/strict";
import test from "node:test";
import { refineWithBase } from "../../js/lib/refine.mjs";

const TYPES = {
  ZImageTransformerLoader: { widgets: { file: "turbo" }, outputs: ["MODEL"] },
  ZImageSampler: { inputs: ["model", "positive", "latent", "negative"], outputs: ["LATENT"], widgets: { seed: 0 } },
  SamplerCustomAdvanced: { inputs: ["guider"], outputs: ["LATENT", "LATENT"] },
  BasicGuider: { inputs: ["conditioning"], outputs: ["GUIDER"] },
  CLIPLoader: { outputs: ["CLIP"] },
  CLIPTextEncode: { inputs: ["clip"], outputs: ["CONDITIONING"] },
  Reroute: { inputs: [""], outputs: ["*"] },
  VAELoader: { widgets: { vae_name: "ae" }, outputs: ["VAE"] },
  VAEDecode: { inputs: ["samples", "vae"], outputs: ["IMAGE"] },
  SaveImage: { inputs: ["images"], outputs: [] },
};

function createNode(type) {
  const { inputs = [], outputs, widgets = {} } = TYPES[type];
  return {
    type, pos: [0, 0], size: [10, 10],
    inputs: inputs.map((name) => ({ name, link: null })),
    outputs: outputs.map((type) => ({ type, links: [] })),
    widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
    setSize() {},
    connect(slot, to, name) {
      const id = this.graph.link(this.id, slot, to, to.inputs.find((input) => input.name === name));
      this.outputs[slot].links.push(id);
    },
  };
}

globalThis.window = { LiteGraph: { createNode } };

function makeGraph() {
  const graph = {
    nodes: [], links: {}, count: 0,
    add: (node) => Object.assign(node, { graph, id: graph.nodes.push(node) }),
    getNodeById: (id) => graph.nodes.find((node) => node.id === id) ?? null,
    link(from, slot, to, input) {
      graph.links[++graph.count] = { origin_id: from, origin_slot: slot, target_id: to.id };
      input.link = graph.count;
      return graph.count;
    },
    make: (...types) => types.map((type) => graph.add(createNode(type))),
    made: (type) => graph.nodes.filter((node) => node.type === type).at(-1),
    /** The node at the other end of an input. */
    behind(node, name) {
      const link = graph.links[node.inputs.find((input) => input.name === name).link];
      return link && (link.origin_id === -10 ? graph.inputNode : graph.getNodeById(link.origin_id));
    },
  };
  return graph;
}

test("a guider's conditioning is the prompt, and the decoder may lie behind a reroute", () => {
  const graph = makeGraph();
  const [sampler, guider, text, clip, reroute, decoder, vae] = graph.make("SamplerCustomAdvanced", "BasicGuider",
    "CLIPTextEncode", "CLIPLoader", "Reroute", "VAEDecode", "VAELoader");
  clip.connect(0, text, "clip");
  text.connect(0, guider, "conditioning");
  guider.connect(0, sampler, "guider");
  sampler.connect(0, reroute, "");
  reroute.connect(0, decoder, "samples");
  vae.connect(0, decoder, "vae");
  const save = refineWithBase({ graph }, "1");
  assert.equal(graph.getNodeById(Number(save)).type, "SaveImage");
  const refiner = graph.made("ZImageSampler");
  assert.equal(graph.behind(refiner, "latent"), sampler);
  assert.equal(graph.behind(refiner, "positive"), text);
  assert.equal(graph.behind(graph.behind(refiner, "negative"), "clip"), clip);
  assert.equal(graph.behind(graph.made("VAEDecode"), "vae"), vae);
});

test("in a subgraph: prompts from its inputs, and a VAE like the one outside", () => {
  const root = makeGraph();
  const inner = makeGraph();
  const [sampler] = inner.make("ZImageSampler");
  const enter = (slot) => ({ connect: (input, node) => inner.link(-10, slot, node, input) });
  inner.inputNode = { id: -10, slots: [enter(0), enter(1)] };
  inner.link(-10, 0, sampler, sampler.inputs[1]);
  inner.link(-10, 1, sampler, sampler.inputs[3]);
  sampler.outputs[0].links.push(inner.link(sampler.id, 0, { id: -20 }, {}));
  const [outer, decoder, vae] = root.make("ZImageSampler", "VAEDecode", "VAELoader");
  outer.subgraph = inner;
  vae.connect(0, decoder, "vae");
  vae.widgets[0].value = "mine";
  assert.equal(refineWithBase({ graph: root }, "1:1"), `1:${inner.made("SaveImage").id}`);
  const refiner = inner.made("ZImageSampler");
  assert.equal(inner.behind(refiner, "positive"), inner.inputNode);
  assert.equal(inner.behind(refiner, "negative"), inner.inputNode);
  assert.equal(inner.links[refiner.inputs[3].link].origin_slot, 1);
  assert.equal(inner.behind(inner.made("VAEDecode"), "vae").widgets[0].value, "mine");
  assert.equal(root.nodes.length, 3);
});
