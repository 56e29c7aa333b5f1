// A saved workflow (format 0.4, its subgraphs in version 1) as graphs that can be asked, followed and changed.
// A place is `{ graph, node }`. Links are followed through the borders of subgraphs, into every use of one.

export const ROOT = "";
const INPUT = "-10"; // the id by which a subgraph's links name its own inputs
const OUTPUT = "-20";

export class Workflow {
  constructor(json) {
    this.json = structuredClone(json);
    this.graphs = [new Graph(this.json, ROOT), ...definitions(this.json).map((found) => new Graph(found, found.id))];
    this.byId = new Map(this.graphs.map((graph) => [graph.id, graph]));
    for (const graph of this.graphs) {
      for (const node of graph.nodes.values()) this.byId.get(node.type)?.hosts.push({ graph, node });
    }
  }

  /** The workflow as it is now, to be loaded. */
  toJSON() {
    for (const graph of this.graphs) graph.store();
    return this.json;
  }

  get places() {
    return this.graphs
      .filter((graph) => graph.id === ROOT || graph.hosts.length)
      .flatMap((graph) => [...graph.nodes.values()].map((node) => ({ graph, node })))
      .filter(({ node }) => !this.byId.has(node.type));
  }

  /** The nodes that a link really comes from. */
  origins(graph, link) {
    if (!link) return [];
    if (String(link.origin_id) === INPUT) {
      return graph.outside(link.origin_slot).flatMap(({ graph: outer, slot }) => this.origins(outer, outer.link(slot)));
    }
    const node = graph.node(link.origin_id);
    const inner = this.byId.get(node?.type);
    if (!inner) return node ? [{ graph, node }] : [];
    const ids = inner.data.outputs?.[link.origin_slot]?.linkIds ?? [];
    return ids.flatMap((id) => this.origins(inner, inner.links.get(id)));
  }

  /** The nodes that a node's outputs of some type really go to. */
  targets({ graph, node }, types) {
    const ids = (node.outputs ?? []).flatMap((slot) => slot.links ?? []);
    return ids.flatMap((id) => this.#ends(graph, graph.links.get(id), types));
  }

  #ends(graph, link, types) {
    if (!link || !types.has(link.type)) return [];
    const onward = (outer, ids) => (ids ?? []).flatMap((id) => this.#ends(outer, outer.links.get(id), types));
    if (String(link.target_id) === OUTPUT) {
      return graph.hosts.flatMap(({ graph: outer, node }) => onward(outer, node.outputs?.[link.target_slot]?.links));
    }
    const node = graph.node(link.target_id);
    const inner = this.byId.get(node?.type);
    if (!inner) return node ? [{ graph, node }] : [];
    const name = node.inputs[link.target_slot]?.name;
    return onward(inner, inner.data.inputs?.find((slot) => slot.name === name)?.linkIds);
  }

  /** Every node that leads to a place through links of these types; what `stop` names is not passed. */
  upstream(place, types, stop = () => false) {
    const found = new Map();
    const visit = ({ graph, node }) => {
      for (const slot of node.inputs ?? []) {
        const link = graph.link(slot);
        if (!link || !types.has(link.type)) continue;
        for (const origin of this.origins(graph, link)) {
          if (found.has(keyOf(origin))) continue;
          found.set(keyOf(origin), origin);
          if (!stop(origin.node)) visit(origin);
        }
      }
    };
    visit(place);
    return [...found.values()];
  }

  /**
   * What a widget is set to: its own value, or in each use of the subgraph the value of the widget that stands for it.
   *
   * `via` is "own", "promoted" or "linked" (to a node, whose value is known only where it is a plain primitive);
   * `set` stores another value there.
   */
  settings({ graph, node }, name, index) {
    const link = graph.link(node.inputs?.find((slot) => slot.widget?.name === name));
    const own = { value: node.widgets_values?.[index], via: "own", set: (value) => (node.widgets_values[index] = value) };
    return link ? this.#outer(graph, link, own) : [own];
  }

  #outer(graph, link, own) {
    if (String(link.origin_id) !== INPUT) return [{ value: primitive(this.origins(graph, link)), via: "linked" }];
    const found = graph.outside(link.origin_slot).flatMap((use) => {
      const outer = use.graph.link(use.slot);
      if (outer) return this.#outer(use.graph, outer, own);
      const stored = storedAt(use.node, use.slot);
      return [stored ? { ...stored, via: "promoted" } : { ...own, via: "promoted" }];
    });
    return found.length ? found : [{ ...own, via: "promoted" }];
  }
}

export class Graph {
  constructor(data, id) {
    this.data = data;
    this.id = id;
    this.name = id === ROOT ? "" : data.name;
    this.hosts = []; // where the subgraph is used
    this.nodes = new Map((data.nodes ?? []).map((node) => [String(node.id), node]));
    this.links = new Map((data.links ?? []).map(asObject).map((link) => [link.id, link]));
  }

  node(id) {
    return this.nodes.get(String(id));
  }

  link(slot) {
    return slot?.link == null ? undefined : this.links.get(slot.link);
  }

