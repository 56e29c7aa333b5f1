// What live mode runs, as functions of a prompt in API form: {id: {class_type, inputs}}, a link being [id, slot].
// `define(class_type)` is the host's description of a node: {output_node, output: [types]}.

// Nodes that draw, and what a draft of each is. Ours knows its model and decides in the engine.
const SAMPLERS = new Set(["ZImageSampler", "KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"]);
// Output nodes that show pictures better than a plain preview, and save nothing.
const AS_THEY_ARE = new Set(["ZImagePickSeeds"]);
const DRAFT_STEPS = 4; // where cfg is 1, as it is for Turbo
const DRAFT_PART = 1 / 3; // of the steps otherwise: guided models fall apart below that

const isLink = (value) => Array.isArray(value) && value.length === 2 && typeof value[0] === "string";

const origins = (node) => Object.values(node?.inputs ?? {}).filter(isLink);

/** The ids that `id` depends on, itself among them. */
export function ancestors(prompt, id, found = new Set()) {
  if (!prompt[id] || found.has(id)) return found;
  found.add(id);
  for (const [origin] of origins(prompt[id])) ancestors(prompt, origin, found);
  return found;
}

/** The links out of a node: [target id, slot of the output]. */
function targets(prompt, id) {
  return Object.entries(prompt).flatMap(([target, node]) =>
    origins(node).filter(([origin]) => origin === id).map(([, slot]) => [target, slot]),
  );
}

/** The nearest node downstream of `id`, by links that do not lead through a `wall`, for which `wanted` holds. */
function nearest(prompt, id, wanted, wall = () => false) {
  const seen = new Set([id]);
  let ring = [id];
  while (ring.length) {
    const next = [...new Set(ring.flatMap((one) => targets(prompt, one).map(([target]) => target)))];
    ring = next.filter((one) => !seen.has(one) && !wall(one));
    const found = ring.find(wanted);
    if (found !== undefined) return found;
    ring.forEach((one) => seen.add(one));
  }
  return undefined;
}

/**
 * Where live mode looks: for each sampler that no other sampler comes before, the first picture made of its latent
 * (through later samplers if there is no other way), and the output node (SaveImage, PreviewImage) on which it shows.
 */
export function previewPoints(prompt, define) {
  const isSampler = (id) => SAMPLERS.has(prompt[id]?.class_type);
  const shows = (id) => define(prompt[id].class_type)?.output_node === true;
  const image = (id) => define(prompt[id].class_type)?.output?.indexOf("IMAGE") ?? -1;
  const decodes = (id) => image(id) >= 0 && !isSampler(id);
  const points = [];
  for (const sampler of Object.keys(prompt).filter(isSampler)) {
    const before = ancestors(prompt, sampler);
    if ([...before].some((id) => id !== sampler && isSampler(id))) continue;
    const direct = nearest(prompt, sampler, decodes, (id) => isSampler(id) || shows(id));
    const decoder = direct ?? nearest(prompt, sampler, decodes, shows);
    if (decoder === undefined) continue;
    const display = nearest(prompt, decoder, shows);
    if (display === undefined || points.some((point) => point.display === display)) continue;
    points.push({ sampler, picture: [decoder, image(decoder)], display });
  }
  return points;
}

/**
 * The prompt that live mode queues: the same nodes, so that what the host has kept stays kept, but the pictures go to
 * previews in place of the nodes that show them, and nothing else is asked for.
 *
 * Returns {prompt, targets, draws}; `targets` is empty where the graph has no sampler whose picture is shown.
 * `draws` has {sampler, kind, steps, of} for each sampler that runs, the last one first, `kind` being "ours" where the
 * engine decides what a draft is, "host" where it is this many steps, and "full" where a draft is not possible.
 */
export function livePrompt(prompt, define, draft) {
  const points = previewPoints(prompt, define);
  const changed = savingNothing(prompt, define);
  for (const { picture, display } of points) {
    if (AS_THEY_ARE.has(prompt[display].class_type)) continue;
    changed[display] = { class_type: "PreviewImage", inputs: { images: picture }, _meta: prompt[display]._meta };
  }
  const needed = new Set(points.flatMap(({ picture }) => [...ancestors(changed, picture[0])]));
  const samplers = [...needed].filter((id) => SAMPLERS.has(changed[id].class_type));
  const draws = samplers.map((sampler) => (draft ? drafted(changed, sampler) : { sampler, kind: "full" }));
  return { prompt: changed, targets: points.map(({ display }) => display), draws };
}

/** A copy in which pictures go around the nodes that save or preview them on their way (newer hosts pass them on). */
function savingNothing(prompt, define) {
  const around = (link) => {
    const node = prompt[link[0]];
    const passes = /^(Save|Preview)/.test(node?.class_type) && define(node.class_type)?.output?.[link[1]] === "IMAGE";
    return passes && isLink(node.inputs.images) ? around(node.inputs.images) : link;
  };
  const inputs = (node) => Object.entries(node.inputs).map(([name, to]) => [name, isLink(to) ? around(to) : to]);
  const copy = ([id, node]) => [id, { ...node, inputs: Object.fromEntries(inputs(node)) }];
  return Object.fromEntries(Object.entries(prompt).map(copy));
}

/** Turns one sampler of `prompt` (a copy of the user's) into its draft. */
function drafted(prompt, sampler) {
  const { class_type, inputs } = prompt[sampler];
  if (class_type === "ZImageSampler") {
    prompt[sampler] = { ...prompt[sampler], inputs: { ...inputs, draft: true } };
    return { sampler, kind: "ours" };
  }
  const holder = typeof inputs.steps === "number" ? sampler : inputs.sigmas?.[0];
  const of = prompt[holder]?.inputs?.steps;
  if (class_type === "KSamplerAdvanced" || !(of > DRAFT_STEPS)) return { sampler, kind: "full" };
  const guided = (inputs.cfg ?? prompt[inputs.guider?.[0]]?.inputs?.cfg ?? 1) !== 1;
  const steps = guided ? Math.max(DRAFT_STEPS, Math.ceil(of * DRAFT_PART)) : DRAFT_STEPS;
  prompt[holder] = { ...prompt[holder], inputs: { ...prompt[holder].inputs, steps } };
  return { sampler, kind: "host", steps, of };
}

/** All that the live pictures depend on, as one string: equal strings draw equal pictures. */
export function recipe({ prompt, targets }) {
  const needed = new Set(targets.flatMap((id) => [...ancestors(prompt, id)]));
  const nodes = Object.keys(prompt).filter((id) => needed.has(id)).sort();
  return JSON.stringify(nodes.map((id) => [id, prompt[id].class_type, Object.entries(prompt[id].inputs).sort()]));
}

/** The prompt with its texts as they were typed, {this|that} and all; `widgetsOf(id)` are the widgets of a node. */
export function asTyped(prompt, widgetsOf) {
  const typed = ([id, node]) => {
    const texts = widgetsOf(id).filter((w) => w.dynamicPrompts && typeof node.inputs[w.name] === "string");
    return [id, { ...node, inputs: { ...node.inputs, ...Object.fromEntries(texts.map((w) => [w.name, w.value])) } }];
  };
  return Object.fromEntries(Object.entries(prompt).map(typed));
}
