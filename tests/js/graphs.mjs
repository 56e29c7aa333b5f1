// Saved workflows in few words, and our nodes as a browser makes them.

// The sockets and widgets of nodes, in the order in which graphs hold them, and what comes out.
const HOST = {
  UNETLoader: [{}, ["unet_name", "weight_dtype"], ["MODEL"]],
  UnetLoaderGGUF: [{}, ["unet_name"], ["MODEL"]],
  CheckpointLoaderSimple: [{}, ["ckpt_name"], ["MODEL", "CLIP", "VAE"]],
  LoraLoaderModelOnly: [{ model: "MODEL" }, ["lora_name", "strength_model"], ["MODEL"]],
  ComfySwitchNode: [{ on_false: "MODEL", on_true: "MODEL" }, ["switch"], ["MODEL"]],
  ModelSamplingAuraFlow: [{ model: "MODEL" }, ["shift"], ["MODEL"]],
  CLIPLoader: [{}, ["clip_name", "type", "device"], ["CLIP"]],
  CLIPTextEncode: [{ clip: "CLIP" }, ["text"], ["CONDITIONING"]],
  ConditioningZeroOut: [{ conditioning: "CONDITIONING" }, [], ["CONDITIONING"]],
  VAELoader: [{}, ["vae_name"], ["VAE"]],
  VAEDecode: [{ samples: "LATENT", vae: "VAE" }, [], ["IMAGE"]],
  VAEEncode: [{ pixels: "IMAGE", vae: "VAE" }, [], ["LATENT"]],
  EmptySD3LatentImage: [{}, ["width", "height", "batch_size"], ["LATENT"]],
  GetImageSize: [{ image: "IMAGE" }, [], ["INT", "INT"]],
  PrimitiveInt: [{}, ["value"], ["INT"]],
  PrimitiveFloat: [{}, ["value"], ["FLOAT"]],
  PrimitiveNode: [{}, ["value"], ["INT"]],
  BasicScheduler: [{ model: "MODEL" }, ["scheduler", "steps", "denoise"], ["SIGMAS"]],
  SaveImage: [{ images: "IMAGE" }, ["filename_prefix"], []],
  KSampler: [
    { model: "MODEL", positive: "CONDITIONING", negative: "CONDITIONING", latent_image: "LATENT" },
    ["seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"],
    ["LATENT"],
  ],
  KSamplerAdvanced: [
    { model: "MODEL", positive: "CONDITIONING", negative: "CONDITIONING", latent_image: "LATENT" },
    ["add_noise", "noise_seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "start_at_step",
     "end_at_step", "return_with_leftover_noise"], // prettier-ignore
    ["LATENT"],
  ],
};
const DEFAULTS = {
  weight_dtype: "default", type: "lumina2", device: "default", batch_size: 1, width: 1024, height: 1024, seed: 7,
  noise_seed: 7, control_after_generate: "randomize", steps: 8, cfg: 1, sampler_name: "res_multistep",
  scheduler: "simple", denoise: 1, add_noise: "enable", start_at_step: 0, end_at_step: 10000,
  return_with_leftover_noise: "disable", shift: 3, text: "", unet_name: "z_image_turbo_bf16.safetensors",
  clip_name: "qwen_3_4b.safetensors", vae_name: "ae.safetensors",
}; // prettier-ignore

export const from = (id, slot = 0) => ({ from: id, slot });
/** An input of the subgraph in which the node is. */
export const given = (name) => ({ given: name });

/**
 * A graph from `{ id: [type, values, more] }`: a value is a widget's, or a link. A subgraph also has `inputs`, the types
 * by name, and `outputs`, links by name. `uses` are the definitions that nodes may have for their type.
 */
