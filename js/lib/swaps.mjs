// The host's nodes for which there is one of ours: a table, and what decides whether and how a node is swapped.
import { ENCODER, LATENTS, LOADER, encodesZImage, isSampler, namesQwen, namesZImage } from "./survey.mjs";
import { keyOf } from "./workflow.mjs";

// Forms that are told by a file's name and are not loaded yet. GGUF's own types all are.
const NOT_YET = /int8|int4|fp4|mxfp8|w4a[48]|w8a8|convrot|svdq|nunchaku|nf4|bnb|sdnq/i;
const LOADS = /\.(safetensors|sft|gguf)$/i;
// The names under which Flux's VAE is kept, and those of others that are called almost so.
const FLUX_VAE = /(^|[\\/])(ae|.*(flux|z[-_ ]?image).*)\.(safetensors|sft)$/i;
const OTHER_VAE = /flux[-_. ]?2|taef/i;
const MULTIPLE = 16;
const LARGEST = 8192;

const FILE = { to: LOADER, decide: transformer, inputs: { unet_name: "file" } };
const TEXT = { to: ENCODER, decide: encoder, inputs: { clip_name: "file" } };
const SIZE = {
  to: "ZImageLatentSize",
  decide: latent,
  widgets: ["width", "height", "batch_size"],
  inputs: { width: "size.width", height: "size.height", batch_size: "batch_size" },
};
const SAMPLER = {
  to: "ZImageSampler",
  decide: sampler,
  inputs: {
    model: "model", positive: "positive", negative: "negative", latent_image: "latent", seed: "seed",
    noise_seed: "seed", steps: "mode.steps", cfg: "mode.cfg", sampler_name: "solver", denoise: "strength",
  }, // prettier-ignore
};
const SEED = "control_after_generate";

/**
 * By type: what it becomes, its widgets in the order in which graphs hold them, and which of its inputs is which of
 * ours. `plain` are the values beside which there is nothing to say about a widget that ours has not.
 */
export const SWAPS = {
  UNETLoader: { ...FILE, widgets: ["unet_name", "weight_dtype"], plain: { weight_dtype: "default" } },
  UnetLoaderGGUF: { ...FILE, widgets: ["unet_name"] },
  UnetLoaderGGUFAdvanced: {
    ...FILE,
    widgets: ["unet_name", "dequant_dtype", "patch_dtype", "patch_on_device"],
    plain: { dequant_dtype: "default", patch_dtype: "default", patch_on_device: false },
  },
  CLIPLoader: { ...TEXT, widgets: ["clip_name", "type", "device"] },
  CLIPLoaderGGUF: { ...TEXT, widgets: ["clip_name", "type"] },
  VAELoader: { to: "ZImageVAELoader", decide: vae, widgets: ["vae_name"], inputs: { vae_name: "file" } },
  EmptySD3LatentImage: SIZE,
  EmptyLatentImage: SIZE,
  EmptyFlux2LatentImage: SIZE,
  KSampler: {
    ...SAMPLER,
    widgets: ["seed", SEED, "steps", "cfg", "sampler_name", "scheduler", "denoise"],
    plain: { scheduler: "simple" },
  },
  KSamplerAdvanced: {
    ...SAMPLER,
    widgets: [
      "add_noise", "noise_seed", SEED, "steps", "cfg", "sampler_name", "scheduler", "start_at_step", "end_at_step",
      "return_with_leftover_noise",
    ], // prettier-ignore
    plain: { scheduler: "simple" },
  },
};

/** A node to be swapped, and what its decision asks. A reason not to is thrown as a `Left`. */
export class Candidate {
  constructor({ graph, node }, context) {
    Object.assign(this, { graph, node, ...context, swap: SWAPS[node.type], notes: [] });
  }

  get key() {
    return keyOf(this);
  }

  settings(name) {
    const index = this.swap.widgets.indexOf(name);
    return index < 0 ? [] : this.flow.settings(this, name, index);
  }

