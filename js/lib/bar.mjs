// The bar of live mode: one line of what is going on, and what can be done about it. It is there while live is on.
const STYLE = `
.zimage-live { position: fixed; left: 50%; bottom: 76px; transform: translateX(-50%); z-index: 900;
  display: flex; align-items: center; gap: 10px; max-width: min(860px, 92vw); padding: 8px 10px 8px 14px;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 10px; background: var(--comfy-menu-bg, #353535);
  color: var(--input-text, #ddd); font: 13px/1.35 system-ui, sans-serif; box-shadow: 0 4px 18px #0008; }
.zimage-live[data-state="error"] { border-color: var(--error-text, #ff4444); }
.zimage-live i { flex: none; width: 9px; height: 9px; border-radius: 50%; background: #3fb950; }
.zimage-live:is([data-state="draft"], [data-state="full"], [data-state="asked"]) i {
  background: #e3a008; animation: zimage-live 1s ease-in-out infinite alternate; }
.zimage-live[data-state="error"] i { background: #f85149; }
@keyframes zimage-live { to { opacity: 0.25; } }
.zimage-live span { flex: 1 1 auto; min-width: 220px; overflow: hidden; display: -webkit-box;
  -webkit-line-clamp: 3; -webkit-box-orient: vertical; }
.zimage-live button { flex: none; padding: 5px 11px; border: 0; border-radius: 6px; cursor: pointer; font: inherit;
  color: inherit; background: var(--comfy-input-bg, #222); white-space: nowrap; }
.zimage-live button:hover { filter: brightness(1.35); }
.zimage-live button:focus-visible { outline: 2px solid #58a6ff; }
.zimage-live button[data-action="off"] { padding: 5px 8px; background: none; }
`;

/** `actions` is a list of {id, text, tip, run}. Returns {show(state, text), remove()}. */
export function makeBar(document, actions) {
  const bar = document.createElement("div");
  bar.className = "zimage-live";
  const style = document.createElement("style");
  style.textContent = STYLE;
  const text = document.createElement("span");
  text.setAttribute("role", "status");
  bar.append(style, document.createElement("i"), text, ...actions.map((action) => button(document, action)));
  document.body.append(bar);
  return {
    show(state, words) {
      bar.dataset.state = state;
      text.textContent = words;
      text.title = words;
    },
    remove: () => bar.remove(),
  };
}

function button(document, { id, text, tip, run }) {
  const made = document.createElement("button");
  made.type = "button";
  made.dataset.action = id;
  made.textContent = text;
  made.title = tip;
  if (!/\p{L}/u.test(text)) made.setAttribute("aria-label", tip);
  made.addEventListener("click", run);
  return made;
}
