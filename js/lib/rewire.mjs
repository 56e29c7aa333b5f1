// "Use Z-Image nodes": a saved workflow in which the host's nodes for Z-Image are ours, and the list of what changed.
// A node keeps its id, its place and its links, so that everything which names it by its id goes on to find it.
import { boxesOf, makeRoom } from "./layout.mjs";
import { LOADER, MODELS, Survey, isSampler } from "./survey.mjs";
import { Candidate, Left, SWAPS } from "./swaps.mjs";
import { Workflow, keyOf } from "./workflow.mjs";

const SHIFTS = new Set(["ModelSamplingAuraFlow", "ModelSamplingSD3"]);
const PLAIN_SHIFT = 3; // what every template sets, and the host's default
const OWN_SHIFT = { Turbo: 3, Base: 6 };
const ACTIVE = 0;

/**
 * `selected` is null for everything, or `{ graph, nodes }`: ids, in the graph of that id ("" is the outermost).
 * `define(type)` gives a node's definition, `make(type, values)` a node as graphs hold it, its widgets set by name.
 *
 * Returns the workflow, and `report`: `swapped`, `removed`, `left` and `lost`, each a list of
 * `{ type, to, title, id, graph, notes }`. A note is a key of the words and what is filled in.
 */
export function rewire(json, { define, make, selected = null }) {
  const flow = new Workflow(json);
  const survey = new Survey(flow);
  const scope = scopeOf(flow, selected);
  const places = flow.places.filter(scope);
  const report = { swapped: [], removed: [], left: [], lost: [] };
  const shifts = (sampler) => flow.upstream(sampler, MODELS, isSampler).filter(setsShift);
  const context = { flow, survey, define, shifts, shiftOf: (sampler) => shiftOf(flow, survey, shifts(sampler), sampler) };

  const swaps = new Map();
  for (const place of places.filter(({ node }) => SWAPS[node.type])) {
    const candidate = new Candidate(place, context);
    try {
      swaps.set(candidate.key, { candidate, values: candidate.decide() });
    } catch (error) {
      if (!(error instanceof Left)) throw error;
      report.left.push(entry(place, { notes: [error.reason] }));
    }
  }
  const gone = [
    ...places.filter(setsShift).flatMap((place) => withoutShift(place, context, swaps, report)),
    ...[...swaps.values()].flatMap((swap) => withoutNegative(swap, flow, scope, report)),
  ];
  const boxes = new Map([...swaps.values()].map(({ candidate: { graph } }) => [graph, boxesOf(graph.nodes)]));
  for (const { candidate, values } of swaps.values()) apply(candidate, make(candidate.swap.to, values), report);
  for (const act of gone) act();
  for (const [graph, before] of boxes) makeRoom(graph.nodes, graph.data.groups, before);
  return { workflow: flow.toJSON(), report };
}

const entry = ({ graph, node }, more) => ({
  type: node.type, title: node.title, id: node.id, graph: graph.name, ...more,
}); // prettier-ignore

/** Whether a place is among what was asked for: chosen itself, or in a chosen subgraph, however deep. */
function scopeOf(flow, selected) {
  if (!selected) return () => true;
  const inside = new Set();
  const enter = (node) => {
    const graph = flow.byId.get(node?.type);
    if (!graph || inside.has(graph.id)) return;
    inside.add(graph.id);
    graph.nodes.forEach(enter);
  };
  const chosen = new Set(selected.nodes.map(String));
  chosen.forEach((id) => enter(flow.byId.get(selected.graph)?.node(id)));
  return ({ graph, node }) => inside.has(graph.id) || (graph.id === selected.graph && chosen.has(String(node.id)));
}

const setsShift = ({ node }) => SHIFTS.has(node.type) && (node.mode ?? ACTIVE) === ACTIVE;

