// What a cell shows: the page's stored output until the cell runs, then its own, in the same boxes and styles.

const STREAMS = new Set(["stdout", "stderr"]);

function box(name, text) {
  const output = document.createElement("div");
  output.className = `output ${name} notranslate`;
  const frame = output.appendChild(document.createElement("div"));
  frame.className = "highlight";
  const pre = frame.appendChild(document.createElement("pre"));
  pre.textContent = text;
  return output;
}

export class Outputs {
  #root;
  #number;
  #stored;
  #own = null;
  #pending = false; // the last run's output stays until the new one begins, so that the page does not jump
  #figures = 0;
  #addresses = [];

  constructor(root, number) {
    this.#root = root;
    this.#number = number;
    this.#stored = root.querySelector(".cell_output");
  }

  get replaced() { return this.#own !== null; }
  get text() { return (this.#own?.textContent ?? "").trim(); }
  get #shown() { return this.#own ?? this.#stored; }

  begin() {
    this.#pending = true;
    this.#shown?.classList.add("live-old");
  }

  /** Remove what is shown and put an empty box of our own in its place. */
  clear() {
    this.#pending = false;
    const own = document.createElement("div");
    own.className = "cell_output live-output docutils container";
    if (this.#shown) this.#shown.replaceWith(own);
    else this.#root.querySelector(".live-bar").after(own);
    this.#release();
    this.#own = own;
    this.#figures = 0;
  }

  end(changed) {
    if (this.#pending) this.clear();
    this.#own.classList.toggle("live-changed", changed);
    for (const image of this.#own.querySelectorAll("img[data-book-alt]")) {
      image.alt = changed ? `Drawn by your version of cell ${this.#number}. The book's figure: ${image.dataset.bookAlt}` : image.dataset.bookAlt;
    }
    for (const wide of this.#own.querySelectorAll(".highlight pre")) { // reached with the keyboard, as _static/book.js does
      if (wide.scrollWidth > wide.clientWidth + 1 || wide.scrollHeight > wide.clientHeight + 1) {
        wide.tabIndex = 0;
        wide.setAttribute("role", "group");
        wide.setAttribute("aria-label", `Output of cell ${this.#number}`);
      }
    }
  }

  restore() {
    if (!this.#own) return;
    this.#stored?.classList.remove("live-old");
    if (this.#stored) this.#own.replaceWith(this.#stored);
    else this.#own.remove();
    this.#release();
    this.#own = null;
  }

  add(kind, data) {
    if (this.#pending || !this.#own) this.clear();
    const last = this.#own.lastElementChild;
    if (STREAMS.has(kind)) {
      if (last?.dataset.kind === kind) last.querySelector("pre").append(data);
      else this.#own.append(box(kind === "stdout" ? "stream" : "stream stderr", data));
      this.#own.lastElementChild.dataset.kind = kind;
    } else if (kind === "image") this.#own.append(this.#figure(data));
    else if (kind === "html") this.#html(data);
    else this.#own.append(box({ error: "live-error", note: "live-note", result: "text_plain" }[kind], data));
  }

  /** A picture, in the page's figure (its caption, its number, its address) if it is the cell's first. */
  #figure(bytes) {
    const address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    this.#addresses.push(address);
    const model = this.#figures++ ? null : this.#stored?.querySelector("figure:has(> img), figure:has(> a > img)");
    const figure = model ? model.cloneNode(true) : document.createElement("img");
    const image = model ? figure.querySelector("img") : figure;
    image.src = address;
    if (model) image.dataset.bookAlt = image.alt;
    else image.alt = `Figure ${this.#figures} drawn by cell ${this.#number}.`;
    return figure;
  }

  /** Markup that an object gives of itself; a figure that answers comes alive as the page's own do. */
  #html(markup) {
    const output = document.createElement("div");
    output.className = "output text_html";
    output.innerHTML = markup;
    this.#own.append(output);
    if (output.querySelector("figure.live-figure")) {
      // The loader looks for figures when it is loaded: a new address loads it again.
      import(`../live-figures/load.mjs?again=${performance.now()}`).catch(() => {});
    }
  }

  #release() {
    for (const address of this.#addresses.splice(0)) URL.revokeObjectURL(address);
  }
}
