// What each htmx swap owes its reader (ux.md 6): the target is busy while it loads, focus stays on the trigger or goes
// to the new region's [data-focus], a short announcement reaches the one live region, errors that are not a fragment
// say so there too. Polling regions carry hx-trigger="every 2s"; with the tab hidden they rest.
document.addEventListener("htmx:beforeRequest", (event) => {
  const polls = (event.detail.elt.getAttribute("hx-trigger") ?? "").includes("every");
  if (polls && document.hidden) {
    event.preventDefault();
    return;
  }
  if (!polls) event.detail.target.setAttribute("aria-busy", "true");
});
document.addEventListener("htmx:afterRequest", (event) => event.detail.target?.removeAttribute("aria-busy"));
document.addEventListener("htmx:afterSwap", (event) => {
  const target = document.getElementById(event.detail.target.id) ?? event.detail.target;
  const focus = target.matches("[data-focus]") ? target : target.querySelector("[data-focus], .error-summary");
  if (focus && !event.detail.elt.matches("[data-keeps-focus]")) {
    focus.setAttribute("tabindex", "-1");
    focus.focus({ preventScroll: false });
  }
  const words = target.matches("[data-announce]") ? target : target.querySelector("[data-announce]");
  const live = document.getElementById("live");
  if (words && live && live.textContent !== words.dataset.announce) live.textContent = words.dataset.announce;
});
for (const name of ["htmx:sendError", "htmx:responseError"])
  document.addEventListener(name, (event) => {
    if ((event.detail.elt.getAttribute("hx-trigger") ?? "").includes("every")) return;
    const live = document.getElementById("live");
    const status = event.detail.xhr?.status;
    if (live) live.textContent = status ? `That did not work (${status}). Load the page again to see its state.` : "The server did not answer. Your text is still here: try again.";
    live?.classList.remove("sr-only");
  });