  /** The slots that an input of this subgraph has outside, one for each use. */
  outside(index) {
    const name = this.data.inputs?.[index]?.name;
    return this.hosts.flatMap(({ graph, node }) => {
      const slot = node.inputs?.find((one) => one.name === name);
      return slot ? [{ graph, node, slot }] : [];
    });
  }

  /** The subgraph's input behind a link, or nothing where a node is. */
  border(link) {
    return String(link?.origin_id) === INPUT ? this.data.inputs?.[link.origin_slot] : undefined;
  }

  store() {
    this.data.nodes = [...this.nodes.values()];
    const tuple = ({ id, origin_id, origin_slot, target_id, target_slot, type }) =>
      [id, origin_id, origin_slot, target_id, target_slot, type];
    this.data.links = [...this.links.values()].map((link) => (this.id === ROOT ? tuple(link) : link));
  }

  dropLink(id) {
    const link = this.links.get(id);
    if (!link) return;
    const without = (list) => list?.filter((one) => one !== id);
    const from = this.border(link);
    if (from) from.linkIds = without(from.linkIds);
    const output = this.node(link.origin_id)?.outputs?.[link.origin_slot];
    if (output) output.links = nullIfEmpty(without(output.links));
    const to = this.node(link.target_id)?.inputs?.[link.target_slot];
    if (to) to.link = null;
    this.#forget(id);
  }

  /** A node goes, and what it was given goes straight to those who took its first output. */
  bridge(node, inputName) {
    const into = this.link(node.inputs.find((slot) => slot.name === inputName));
    const leaving = node.outputs[0].links ?? [];
    if (into) {
      const list = this.border(into)
        ? [this.border(into), "linkIds"]
        : [this.node(into.origin_id).outputs[into.origin_slot], "links"];
      list[0][list[1]] = list[0][list[1]].flatMap((id) => (id === into.id ? leaving : [id]));
      for (const id of leaving) {
        Object.assign(this.links.get(id), { origin_id: into.origin_id, origin_slot: into.origin_slot });
      }
      node.outputs[0].links = null;
      this.#forget(into.id);
    }
    this.remove(node);
  }

  remove(node) {
    for (const slot of node.inputs ?? []) this.dropLink(slot.link);
    for (const slot of node.outputs ?? []) for (const id of slot.links ?? []) this.dropLink(id);
    this.nodes.delete(String(node.id));
  }

  /** An input of this subgraph that leads nowhere goes, here and wherever the subgraph is used. */
  removeInput(index) {
    const [{ name }] = this.data.inputs.splice(index, 1);
    shiftSlots(this.links, "origin", INPUT, index);
    for (const { graph, node } of this.hosts) {
      const at = node.inputs?.findIndex((slot) => slot.name === name) ?? -1;
      if (at < 0) continue;
      const widget = widgetIndex(node, node.inputs[at]);
      if (widget >= 0) node.widgets_values?.splice(widget, 1);
      delete node.widgets_values_named?.[name];
      const link = graph.link(node.inputs[at]);
      const outer = graph.border(link);
      if (link) graph.dropLink(link.id);
      if (outer && !outer.linkIds.length) graph.removeInput(graph.data.inputs.indexOf(outer));
      node.inputs.splice(at, 1);
      shiftSlots(graph.links, "target", node.id, at);
    }
  }

  /** A link's own waypoints (reroutes) know it by its id. */
  #forget(id) {
    this.links.delete(id);
    for (const reroute of this.data.reroutes ?? this.data.extra?.reroutes ?? []) {
      reroute.linkIds = reroute.linkIds?.filter((one) => one !== id);
    }
    const extensions = this.data.extra?.linkExtensions;
    if (extensions) this.data.extra.linkExtensions = extensions.filter((one) => one.id !== id);
  }
}

export const keyOf = ({ graph, node }) => `${graph.id}:${node.id}`;

function definitions(data) {
  const own = data.definitions?.subgraphs ?? [];
  return own.flatMap((one) => [one, ...definitions(one)]);
}

function asObject(link) {
  if (!Array.isArray(link)) return link;
  const [id, origin_id, origin_slot, target_id, target_slot, type] = link;
  return { id, origin_id, origin_slot, target_id, target_slot, type };
}

const nullIfEmpty = (list) => (list?.length ? list : null);

function shiftSlots(links, end, id, index) {
  for (const link of links.values()) {
    if (String(link[`${end}_id`]) === String(id) && link[`${end}_slot`] > index) link[`${end}_slot`] -= 1;
  }
}

const widgetIndex = (host, slot) => host.inputs.filter((one) => one.widget).indexOf(slot);

/** The value that one use of a subgraph holds for a widget inside. Older browsers keep it inside: then nothing. */
function storedAt(host, slot) {
  const index = widgetIndex(host, slot);
  if (index < 0 || host.properties?.proxyWidgets?.length || host.widgets_values?.[index] === undefined) return undefined;
  const set = (value) => {
    host.widgets_values[index] = value;
    if (host.widgets_values_named) host.widgets_values_named[slot.name] = value;
  };
  return { value: host.widgets_values[index], set, slot };
}

const primitive = (origins) =>
  origins.length === 1 && origins[0].node.type.startsWith("Primitive") ? origins[0].node.widgets_values?.[0] : undefined;
