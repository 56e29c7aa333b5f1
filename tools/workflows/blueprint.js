// Runs in ComfyUI's page: makes one node, a subgraph, of the graph that stands there, but for where its picture goes.
// `promoted` are the widgets that the node shows: [its name, the box's type, the widget there].
async ({ title, width, promoted }) => {
    const graph = app.rootGraph ?? app.graph;
    const outside = graph.nodes.filter((node) => ["SaveImage", "MarkdownNote"].includes(node.type));
    const inside = new Set(graph.nodes.filter((node) => !outside.includes(node)));
    const { subgraph, node } = graph.convertToSubgraph(inside);
    outside.forEach((node) => graph.remove(node));
    subgraph.name = node.title = title;
    [...subgraph.inputs].forEach((input) => subgraph.removeInput(input)); // what the page promotes by itself
    for (const [name, type, widget] of promoted) {
        const inner = subgraph.nodes.find((node) => node.type === type);
        const slot = inner.inputs.find((input) => input.name === widget);
        subgraph.addInput(name, String(slot.type)).connect(slot, inner);
    }
    node.pos = [0, 30];
    node.setSize([width, node.computeSize()[1] + 60]);
    Object.assign(node.properties, { cnr_id: "zimage-nodes" });
}
