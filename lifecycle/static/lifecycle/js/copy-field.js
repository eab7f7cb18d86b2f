// <copy-field value="..."><button hidden>…</button></copy-field>: shows its button, copies the value, says so.
class CopyField extends HTMLElement {
  connectedCallback() {
    const button = this.querySelector("button");
    if (!button || !navigator.clipboard) return; // plain http away from localhost has no clipboard: no dead button
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