  values(name) {
    return this.settings(name).map((setting) => setting.value);
  }

  /** What the node itself holds. Where another value counts, it stays with who holds it. */
  own(name) {
    return this.node.widgets_values?.[this.swap.widgets.indexOf(name)];
  }

  isLinked(name) {
    return this.settings(name).some((setting) => setting.via === "linked");
  }

  isOwn(name) {
    return this.settings(name).every((setting) => setting.via === "own");
  }

  /** The widgets of ours by name, in the order in which they are set. */
  decide() {
    const values = this.swap.decide(this);
    for (const name of this.swap.widgets.filter((one) => one !== SEED && !this.swap.inputs[one])) {
      if (this.isLinked(name)) throw new Left("linked", name);
    }
    for (const [name, plain] of Object.entries(this.swap.plain ?? {})) {
      const other = this.values(name).find((value) => value !== undefined && value !== plain);
      if (other !== undefined) this.notes.push([name in WORDED ? name : "notCarried", ...(WORDED[name] ?? [name]), other]);
    }
    return values;
  }
}

// Widgets that ours has not, and about which there is more to say than that.
const WORDED = { weight_dtype: [], scheduler: [] };

export class Left extends Error {
  constructor(...reason) {
    super(reason.join(" "));
    this.reason = reason;
  }
}

function transformer(node) {
  const names = known(node, "unet_name");
  if (!node.survey.belongs(node, names.every(namesZImage))) throw new Left("foreign");
  loadable(names);
  // Who has no shift of another node samples with the model's own, which the host takes to be 3 for Base too.
  if (node.survey.samplersOf(node).some((one) => !node.shifts(one).length)) node.notes.push(["ownShift"]);
  return { file: ours(node, node.own("unet_name"), "unet_gguf") };
}

function encoder(node) {
  const [names, types] = [known(node, "clip_name"), node.values("type")];
  const named = names.every((name) => types.every((type) => encodesZImage(name, type)));
  if (!named && !names.every(namesQwen)) throw new Left("notQwen", names[0]);
  if (!node.survey.belongs(node, named)) throw new Left("foreign");
  const device = node.values("device").find((value) => value !== undefined && value !== "default");
  if (device !== undefined) throw new Left("device", device);
  loadable(names);
  return { file: ours(node, node.own("clip_name"), "clip_gguf") };
}

function vae(node) {
  const names = known(node, "vae_name");
  if (!names.every((name) => FLUX_VAE.test(name) && !OTHER_VAE.test(name))) throw new Left("notFlux", names[0]);
  // A VAE's name does not say which of the models that share it is meant.
  const alone = node.survey.samplers.length > 0 && node.survey.samplers.every((one) => node.survey.isZImage(one));
  if (!node.survey.belongs(node, alone)) throw new Left("foreign");
  loadable(names);
  return { file: node.own("vae_name") };
}

/** The files that a loader may load: what another node works out cannot be known. */
function known(node, widget) {
  const names = node.values(widget);
  if (names.some((name) => typeof name !== "string")) throw new Left("linked", widget);
  return names;
}

function loadable(names) {
  const unknown = names.find((name) => !LOADS.test(name));
  if (unknown !== undefined) throw new Left("form", unknown);
  const later = names.find((name) => NOT_YET.test(name) && !/\.gguf$/i.test(name));
  if (later !== undefined) throw new Left("notYet", later);
}

/** The name by which our loader lists a file: one of a folder that other packs keep has that in brackets. */
function ours(node, name, folder) {
  const listed = optionsOf(node.define(node.swap.to)?.input?.required?.file);
  const marked = `${name} [${folder}]`;
  return !listed.includes(name) && listed.includes(marked) ? marked : name;
}

const optionsOf = (spec) => (Array.isArray(spec?.[0]) ? spec[0] : (spec?.[1]?.options ?? []));

