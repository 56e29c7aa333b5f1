// Words that the host shows as the node gave them, in English, although it has their translation.

/**
 * Gives a node the tooltips and placeholders of a locale, and frees the names of sockets that a dynamic combo adds. The
 * host translates names and tooltips by itself, but neither the tooltip of a widget nor the name of a socket that such a
 * combo adds, and no placeholder at all. `words` are those of the node's inputs, by name.
 */
export function translateNode(node, words) {
  const of = (name) => words[name.replaceAll(".", "_")];
  for (const input of node.inputs ?? []) {
    // Without this label the host shows its own translation, which it also keeps up in saved graphs.
    if (input.label === (input.name.split(".")[1] ?? "") && of(input.name)?.name) delete input.label;
  }
  for (const widget of node.widgets ?? []) translateWidget(widget, of(widget.name));
}

function translateWidget(widget, words) {
  if (words?.tooltip && widget.tooltip) widget.tooltip = words.tooltip;
  if (words?.placeholder && widget.element) widget.element.placeholder = words.placeholder;
}