export function graph(nodes, { id, name = "", inputs, outputs = {}, uses = [], extra = {} } = {}) {
  const types = new Map(uses.map((one) => [one.id, one]));
  const links = [];
  const built = Object.entries(nodes).map(([key, [type, values = {}, more = {}]]) => {
    const [sockets, widgets, gives] = shape(type, types);
    const slots = [...Object.keys(sockets), ...widgets.filter((one) => one !== "control_after_generate")];
    const node = {
      id: Number(key), type, pos: [100 * key, 50], size: [270, 100], flags: {}, order: 0, mode: 0,
      inputs: slots.map((one) => slot(one, sockets[one], widgets)),
      outputs: gives.map((one) => ({ name: one, type: one, links: null })),
      properties: { "Node name for S&R": type, cnr_id: "comfy-core" },
      widgets_values: widgets.map((one) => (isLink(values[one]) ? DEFAULTS[one] : (values[one] ?? DEFAULTS[one]))),
      ...more,
    }; // prettier-ignore
    for (const [at, one] of slots.entries()) {
      if (isLink(values[one])) links.push({ ...values[one], target: Number(key), at, into: node.inputs[at] });
    }
    return node;
  });
  const ends = Object.entries(inputs ?? {}).map(([one, type]) => ({ id: `in-${one}`, name: one, type, linkIds: [] }));
  const results = Object.keys(outputs).map((one) => ({ id: `out-${one}`, name: one, type: one, linkIds: [] }));
  Object.values(outputs).forEach((link, at) => links.push({ ...link, target: -20, at, into: results[at] }));
  const tied = links.map((link, index) => tie(link, index + 1, built, ends));
  const common = { nodes: built, links: tied, groups: [], extra };
  if (inputs) return { id, version: 1, name, inputs: ends, outputs: results, ...common };
  const tuple = (l) => [l.id, l.origin_id, l.origin_slot, l.target_id, l.target_slot, l.type];
  return { id: "root", version: 0.4, ...common, links: tied.map(tuple), definitions: { subgraphs: uses } };
}

const isLink = (value) => value?.from !== undefined || value?.given !== undefined;

const slot = (name, type, widgets) =>
  widgets.includes(name) ? { name, type: "W", widget: { name }, link: null } : { name, type, link: null };

function shape(type, types) {
  const inner = types.get(type);
  if (!inner) return HOST[type];
  const promoted = (one) => ["INT", "FLOAT", "COMBO", "STRING"].includes(one.type);
  const sockets = inner.inputs.filter((one) => !promoted(one)).map((one) => [one.name, one.type]);
  return [Object.fromEntries(sockets), inner.inputs.filter(promoted).map((one) => one.name), inner.outputs.map((one) => one.type)];
}

function tie({ from: origin, slot: at = 0, given: name, target, at: place, into }, id, nodes, ends) {
  const border = name === undefined ? -1 : ends.findIndex((one) => one.name === name);
  const source = border < 0 ? nodes.find((one) => one.id === origin).outputs[at] : ends[border];
  if (border < 0) source.links = [...(source.links ?? []), id];
  else source.linkIds.push(id);
  if (target === -20) into.linkIds.push(id);
  else into.link = id;
  const [origin_id, origin_slot] = border < 0 ? [origin, at] : [-10, border];
  return { id, origin_id, origin_slot, target_id: target, target_slot: place, type: source.type };
}

/** The graph that every template of Z-Image is, or is about. */
export const template = (changes = {}) => ({
  1: ["UNETLoader", { ...changes.model }],
  2: ["CLIPLoader", { ...changes.clip }],
  3: ["VAELoader", { ...changes.vae }],
  4: ["ModelSamplingAuraFlow", { model: from(1), ...changes.shift }],
  5: ["CLIPTextEncode", { clip: from(2), text: "a lighthouse" }],
  6: ["ConditioningZeroOut", { conditioning: from(5) }],
  7: ["EmptySD3LatentImage", { ...changes.size }],
  8: ["KSampler", { model: from(4), positive: from(5), negative: from(6), latent_image: from(7), ...changes.sampler }],
  9: ["VAEDecode", { samples: from(8), vae: from(3) }],
  10: ["SaveImage", { images: from(9), filename_prefix: "z" }],
});