/** The shift with which the host's sampler runs now. */
function shiftOf(flow, survey, shifts, sampler) {
  if (shifts.length) return Number(flow.settings(shifts[0], "shift", 0)[0].value) || PLAIN_SHIFT;
  const [source] = survey.sources(sampler);
  if (source?.node.type !== LOADER) return PLAIN_SHIFT;
  const [file, variant] = source.node.widgets_values ?? [];
  const turbo = variant === "turbo" || (variant !== "base" && /turbo/i.test(file));
  return turbo ? OWN_SHIFT.Turbo : OWN_SHIFT.Base;
}

/** A shift between our loader and our sampler goes: the sampler takes the model's own, or one of its own. */
function withoutShift(place, { flow, survey, shifts }, swaps, report) {
  const samplers = survey.samplersOf(place);
  const mine = ({ graph, node }) => node.type === LOADER || swaps.has(keyOf({ graph, node }));
  const both = samplers.length > 0 && samplers.every((one) => swaps.has(keyOf(one)));
  if (!samplers.some((one) => swaps.has(keyOf(one)))) return [];
  const settings = flow.settings(place, "shift", 0);
  const stays = (...reason) => {
    report.left.push(entry(place, { notes: [reason] }));
    return [];
  };
  if (!both || !samplers.every((one) => survey.sources(one).every(mine))) return stays("shiftStays");
  if (settings.some(({ via }) => via !== "own")) return stays("linked", "shift");
  if (samplers.some((one) => shifts(one).length > 1) || !leadsToSamplers(flow, place)) return stays("shiftShared");
  const value = Number(settings[0].value);
  if (value !== PLAIN_SHIFT) for (const one of samplers) swaps.get(keyOf(one)).values.shift = value;
  report.removed.push(entry(place, { notes: [value === PLAIN_SHIFT ? ["shiftOwn", value] : ["shiftMoved", value]] }));
  return [() => place.graph.bridge(place.node, "model")];
}

/** Whether a model goes to samplers alone, through whatever nodes. */
function leadsToSamplers(flow, place) {
  return flow.targets(place, MODELS).every((target) => {
    if (isSampler(target.node)) return true;
    return target.node.outputs?.some((slot) => MODELS.has(slot.type)) && leadsToSamplers(flow, target);
  });
}

/** At cfg 1 nothing is predicted for a negative. One that says so itself goes, unless others use it. */
function withoutNegative({ candidate }, flow, scope, report) {
  const { graph, node } = candidate;
  const slot = node.inputs?.find((one) => one.name === "negative");
  const link = graph.link(slot);
  const origin = link && graph.node(link.origin_id);
  if (!candidate.unguided || !candidate.isOwn("cfg") || origin?.type !== "ConditioningZeroOut") return [];
  const place = { graph, node: origin };
  if (!scope(place)) return [];
  return [
    () => {
      graph.dropLink(link.id);
      if (origin.outputs.some((one) => one.links?.length)) return;
      report.removed.push(entry(place, { notes: [["noNegative"]] }));
      graph.remove(origin);
    },
  ];
}

/** The node becomes `made`, where it is and connected as it is. */
function apply(candidate, made, report) {
  const { graph, node, swap, flow } = candidate;
  const before = entry(candidate, { to: swap.to, notes: candidate.notes });
  const lost = move(candidate, made);
  for (const [index, output] of made.outputs.entries()) {
    const old = node.outputs?.[index];
    Object.assign(output, { links: old?.links ?? null }, old?.label && { label: old.label });
  }
  rename(flow, candidate, lost);
  const { id, pos, flags, order, mode, title, color, bgcolor, shape, properties, inputs } = node;
  const kept = { id, pos, size: sizeOf(node, made), flags, order, mode, title, color, bgcolor, shape };
  const carried = { ...others(properties), ...made.properties };
  for (const key of Object.keys(node)) delete node[key];
  Object.assign(node, made, { ...JSON.parse(JSON.stringify(kept)), properties: carried });
  candidate.promoted?.forEach((convert) => convert());
  dropped(candidate, inputs, lost);
  report.swapped.push(before);
  for (const name of lost) report.lost.push({ ...before, notes: [["lostWidget", name]] });
}

