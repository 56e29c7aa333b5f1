// Words that the host shows as the node gave them, in English, although it has their translation.

/**
 * Gives a node's widgets the tooltips and placeholders of a locale. The host translates a tooltip by itself, but not
 * that of a widget which a dynamic combo adds, and no placeholder at all. `inputs` is the node's part of the locale.
 */
export function translateWidgets(widgets, inputs) {
  for (const widget of widgets ?? []) {
    const words = inputs?.[widget.name.replaceAll(".", "_")];
    if (words?.tooltip && widget.tooltip) widget.tooltip = words.tooltip;
    if (words?.placeholder && widget.element) widget.element.placeholder = words.placeholder;
  }
}
