// <copy-field value="..."><button hidden>…</button></copy-field>: shows the button, copies the value and announces it.
class CopyField extends HTMLElement {
  connectedCallback() {
    const button = this.querySelector("button");
    if (!button || !navigator.clipboard) return; // no clipboard on plain http, except on localhost: keep the button hidden
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(this.getAttribute("value") ?? "");
      this.classList.add("copied");
      const live = document.getElementById("live");
      if (live) live.textContent = "Copied.";
      setTimeout(() => this.classList.remove("copied"), 1600);
    });
  }
}
customElements.define("copy-field", CopyField);
