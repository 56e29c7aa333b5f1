// Live mode in the browser: a command, a button and a bar around `Live`, which decides.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { makeBar } from "./lib/bar.mjs";
import { Live } from "./lib/live.mjs";
import { asTyped } from "./lib/prompts.mjs";
import { nodeOf, refineWithBase } from "./lib/refine.mjs";
import { localeOf, reason, speaker } from "./lib/words.mjs";

const PAUSE = "ZImage.Live.Pause";
const REST = "ZImage.Live.Rest";
// Everything by which a user changes a graph. Each only asks whether it did change.
const TOUCHES = ["input", "change", "keyup", "pointerup", "wheel", "drop", "paste", "compositionend"];

const setting = (id, otherwise) => app.extensionManager?.setting?.get(id) ?? otherwise;
const say = (...words) => speaker(localeOf(app))(...words);
const workflow = () => app.extensionManager?.workflow?.activeWorkflow;
const node = (id) => nodeOf(app.rootGraph ?? app.graph, id);

let bar = null;
const asked = new Map(); // prompts that the user asked for here, and what to say when they are done
let home = null; // the workflow that live mode was turned on in
let posting = 0; // prompts on their way to the server
const early = []; // what was heard meanwhile
let waiting = 0; // prompts in the server's queue
let samplersWords = {}; // by the sampler's id, what it said of its last run

const live = new Live({
  async graph() {
    if (workflow() === home) {
      const graph = await app.graphToPrompt();
      return { ...graph, typed: asTyped(graph.output, freeWidgets) };
    }
    await turnOff();
    toast("info", say("elsewhere"));
    return null;
  },
  define: (type) => window.LiteGraph.registered_node_types[type]?.nodeData,
  async queue(output, targets, workflow) {
    samplersWords = {};
    return (await post({ output, workflow }, targets)).prompt_id;
  },
  async cancel(id) {
    await send("/queue", { delete: [id] });
    await send("/interrupt", { prompt_id: id });
  },
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
  delays: () => ({ pause: setting(PAUSE, 400), rest: setting(REST, 1200) }),
  show: (state, detail) => bar?.show(state, wordsOf(state, detail)),
});

/** A node's widgets, but for those whose value comes from elsewhere. */
function freeWidgets(id) {
  const found = node(id);
  const linked = (name) => found.inputs?.some((input) => input.widget?.name === name && input.link != null);
  return found?.widgets?.filter((widget) => !linked(widget.name)) ?? [];
}

function wordsOf(state, detail) {
  if (state === "drawn") return [say(detail.full ? "drawnFull" : "drawnDraft"), ...runs(detail.draws)].join(" ");
  if (state === "error") return say("error", reason(detail, (id) => node(id)?.title));
  if (state === "draft") return [say("draft"), ...hosts(detail)].join(" ");
  return say(state);
}

/** What each sampler ran: in its own words if it is ours. */
const runs = (draws) => [...draws.map(({ sampler }) => samplersWords[sampler]).filter(Boolean), ...hosts(draws)];

/** What a draft is with the host's samplers, which say nothing themselves. */
function hosts(draws) {
  const title = (id) => node(id)?.title ?? "KSampler";
  return draws.flatMap(({ sampler, kind, steps, of }) => {
    if (kind === "host") return [say("hostDraft", title(sampler), steps, of)];
    return kind === "full" && of ? [say("hostFull", title(sampler))] : [];
  });
}

/** Queues a graph without what queueing by the user does to it: seeds stay as they are. */
async function post(graph, targets) {
  const chosen = setting("Comfy.Execution.PreviewMethod", "default");
  const previewMethod = chosen === "default" ? "auto" : chosen;
  posting += 1;
  try {
    return await api.queuePrompt(0, graph, { partialExecutionTargets: targets, previewMethod });
  } finally {
    posting -= 1;
    if (!posting) setTimeout(() => early.splice(0).forEach((run) => run()));
  }
}

/** Events of a prompt may overtake the answer that names it; they wait until whoever queued it knows its name. */
function hear(name, run) {
  api.addEventListener(name, ({ detail }) => (posting || early.length ? early.push(() => run(detail)) : run(detail)));
}

const get = async (path) => (await api.fetchApi(path)).json();

/** What is sent outlives the page. */
function send(path, body) {
  const headers = { "Content-Type": "application/json" };
  return api.fetchApi(path, { method: "POST", keepalive: true, headers, body: JSON.stringify(body) });
}

const toast = (severity, summary) => app.extensionManager?.toast?.add({ severity, summary, life: 5000 });

function turnOn() {
  home = workflow();
  bar = makeBar(document, [
    { id: "keep", text: say("keep"), tip: say("keepTip"), run: keep },
    { id: "refine", text: say("refine"), tip: say("refineTip"), run: refine },
    { id: "off", text: "✕", tip: say("off"), run: turnOff },
  ]);
  live.start();
}

async function turnOff() {
  bar?.remove();
  bar = null;
  await live.stop();
}

const toggle = () => (live.on ? turnOff() : turnOn());

