// Extras for forms, which also work without script: show a password, select all rows, submit a filter on change.
document.addEventListener("click", (event) => {
  const show = event.target.closest("[data-shows-password]");
  if (!show) return;
  const input = document.getElementById(show.getAttribute("aria-controls"));
  const shown = input.type === "text";
  input.type = shown ? "password" : "text";
  show.setAttribute("aria-pressed", String(!shown));
  show.querySelector("span").textContent = shown ? "Show" : "Hide";
});
for (const button of document.querySelectorAll("[data-shows-password]")) button.hidden = false;

document.addEventListener("change", (event) => {
  const all = event.target.closest("[data-selects]");
  if (all) for (const box of document.querySelectorAll(all.dataset.selects)) box.checked = all.checked;
  if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
});

// Rejecting needs a reason: <button data-needs="id of the field">. Without one, the button moves the focus to the field.
// Until the reader leaves it with Escape, only Reject can be sent, with Tab and Enter or with Ctrl+Enter: one slip of
// the keyboard must not approve what the reader is about to reject.
const partsOf = (form) => [form.querySelector("[data-decides]"), [...form.querySelectorAll("button:not([data-decides])")]];
function isRejecting(form, on) {
  form.toggleAttribute("data-rejects", on);
  for (const button of partsOf(form)[1]) button.disabled = on;
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-needs]");
  const field = button && document.getElementById(button.dataset.needs);
  if (!field || field.value.trim()) return;
  event.preventDefault();
  if (button.form.matches("[data-decision]")) isRejecting(button.form, true);
  field.focus();
  const live = document.getElementById("live");
  const word = button.textContent.trim().split(/\s/)[0].toLowerCase();
  if (live) live.textContent = `Enter a reason, then press Control and Enter to ${word}, or Escape to go back.`;
});
document.addEventListener("keydown", (event) => {
  const form = event.target.closest?.("form[data-decision]");
  if (!form || !event.target.matches("textarea")) return;
  const [reject] = partsOf(form);
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (form.hasAttribute("data-rejects")) reject.click();
    else {
      const live = document.getElementById("live");
      if (live) live.textContent = "Press Escape, then a to approve or r to reject.";
    }
  } else if (event.key === "Escape") {
    event.preventDefault();
    isRejecting(form, false);
    const row = document.querySelector(".request.is-selected a[data-row-link]");
    if (row) row.focus();
    else event.target.blur();
  }
});

// The number of selected rows, in the bar below the list.
document.addEventListener("change", (event) => {
  if (!event.target.matches(".bulk-box")) return;
  for (const label of document.querySelectorAll("[data-bulk-count]"))
    label.textContent = `${document.querySelectorAll(".bulk-box:checked").length} selected`;
});
