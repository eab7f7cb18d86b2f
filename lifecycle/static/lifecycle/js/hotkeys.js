// Keyboard shortcuts: a key clicks or focuses the visible element with data-key="…" ("g i" is a sequence).
// `j`, `k` and `x` move and select rows with [data-row]. Users can turn off single keys in the help dialog
// (WCAG 2.1.4); the choice is stored in this browser.
const OFF = "gravingdock.keys.off";
const root = document.documentElement;
let waiting = "";
let timer = 0;

const isOff = () => localStorage.getItem(OFF) === "1";
const isTyping = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;
const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);

function move(step) {
  const all = rows();
  if (all.length === 0) return;
  const now = all.findIndex((row) => row.contains(document.activeElement) || row.matches(".is-selected, [aria-selected=true]"));
  const next = all[Math.min(all.length - 1, Math.max(0, now + (now < 0 ? 1 : step)))];
  const link = next.querySelector("a[data-row-link], a, button");
  link?.focus();
  next.scrollIntoView({ block: "nearest" });
}

function act(key) {
  const control = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!control) return false;
  if (control.matches("input:not([type=checkbox]), textarea, select")) control.focus();
  else control.click();
  return true;
}

function help() {
  document.getElementById("keys-help")?.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey) return;
  if (event.ctrlKey || event.metaKey || isTyping(event.target) || isOff() || document.querySelector("dialog[open]")) return;
  const key = waiting + event.key;
  clearTimeout(timer);
  waiting = "";
  let done = true;
  if (key === "?") help();
  else if (key === "/") document.querySelector("[data-search]")?.focus();
  else if (key === "j") move(1);
  else if (key === "k") move(-1);
  else if (key === "x") document.activeElement?.closest("[data-row]")?.querySelector("input[type=checkbox]")?.click();
  else if (key === "y") navigator.clipboard?.writeText(location.href);
  else if (event.key === "g" && key === "g") {
    waiting = "g ";
    timer = setTimeout(() => (waiting = ""), 1200);
  } else done = act(key);
  if (done) event.preventDefault();
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-opens-help]")) help();
  const opener = event.target.closest("[data-opens-dialog]");
  const dialog = opener && document.getElementById(opener.dataset.opensDialog);
  if (dialog) {
    event.preventDefault(); // without script, the same link opens a page with the form
    dialog.showModal();
  }
  const closer = event.target.closest("[data-closes-dialog]");
  if (closer) closer.closest("dialog")?.close();
});

const box = document.getElementById("keys-on");
root.classList.toggle("no-keys", isOff());
if (box) {
  box.checked = !isOff();
  box.addEventListener("change", () => {
    if (box.checked) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "1");
    root.classList.toggle("no-keys", !box.checked);
  });
}