/** The picture on screen through the user's own graph as it was drawn: all steps, all outputs, the same seed. */
async function keep() {
  if (!live.shown) {
    toast("info", say("nothingToKeep"));
    return;
  }
  await ask(live.shown, undefined, "keeping", "kept");
}

/** Queues what the user asked for, and says so now and when it is done. Live mode never stops such a prompt. */
async function ask(graph, targets, now, then) {
  try {
    asked.set((await post(graph, targets)).prompt_id, then);
    bar?.show("asked", say(now));
  } catch (error) {
    bar?.show("error", wordsOf("error", error));
  }
}

async function refine() {
  const from = live.shown?.draws?.[0]?.sampler;
  const added = from && refineWithBase(app, from);
  if (!added) {
    toast("info", say("nothingToRefine"));
    return;
  }
  toast("success", say("refineAdded"));
  const { output } = live.shown;
  await live.drop();
  const graph = await app.graphToPrompt();
  // The picture on screen it is, whatever was typed and whichever seed was rolled since.
  await ask({ ...graph, output: { ...graph.output, ...output } }, [added], "refining", "refined");
}

function listen() {
  for (const name of TOUCHES) {
    const touch = (event) => !event.isComposing && live.touch();
    document.addEventListener(name, touch, { capture: true, passive: true });
  }
  document.addEventListener("compositionstart", () => live.hold(), { capture: true, passive: true });
  api.addEventListener("graphChanged", () => live.touch()); // undone, or changed by what a click began
  api.addEventListener("promptQueued", () => live.queued());
  hear("executed", (detail) => {
    const words = detail.output?.text;
    if (Array.isArray(words)) samplersWords[detail.node] = words.join(" ");
    if (detail.output?.images) live.pictured(detail.prompt_id);
  });
  hear("execution_success", (detail) => ended(detail.prompt_id));
  hear("execution_interrupted", (detail) => ended(detail.prompt_id, say("stopped")));
  hear("execution_error", ({ prompt_id, exception_message, exception_type }) =>
    ended(prompt_id, exception_message?.trim() || exception_type));
  api.addEventListener("status", ({ detail }) => {
    const before = waiting;
    waiting = detail?.exec_info?.queue_remaining ?? waiting;
    if (waiting < before) taken();
  });
  api.addEventListener("reconnected", lost);
  window.addEventListener("pagehide", leave);
}

/** The page goes, and what was drawn for it alone with it; there is no time to wait for answers. */
function leave() {
  if (!live.job) return;
  send("/queue", { delete: [live.job.id] });
  send("/interrupt", { prompt_id: live.job.id });
}

/** The prompts we wait for that the server has no more. */
async function missing() {
  const ids = [live.job?.id, ...asked.keys()].filter(Boolean);
  if (!ids.length) return [];
  const { queue_running, queue_pending } = await get("/queue");
  const there = new Set([...queue_running, ...queue_pending].map(([, id]) => id));
  return ids.filter((id) => !there.has(id));
}

/** One that was taken from the queue ends without an event. Of one that ran there is a history, and events come. */
async function taken() {
  for (const id of await missing()) {
    if (!(id in (await get(`/history/${id}`)))) ended(id, say("stopped"));
  }
}

/** What ended while the server was not heard has to be drawn again. */
async function lost() {
  for (const id of await missing()) {
    live.lost(id);
    ended(id, say("stopped"));
  }
}

function ended(id, error) {
  live.ended(id, error);
  if (!asked.has(id)) return;
  if (error) bar?.show("error", say("error", error));
  else bar?.show("drawn", say(asked.get(id)));
  asked.delete(id);
}

app.registerExtension({
  name: "ZImage.Live",
  setup: listen,
  settings: [
    {
      id: PAUSE,
      name: "Live: pause in typing before a draft, in milliseconds",
      category: ["Z-Image", "Live", "Pause"],
      type: "number",
      defaultValue: 400,
      attrs: { min: 50, max: 10000, step: 50 },
    },
    {
      id: REST,
      name: "Live: rest after a draft before the full run, in milliseconds",
      category: ["Z-Image", "Live", "Rest"],
      type: "number",
      defaultValue: 1200,
      attrs: { min: 0, max: 60000, step: 100 },
    },
  ],
  commands: [
    {
      id: "ZImage.Live.Toggle",
      label: "Z-Image: live on or off",
      icon: "pi pi-bolt",
      function: toggle,
    },
    { id: "ZImage.Live.Keep", label: "Z-Image: keep the live picture", icon: "pi pi-save", function: keep },
    { id: "ZImage.Live.Refine", label: "Z-Image: refine the picture with Base", icon: "pi pi-sparkles", function: refine },
  ],
  menuCommands: [{ path: ["Extensions", "Z-Image"], commands: ["ZImage.Live.Toggle", "ZImage.Live.Keep", "ZImage.Live.Refine"] }],
  get actionBarButtons() {
    return [{ icon: "pi pi-bolt", label: say("live"), tooltip: say("liveTip"), onClick: toggle }];
  },
});