/** Links go to the inputs that ours has for them. Returns the widgets that are promoted and that ours has not. */
function move({ graph, node, swap }, made) {
  const lost = [];
  for (const slot of node.inputs ?? []) {
    const link = graph.link(slot);
    const index = made.inputs.findIndex((one) => one.name === swap.inputs[slot.name]);
    if (index >= 0) {
      const label = slot.label && slot.label !== slot.name && { label: slot.label };
      Object.assign(made.inputs[index], { link: slot.link ?? null }, label);
      if (link) link.target_slot = index;
      renamePrimitive(graph.node(link?.origin_id), link, slot.name, swap.inputs[slot.name]);
    } else if (link && slot.widget && graph.border(link)) lost.push(slot.name);
    else if (link) throw new Error(`${swap.to} has no input for ${slot.name}`);
  }
  return lost;
}

function renamePrimitive(origin, link, from, to) {
  const widget = origin?.type === "PrimitiveNode" && origin.outputs?.[link.origin_slot]?.widget;
  if (widget && widget.name === from) widget.name = to;
}

/** What stands on the outside for a widget that is no more goes with it; where its meaning is another, so is its name. */
function dropped({ graph, notes }, inputs, lost) {
  for (const slot of inputs ?? []) {
    const link = graph.link(slot);
    const outer = graph.border(link);
    if (!outer) continue;
    const index = graph.data.inputs.indexOf(outer);
    if (lost.includes(slot.name)) {
      const id = link.id;
      outer.linkIds = outer.linkIds.filter((one) => one !== id);
      graph.links.delete(id);
      if (!outer.linkIds.length) graph.removeInput(index);
    } else if (slot.name === "denoise" && !outer.label) {
      outer.label = "strength";
      for (const use of graph.outside(index)) use.slot.label ??= "strength";
      notes.push(["renamed", "denoise", "strength"]);
    }
  }
}

/** Whatever else names the node's widgets: promotions as older browsers keep them, and the inputs of an app. */
function rename(flow, { graph, node, swap }, lost) {
  const kept = new Set(["control_after_generate"]);
  const nameOf = (name) => (kept.has(name) || name.startsWith("$$") ? name : swap.inputs[name]);
  const isHere = (id) => String(id) === String(node.id);
  for (const { node: host } of graph.hosts) {
    const listed = host.properties?.proxyWidgets;
    if (!Array.isArray(listed)) continue;
    host.properties.proxyWidgets = listed.flatMap(([id, name, ...rest]) => {
      if (!isHere(id)) return [[id, name, ...rest]];
      if (!nameOf(name) && !lost.includes(name)) lost.push(name);
      return nameOf(name) ? [[id, nameOf(name), ...rest]] : [];
    });
  }
  const app = flow.json.extra?.linearData;
  const outermost = graph === flow.graphs[0];
  if (!Array.isArray(app?.inputs)) return;
  for (const input of app.inputs) {
    const [root, id, name] = String(input[0]).split(":");
    if (name !== undefined && outermost && isHere(id)) {
      const to = nameOf(decodeURIComponent(name));
      if (to) input.splice(0, 2, `${root}:${id}:${encodeURIComponent(to)}`, to);
    } else if (id === undefined && isHere(root) && (outermost || !flow.graphs[0].node(root))) {
      input[1] = nameOf(input[1]) ?? input[1];
    }
  }
}

/** As wide as it was, and high enough for its widgets. */
function sizeOf(node, made) {
  const [width, height] = [0, 1].map((index) => Number(node.size?.[index] ?? 0));
  return [Math.max(width, made.size[0]), Math.max(height, made.size[1])];
}

/** Properties that are not the old type's own: where its file can be had, colours of other packs. */
function others(properties) {
  const { "Node name for S&R": _name, cnr_id: _id, aux_id: _aux, ver: _version, ...rest } = properties ?? {};
  return rest;
}
