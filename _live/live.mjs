// Cells that run on the page: Run, Edit, Reset, Stop, and one Python for the whole page, started by the first Run.
// Running a cell runs the cells above that have not been run, so that no name is missing. Nothing leaves this computer.

const facts = JSON.parse(document.querySelector('meta[name="live-cells"]').content); // {ready, megabytes, extras}
const ELSEWHERE = /^\s*(?:import|from)\s+(torch|triton|attnlib\.(?:layers|flash|kernels|sparse|linear|memory|hierarchy|span|cache|ring|measure|models))\b/m;
const FIGURE = /attnlib\.widgets/;
const SKIPPED_ABOVE = ["tag_ex-solution", "tag_ex-check"]; // unless asked for: a solution would replace the reader's answer
const page = location.pathname.split("/").pop();

function h(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "text") node.textContent = value;
    else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const spoken = h("p", { class: "live-spoken", "aria-live": "polite" });
const announce = (text) => { spoken.textContent = text; };

/** What the reader changed, kept by this browser; forgotten if the book's own cell changes. */
const drafts = {
  key: (cell) => `live:${page}:${cell.number}:${cell.original.length}:${[...cell.original].reduce((a, c) => (31 * a + c.charCodeAt(0)) | 0, 7)}`,
  read(cell) { try { return localStorage.getItem(this.key(cell)); } catch { return null; } },
  write(cell, code) { try { code === null ? localStorage.removeItem(this.key(cell)) : localStorage.setItem(this.key(cell), code); } catch { /* kept nowhere */ } },
};

/** The page's one Python. `state` is none, starting, ready or busy. */
const python = {
  worker: null,
  state: "none",
  waiting: null, // {cell, resolve} of the cell that runs
  start() {
    if (this.starting) return this.starting;
    this.state = "starting";
    this.starting = new Promise((resolve, reject) => {
      this.worker = new Worker(new URL("./worker.mjs", import.meta.url), { type: "module" });
      this.worker.onmessage = ({ data }) => {
        if (data.kind === "ready") { this.state = "ready"; resolve(); }
        else if (data.kind === "failed" && this.state === "starting") reject(new Error(data.text));
        else this.hear(data);
      };
      this.worker.onerror = (event) => reject(new Error(event.message || "the worker could not be loaded"));
      this.reject = reject;
      this.worker.postMessage({ kind: "start", extras: facts.extras });
    });
    this.starting.catch(() => this.end());
    return this.starting;
  },
  hear(data) {
    const cell = this.waiting?.cell;
    if (data.kind === "phase") { (cell ?? this.asking)?.say(`${data.text} …`); return; }
    if (!cell) return;
    if (data.kind === "done" || data.kind === "failed") {
      const { resolve } = this.waiting;
      this.waiting = null;
      this.state = "ready";
      if (data.kind === "failed") cell.add("error", data.text);
      resolve(data.kind === "done" ? data.error : data.text);
    } else cell.add(data.kind, data.text);
  },
  run(cell) {
    this.state = "busy";
    return new Promise((resolve) => {
      this.waiting = { cell, resolve };
      this.worker.postMessage({ kind: "run", cell: cell.number, code: cell.code() });
    });
  },
  end() {
    this.worker?.terminate();
    this.reject?.(new Error("stopped"));
    const waiting = this.waiting;
    Object.assign(this, { worker: null, state: "none", starting: null, waiting: null, reject: null });
    waiting?.resolve("stopped");
  },
};

const cells = [];

class Cell {
  constructor(node, number) {
    this.node = node;
    this.number = number;
    this.input = node.querySelector("div.cell_input");
    this.pre = this.input.querySelector("pre");
    this.original = this.pre.textContent.replace(/\n$/, "");
    this.stored = node.querySelector("div.cell_output");
    this.has = (name) => node.classList.contains(name);
    this.elsewhere = this.has("tag_torch-check") ? "torch" : (this.original.match(ELSEWHERE)?.[1] ?? null);
    this.figure = FIGURE.test(this.original);
    this.done = false;
    this.bar();
    const draft = drafts.read(this);
    if (draft !== null && this.runs) { this.edit(false); this.area.value = draft; this.fit(); this.changed(); }
  }