function latent(node) {
  if (!node.survey.belongs(node, false)) throw new Left("foreign");
  for (const side of ["width", "height"]) {
    if (node.isLinked(side)) throw new Left("linked", side);
    const odd = node.values(side).find((value) => value % MULTIPLE || !(value >= MULTIPLE && value <= LARGEST));
    if (odd !== undefined) throw new Left("size", side, odd, MULTIPLE);
  }
  const [width, height, batch_size] = node.swap.widgets.map((name) => node.own(name));
  const official = node.isOwn("width") && node.isOwn("height") && officialSize(node.define(node.swap.to), width, height);
  const size = official || { size: "custom", "size.width": width, "size.height": height };
  node.notes.push(official ? ["official", official.size, official["size.aspect"]] : ["custom"]);
  return { ...size, batch_size };
}

/** The class and aspect, as our node spells them, that are exactly this size. */
function officialSize(definition, width, height) {
  const spec = definition?.input?.required?.size;
  for (const { key, inputs } of spec?.[1]?.options ?? []) {
    const label = optionsOf(inputs?.required?.aspect).find((one) => one.endsWith(` ${width}x${height}`));
    if (label) return { size: key, "size.aspect": label };
  }
  return null;
}

function sampler(node) {
  if (!node.survey.sources(node).length) throw new Left("noModel");
  if (!node.survey.isZImage(node)) throw new Left("foreign");
  if (node.node.type === "KSamplerAdvanced") fullRun(node);
  const cfgs = node.values("cfg");
  const low = cfgs.find((cfg) => cfg < 1);
  if (low !== undefined) throw new Left("lowCfg", low);
  node.unguided = cfgs.every((cfg) => cfg === 1);
  const mode = node.unguided ? "Turbo" : cfgs.includes(1) ? "auto" : "Base";
  const seed = node.swap.widgets.includes("seed") ? "seed" : "noise_seed";
  node.notes.push(["mode", mode]);
  if (batches(node).some((count) => count !== 1)) node.notes.push(["batch"]);
  return {
    mode,
    "mode.steps": node.own("steps"),
    "mode.cfg": node.own("cfg"),
    seed: node.own(seed),
    [SEED]: node.own(SEED),
    solver: node.own("sampler_name"),
    ...strength(node),
  };
}

function batches(node) {
  const empty = node.flow.upstream(node, LATENTS, isSampler).filter((place) => SWAPS[place.node.type]?.decide === latent);
  return empty.flatMap((place) => node.flow.settings(place, "batch_size", 2).map((setting) => setting.value));
}

/** The other sampler can run a part of the steps, or keep noise for a next one; ours runs them all. */
function fullRun(node) {
  const all = (name, test) => node.isOwn(name) && test(node.own(name));
  const whole =
    all("add_noise", (value) => value === "enable") &&
    all("start_at_step", (value) => value === 0) &&
    all("end_at_step", (value) => node.values("steps").every((steps) => value >= steps)) &&
    all("return_with_leftover_noise", (value) => value === "disable");
  if (!whole) throw new Left("partOfRun");
}

/** denoise is a part of the steps, strength the noise to start from: the same noise, by the shift of the run. */
function strength(node) {
  const settings = node.settings("denoise");
  if (settings.some(({ via, value }) => via === "linked" && value !== 1)) throw new Left("denoiseLinked");
  const shift = node.shiftOf(node);
  const convert = (d) => Math.round((1000 * shift * d) / (1 + (shift - 1) * d)) / 1000;
  node.promoted = settings
    .filter(({ via, slot }) => via === "promoted" && slot)
    .map(({ value, set }) => () => set(convert(value)));
  const least = settings.find(({ value }) => value !== undefined && value !== 1);
  if (least) node.notes.push(["strength", least.value, convert(least.value)]);
  return { strength: convert(node.own("denoise") ?? 1) };
}