// Ours. What an option of a dynamic combo brings stands behind it.
const OURS = {
  ZImageTransformerLoader: [[], () => ({ file: "demo", variant: "auto", dtype: "auto" }), ["MODEL"]],
  ZImageTextEncoderLoader: [[], () => ({ file: "demo" }), ["CLIP"]],
  ZImageVAELoader: [[], () => ({ file: "demo" }), ["VAE"]],
  ZImageLatentSize: [
    [],
    ({ size }) => ({
      size: "demo",
      ...(size === "custom" ? { "size.width": 1024, "size.height": 1024 } : { "size.aspect": "1:1 - 128x128" }),
      batch_size: 1,
      swap: false,
    }),
    ["LATENT", "INT", "INT"],
  ],
  ZImageSampler: [
    ["model", "positive", "latent", "negative"],
    ({ mode }) => ({
      seed: 0, control_after_generate: "randomize", mode: "auto", "mode.steps": 0, "mode.cfg": 0,
      ...(mode === "Base" && { "mode.cfg_normalization": false, "mode.cfg_truncation": 1 }),
      solver: "euler", strength: 1, shift: 0, draft: false,
    }), // prettier-ignore
    ["LATENT"],
  ],
};

export function make(type, values) {
  const [sockets, defaults, gives] = OURS[type];
  const all = defaults(values);
  for (const [name, value] of Object.entries(values)) {
    if (!(name in all)) throw new Error(`${type} has no widget ${name}`);
    if (value !== undefined) all[name] = value;
  }
  const widgets = Object.keys(all).filter((name) => name !== "control_after_generate");
  return {
    id: -1, type, pos: [0, 0], size: [210, 180], flags: {}, order: 0, mode: 0,
    inputs: [...sockets.map((name) => slot(name, "S", [])), ...widgets.map((name) => slot(name, "W", widgets))],
    outputs: gives.map((name) => ({ name, type: name, links: null })),
    properties: { "Node name for S&R": type, cnr_id: "zimage-nodes", ver: "0.1.0" },
    widgets_values: Object.values(all),
    widgets_values_named: all,
  }; // prettier-ignore
}

const size = (key, ...aspects) => ({ key, inputs: { required: { aspect: ["COMBO", { options: aspects }] } } });
const FILES = ["a.safetensors", "z_image-Q4_K_M.gguf [unet_gguf]"];
const DEFINITIONS = {
  ZImageTransformerLoader: { input: { required: { file: ["COMBO", { options: FILES }] } } },
  ZImageLatentSize: {
    input: {
      required: {
        size: [
          "COMFY_DYNAMICCOMBO_V3",
          { options: [size("demo", "1:1 - 128x128"), size("1024 px", "1:1 - 1024x1024", "16:9 - 1280x720"), { key: "custom" }] },
        ],
      },
    },
  },
};
export const define = (type) => DEFINITIONS[type];

/** Every link stands at both its ends, and every end names one that is there; else the first fault in words. */
export function fault(workflow) {
  for (const data of [workflow, ...(workflow.definitions?.subgraphs ?? [])]) {
    const links = data.links.map((l) => (Array.isArray(l) ? { id: l[0], origin_id: l[1], origin_slot: l[2], target_id: l[3], target_slot: l[4] } : l));
    const node = (id) => data.nodes.find((one) => one.id === id);
    for (const link of links) {
      const source = link.origin_id === -10 ? data.inputs[link.origin_slot]?.linkIds : node(link.origin_id)?.outputs[link.origin_slot]?.links;
      const end = link.target_id === -20 ? data.outputs[link.target_slot]?.linkIds : [node(link.target_id)?.inputs[link.target_slot]?.link];
      if (!source?.includes(link.id)) return `link ${link.id} of ${data.id} is not at its origin`;
      if (!end?.includes(link.id)) return `link ${link.id} of ${data.id} is not at its target`;
    }
    const ids = new Set(links.map((link) => link.id));
    const named = [
      ...data.nodes.flatMap((one) => [...one.inputs.map((s) => s.link), ...one.outputs.flatMap((s) => s.links ?? [])]),
      ...[...(data.inputs ?? []), ...(data.outputs ?? [])].flatMap((one) => one.linkIds),
    ];
    const missing = named.find((id) => id != null && !ids.has(id));
    if (missing !== undefined) return `link ${missing} of ${data.id} is not there`;
  }
  return null;
}
