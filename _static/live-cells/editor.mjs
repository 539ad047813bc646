// The code of a cell as something to type in: a textarea, so that phones, screen readers and undo work as everywhere.

const INDENT = "    ";

export class Editor {
  #area;
  #code;
  #shown;
  #text;

  /** `input` is the page's box of code; `on` has run(), left() and changed(). */
  constructor(input, label, text, on) {
    this.#code = input.querySelector("pre");
    this.#shown = this.#code.innerHTML; // with its colours, for when the text is the original again
    this.original = this.#text = text;
    this.#area = document.createElement("textarea");
    Object.assign(this.#area, { className: "live-editor", hidden: true, spellcheck: false, wrap: "off", value: text });
    for (const [name, value] of Object.entries({ "aria-label": label, autocapitalize: "off", autocomplete: "off", autocorrect: "off" })) this.#area.setAttribute(name, value);
    this.#area.addEventListener("input", () => {
      this.#text = this.#area.value;
      this.#fit();
      on.changed();
    });
    this.#area.addEventListener("keydown", (event) => this.#key(event, on));
    this.#code.after(this.#area);
  }

  get open() { return !this.#area.hidden; }
  get text() { return this.#text; }
  set text(text) {
    this.#text = this.#area.value = text;
    if (text === this.original) this.#code.innerHTML = this.#shown;
    else this.#code.textContent = text;
    this.#fit();
  }

  describedBy(id) { this.#area.setAttribute("aria-describedby", id); }
  focus() { this.#area.focus(); }

  toggle(open) {
    if (open === this.open) return;
    if (open) this.#area.value = this.#text;
    else this.text = this.#text;
    this.#area.hidden = !open;
    this.#code.hidden = open;
    this.#fit();
  }

  #fit() { this.#area.rows = Math.max(2, this.#text.split("\n").length); }

  #key(event, on) {
    if (event.isComposing || event.altKey) return;
    if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      on.run();
    } else if (event.key === "Escape") {
      event.preventDefault();
      on.left();
    } else if (event.key === "Tab" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault(); // Escape leaves, as the line below the editor says
      this.#indent(event.shiftKey);
    } else if (event.key === "Enter") {
      const before = this.#area.value.slice(0, this.#area.selectionStart);
      const line = before.slice(before.lastIndexOf("\n") + 1);
      const margin = line.match(/^ */)[0] + (/:\s*(#.*)?$/.test(line) ? INDENT : "");
      if (!margin) return;
      event.preventDefault();
      this.#type(`\n${margin}`);
    }
  }

  /** Type as a person would, so that undo takes it back. */
  #type(text) {
    // The one way that keeps the browser's own undo; where it does not exist, the text is put in without.
    if (!document.execCommand(text ? "insertText" : "delete", false, text)) {
      this.#area.setRangeText(text, this.#area.selectionStart, this.#area.selectionEnd, "end");
      this.#area.dispatchEvent(new Event("input"));
    }
  }

  #indent(back) {
    const { value, selectionStart: from, selectionEnd: to } = this.#area;
    if (from === to && !back) return this.#type(INDENT.slice((from - (value.lastIndexOf("\n", from - 1) + 1)) % INDENT.length));
    const first = value.lastIndexOf("\n", from - 1) + 1;
    const found = value.indexOf("\n", Math.max(to - 1, from));
    const last = found < 0 ? value.length : found;
    const lines = value.slice(first, last).split("\n");
    const moved = lines.map((line) => (back ? line.replace(/^ {1,4}/, "") : line && INDENT + line)).join("\n");
    if (moved === lines.join("\n")) return;
    this.#area.setSelectionRange(first, last);
    this.#type(moved);
    this.#area.setSelectionRange(from === to ? Math.max(first, from - (last - first - moved.length)) : first, from === to ? Math.max(first, from - (last - first - moved.length)) : first + moved.length);
  }
}
