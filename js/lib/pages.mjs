// Which links lead to our own pages, and the dialog that shows such a page.
const STYLE = `
.zimage-page { width: min(820px, 92vw); max-height: 86vh; padding: 0; border: 1px solid var(--border-color, #4e4e4e);
  border-radius: 12px; background: var(--comfy-menu-bg, #353535); color: var(--input-text, #ddd);
  font: 14px/1.55 system-ui, sans-serif; box-shadow: 0 8px 40px #000a; }
.zimage-page::backdrop { background: #0008; }
.zimage-page > button { position: sticky; top: 10px; float: right; margin: 10px 10px 0 0; width: 32px; height: 32px;
  border: 0; border-radius: 8px; cursor: pointer; font-size: 15px; color: inherit;
  background: var(--comfy-input-bg, #222); }
.zimage-page article { padding: 20px 32px 32px; overflow-wrap: break-word; }
.zimage-page :is(h1, h2, h3) { margin: 1.4em 0 0.5em; line-height: 1.25; font-weight: 650; scroll-margin-top: 12px; }
.zimage-page h1 { margin-top: 0; font-size: 24px; }
.zimage-page h2 { font-size: 18px; }
.zimage-page :is(p, ul, ol, table, img) { margin: 0.7em 0; }
.zimage-page ul { padding-left: 1.4em; list-style: disc; }
.zimage-page ol { padding-left: 1.6em; list-style: decimal; }
.zimage-page img { display: block; max-width: 100%; border-radius: 6px; }
.zimage-page a { color: #6cb2ff; text-decoration: underline; }
.zimage-page table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 13px; }
.zimage-page :is(th, td) { padding: 4px 12px 4px 0; text-align: left; border-bottom: 1px solid #8884; }
.zimage-page code { padding: 1px 5px; border-radius: 4px; background: var(--comfy-input-bg, #222); font-size: 12.5px; }
.zimage-page pre { overflow-x: auto; padding: 10px 12px; border-radius: 6px; background: var(--comfy-input-bg, #222); }
`;

/**
 * The page that a link of ours names: `ZImageAdvice.md#steps`, or in Chinese `../ZImageAdvice/zh.md#steps`.
 * Returns {name, anchor}, or null for any other link: that is the browser's.
 */
export function pageOf(href) {
  const found = /^(?:\.\.\/)?(ZImage\w+)(?:\/zh)?\.md(?:#(.*))?$/.exec(href ?? "");
  return found && { name: found[1], anchor: decodeURIComponent(found[2] ?? "") };
}

/** Where a page is, below the folder of pages: in the language of a locale first, then in English. */
export function placesOf(name, locale) {
  return locale === "en" ? [`${name}.md`] : [`${name}/${locale}.md`, `${name}.md`];
}

/** What GitHub makes of a heading, so that one link serves both. */
export function anchorOf(heading) {
  return heading.trim().toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/\s/g, "-");
}

/** Shows `html` over the page, at a heading if one is named. A page that is open gives way. */
export function showPage(document, html, anchor, close) {
  document.querySelector("dialog.zimage-page")?.remove();
  const dialog = document.createElement("dialog");
  dialog.className = "zimage-page";
  const style = document.createElement("style");
  style.textContent = STYLE;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "✕";
  button.title = close;
  button.setAttribute("aria-label", close);
  const article = document.createElement("article");
  article.innerHTML = html;
  dialog.append(style, button, article);
  button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // not the graph's shortcuts
  document.body.append(dialog);
  dialog.showModal();
  const headings = [...article.querySelectorAll("h1, h2, h3")];
  headings.find((heading) => anchor && anchorOf(heading.textContent) === anchor)?.scrollIntoView();
  return dialog;
}
