// What live mode runs, as functions of a prompt in API form: {id: {class_type, inputs}}, a link being [id, slot].
// `define(class_type)` is the host's description of a node: {output_node, output: [types]}.

// Nodes that draw, and what a draft of each is. Ours knows its model and decides in the engine.
const SAMPLERS = new Set(["ZImageSampler", "KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"]);
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

/** The nearest node downstream of `id`, by links, for which `wanted` holds. */
function nearest(prompt, id, wanted) {
  const seen = new Set([id]);
  let ring = [id];
  while (ring.length) {
    const next = [...new Set(ring.flatMap((one) => targets(prompt, one).map(([target]) => target)))];
    ring = next.filter((one) => !seen.has(one));
    const found = ring.find(wanted);
    if (found !== undefined) return found;
    ring.forEach((one) => seen.add(one));
  }
  return undefined;
}

/**
 * Where live mode looks: for each sampler that no other sampler comes before, the first picture made of its latent,
 * and the output node (SaveImage, PreviewImage) on which it shows.
 */
export function previewPoints(prompt, define) {
  const isSampler = (id) => SAMPLERS.has(prompt[id]?.class_type);
  const image = (id) => define(prompt[id].class_type)?.output?.indexOf("IMAGE") ?? -1;
  const points = [];
  for (const sampler of Object.keys(prompt).filter(isSampler)) {
    const before = ancestors(prompt, sampler);
    if ([...before].some((id) => id !== sampler && isSampler(id))) continue;
    const decoder = nearest(prompt, sampler, (id) => image(id) >= 0 && !isSampler(id));
    if (decoder === undefined) continue;
    const shows = (id) => define(prompt[id].class_type)?.output_node === true;
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
 * `draws` has {sampler, kind, steps, of} for each, `kind` being "ours" where the engine decides what a draft is,
 * "host" where it is this many steps, and "full" where a draft is not possible.
 */
export function livePrompt(prompt, define, draft) {
  const points = previewPoints(prompt, define);
  const changed = { ...prompt };
  for (const { picture, display } of points) {
    changed[display] = { class_type: "PreviewImage", inputs: { images: picture }, _meta: prompt[display]._meta };
  }
  const draws = points.map(({ sampler }) => (draft ? drafted(changed, sampler) : { sampler, kind: "full" }));
  return { prompt: changed, targets: points.map(({ display }) => display), draws };
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
