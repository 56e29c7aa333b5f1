// The few words of our nodes that the host leaves in English: see `translateNode`.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { translateNode } from "./lib/translate.mjs";
import { localeOf } from "./lib/words.mjs";

let nodes = {}; // by type, its words in the user's language

function translate(node) {
  const inputs = nodes[node.comfyClass]?.inputs;
  if (inputs) translateNode(node, inputs);
}

const isDynamic = (node, widget) =>
  node.constructor.nodeData?.input?.required?.[widget.name]?.[0] === "COMFY_DYNAMICCOMBO_V3";

app.registerExtension({
  name: "ZImage.Translate",
  async init() {
    const locale = localeOf(app);
    if (locale === "en") return;
    const all = await (await api.fetchApi("/i18n")).json();
    const ours = Object.entries(all[locale]?.nodeDefs ?? {}).filter(([type]) => type.startsWith("ZImage"));
    nodes = Object.fromEntries(ours);
  },
  nodeCreated(node) {
    translate(node);
    if (!nodes[node.comfyClass]) return;
    for (const widget of node.widgets?.filter((w) => isDynamic(node, w)) ?? []) {
      const { callback } = widget; // by the time it calls back, its new widgets are there
      widget.callback = function (...values) {
        const result = callback?.apply(this, values);
        translate(node);
        return result;
      };
    }
  },
  loadedGraphNode: translate,
});
