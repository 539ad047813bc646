// Attention explorer: all heads of a real encoder on one sentence; pick a word, pick heads, compare two.
import { choice, fixed, frame, h, s, set, sum, update } from "./common.mjs";

const FIELDS = ["tokens", "shares", "lengths", "sizes", "sentence", "query", "key", "head", "other", "measure", "overview"];
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUE = new Map([...DIGITS].map((digit, i) => [digit, i]));

/** Two letters a number, in steps of 1/4095: the twin of `unpacked` in Python. */
function unpacked(text) {
  const numbers = new Float64Array(text.length / 2);
  for (let i = 0; i < numbers.length; i += 1) numbers[i] = (64 * VALUE.get(text[2 * i]) + VALUE.get(text[2 * i + 1])) / 4095;
  return numbers;
}

/** Shares of all heads, for a sentence and a measure: one long array, by layer, head, query, key. */
function maps({ shares, lengths, sizes, sentence, measure }) {
  const [layers, heads, n] = sizes, all = unpacked(shares[sentence]);
  if (measure === "weights") return all;
  for (let unit = 0; unit < layers * heads; unit += 1)
    for (let i = 0; i < n; i += 1) {
      const at = (unit * n + i) * n;
      let total = 0;
      for (let j = 0; j < n; j += 1) total += all[at + j] *= lengths[sentence][unit * n + j];
      for (let j = 0; j < n; j += 1) all[at + j] /= total > 0 ? total : 1;
    }
  return all;
}

const rowOf = (all, [, heads, n], [layer, head], i) => Array.from(all.subarray(((layer * heads + head) * n + i) * n, ((layer * heads + head) * n + i + 1) * n));

/** The twin of AttentionExplorer.computed in Python. */
export function computed(state) {
  const all = maps(state), [layers, heads, n] = state.sizes;
  const map = (which) => Array.from({ length: n }, (_, i) => rowOf(all, state.sizes, which, i));
  const pair = Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (__, head) =>
    all[((layer * heads + head) * n + state.query) * n + state.key]));
  return { head: map(state.head), other: map(state.other), pair };
}

