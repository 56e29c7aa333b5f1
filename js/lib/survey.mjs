// What in a workflow belongs to Z-Image. Where other models are about too, only what serves Z-Image alone does.
import { keyOf } from "./workflow.mjs";

export const LOADER = "ZImageTransformerLoader";
export const ENCODER = "ZImageTextEncoderLoader";

export const MODELS = new Set(["MODEL", "GUIDER", "*"]);
const PROMPTS = new Set(["CONDITIONING", "CLIP", "GUIDER", "*"]);
export const LATENTS = new Set(["LATENT", "*"]);
const VAES = new Set(["VAE", "*"]);
// Not IMAGE: a picture may go on to another model.
const ALL = new Set([...MODELS, ...PROMPTS, ...LATENTS, ...VAES, "MODEL_PATCH", "CONTROL_NET"]);

// The widget by which other nodes' file is set, and its place. Of nodes that are not here all values are looked at.
const FILES = { UNETLoader: "unet_name", UnetLoaderGGUF: "unet_name", UnetLoaderGGUFAdvanced: "unet_name" };

export const namesZImage = (name) => /z[-_ ]?image/i.test(String(name));
export const namesQwen = (name) => /qwen[-_ ]?3[-_ ]?4b/i.test(String(name)) || namesZImage(name);

/** Whether a CLIPLoader's settings are Z-Image's. Lumina 2 itself has the same type, with Gemma. */
export const encodesZImage = (file, type) => type === "lumina2" && namesQwen(file);

export const isSampler = (node) =>
  !!node.outputs?.some((slot) => slot.type === "LATENT") &&
  !!node.inputs?.some((slot) => slot.type === "MODEL" || slot.type === "GUIDER");

const gives = (type) => ({ node }) => !!node.outputs?.some((slot) => slot.type === type);
const hasLinked = (node, type) => !!node.inputs?.some((slot) => slot.type === type && slot.link != null);

export class Survey {
  constructor(flow) {
    this.flow = flow;
    this.samplers = flow.places.filter(({ node }) => isSampler(node));
    this.zimage = new Set(this.samplers.filter((place) => this.#draws(place)).map(keyOf));
    this.users = new Map(); // of each node, the samplers that it serves
    for (const sampler of this.samplers) this.#use(flow.upstream(sampler, ALL, isSampler), sampler);
    for (const place of flow.places) this.#decoder(place);
  }

  /** Whether a sampler draws with a Z-Image model. */
  isZImage(sampler) {
    return this.zimage.has(keyOf(sampler));
  }

  samplersOf(place) {
    return [...(this.users.get(keyOf(place))?.values() ?? [])];
  }

  /** Whether a node serves Z-Image and nothing else. One that serves nothing yet does if it is `named` so. */
  belongs(place, named) {
    const users = this.samplersOf(place);
    return users.length ? users.every((user) => this.isZImage(user)) : named;
  }

  /** The nodes that a sampler's model first comes from. */
  sources(sampler) {
    return this.#first(sampler, MODELS, "MODEL");
  }

  #draws(sampler) {
    const sources = this.sources(sampler);
    if (!sources.length || sources.every((place) => this.#named(place))) return sources.length > 0;
    // A file may have any name. Its encoder's kind and file together are Z-Image's alone.
    const encoders = this.#first(sampler, PROMPTS, "CLIP");
    return encoders.length > 0 && encoders.every((place) => this.#encodes(place)) && !sources.some(gives("CLIP"));
  }

  #first(sampler, types, type) {
    const own = new Set([type, "*"]);
    const found = this.flow.upstream(sampler, types, isSampler).filter(gives(type));
    return found.filter((place) => !this.flow.upstream(place, own, isSampler).length);
  }

  #named(place) {
    if (place.node.type === LOADER) return true;
    const widget = FILES[place.node.type];
    if (widget) return this.flow.settings(place, widget, 0).every(({ value }) => namesZImage(value));
    return Object.values(place.node.widgets_values ?? {}).some(namesZImage);
  }

  #encodes(place) {
    if (place.node.type === ENCODER) return true;
    if (!/^CLIPLoader(GGUF)?$/.test(place.node.type)) return false;
    const [files, types] = ["clip_name", "type"].map((name, index) => this.flow.settings(place, name, index));
    return files.every((file) => types.every((type) => encodesZImage(file.value, type.value)));
  }

  /** What decodes a sampler's latent serves that sampler, and so does its VAE. */
  #decoder(place) {
    if (!hasLinked(place.node, "VAE") || !hasLinked(place.node, "LATENT")) return;
    const samplers = this.flow.upstream(place, LATENTS, isSampler).filter(({ node }) => isSampler(node));
    for (const sampler of samplers) this.#use(this.flow.upstream(place, VAES, isSampler), sampler);
  }

  #use(places, sampler) {
    for (const key of places.map(keyOf)) {
      if (!this.users.has(key)) this.users.set(key, new Map());
      this.users.get(key).set(keyOf(sampler), sampler);
    }
  }
}
