// Completion for a text area with data-completes="<id of a list of names>": Ctrl+Space or typing shows what fits.
const WORD = /[A-Za-z_][A-Za-z0-9_.]*$/;

function complete(area) {
  const names = [...document.querySelectorAll(`#${area.dataset.completes} li`)].map((item) => item.textContent);
  const list = document.createElement("ul");
  list.className = "completions";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Completions");
  list.hidden = true;
  area.after(list);

  const word = () => (area.value.slice(0, area.selectionStart).match(WORD) || [""])[0];
  const close = () => { list.hidden = true; };
  const put = (name) => {
    const start = area.selectionStart - word().length;
    area.setRangeText(name, start, area.selectionStart, "end");
    close();
    area.focus();
  };
  const show = () => {
    const begun = word();
    const found = begun ? names.filter((name) => name.startsWith(begun) && name !== begun).slice(0, 8) : [];
    list.replaceChildren(...found.map((name) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "btn btn-sm";
      button.textContent = name;
      button.addEventListener("click", () => put(name));
      item.append(button);
      return item;
    }));
    list.hidden = !found.length;
  };
  area.addEventListener("input", show);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && !list.hidden && !event.shiftKey) {
      event.preventDefault();
      put(list.querySelector("button").textContent);
    } else if (event.key === "Escape") {
      close();
    }
  });
}

for (const area of document.querySelectorAll("[data-completes]")) complete(area);
