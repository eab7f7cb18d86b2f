// Accessibility and polling for htmx swaps. The target is busy while it loads. Focus stays on the trigger or moves to
// [data-focus] in the new content. The live region announces changes, and errors that are not a fragment.
// Polling regions have hx-trigger="every 2s". They pause while the tab is hidden, a dialog is open, rows are selected, or [data-pauses] is
// pressed. A region with data-etag requests only newer content. Open details and scroll positions of logs are kept.
const isPoll = (elt) => (elt.getAttribute?.("hx-trigger") ?? "").includes("every");
let isPaused = false;
const rests = () => document.hidden || isPaused || document.querySelector("dialog[open], .bulk-box:checked") !== null;
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
    event.detail.shouldSwap = false; // the session has expired: show the sign-in on the whole page, not inside a region
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
      if (live && !event.detail.elt.matches(".is-stale")) live.textContent = "The server does not respond. This page may be out of date.";
      event.detail.elt.classList.add("is-stale");
      return;
    }
    const status = event.detail.xhr?.status;
    if (live) live.textContent = status ? `The request failed (${status}). Reload the page.` : "The server did not respond. Your text is still here. Try again.";
    live?.classList.remove("sr-only");
  });
