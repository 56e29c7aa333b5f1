// Room for nodes that became higher: what stood clear below one goes on to do so, and groups go on to hold theirs.

const TITLE = 30; // above a node's own place
const GAP = 12; // between a node and the next one's title, where they were no nearer

/** The places and sizes of a graph's nodes, by id. */
export const boxesOf = (nodes) => new Map([...nodes].map(([id, node]) => [id, boxOf(node)]));

function boxOf({ pos, size, flags }) {
  const [left, y] = [Number(pos[0]), Number(pos[1])];
  return { left, right: left + Number(size[0]), top: y - TITLE, bottom: y + (flags?.collapsed ? 0 : Number(size[1])) };
}

/** `before` is of `boxesOf`; nodes are moved down and groups grow as far as the nodes that grew since demand it. */
export function makeRoom(nodes, groups, before) {
  const down = [...nodes].filter(([, node]) => !node.flags?.pinned).sort(([a], [b]) => before.get(a).top - before.get(b).top);
  const now = (id) => boxOf(nodes.get(id));
  for (const [id, node] of down) {
    const old = before.get(id);
    const over = [...nodes.keys()].filter((other) => other !== id && isAbove(before.get(other), old));
    const least = over
      .filter((other) => now(other).bottom > before.get(other).bottom)
      .map((other) => now(other).bottom + Math.min(GAP, old.top - before.get(other).bottom) - old.top);
    const by = Math.max(0, ...least);
    if (by) node.pos = [node.pos[0], node.pos[1] + by];
  }
  for (const group of groups ?? []) {
    const [x, y, width, height] = group.bounding;
    const held = [...nodes.keys()].filter((id) => isIn(before.get(id), x, y, width, height));
    const need = held.map((id) => now(id).bottom + GAP).filter((bottom, index) => bottom > before.get(held[index]).bottom + GAP);
    group.bounding = [x, y, width, Math.max(height, ...need.map((bottom) => bottom - y))];
  }
}

const isAbove = (upper, lower) => upper.bottom <= lower.top && upper.left < lower.right && lower.left < upper.right;

function isIn({ left, right, top, bottom }, x, y, width, height) {
  const [middle, centre] = [(left + right) / 2, (top + bottom) / 2];
  return middle > x && middle < x + width && centre > y && centre < y + height;
}
