// What "Use Z-Image nodes" says, in the two languages of Z-Image's users. `%` stands for what is filled in, in order.
import { inLanguage, speaker } from "./words.mjs";

const WORDS = {
  en: {
    title: "Use Z-Image nodes",
    nothing: "Nothing was changed: there is no node here that one of ours could take the place of.",
    nothingOf: "Nothing was changed.",
    failed: "Nothing was changed: %",
    swapped: "Swapped",
    removed: "Removed",
    lost: "No longer on the subgraph",
    left: "Left alone",
    undo: "Ctrl+Z brings the graph back as it was.",
    line: "%: %",
    inside: "% in “%”",
    to: "% → %",
    and: "; ",
    list: ", ",
    mode: "mode %",
    scheduler: "the official schedule (simple) instead of %",
    weight_dtype: "weight_dtype % is not needed: the file's own form is kept",
    notCarried: "% % is not carried over",
    ownShift: "it brings its own shift: 3 for Turbo, 6 for Base",
    official: "% %",
    custom: "size custom",
    strength: "denoise % became strength %, the same noise to start from",
    renamed: "the subgraph's % is now called %",
    batch: "picture i of a batch is now that of seed + i",
    shiftOwn: "shift % was the template's; the sampler now takes the model's own, 3 for Turbo and 6 for Base",
    shiftMoved: "its shift % is now the sampler's",
    noNegative: "at cfg 1 no negative is evaluated",
    lostWidget: "%, which the new node has not",
    foreign: "it does not serve Z-Image, or not alone",
    notYet: "% is in a form that ours does not load yet; ComfyUI's loader does, and our nodes take what it loads",
    form: "ours loads safetensors and GGUF, and % is neither",
    notQwen: "% is not Qwen3-4B by its name",
    notFlux: "% is not Flux's VAE by its name",
    device: "it is set to the device %, which ours does not offer",
    linked: "its % comes from another node",
    size: "its % is %: ours takes multiples of % up to 8192",
    noModel: "no model is connected to it",
    lowCfg: "its cfg is %: ours takes 1 and more",
    partOfRun: "it runs a part of the steps, or leaves noise for a next sampler",
    denoiseLinked: "its denoise comes from another node, and our strength is another scale",
    shiftStays: "it serves a loader or a sampler of ComfyUI",
    shiftShared: "more than samplers take its model, or it is not the only one",
  },
  zh: {
    title: "改用 Z-Image 节点",
    nothing: "没有改动：这里没有可以换成我们的节点的节点。",
    nothingOf: "没有改动。",
    failed: "没有改动：%",
    swapped: "已替换",
    removed: "已移除",
    lost: "子图上不再有",
    left: "保持不变",
    undo: "按 Ctrl+Z 即可恢复原来的工作流。",
    line: "%：%",
    inside: "%（在“%”中）",
    to: "% → %",
    and: "；",
    list: "、",
    mode: "模式 %",
    scheduler: "使用官方调度（simple），不再使用 %",
    weight_dtype: "不需要 weight_dtype %：保留文件自身的格式",
    notCarried: "未沿用 % %",
    ownShift: "使用模型自己的 shift：Turbo 为 3，Base 为 6",
    official: "% %",
    custom: "自定义尺寸",
    strength: "denoise % 换算为 strength %，起始噪波相同",
    renamed: "子图上的 % 现名 %",
    batch: "一批中的第 i 张图对应种子 seed + i",
    shiftOwn: "shift % 是模板的设定；采样器改用模型自己的：Turbo 为 3，Base 为 6",
    shiftMoved: "其 shift % 移到了采样器上",
    noNegative: "cfg 为 1 时不计算负面提示",
    lostWidget: "%，新节点没有此项",
    foreign: "它不属于 Z-Image，或不只用于 Z-Image",
    notYet: "% 的格式我们的加载器暂不支持；ComfyUI 的加载器可以，我们的节点能接收它的输出",
    form: "我们的加载器只读取 safetensors 和 GGUF，而 % 两者都不是",
    notQwen: "从文件名看，% 不是 Qwen3-4B",
    notFlux: "从文件名看，% 不是 Flux 的 VAE",
    device: "它指定了设备 %，我们的节点没有此选项",
    linked: "它的 % 来自另一个节点",
    size: "它的 % 为 %：我们的节点只接受 % 的倍数，最大 8192",
    noModel: "它没有连接模型",
    lowCfg: "它的 cfg 为 %：我们的节点从 1 起",
    partOfRun: "它只运行部分步数，或为下一个采样器保留噪波",
    denoiseLinked: "它的 denoise 来自另一个节点，而我们的 strength 是另一种尺度",
    shiftStays: "它还用于 ComfyUI 自己的加载器或采样器",
    shiftShared: "它的模型不只给采样器使用，或不止一个 shift 节点",
  },
};

const wordsOf = (locale) => inLanguage(WORDS, locale);

export const label = (locale) => wordsOf(locale).title;

/**
 * The report of `rewire` as paragraphs. `name(type)` is what a kind of node is called in the browser.
 */
export function describe(report, locale, name) {
  const words = wordsOf(locale);
  const say = speaker(locale, WORDS);
  const called = ({ title, type }) => title || name(type);
  const noted = (head, notes) => (notes ? say("line", head, notes) : head);
  const notes = (entry) => entry.notes.map((note) => say(...note)).join(words.and);
  const paragraphs = (key, entries, lines) =>
    [...grouped(entries, (one) => one.graph)].map(([graph, all]) => {
      return [graph ? say("inside", words[key], graph) : words[key], ...lines(all).map((line) => `• ${line}`)].join("\n");
    });
  const single = (all) => all.map((one) => noted(one.to ? say("to", called(one), name(one.to)) : called(one), notes(one)));
  const together = (all) => [...grouped(all, notes)].map(([why, some]) => noted(some.map(called).join(words.list), why));

  const changed = ["swapped", "removed", "lost"].flatMap((key) => paragraphs(key, report[key], single));
  const left = paragraphs("left", report.left, together);
  if (changed.length) return { title: words.title, text: [...changed, ...left, words.undo].join("\n\n") };
  return { title: words.title, text: [left.length ? words.nothingOf : words.nothing, ...left].join("\n\n") };
}

export function failure(error, locale) {
  const words = wordsOf(locale);
  return { title: words.title, text: words.failed.replace("%", () => error.message) };
}

function grouped(entries, key) {
  const found = new Map();
  for (const entry of entries) found.set(key(entry), [...(found.get(key(entry)) ?? []), entry]);
  return found;
}
