// Runs in ComfyUI's page: makes a graph of boxes there, so that what is saved is what the page itself would save.
// Columns stand from left to right, the boxes of a column below one another, each at least as large as it needs.
async ({ id, columns, links }) => {
    const GAP = 70, TITLE = 30; // the newer renderer's nodes are taller than the canvas's
    const empty = { id, revision: 0, last_node_id: 0, last_link_id: 0, nodes: [], links: [], groups: [], config: {} };
    await app.loadGraphData({ ...empty, extra: {}, version: 0.4 });
    const graph = app.rootGraph ?? app.graph;
    const nodes = {};
    const find = (list, name, what) => {
        const found = list.findIndex((item) => item.name === name);
        if (found < 0) throw new Error(`${what} has no ${name}, but ${list.map((item) => item.name)}`);
        return found;
    };
    for (const box of columns.flat()) {
        const node = (nodes[box.name] = LiteGraph.createNode(box.type));
        graph.add(node);
        if (box.title) node.title = box.title;
        // In their order: a dynamic combo makes the widgets that follow it.
        for (const [name, value] of Object.entries(box.values)) {
            const widget = node.widgets[find(node.widgets, name, box.name)];
            widget.value = value;
            widget.callback?.(value);
        }
        Object.assign(node.properties, box.properties);
        if (box.colors) [node.color, node.bgcolor] = box.colors;
    }
    for (const [from, output, to, input] of links) {
        const [origin, target] = [nodes[from], nodes[to]];
        origin.connect(find(origin.outputs, output, from), target, find(target.inputs, input, to));
    }
    let x = 0;
    for (const column of columns) {
        let y = TITLE;
        for (const box of column) {
            const node = nodes[box.name];
            const least = node.computeSize();
            node.setSize([Math.max(least[0], box.width), Math.max(least[1], box.height)]);
            node.pos = [x, y];
            y += node.size[1] + TITLE + GAP;
        }
        x += Math.max(...column.map((box) => nodes[box.name].size[0])) + GAP;
    }
    graph.updateExecutionOrder?.();
}
