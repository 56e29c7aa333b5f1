// What live mode says, in the two languages of Z-Image's users. `%` stands for what is filled in, in order.
const WORDS = {
  en: {
    live: "Live",
    liveTip: "Z-Image live: draw as you type. Nothing is saved until you press Keep.",
    ready: "Change a prompt or a slider, and the picture follows.",
    nothing: "No sampler here leads to a picture: connect one through VAE Decode to Save Image or Preview Image.",
    draft: "Drawing a draft …",
    full: "Drawing …",
    drawnDraft: "Draft. The full picture follows when you rest.",
    drawnFull: "Done. Keep saves it.",
    hostDraft: "%: the draft runs % of its % steps.",
    hostFull: "%: it has no draft, so it runs as it is.",
    yours: "Your own run draws this.",
    stopped: "Stopped.",
    elsewhere: "Live is off: another graph was opened.",
    error: "Not drawn: %",
    keep: "Keep",
    keepTip: "Save the picture on screen, at full quality, through the graph's own output nodes.",
    keeping: "Saving the picture on screen, at full quality …",
    kept: "Kept.",
    nothingToKeep: "There is no picture to keep yet.",
    refine: "Refine with Base",
    refineTip: "Carry the picture on with the Base model: adds a loader and a sampler beside yours, and runs them.",
    refining: "Base goes on from the picture …",
    refined: "Base has gone on from the picture, and saved it.",
    refineAdded: "Added: Base goes on from this picture. Choose your Base file in the new loader if it is not the right one.",
    nothingToRefine: "There is no sampler to carry on from.",
    off: "Turn live off",
  },
  zh: {
    live: "实时",
    liveTip: "Z-Image 实时绘图：边输入边出图。点“保留”之前不会保存任何文件。",
    ready: "修改提示词或滑块，画面随之更新。",
    nothing: "没有采样器连到图像：请经 VAE 解码连接到保存图像或预览图像。",
    draft: "正在画草稿……",
    full: "正在绘制……",
    drawnDraft: "草稿。停下来后会画出完整的图。",
    drawnFull: "完成。点“保留”即可保存。",
    hostDraft: "%：草稿运行 % 步（共 % 步）。",
    hostFull: "%：没有草稿，按原样运行。",
    yours: "由您自己的运行来画。",
    stopped: "已停止。",
    elsewhere: "实时模式已关闭：打开了另一个工作流。",
    error: "没有画出：%",
    keep: "保留",
    keepTip: "以完整质量保存屏幕上的图，经由工作流自己的输出节点。",
    keeping: "正在以完整质量保存屏幕上的图……",
    kept: "已保存。",
    nothingToKeep: "还没有可保留的图。",
    refine: "用 Base 精修",
    refineTip: "用 Base 模型继续画这张图：在旁边加上加载器和采样器并运行。",
    refining: "Base 正在继续画这张图……",
    refined: "Base 已画完并保存。",
    refineAdded: "已添加：Base 从这张图继续。如果文件不对，请在新的加载器里选择你的 Base 文件。",
    nothingToRefine: "没有可以继续的采样器。",
    off: "关闭实时模式",
  },
};

/** The locale that the user has chosen in the browser. */
export const localeOf = (app) => app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";

/** The part of a table {en, zh} for a locale such as "en", "zh" or "zh-TW". */
export const inLanguage = (table, locale) => (String(locale ?? "").startsWith("zh") ? table.zh : table.en);

/** `say(key, ...values)` in the language of a locale such as "en", "zh" or "zh-TW"; other parts bring their `table`. */
export function speaker(locale, table = WORDS) {
  const words = inLanguage(table, locale);
  return (key, ...values) => {
    const rest = [...values];
    return words[key].replace(/%/g, (sign) => (rest.length ? String(rest.shift()) : sign));
  };
}

/** An error as one line: what the server says of the first node that it refuses, `title(id)` being that node's name. */
export function reason(error, title) {
  const [refused] = Object.entries(error?.response?.node_errors ?? {}).filter(([, node]) => node.errors?.length);
  if (refused) {
    const [id, { class_type, errors }] = refused;
    return `${title(id) ?? class_type}: ${sentence(errors[0])}`;
  }
  const whole = error?.response?.error;
  return whole ? (typeof whole === "string" ? whole : sentence(whole)) : String(error?.message ?? error).trim();
}

/** A node's own check already speaks in a sentence, behind the name of the input. */
const sentence = ({ type, message, details }) =>
  type === "custom_validation_failed" && details
    ? details.replace(/^[\w.]+ - /, "")
    : [message, details].filter(Boolean).join(": ");