  get runs() { return !this.elsewhere && !this.figure; }
  code() { return this.area ? this.area.value : this.original; }
  say(text) { this.status.textContent = text; }

  bar() {
    const button = (text, press) => h("button", { type: "button", class: "live-button", text, "aria-label": `${text} cell ${this.number}`, onclick: press });
    this.status = h("span", { class: "live-status" });
    this.tools = h("div", { class: "live-tools" });
    if (!this.runs) {
      const named = { torch: "PyTorch", triton: "Triton" }[this.elsewhere?.split(".")[0]] ?? "PyTorch";
      this.say(this.figure ? "This figure is alive already: try it." : `This cell needs ${named}: run it in the notebook, on your computer.`);
      this.tools.append(this.status);
    } else {
      this.runButton = button(this.has("tag_ex-check") ? "Check" : "Run", () => this.runWithAbove());
      this.editButton = button("Edit", () => this.edit(true));
      this.resetButton = button("Reset", () => this.reset());
      this.stopButton = button("Stop", () => stop());
      this.resetButton.hidden = this.stopButton.hidden = true;
      this.tools.append(this.runButton, this.stopButton, this.editButton, this.resetButton, this.status);
    }
    this.input.after(this.tools);
  }

  edit(focus) {
    if (!this.area) {
      const hint = h("span", { class: "live-hint", id: `live-hint-${this.number}`, text: "Shift+Enter runs. Tab indents; Escape, then Tab, leaves." });
      this.area = h("textarea", { class: "live-area", spellcheck: "false", autocapitalize: "off", autocomplete: "off", autocorrect: "off", wrap: "off",
        "aria-label": `Code of cell ${this.number}`, "aria-describedby": hint.id, oninput: () => { this.fit(); this.changed(); }, onkeydown: (event) => this.key(event) });
      this.area.value = this.original;
      this.pre.hidden = true;
      this.pre.after(this.area);
      this.tools.append(hint);
      this.hint = hint;
      this.editButton.hidden = true;
      this.resetButton.hidden = false;
      this.fit();
    }
    if (focus) this.area.focus();
  }

  fit() { this.area.rows = Math.max(2, this.area.value.split("\n").length); }

  changed() {
    drafts.write(this, this.area.value === this.original ? null : this.area.value);
    this.done = false;
  }

