// What each htmx swap owes its reader: the target is busy while it loads, focus stays on the trigger or goes
// to the new region's [data-focus], a short announcement reaches the one live region, errors that are not a fragment
// say so there too. Polling regions carry hx-trigger="every 2s"; with the tab hidden, paused by [data-pauses], or with a
// dialog open they rest. A region with data-etag asks only for what is newer than it; what its reader had opened, and
// where its logs were scrolled to, stays across the swap.
const isPoll = (elt) => (elt.getAttribute?.("hx-trigger") ?? "").includes("every");
let isPaused = false;
const rests = () => document.hidden || isPaused || document.querySelector("dialog[open]") !== null;
document.addEventListener("htmx:configRequest", (event) => {
  const etag = event.detail.elt.dataset.etag;
  if (etag && isPoll(event.detail.elt)) event.detail.headers["If-None-Match"] = `"${etag}"`;
});
document.addEventListener("click", (event) => {
  const pause = event.target.closest("[data-pauses]");
  if (!pause) return;
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
  pause.querySelector("span").textContent = isPaused ? "Resume updates" : "Pause updates";
});
let places = new Map();
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.responseURL.includes("/accounts/sign-in/")) {
    event.detail.shouldSwap = false; // the session has ended: the whole page asks to sign in, not a part of it
    location.reload();
    return;
  }
  if (!isPoll(event.detail.elt)) return;
  if (rests()) event.detail.shouldSwap = false;
  places = new Map();
  for (const part of event.detail.target.querySelectorAll("details[id], .log[id]"))
    places.set(part.id, { open: part.open, top: part.scrollTop, atEnd: part.scrollTop + part.clientHeight >= part.scrollHeight - 8 });
});
function follow(root) {
  for (const part of root.querySelectorAll(".log[id]")) {
    const place = places.get(part.id);
    if (!place || place.atEnd) part.scrollTop = part.scrollHeight;
    else part.scrollTop = place.top;
  }
}
follow(document);
document.addEventListener("htmx:afterSwap", (event) => {
  if (!isPoll(event.detail.elt)) return;
  const root = document.getElementById(event.detail.target.id) ?? document;
  for (const part of root.querySelectorAll("details[id]")) if (places.has(part.id)) part.open = places.get(part.id).open;
  follow(root);
});
document.addEventListener("htmx:beforeRequest", (event) => {
  const polls = isPoll(event.detail.elt);
  if (polls && rests()) {
    event.preventDefault();
    return;
  }
  if (!polls) event.detail.target.setAttribute("aria-busy", "true");
});
document.addEventListener("htmx:afterRequest", (event) => {
  event.detail.target?.removeAttribute("aria-busy");
  if (event.detail.successful || event.detail.xhr?.status === 304) event.detail.elt.classList.remove("is-stale");
});
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
    const live = document.getElementById("live");
    if (isPoll(event.detail.elt)) {
      if (live && !event.detail.elt.matches(".is-stale")) live.textContent = "The server does not answer: this page may be out of date.";
      event.detail.elt.classList.add("is-stale");
      return;
    }
    const status = event.detail.xhr?.status;
    if (live) live.textContent = status ? `That did not work (${status}). Load the page again to see its state.` : "The server did not answer. Your text is still here: try again.";
    live?.classList.remove("sr-only");
  });
