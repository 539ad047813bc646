// The cells of a page: each gets Run, Edit, Reset and Stop; one worker (worker.mjs) holds their variables.
// What the page knows of its cells, and whether Pyodide is there, stands in the JSON that _ext/live_cells.py writes.

import { Editor } from "./editor.mjs";
import { Outputs } from "./outputs.mjs";

const page = JSON.parse(document.getElementById("live-cells").textContent);
const drafts = `live-cells:${location.pathname}`; // the reader's changes, in this browser only
const withoutIt = "This copy of the book was built without Python for the browser, so its cells cannot run here. Take the notebook and run it on your machine, or build the book where Pyodide can be fetched.";

// --- Said to everybody, and to screen readers ------------------------------------------------------------------------

const spoken = make("div", "visually-hidden", { role: "status" });

function say(text) {
  spoken.textContent = text;
}

function make(tag, name, attributes = {}, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

/** Names that a text of the reader's looks like making or changing: def f; import x as y; for i in; a, b = c = ...; a[0] += ... */
function madeBy(text) {
  const patterns = [
    /(?:def|class|as) +(\w+)/g, /import +([\w ,]+)/g, /for +([\w ,()]+?) +in\b/g,
    /(?:^|;)[ \t]*((?:[\w \t,.:*[\]-]+?[-+*/@%&|^]{0,2}=(?!=)[ \t]*)+)/gm,
  ];
  return patterns.flatMap((pattern) => [...text.matchAll(pattern)].flatMap((found) => found[1].match(/[a-zA-Z_]\w*/g) ?? []));
}

// --- One cell --------------------------------------------------------------------------------------------------------

class Cell {
  constructor(root, number, { kind, of, needs, makes = [] }) {
    Object.assign(this, { root, number, kind, of, makes, state: "new" });
    this.name = this.judged ? `${number}, exercise ${of}` : String(number);
    const input = root.querySelector(".cell_input");
    this.original = input.querySelector("pre").textContent.replace(/\n$/, "");
    this.outputs = new Outputs(root, number);
    this.bar = make("div", "live-bar", { role: "group", "aria-label": `Cell ${this.name}` });
    this.bar.append(make("span", "live-number", { "aria-hidden": "true" }, `cell ${number}`));
    input.after(this.bar);
    if (kind === "elsewhere") {
      this.bar.append(make("span", "live-state", {}, `needs ${needs}: run it locally, from the notebook`));
      return;
    }
    this.editor = new Editor(input, `Code of cell ${number}`, this.original, {
      run: () => press(this),
      left: () => this.edit(false),
      changed: () => this.edited(),
    });
    this.runButton = this.button(this.judged ? "Check" : "Run", () => press(this));
    this.runButton.classList.add("live-run");
    this.editButton = this.button("Edit", () => this.edit(!this.editor.open));
    this.stopButton = this.button("Stop", () => stop());
    this.resetButton = this.button("Reset", () => this.reset());
    this.status = make("span", "live-state");
    this.bar.append(this.status, make("span", "live-keys", { id: `live-keys-${number}` }, "Shift+Enter runs, Tab indents, Escape leaves."));
    this.editor.describedBy(`live-keys-${number}`);
    this.offer();
  }

  button(word, does) {
    const button = make("button", "live-button", { type: "button", "aria-label": `${word} cell ${this.name}` }, word);
    button.addEventListener("click", does);
    this.bar.append(button);
    return button;
  }

  /** Names that this cell may make; if it was changed, what its text looks like making. */
  get names() { return this.made(this.editor.text); }

  made(text) { return text === this.original ? this.makes : madeBy(text); }

  get live() { return this.kind !== "elsewhere"; }
  get judged() { return this.kind === "stub" || this.kind === "check"; }
  get changed() { return this.editor.text !== this.original; }

  /** Show the buttons that do something now; the one that has the focus never disappears under it. */
  offer() {
    const busy = this.state === "running" || this.state === "waiting";
    this.runButton.setAttribute("aria-disabled", String(busy));
    hide(this.stopButton, !busy, this.runButton);
    hide(this.resetButton, busy || !(this.changed || this.outputs.replaced), this.runButton);
    this.bar.dataset.state = this.state;
    this.bar.classList.toggle("live-editing", this.editor.open);
  }

  become(state, words = "") {
    this.state = state;
    if (state !== "waiting") this.asked = false;
    this.status.textContent = words;
    this.offer();
  }

  /** Running, and how far it is; said at the cell that the reader asked for, too, wherever that is. */
  work(words) {
    this.become("running", words);
    for (const one of queue) if (one.asked) one.status.textContent = words === going ? `cell ${this.number} runs first` : words;
  }

  edit(open) {
    this.editor.toggle(open);
    this.editButton.textContent = open ? "Done" : "Edit";
    this.editButton.setAttribute("aria-label", `${open ? "Done editing" : "Edit"} cell ${this.name}`);
    this.offer();
    if (open) this.editor.focus();
    else this.editButton.focus();
  }

  edited() {
    keep();
    if (this.state !== "running" && this.state !== "waiting") this.become("new", this.changed ? "your version, not run yet" : "");
  }

  reset() {
    this.editor.text = this.original;
    if (this.editor.open) this.edit(false);
    this.outputs.restore();
    this.become("new");
    keep();
    this.runButton.focus();
    say(`Cell ${this.number} is as printed.`);
  }
}

function hide(button, hidden, instead) {
  if (hidden && button === document.activeElement) instead.focus();
  button.hidden = hidden;
}

// --- Drafts ----------------------------------------------------------------------------------------------------------

function keep() {
  const changed = cells.filter((cell) => cell.live && cell.changed).map((cell) => [cell.number, { from: cell.original, to: cell.editor.text }]);
  try {
    if (changed.length) localStorage.setItem(drafts, JSON.stringify(Object.fromEntries(changed)));
    else localStorage.removeItem(drafts);
  } catch { /* private windows, a full store: the page works without */ }
}

function recall() {
  try {
    for (const [number, { from, to }] of Object.entries(JSON.parse(localStorage.getItem(drafts) ?? "{}"))) {
      const cell = cells.find((one) => one.live && one.number === Number(number));
      if (!cell || cell.original !== from || typeof to !== "string") continue; // the book's cell has changed since
      cell.editor.text = to;
      cell.become("new", "your version, kept from your last visit");
    }
  } catch { /* as above; or not ours */ }
}

// --- Running ---------------------------------------------------------------------------------------------------------

let worker = null;
let hear = () => {}; // takes the worker's messages while it starts or runs a cell
let queue = [];
let running = null; // the cell
const going = "running …";
let firstSize = null; // says how much the first Run loads

const quoted = /([a-zA-Z]?)("""[^]*?"""|'''[^]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')/g;
const name = /(?<![.\p{L}\p{N}_])[\p{L}_][\p{L}\p{N}_]*/gu;

/** The words of a cell that may be names: not those of texts (but what an f-string computes), comments and attributes. */
function words(cell) {
  const computed = (_, kind, text) => (/f/i.test(kind) ? ` ${(text.match(/\{[^{}]*\}/g) ?? []).join(" ")} ` : " ");
  return cell.editor.text.replace(quoted, computed).replace(/#.*$/gm, "").match(name) ?? [];
}

/**
 * What has to run before a cell, in order: what is above and has not run since it was last changed. Figures are not
 * drawn on the way, and what takes long (a timing, a training) only runs for who uses its names. An exercise
 * answers to its own names alone, so it waits for nothing else; other cells share a generator of random numbers.
 */
function above(cell) {
  const own = cells.filter((one) => one === cell || (cell.of && one.of === cell.of));
  const used = new Set(own.flatMap(words));
  if (cell.of) for (const one of own) for (const [, made] of one.editor.text.matchAll(/^(\w+) *=(?!=)/gm)) used.delete(made); // its own
  const found = [];
  for (const one of cells.slice(0, cells.indexOf(cell)).reverse()) {
    if (one.kind !== "cell" && one.kind !== "measured") continue;
    const optional = one.kind === "measured" || cell.of;
    if (optional && !one.names.some((name) => used.has(name))) continue;
    words(one).forEach((word) => used.add(word));
    if (one.state !== "done") found.unshift(one);
  }
  return found;
}

/** Run a cell, after those above that it may need; a check, after the answer that it checks. */
function press(cell) {
  if (cell.state === "running" || cell.state === "waiting") return say(`Cell ${cell.number} is running.`);
  if (!page.lock) return explain(cell, withoutIt);
  let wanted = [cell];
  if (cell.judged) wanted = cells.filter((one) => one.of === cell.of && one.judged);
  const added = [...above(wanted[0]), ...wanted].filter((one) => one !== running && !queue.includes(one));
  queue.push(...added);
  for (const one of added) one.become("waiting", "waiting");
  cell.asked = true;
  if (added.length > wanted.length) say(`Running ${added.length - wanted.length} cells above first.`);
  if (!running) next();
}

function explain(cell, text) {
  cell.outputs.clear();
  cell.outputs.add("note", text);
  cell.become("new");
  say(text);
}

async function next() {
  const cell = (running = queue.shift() ?? null);
  if (!cell) return;
  cell.work(going);
  cell.outputs.begin();
  try {
    if (!worker) await start(cell);
    const began = performance.now();
    const { text } = cell.editor; // it may be edited while it runs
    const good = await exchange({ type: "run", number: cell.number, source: text }, cell);
    const seconds = (performance.now() - began) / 1000;
    cell.outputs.end(cell.changed);
    cell.root.dataset.seconds = seconds.toFixed(4);
    outdate(cell, text); // after an error, too: it may have changed something before
    cell.become(good ? "done" : "failed", good ? (seconds < 1 ? "ran" : `ran in ${seconds.toFixed(1)} s`) : "ended with an error");
    if (!good) drop(`Cell ${cell.number} ended with an error`);
    else if (!queue.length) say(cell.kind === "check" ? cell.outputs.text : `Cell ${cell.number} is done.`);
  } catch (problem) {
    if (problem === stopped) return; // stop() has said so
    end();
    cell.outputs.end(false);
    cell.outputs.add("note", `Python could not be loaded: ${problem.message}. Reload the page to try again; without a connection, run the notebook on your machine.`);
    cell.become("failed", "not run");
    drop("Python could not be loaded");
  }
  running = null;
  next();
}

/** Cells below that used what a changed cell makes show what its former text gave: they say so, and run again when needed. */
function outdate(cell, text) {
  const former = cell.ran;
  cell.ran = text;
  if (former === undefined || former === text) return;
  const stale = new Set([...cell.made(former), ...cell.made(text)]);
  for (const one of cells.slice(cells.indexOf(cell) + 1)) {
    if (one.state !== "done" || !words(one).some((word) => stale.has(word))) continue;
    one.names.forEach((name) => stale.add(name));
    one.become("new", `out of date: cell ${cell.number} has changed`);
  }
}

function drop(why) {
  const left = queue.length;
  for (const cell of queue) cell.become("new", `not run: ${why[0].toLowerCase()}${why.slice(1)}`);
  queue = [];
  say(left ? `${why}; ${left} more not run.` : `${why}.`);
}

async function start(cell) {
  firstSize?.remove();
  cell.work(`loading Python, ${page.megabytes} MB …`);
  say(`Loading Python, ${page.megabytes} megabytes.`);
  worker = new Worker(new URL(`./worker.mjs?v=${page.version}`, import.meta.url), { type: "module" });
  const folder = new URL("../pyodide/", import.meta.url).href;
  await exchange({ type: "start", folder, lock: page.lock }, cell);
  cell.work(going);
}

/** Send one message and wait for its end; what the cell shows meanwhile goes to its outputs. */
function exchange(message, cell) {
  return new Promise((done, fail) => {
    hear = ({ kind, data }) => {
      if (kind === "ready" || kind === "done") done(data);
      else if (kind === "broken") fail(new Error(data));
      else if (kind === "stopped") fail(stopped);
      else if (kind === "loading") cell.work(data === "matplotlib" ? `loading Matplotlib, ${page.figures} MB …` : "loading …");
      else if (kind === "begun") cell.work(going);
      else cell.outputs.add(kind, data);
    };
    worker.onmessage = ({ data }) => hear(data);
    worker.onerror = (event) => {
      event.preventDefault();
      fail(new Error(event.message || "its files are not where they should be"));
    };
    worker.postMessage(message);
  });
}

const stopped = Symbol("stopped");

function end() {
  worker?.terminate();
  worker = null;
  for (const cell of cells) {
    cell.ran = undefined;
    if (cell.live && cell.state === "done") cell.become("new", "its variables are gone");
  }
}

/** Only the end of the worker stops Python for certain; the page says what that costs. */
function stop() {
  const cell = running;
  end();
  hear({ kind: "stopped" });
  running = null;
  cell?.outputs.end(cell.changed);
  cell?.become("new", "stopped: all variables are gone, the next Run or Check starts anew");
  for (const one of queue) one.become("new", "not run");
  queue = [];
  say("Stopped. All variables are gone; the next Run or Check starts Python anew and runs the cells above again.");
}

// --- The page --------------------------------------------------------------------------------------------------------

const roots = [...document.querySelectorAll("article div.cell")];
const cells = [];
if (roots.length !== page.cells.length) {
  console.error(`live cells: the page has ${roots.length} cells, ${page.cells.length} are described`);
} else {
  roots.forEach((root, i) => {
    if (page.cells[i].kind) cells.push(new Cell(root, i + 1, page.cells[i]));
  });
  document.querySelector("article").append(spoken);
  const first = cells.find((cell) => cell.live);
  if (first && page.lock) {
    firstSize = make("span", "live-size", {}, `the first Run loads ${page.megabytes} MB`);
    first.runButton.after(firstSize);
    first.runButton.setAttribute("aria-description", firstSize.textContent);
  }
  recall();
  document.documentElement.dataset.cells = "ready";
}
