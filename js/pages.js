// Links between our pages. The host's help panel opens any link in a new tab, at an address where no page is; ours open
// over the graph instead, wherever this pack's folder is and in the user's language.
import { app } from "../../scripts/app.js";
import { pageOf, placesOf, showPage } from "./lib/pages.mjs";
import { localeOf } from "./lib/words.mjs";

const DOCS = new URL("docs/", import.meta.url);
const CLOSE = { zh: "关闭" };

/** The text of a page and the folder that its pictures are named from. */
async function read(name) {
  for (const place of placesOf(name, localeOf(app))) {
    const address = new URL(place, DOCS);
    const answer = await fetch(address);
    if (answer.ok) return { text: await answer.text(), folder: new URL(".", address).pathname };
  }
  throw new Error(`${name}.md is not in ${DOCS}`);
}

async function open(name, anchor = "") {
  const { text, folder } = await read(name);
  showPage(document, app.extensionManager.renderMarkdownToHtml(text, folder), anchor, CLOSE[localeOf(app)] ?? "Close");
}

function follow(event) {
  const page = pageOf(event.target.closest?.("a[href]")?.getAttribute("href"));
  if (!page) return;
  event.preventDefault();
  event.stopPropagation();
  open(page.name, page.anchor);
}

app.registerExtension({
  name: "ZImage.Pages",
  setup: () => document.addEventListener("click", follow, { capture: true }),
  commands: [
    { id: "ZImage.Pages.Advice", label: "Z-Image: advice you will meet", icon: "pi pi-book", function: () => open("ZImageAdvice") },
    { id: "ZImage.Pages.Live", label: "Z-Image: help for live mode", icon: "pi pi-book", function: () => open("ZImageLive") },
  ],
  menuCommands: [{ path: ["Extensions", "Z-Image"], commands: ["ZImage.Pages.Advice", "ZImage.Pages.Live"] }],
});
