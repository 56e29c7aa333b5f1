// What a size costs, as `zimage_core/sizes.py` has it (a test compares the two), and the words that say so.
import { speaker } from "./words.mjs";

const MULTIPLE = 16;
const SMALLEST = 16;
const LARGEST = 8192;
const OFFICIAL_SIDES = [512, 2048];
const DRAWING = 14 * 3840;
const DECODING = 3 * 256;
const CAPTION = 64;
const BYTES = 2;

// `%` stands for what is filled in, in order. In English they are those of the node itself, `nodes/picture_size.py`.
const WORDS = {
  en: {
    size: "%, % megapixels, % image tokens.",
    sizes: "%, % megapixels, % image tokens, % pictures.",
    memory: "About % to draw (% above cfg 1) and % to decode, beside the weights.",
    snapped: "% was snapped to %: sides are multiples of 16.",
    fit: "% -> %: scaled by %, %.",
    whole: "nothing cropped",
    width: "% px of the width",
    height: "% px of the height",
    cropped: "% cropped",
    and: " and ",
    beyond:
      "% is beyond the official range, the areas from 512x512 to 2048x2048: the picture may fall apart or repeat itself.",
    illegal: "% cannot be drawn: sides must be from 16 to 8192.",
    onePicture: "The memory is that of one picture: the batch size is connected.",
    fitsLater: "The official size that is nearest to the picture is known when it runs.",
    knownLater: "The size is connected, and known when it runs.",
  },
  zh: {
    size: "%，% 百万像素，% 个图像 token。",
    sizes: "%，% 百万像素，% 个图像 token，% 张。",
    memory: "除权重外，绘制约需 %（cfg 大于 1 时 %），解码约需 %。",
    snapped: "% 已取整为 %：边长须是 16 的倍数。",
    fit: "% -> %：缩放 % 倍，%。",
    whole: "无裁剪",
    width: "宽 % 像素",
    height: "高 % 像素",
    cropped: "裁去%",
    and: "、",
    beyond: "% 超出官方范围（面积 512x512 到 2048x2048）：画面可能崩坏或重复。",
    illegal: "% 无法绘制：边长须在 16 到 8192 之间。",
    onePicture: "批量大小由连线给出：这里是一张图的需求。",
    fitsLater: "与图最接近的官方尺寸，运行时才知道。",
    knownLater: "尺寸由连线给出，运行时才知道。",
  },
};

export const tokens = (width, height) => Math.floor(width / MULTIPLE) * Math.floor(height / MULTIPLE);

export const megapixels = (width, height) => Math.floor((width * height) / 1e4 + 0.5) / 100;

/** Bytes beside the weights: for drawing a batch, and for decoding one picture of it. */
export function memory(width, height, batch = 1) {
  const padded = Math.ceil(tokens(width, height) / 32) * 32 + CAPTION;
  return { drawing: batch * padded * DRAWING * BYTES, decoding: width * height * DECODING * BYTES };
}

export function inOfficialRange(width, height) {
  const [least, largest] = OFFICIAL_SIDES;
  return least ** 2 <= width * height && width * height <= largest ** 2;
}

export const isLegal = (width, height) => [width, height].every((side) => SMALLEST <= side && side <= LARGEST);

/** A side at the nearest multiple of 16. */
export function snap(side) {
  return Math.min(Math.max(Math.floor(side / MULTIPLE + 0.5) * MULTIPLE, SMALLEST), LARGEST);
}

/** Bytes as a person rounds them: 30 MB, 1.6 GB. */
export function amount(bytes) {
  if (bytes < 0.95e9) return `${Math.max(Math.floor(bytes / 1e7 + 0.5), 1) * 10} MB`;
  return `${Math.floor(bytes / 1e8 + 0.5) / 10} GB`;
}

/**
 * What the widgets choose, in the form that the node reports after a run: {width, height, batch, demo, asked}.
 *
 * `values` are the widgets' by name, without those that are connected. `later` in place of a size says why it cannot
 * be known yet.
 */
export function fromWidgets(values) {
  const kind = values.size;
  if (kind === "fit image") return { later: "fitsLater" };
  const sides =
    kind === "custom"
      ? [values["size.width"], values["size.height"]]
      : /(\d+)x(\d+)$/.exec(values["size.aspect"] ?? "")?.slice(1).map(Number);
  if (!sides?.every(Number.isFinite) || typeof values.swap !== "boolean") return { later: "knownLater" };
  const asked = values.swap ? [sides[1], sides[0]] : sides;
  const [width, height] = isLegal(...asked) ? asked.map(snap) : asked;
  const changed = width !== asked[0] || height !== asked[1];
  return { width, height, batch: values.batch_size ?? null, demo: kind === "demo", asked: changed ? asked : null };
}

/** What stands on the node: `facts`, plain lines, and `notes`, what to know about them. */
export function describe(chosen, locale) {
  const say = speaker(locale, WORDS);
  if (chosen.later) return { facts: [say(chosen.later)], notes: [] };
  const { width, height, batch, picture, scale, crop } = chosen;
  const size = `${width}x${height}`;
  if (!isLegal(width, height)) return { facts: [], notes: [say("illegal", size)] };
  const need = memory(width, height, batch ?? 1);
  const what = [size, megapixels(width, height), tokens(width, height)];
  const facts = [
    batch > 1 ? say("sizes", ...what, batch) : say("size", ...what),
    say("memory", amount(need.drawing), amount(2 * need.drawing), amount(need.decoding)),
  ];
  if (picture) facts.push(say("fit", picture.join("x"), size, Number(scale.toFixed(3)), cropped(crop, say)));
  return { facts, notes: notesOf(chosen, size, say) };
}

function notesOf({ width, height, batch, demo, asked }, size, say) {
  const found = [];
  if (batch === null) found.push(say("onePicture"));
  if (asked) found.push(say("snapped", asked.join("x"), size));
  if (!demo && !inOfficialRange(width, height)) found.push(say("beyond", size));
  return found;
}

function cropped([width, height], say) {
  const parts = [width && say("width", width), height && say("height", height)].filter(Boolean);
  return parts.length ? say("cropped", parts.join(say("and"))) : say("whole");
}
