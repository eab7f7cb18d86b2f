// The inbox. On a wide screen, selecting a request shows its details beside the list. On a narrow screen, without
// script, or with Enter on the link, the link opens the page of the request.
const wide = matchMedia("(min-width: 1100px)");
let timer = 0;

function choose(link) {
  const row = link.closest("[data-row]");
  if (row.classList.contains("is-selected")) return;
  for (const other of document.querySelectorAll(".request.is-selected")) other.classList.remove("is-selected");
  row.classList.add("is-selected");
  // Until the details are loaded, a key must not approve or reject the request shown before.
  for (const button of document.querySelectorAll("#detail button")) button.disabled = true;
  clearTimeout(timer);
  const chosen = document.getElementById("inbox-chosen");
  if (chosen) chosen.value = link.dataset.request; // a poll of the lists marks the same row
  timer = setTimeout(() => {
    window.htmx.ajax("GET", link.dataset.detail, { source: link, target: "#detail", swap: "outerHTML" });
    history.replaceState(null, "", `?request=${link.dataset.request}`);
  }, 80);
}

const linkOf = (event) => (wide.matches ? event.target.closest("a[data-detail]") : null);
document.addEventListener("focusin", (event) => {
  const link = linkOf(event);
  if (link) choose(link);
});
document.addEventListener("click", (event) => {
  const link = linkOf(event);
  const isPlain = event.detail > 0 && event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (!link || !isPlain) return; // Enter on the link has a click count of 0 and opens the page
  event.preventDefault();
  link.focus();
  choose(link);
});