function render({ model, el }) {
  const [layers, heads, n] = model.get("sizes");
  const view = frame({ model, el, title: "All heads of a real encoder", fields: FIELDS, draw,
    columns: ["key", "share in the head shown", "share in the head compared"] });
  const words = () => model.get("tokens")[model.get("sentence")];
  const wordName = (i, list = words()) => (list.indexOf(list[i]) === i && list.lastIndexOf(list[i]) === i ? list[i] : `${list[i]} (word ${i})`);
  let target = "head"; // which of the two a click in the overview changes

  // Controls.
  const names = Object.keys(model.get("tokens"));
  const numbers = (count) => Array.from({ length: count }, (_, i) => [i, String(i)]);
  const sentence = choice({ label: "Sentence ends in", options: names.map((name) => [name, name]), input: (name) => update(model, { sentence: name }) });
  const measure = choice({ label: "Show", options: [["weights", "weights"], ["norms", "weight × length of the value"]],
    input: (name) => update(model, { measure: name }) });
  const query = choice({ label: "Query", options: words().map((_, i) => [i, wordName(i)]), input: (i) => update(model, { query: i }) });
  const overview = choice({ label: "Small squares show", options: [["maps", "whole heads"], ["pair", "one pair, in every head"]],
    input: (name) => update(model, { overview: name }) });
  const key = choice({ label: "Key of the pair", options: words().map((_, i) => [i, wordName(i)]), input: (i) => update(model, { key: i }) });
  view.controls.append(sentence, query, measure, overview, key);

  // The overview: one canvas, a row for each layer, a column for each head.
  const canvas = h("canvas", { role: "img", "aria-label": `Overview of ${layers} layers with ${heads} heads each` });
  const marks = { head: h("i", { class: "ae-mark" }), other: h("i", { class: "ae-mark ae-other" }) };
  const tip = h("p", { class: "ae-tip", text: "\u00a0" });
  const board = h("div", { class: "ae-board", style: `--layers:${layers};--heads:${heads}` }, canvas, marks.other, marks.head);
  const cellAt = (event) => {
    const box = board.getBoundingClientRect();
    const inside = (at, size, count) => Math.min(count - 1, Math.max(0, Math.floor((at / size) * count)));
    return [inside(event.clientY - box.top, box.height, layers), inside(event.clientX - box.left, box.width, heads)];
  };
  board.addEventListener("click", (event) => update(model, { [target]: cellAt(event) }));
  board.addEventListener("pointermove", (event) => {
    const [layer, head] = cellAt(event);
    const now = last.pair?.[layer][head];
    tip.textContent = `layer ${layer}, head ${head}` + (now === undefined ? "" : `: ${words()[model.get("query")]} → ${words()[model.get("key")]} ${fixed(now)}`);
  });
  board.addEventListener("pointerleave", () => { tip.textContent = "\u00a0"; });
  const choose = (which, text) => h("label", null,
    h("input", { type: "radio", name: view.figure.getAttribute("aria-labelledby"), checked: which === "head", onchange: () => { target = which; } }), ` ${text}`);
  const clicks = h("fieldset", { class: "ae-clicks" }, h("legend", { text: "A click picks the head" }), choose("head", "shown"), choose("other", "compared"));

  // The two heads, as lines between words.
  const lines = { head: picture("head", "Shown"), other: picture("other", "Compared") };
  function picture(which, title) {
    const layer = choice({ label: `${title}: layer`, options: numbers(layers), input: (i) => update(model, { [which]: [i, model.get(which)[1]] }) });
    const head = choice({ label: "head", options: numbers(heads), input: (i) => update(model, { [which]: [model.get(which)[0], i] }) });
    const left = words().map((_, i) => h("button", { type: "button", onclick: () => update(model, { query: i }),
      onpointerenter: (event) => { if (event.pointerType === "mouse") hover(i); }, onfocus: () => hover(i) }));
    const right = words().map(() => h("li", null, h("span"), h("b")));
    const strokes = words().map((_, j) => s("line", { x1: 0, x2: 100, y2: j + 0.5 }));
    const faint = words().map(() => words().map(() => s("line", { class: "ae-faint", x1: 0, x2: 100 })));
    faint.forEach((row, i) => row.forEach((line, j) => set(line, { y1: i + 0.5, y2: j + 0.5 })));
    const node = h("div", { class: "lf-panel" }, h("div", { class: "lf-controls" }, layer, head),
      h("div", { class: "al-grid ae-grid", style: `--rows:${n}` },
        h("div", { class: "al-queries", role: "group", "aria-label": `query, head ${title.toLowerCase()}` }, ...left),
        s("svg", { "aria-hidden": "true", viewBox: `0 0 100 ${n}`, preserveAspectRatio: "none" }, ...faint.flat(), ...strokes),
        h("ul", { class: "al-keys" }, ...right)));
    return { node, layer, head, left, right, strokes, faint };
  }
  let hovered = null;
  function hover(i) { hovered = i; view.ask(); }
  for (const { node } of Object.values(lines)) {
    node.addEventListener("pointerleave", () => hover(null));
    node.addEventListener("focusout", () => hover(null));
  }
  view.panels.append(h("div", { class: "lf-panel ae-all" }, h("p", { text: "Layers down, heads across" }), board, tip, clicks), lines.head.node, lines.other.node);

  let last = {}, painted = "";
  function paintOverview(now, all) {
    const style = getComputedStyle(view.figure), ink = style.getPropertyValue("--lf-line"), ground = style.getPropertyValue("--lf-ground");
    const stamp = [now.sentence, now.measure, now.overview, now.overview === "pair" ? [now.query, now.key] : "", ink, ground].join();
    if (stamp === painted) return;
    painted = stamp;
    const gap = 2, size = n + gap;
    canvas.width = heads * size;
    canvas.height = layers * size;
    const pen = canvas.getContext("2d");
    pen.fillStyle = ground;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = ink;
    for (let layer = 0; layer < layers; layer += 1)
      for (let head = 0; head < heads; head += 1) {
        const x = head * size + 1, y = layer * size + 1, from = (layer * heads + head) * n * n;
        if (now.overview === "pair") {
          pen.globalAlpha = 0.04 + 0.96 * all[from + now.query * n + now.key];
          pen.fillRect(x, y, n, n);
        } else {
          pen.globalAlpha = 0.05;
          pen.fillRect(x, y, n, n);
          for (let at = 0; at < n * n; at += 1) {
            if (all[from + at] < 0.02) continue;
            pen.globalAlpha = all[from + at];
            pen.fillRect(x + (at % n), y + Math.floor(at / n), 1, 1);
          }
        }
      }
    pen.globalAlpha = 1;
  }

  let kept = { stamp: "", all: null };
  function allShares(now) {
    const stamp = `${now.sentence} ${now.measure}`;
    if (kept.stamp !== stamp) kept = { stamp, all: maps(now) };
    return kept.all;
  }

  function draw(now) {
    const list = now.tokens[now.sentence], all = allShares(now), i = hovered ?? now.query;
    last = { pair: Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (__, head) => all[((layer * heads + head) * n + now.query) * n + now.key])) };
    paintOverview(now, all);
    const rows = {};
    for (const which of ["head", "other"]) {
      const [layer, head] = now[which], row = rowOf(all, now.sizes, now[which], i), part = lines[which];
      rows[which] = row;
      marks[which].style.cssText = `--x:${head};--y:${layer}`;
      part.layer.show(layer);
      part.head.show(head);
      part.left.forEach((button, j) => { button.textContent = list[j]; button.setAttribute("aria-pressed", String(j === i)); });
      part.right.forEach((item, j) => {
        item.style.setProperty("--w", row[j].toFixed(3));
        item.firstChild.textContent = list[j];
        item.lastChild.textContent = row[j] >= 0.045 ? fixed(row[j]) : "";
      });
      part.strokes.forEach((line, j) => set(line, { y1: i + 0.5, style: `--w:${row[j].toFixed(3)}` }));
      part.faint.forEach((own, a) => own.forEach((line, b) => {
        const share = all[((layer * heads + head) * n + a) * n + b];
        set(line, { style: `--w:${(a === i || share < 0.1 ? 0 : share).toFixed(2)}` });
      }));
    }
    sentence.show(now.sentence);
    measure.show(now.measure);
    query.show(now.query);
    overview.show(now.overview);
    key.show(now.key);
    key.hidden = now.overview !== "pair";

    const most = (row) => row.indexOf(Math.max(...row));
    const what = now.measure === "weights" ? "weight" : "weight × length";
    const told = (which, row) => `layer ${now[which][0]}, head ${now[which][1]} gives most ${what} to ${wordName(most(row), list)} (${fixed(row[most(row)])})`;
    const flat = last.pair.flat(), best = flat.indexOf(Math.max(...flat));
    view.say(`From ${wordName(i, list)}: ${told("head", rows.head)}; ${told("other", rows.other)}. The two rows have ${fixed(sum(rows.head.map((x, j) => Math.min(x, rows.other[j]))))} in common: for each key the smaller share, added up.` +
      (now.overview === "pair" ? ` Of all heads, layer ${Math.floor(best / heads)}, head ${best % heads} gives ${list[now.key]} most: ${fixed(flat[best])}.` : ""));
    const [first, second] = ["head", "other"].map((which) => rowOf(all, now.sizes, now[which], now.query));
    view.fill(list.map((word, j) => [word, fixed(first[j]), fixed(second[j])]));
  }

  const themed = new MutationObserver(view.ask);
  themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  view.paint();
  requestAnimationFrame(() => view.ask()); // once in the page, where colours are known
  return () => { themed.disconnect(); view.stop(); };
}

export default { render };
