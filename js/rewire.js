// The command "Use Z-Image nodes" in the browser: what `rewire` decides, as one step that can be undone.
import { app } from "../../scripts/app.js";
import { rewire } from "./lib/rewire.mjs";
import { describe, failure, label } from "./lib/rewire_words.mjs";
import { SWAPS } from "./lib/swaps.mjs";
import { localeOf } from "./lib/words.mjs";
import { ROOT } from "./lib/workflow.mjs";

const COMMAND = "ZImage.UseNodes";
// In the newer renderer's rows a node needs more than in the classic canvas, its fold of advanced inputs has a line of
// its own, and what is folded needs nothing.
const [TALLER, FOLD, ROW] = [40, 16, 24];

const OURS = new Set(Object.values(SWAPS).map((swap) => swap.to));

const typeOf = (type) => window.LiteGraph.registered_node_types[type];
const define = (type) => typeOf(type)?.nodeData;
const root = () => app.rootGraph ?? app.graph;
const setting = (id) => app.extensionManager.setting.get(id);
const isNewer = () => setting("Comfy.VueNodes.Enabled") === true;
const plain = (value) => JSON.parse(JSON.stringify(value));

/** A node as graphs hold it, without ever being in one. Widgets are set by name: their order is the browser's affair. */
function make(type, values) {
  const node = window.LiteGraph.createNode(type);
  if (!node) throw new Error(`${type} is not installed`);
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets.find((one) => one.name === name);
    if (!widget) throw new Error(`${type} has no widget ${name}`);
    if (value !== undefined) widget.value = value;
  }
  node.setSize(sizeOf(node));
  const made = plain(node.serialize());
  for (const widget of node.widgets) widget.onRemove?.();
  return made;
}

function sizeOf(node) {
  const [width, height] = node.computeSize();
  if (!isNewer()) return [width, height];
  const folded = node.widgets.filter((widget) => widget.options?.advanced ?? widget.advanced).length;
  return [width, height + TALLER + (folded ? FOLD - folded * ROW : 0)];
}

/** What the user has chosen in the graph on screen, or null. */
function selection(clicked) {
  const chosen = [...(app.canvas.selectedItems ?? [])].filter((item) => item instanceof window.LiteGraph.LGraphNode);
  const nodes = clicked && !chosen.includes(clicked) ? [clicked] : chosen;
  if (!nodes.length) return null;
  const graph = app.canvas.graph;
  return { graph: !graph || graph === root() ? ROOT : graph.id, nodes: nodes.map((node) => node.id) };
}

/**
 * The browser's own way from one state of a graph to another, which "redo" is: it keeps the view and the open
 * subgraph, and the state before becomes the one that "undo" goes back to.
 */
async function load(tracker, workflow) {
  tracker.redoQueue.length = 0;
  tracker.redoQueue.push(workflow);
  await tracker.redo();
  if (isNewer()) {
    heighten(root(), workflow);
    for (const graph of workflow.definitions?.subgraphs ?? []) heighten(root().subgraphs?.get(graph.id), graph);
  }
  await drawn();
  // As the browser writes it and has laid it out: else the next look for changes would find one.
  tracker.activeState = plain(root().serialize());
}

/** The browser loads nodes that have a dynamic combo as low as the classic canvas would have them. */
function heighten(live, saved) {
  for (const { id, type, size } of saved.nodes) {
    const node = OURS.has(type) && live?.getNodeById(id);
    if (node && node.size[1] < size[1]) node.setSize(size);
  }
}

async function drawn() {
  for (let frame = 0; frame < 3; frame += 1) await new Promise((resolve) => requestAnimationFrame(resolve));
}

async function use(clicked) {
  const locale = localeOf(app);
  const tracker = app.extensionManager.workflow.activeWorkflow?.changeTracker;
  if (!tracker) return;
  tracker.captureCanvasState();
  let said;
  try {
    const { workflow, report } = rewire(plain(root().serialize()), { define, make, selected: selection(clicked) });
    if (report.swapped.length) await load(tracker, workflow);
    said = describe(report, locale, (type) => typeOf(type)?.title ?? type);
  } catch (error) {
    console.error(error);
    said = failure(error, locale);
  }
  await app.extensionManager.dialog.confirm({ title: said.title, message: said.text, type: "info" });
}

app.registerExtension({
  name: "ZImage.Rewire",
  commands: [{ id: COMMAND, label: label("en"), icon: "pi pi-sync", function: () => use() }],
  menuCommands: [{ path: ["Extensions", "Z-Image"], commands: [COMMAND] }],
  getNodeMenuItems(node) {
    if (!SWAPS[node.type] && !node.isSubgraphNode?.()) return [];
    return [{ content: label(localeOf(app)), callback: () => use(node) }];
  },
});
