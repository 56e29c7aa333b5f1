// "Refine with Base": a second stage beside the user's sampler, that goes on from its latent with the Base model.

// How much noise Base starts from: enough to mend the drawing, too little to change it. See the advice page.
const STRENGTH = 0.5;
// Where the stage's nodes go and how large they are, from the lower left corner of the graph: [x, y, width, height].
const PLACES = {
  ZImageTransformerLoader: [0, 0, 340, 170],
  CLIPTextEncode: [0, 230, 340, 120],
  ZImageSampler: [400, 0, 340, 520],
  VAEDecode: [800, 0, 220, 60],
  SaveImage: [800, 120, 380, 400],
};
const ELSE = [0, 410, 340, 90];
const GAP = 120;

/** The node behind an execution id such as "12:5" (node 5 of the subgraph that node 12 is). */
export function nodeOf(root, id) {
  return String(id)
    .split(":")
    .reduce((node, part) => (node?.subgraph ?? node ?? null)?.getNodeById?.(Number(part)) ?? null, root);
}

/** The Base file among those a loader offers: one that says so, or a bare z_image, which is Base. */
export function baseFile(files) {
  const says = (name) => /(?<![a-z])(z[-_ ]?image[-_ ]?)?base(?![a-z])/i.test(name) && !/turbo/i.test(name);
  const bare = (name) => /(^|[\\/])z[-_ ]?image([-_.](bf16|fp16|fp32|fp8|e4m3fn|e5m2|scaled|q\d\w*))*\.\w+$/i.test(name);
  return files.find((name) => says(name) && !name.startsWith("demo:")) ?? files.find(bare) ?? files.find(says);
}

/** Adds the stage and returns the execution id of its output node, or null where `id` is no sampler to go on from. */
export function refineWithBase(app, id) {
  const root = app.rootGraph ?? app.graph;
  const sampler = nodeOf(root, id);
  const latent = sampler?.outputs?.findIndex((output) => output.type === "LATENT") ?? -1;
  if (latent < 0) return null;
  app.canvas?.emitBeforeChange?.();
  try {
    const save = addStage(root, sampler, latent);
    return [...String(id).split(":").slice(0, -1), save.id].join(":");
  } finally {
    app.canvas?.emitAfterChange?.();
  }
}

function addStage(root, sampler, latent) {
  const { graph } = sampler;
  const place = placer(graph);
  const loader = place("ZImageTransformerLoader");
  choose(loader, "file", baseFile);
  const refiner = place("ZImageSampler");
  const decoder = place("VAEDecode");
  const save = place("SaveImage");
  set(refiner, "mode", "Base");
  set(refiner, "strength", STRENGTH);
  set(refiner, "seed", value(sampler, "seed") ?? 0);
  set(refiner, "control_after_generate", "fixed");
  loader.connect(0, refiner, "model");
  sampler.connect(latent, refiner, "latent");
  const guider = origin(sampler, "guider");
  const prompts = source(sampler, "positive") ?? source(guider, "positive") ?? source(guider, "conditioning");
  join(prompts, refiner, "positive");
  join(negativeOf(sampler, prompts, place), refiner, "negative");
  join(vaeOf(graph, sampler) ?? vaeLike(root, place), decoder, "vae");
  refiner.connect(0, decoder, "samples");
  decoder.connect(0, save, "images");
  return save;
}

/** The user's negative prompt; or the other output of our text node; or an empty prompt by the same text encoder. */
function negativeOf(sampler, positive, place) {
  const own = source(sampler, "negative") ?? source(origin(sampler, "guider"), "negative");
  if (own && own.node.type !== "ConditioningZeroOut") return own;
  if (positive?.node.type === "ZImageTextEncode") return { node: positive.node, slot: 1 };
  const clip = source(positive?.node, "clip");
  if (!clip) return own;
  const empty = place("CLIPTextEncode");
  join(clip, empty, "clip");
  return { node: empty, slot: 0 };
}

const linkOf = (graph, id) => graph.getLink?.(id) ?? graph.links[id];

/** What an input of a node is connected to: {node, slot}, `node` being the graph's own inputs in a subgraph. */
function source(node, name) {
  const link = node?.inputs?.find((input) => input.name === name)?.link;
  const found = link == null ? null : linkOf(node.graph, link);
  if (!found) return null;
  const { inputNode } = node.graph;
  const from = inputNode && String(found.origin_id) === String(inputNode.id);
  const origin = from ? inputNode : node.graph.getNodeById(found.origin_id);
  return origin ? { node: origin, slot: found.origin_slot } : null;
}

/** Connects what `source` found to an input of a node. */
function join(from, node, name) {
  if (!from) return;
  const { inputNode } = node.graph;
  if (from.node !== inputNode) from.node.connect(from.slot, node, name);
  else inputNode.slots[from.slot].connect(node.inputs.find((input) => input.name === name), node);
}

const origin = (node, name) => source(node, name)?.node;

const decodes = (node) => source(node, "vae");

/** The VAE that decodes what the sampler draws, or another of its graph. */
function vaeOf(graph, sampler) {
  const decoder = [...downstream(graph, sampler)].find(decodes) ?? graph.nodes.find(decodes);
  return decoder ? source(decoder, "vae") : null;
}

/** A VAE loader like the user's, where that lies outside of the sampler's subgraph. */
function vaeLike(root, place) {
  const theirs = decodes(root.nodes.find(decodes));
  if (!theirs?.node.widgets?.length) return null;
  const loader = place(theirs.node.type);
  for (const { name, value } of theirs.node.widgets) set(loader, name, value);
  return { node: loader, slot: theirs.slot };
}

/** The nodes of this graph behind a node, the nearest first. */
function downstream(graph, node) {
  const found = new Set([node]);
  for (const one of found) {
    const links = (one.outputs ?? []).flatMap((output) => output.links ?? []).map((id) => linkOf(graph, id));
    links.map((link) => link && graph.getNodeById(link.target_id)).forEach((next) => next && found.add(next));
  }
  return found;
}

/** Makes nodes below everything that is there. */
function placer(graph) {
  const nodes = [...graph.nodes];
  const left = Math.min(...nodes.map((node) => node.pos[0]));
  const bottom = Math.max(...nodes.map((node) => node.pos[1] + node.size[1])) + GAP;
  return (type) => {
    const node = window.LiteGraph.createNode(type);
    const [x, y, width, height] = PLACES[type] ?? ELSE;
    graph.add(node);
    node.pos = [left + x, bottom + y];
    node.setSize([width, height]);
    return node;
  };
}

const widget = (node, name) => node.widgets?.find((w) => w.name === name);
const value = (node, name) => widget(node, name)?.value;

function set(node, name, to) {
  const found = widget(node, name);
  if (!found) return;
  found.value = to;
  found.callback?.(to);
}

function choose(node, name, pick) {
  const chosen = pick(widget(node, name)?.options?.values ?? []);
  if (chosen) set(node, name, chosen);
}