  key(event) {
    if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) { event.preventDefault(); this.runWithAbove(); }
    else if (event.key === "Escape") this.leaving = true;
    else if (event.key === "Tab" && !event.shiftKey && !this.leaving) {
      event.preventDefault();
      this.area.setRangeText("    ", this.area.selectionStart, this.area.selectionEnd, "end");
      this.area.dispatchEvent(new Event("input"));
    } else this.leaving = false;
  }

  reset() {
    if (this.area) {
      this.area.remove();
      this.hint.remove();
      this.area = null;
      this.pre.hidden = false;
      this.editButton.hidden = false;
    }
    drafts.write(this, null);
    this.out?.remove();
    this.out = null;
    if (this.stored) this.stored.hidden = false;
    this.done = false;
    this.resetButton.hidden = true;
    this.say("");
    this.runButton.focus();
    announce(`Cell ${this.number} is as it was.`);
  }

  // Output -------------------------------------------------------------------------------------------------------------

  clear() {
    this.out?.remove();
    this.drawn = 0;
    this.out = h("div", { class: "cell_output docutils container live-output" });
    (this.stored ?? this.tools).after(this.out);
    if (this.stored) this.stored.hidden = true;
    this.last = null;
  }

  add(kind, text) {
    if (kind === "figure") { this.picture(text); return; }
    if (kind === "html") { this.out.append(h("div", { class: "output text_html" })); this.out.lastChild.innerHTML = text; this.last = null; return; }
    if (this.last?.kind !== kind || kind === "result") {
      const pre = h("pre", { class: kind === "error" ? "live-error" : "" });
      this.out.append(h("div", { class: kind === "stderr" || kind === "error" ? "output stderr highlight" : "output highlight" }, h("div", { class: "highlight" }, pre)));
      this.last = { kind, pre };
    }
    this.last.pre.textContent += text;
  }

  /** Long output scrolls in its own box, which the keyboard must reach. */
  finish() {
    this.last = null;
    for (const pre of this.out.querySelectorAll("pre"))
      if (pre.scrollWidth > pre.clientWidth + 1 || pre.scrollHeight > pre.clientHeight + 1)
        for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", `Output of cell ${this.number}`]]) pre.setAttribute(name, value);
  }

  /** A figure takes the place, the caption and the description of the stored one, unless the reader has changed the code. */
  picture(data) {
    const stored = this.stored?.querySelectorAll("img")[this.drawn], own = this.code() !== this.original;
    const frame = !own && stored?.closest("figure");
    const copy = frame ? frame.cloneNode(true) : h("div", { class: "output image_png" }, h("img", { alt: own || !stored ? "The figure that your code draws" : stored.alt }));
    copy.removeAttribute("id");
    const picture = copy.querySelector("img");
    picture.src = `data:image/png;base64,${data}`;
    this.out.append(copy);
    this.drawn += 1;
    this.last = null;
  }

  // Running ------------------------------------------------------------------------------------------------------------

  async runWithAbove() {
    if (queue.length) return;
    if (!facts.ready) { this.say("This copy of the book was built without Python for the page. `make site`, with a connection, fetches it; or take the notebook."); return; }
    const above = cells.filter((cell) => cell.number < this.number && cell.runs && !cell.done && !SKIPPED_ABOVE.some((name) => cell.has(name)));
    queue = [...above, this];
    for (const cell of cells) if (cell.runs) cell.runButton.disabled = true;
    for (const cell of queue) { cell.stopButton.hidden = false; if (cell !== this) cell.say("will run first"); }
    try {
      python.asking = this;
      if (python.state === "none") this.say(`Loading Python, ${facts.megabytes} MB …`);
      announce(python.state === "none" ? "Loading Python." : `Running cell ${this.number}.`);
      await python.start();
      for (const cell of [...queue]) {
        cell.clear();
        cell.say("Running …");
        const began = performance.now(), seconds = () => Math.round((performance.now() - began) / 1000);
        const clock = setInterval(() => seconds() && cell.say(`Running … ${seconds()} s`), 1000);
        const error = await python.run(cell);
        clearInterval(clock);
        cell.finish();
        cell.done = !error;
        cell.resetButton.hidden = false;
        const took = performance.now() - began;
        cell.say(error === "stopped" ? "stopped" : error ? "error" : took < 1000 ? `${Math.max(1, Math.round(took))} ms` : `${(took / 1000).toFixed(1)} s`);
        if (error) {
          if (cell !== this) this.say(`not run: cell ${cell.number} above ends with an error`);
          announce(cell === this ? `Cell ${cell.number}: ${error}` : `Cell ${cell.number}, above, ends with an error: ${error}`);
          break;
        }
        if (cell === this) announce(`Cell ${cell.number} is done.`);
      }
    } catch (problem) {
      const how = location.protocol === "file:" ? "Python cannot run in a page opened as a file: serve the folder (`make book`)." : `Python could not be started: ${problem.message}`;
      this.say(problem.message === "stopped" ? "stopped" : how);
      announce(this.status.textContent);
    } finally {
      for (const cell of queue) { cell.stopButton.hidden = true; if (cell.status.textContent === "will run first") cell.say(""); }
      queue = [];
      for (const cell of cells) if (cell.runs) cell.runButton.disabled = false;
    }
  }
}

let queue = [];

function stop() {
  python.end();
  for (const cell of cells) cell.done = false;
  announce("Stopped. Python begins anew at the next Run, and runs the cells above again.");
}

document.querySelectorAll("article div.cell").forEach((node) => {
  if (node.querySelector("div.cell_input pre")) cells.push(new Cell(node, cells.length + 1));
});
const first = cells.find((cell) => cell.runs);
if (first && facts.ready) first.say(`Runs here, in your browser. The first Run fetches ${facts.megabytes} MB from this site, once.`);
document.querySelector("article").append(spoken);
window.addEventListener("pagehide", () => python.end());
document.documentElement.dataset.live = "ready";
