// The search dialog: Ctrl+K (or Cmd+K) opens it, arrow keys move through the results, Enter opens the first one.
// htmx loads the results. Without script, the link in the bar leads to the search page.
const dialog = document.getElementById("palette");
const input = document.getElementById("palette-q");
const hits = document.getElementById("palette-hits");

if (dialog) {
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey || event.key.toLowerCase() !== "k") return;
    event.preventDefault();
    if (dialog.open) {
      dialog.close();
      return;
    }
    for (const other of document.querySelectorAll("dialog[open]")) other.close();
    dialog.showModal();
    input.select();
  });
  dialog.addEventListener("keydown", (event) => {
    const links = [...hits.querySelectorAll("a[data-row-link]")];
    const now = links.indexOf(document.activeElement);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const next = now + (event.key === "ArrowDown" ? 1 : -1);
      (next < 0 ? input : links[Math.min(next, links.length - 1)])?.focus();
    } else if (event.key === "Enter" && event.target === input && links.length > 0 && hits.dataset.for === input.value.trim()) {
      event.preventDefault();
      links[0].click();
    }
  });
  // Enter opens the first result only if the results are those of the text; else the form opens the search page.
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === hits) hits.dataset.for = new URL(event.detail.xhr.responseURL).searchParams.get("q") ?? "";
  });
}
