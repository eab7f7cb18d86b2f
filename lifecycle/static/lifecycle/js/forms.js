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

// A button that needs a text moves the focus to the empty field: <button data-needs="id of the field">.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-needs]");
  const field = button && document.getElementById(button.dataset.needs);
  if (!field || field.value.trim()) return;
  event.preventDefault();
  field.focus();
  const live = document.getElementById("live");
  if (live) live.textContent = `Enter a reason first, then ${button.textContent.trim().split(/\s/)[0].toLowerCase()}.`;
});
