// On Z-Image Empty Latent: what the size costs, as the user turns its widgets, in place of a text after the run.
import { app } from "../../scripts/app.js";
import { describe, fromWidgets } from "./lib/sizes.mjs";
import { localeOf } from "./lib/words.mjs";

const NODE = "ZImageLatentSize";
const PANEL = "zimage_size";
const STYLE = `
.zimage-size > div { box-sizing: border-box; padding: 6px 8px; border-radius: 6px; font-size: 12px;
  line-height: 1.4; color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222); overflow-wrap: anywhere; }
.zimage-size p { margin: 0; }
.zimage-size p + p { margin-top: 3px; color: var(--descrip-text, #999); }
.zimage-size p.note { color: var(--warning-text, #e3a008); }
`;

/** The values of the widgets by name, without those that come by a link or have gone. */
function valuesOf(node) {
  const linked = new Set(node.inputs?.filter((input) => input.link != null).map((input) => input.widget?.name));
  return Object.fromEntries(node.widgets.filter((w) => !linked.has(w.name)).map((w) => [w.name, w.value]));
}

/** Calls `then` after what an object's method did before. */
function after(object, method, then) {
  const before = object[method];
  object[method] = function (...values) {
    const result = before?.apply(this, values);
    then(...values);
    return result;
  };
}

class Panel {
  constructor(node) {
    this.node = node;
    this.ran = null; // what the node said of its last run
    this.heard = new WeakSet(); // widgets whose changes are heard: those in the dynamic combo come and go
    this.text = document.createElement("div");
    const element = document.createElement("div");
    element.className = "zimage-size";
    const style = document.createElement("style");
    style.textContent = STYLE;
    element.append(style, this.text);
    const height = () => (this.text.offsetHeight || 62) + 8;
    const options = { serialize: false, hideInPanel: true, margin: 4, getMinHeight: height, getMaxHeight: height };
    // Neither a value in saved graphs nor an input of prompts.
    node.addDOMWidget(PANEL, "zimage_size", element, options).serialize = false;
    for (const method of ["onConfigure", "onConnectionsChange"]) after(node, method, () => this.refresh());
    after(node, "onExecuted", (output) => this.executed(output));
    this.refresh();
  }

  executed(output) {
    this.ran = output?.zimage_size?.[0] ?? null;
    this.refresh();
  }

  refresh() {
    for (const widget of this.node.widgets) this.hear(widget);
    const chosen = fromWidgets(valuesOf(this.node));
    // Only a run can tell what a link brings. What the widgets tell is newer than any run.
    const shown = chosen.later && this.ran ? this.ran : chosen;
    const { facts, notes } = describe(shown, localeOf(app));
    this.text.replaceChildren(...facts.map((line) => paragraph(line)), ...notes.map((line) => paragraph(line, "note")));
    this.node.setDirtyCanvas?.(true, true);
  }

  hear(widget) {
    if (widget.name === PANEL || this.heard.has(widget)) return;
    this.heard.add(widget);
    after(widget, "callback", () => this.changed());
  }

  changed() {
    this.ran = null;
    this.refresh();
  }
}

function paragraph(text, kind = "") {
  const made = document.createElement("p");
  made.className = kind;
  made.textContent = text;
  return made;
}

app.registerExtension({
  name: "ZImage.Size",
  nodeCreated(node) {
    if (node.comfyClass === NODE) new Panel(node);
  },
});
