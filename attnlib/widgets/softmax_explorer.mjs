// Softmax: turn the width of the head, the division by its root, and the temperature; weights, entropy and the
// Jacobian follow.
import { button, choice, fixed, frame, h, percent, s, set, slider, softmax, sum, toggle, update } from "./common.mjs";

const FIELDS = ["scores", "words", "width", "scaled", "temperature", "picked"];
const WIDTHS = Array.from({ length: 11 }, (_, i) => 2 ** i); // 1 to 1024
const TEMPERATURES = Array.from({ length: 25 }, (_, i) => 2 ** ((i - 12) / 4)); // 1/8 to 8
const SIZE = 340, LEFT = 34, RIGHT = 20, TOP = 16, BOTTOM = 40;
const STEEPEST = 0.25; // no entry of the Jacobian is larger

/** The twin of SoftmaxExplorer.computed in Python. */
export function computed({ scores: row, width, scaled, temperature }) {
  const scores = row.map((score) => (score * (scaled ? 1 : Math.sqrt(width))) / temperature);
  const weights = softmax(scores);
  const jacobian = weights.map((weight, i) => weights.map((other, j) => (i === j ? weight : 0) - weight * other));
  return { scores, weights, entropy: entropyOf(weights), jacobian };
}

const entropyOf = (weights) => 0 - sum(weights.map((weight) => (weight > 0 ? weight * Math.log(weight) : 0)));

function render({ model, el }) {
  const start = Object.fromEntries(FIELDS.map((name) => [name, model.get(name)]));
  const { words } = start, n = words.length, most = Math.log(n);
  const view = frame({ model, el, title: "Softmax, its scale and its gradient", fields: FIELDS, draw,
    columns: ["key", "score", "weight", "change of the weight for each unit of the nudged score"] });
  const pick = (i) => update(model, { picked: i });

  const width = slider({ label: "Width d", steps: WIDTHS, input: (value) => update(model, { width: value }) });
  const divided = toggle({ label: "divide by √d", input: (on) => update(model, { scaled: on }) });
  const temperature = slider({ label: "Temperature", steps: TEMPERATURES, format: (t) => fixed(t, t < 0.995 ? 2 : 1),
    input: (value) => update(model, { temperature: value }) });
  const nudged = choice({ label: "Nudge the score of", options: words.map((text, i) => [i, text]), input: pick });
  view.controls.append(width, divided, temperature, nudged, button({ label: "Start again", press: () => update(model, start) }));

  // One row for each key.
  const rows = words.map((text, i) => {
    const score = h("i", { class: "lf-score" }), weight = h("i", { class: "lf-weight" });
    const number = h("b"), share = h("b");
    const row = h("div", { class: "lf-bar", onclick: () => pick(i) }, h("span", { text }), h("u", null, score), number,
      h("u", null, weight), share);
    return { row, score, weight, number, share };
  });
  const bars = h("div", { class: "lf-bars", "aria-hidden": "true" },
    h("div", { class: "lf-bar lf-heads" }, h("span", { text: "key" }), h("u", { text: "score" }), h("b"), h("u", { text: "weight" }), h("b")),
    ...rows.map(({ row }) => row));

  // Entropy against width, with the division and without.
  const toX = (d) => LEFT + ((SIZE - LEFT - RIGHT) * Math.log2(d)) / 10;
  const toY = (nats) => TOP + (SIZE - TOP - BOTTOM) * (1 - nats / most);
  const grid = [];
  for (let nats = 0; nats <= most; nats += 1)
    grid.push(s("line", { class: "lf-axis", x1: LEFT, x2: SIZE - RIGHT, y1: toY(nats), y2: toY(nats) }),
      s("text", { class: "lf-tick", x: LEFT - 6, y: toY(nats) + 4, "text-anchor": "end", text: nats }));
  for (const d of [1, 4, 16, 64, 256, 1024])
    grid.push(s("text", { class: "lf-tick", x: toX(d), y: SIZE - BOTTOM + 16, "text-anchor": "middle", text: d }));
  const withRoot = s("path", { class: "lf-curve" }), without = s("path", { class: "lf-curve lf-warm" });
  const here = s("circle", { class: "lf-here", r: 6 });
  const nameWith = s("text", { x: SIZE - RIGHT - 4, "text-anchor": "end", text: "divided by √d" });
  const nameWithout = s("text", { class: "lf-warm", "text-anchor": "end", x: SIZE - RIGHT - 4, text: "not divided" });
  const curves = s("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": "Entropy against the width of the head" },
    ...grid, s("text", { class: "lf-tick", x: SIZE / 2, y: SIZE - 6, "text-anchor": "middle", text: "width d" }),
    without, withRoot, here, nameWith, nameWithout);

  // The Jacobian: row i, column j. The column of the nudged score is framed.
  const cell = (SIZE - 20) / n;
  const squares = words.map((_, i) => words.map((_, j) => s("rect", { x: 10 + j * cell, y: 10 + i * cell, width: cell - 1, height: cell - 1 })));
  const column = s("rect", { class: "lf-column", y: 9, width: cell + 1, height: SIZE - 18 });
  const matrix = s("svg", { class: "lf-matrix", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img",
    "aria-label": "The Jacobian: how each weight answers to each score" }, ...squares.flat(), column);
  matrix.addEventListener("click", (event) => {
    const box = matrix.getBoundingClientRect();
    pick(Math.min(n - 1, Math.max(0, Math.floor((((event.clientX - box.left) / box.width) * SIZE - 10) / cell))));
  });

  view.panels.append(
    h("div", { class: "lf-panel" }, h("p", { text: "Scores and weights" }), bars),
    h("div", { class: "lf-panel" }, h("p", { text: "Jacobian: weight i (down) by score j (across)" }), matrix,
      h("p", { class: "lf-scale" }, h("span", { text: "−0.25" }), h("i"), h("span", { text: "0.25" }))),
    h("div", { class: "lf-panel" }, h("p", { text: "Entropy of the weights, in nats" }), curves));

  function draw(now) {
    const { scores, weights, entropy, jacobian } = computed(now);
    const top = weights.indexOf(Math.max(...weights)), j = now.picked;
    const largest = Math.max(...scores.map(Math.abs), 1e-9);
    rows.forEach((row, i) => {
      const share = (50 * Math.abs(scores[i])) / largest;
      row.score.style.cssText = `left:${scores[i] < 0 ? 50 - share : 50}%;width:${share}%`;
      row.weight.style.cssText = `left:0;width:${100 * weights[i]}%`;
      row.number.textContent = fixed(scores[i], 1);
      row.share.textContent = fixed(weights[i]);
      row.row.classList.toggle("lf-chosen", i === j);
    });

    const nats = (d, scaled) => entropyOf(computed({ ...now, width: d, scaled }).weights);
    const path = (scaled) => "M" + Array.from({ length: 41 }, (_, i) => 2 ** (i / 4))
      .map((d) => `${toX(d).toFixed(1)} ${toY(nats(d, scaled)).toFixed(1)}`).join("L");
    set(withRoot, { d: path(true) });
    set(without, { d: path(false) });
    set(here, { cx: toX(now.width), cy: toY(entropy), class: now.scaled ? "lf-here" : "lf-here lf-warm" });
    const [high, low] = [toY(nats(1024, true)), toY(nats(1024, false))];
    set(nameWith, { y: high - 8 });
    set(nameWithout, { y: low - high < 24 ? high + 18 : low - 8 });

    squares.forEach((line, i) => line.forEach((square, k) => {
      const entry = jacobian[i][k];
      set(square, { class: entry < 0 ? "lf-minus" : "lf-plus", style: `--a:${Math.min(1, Math.abs(entry) / STEEPEST).toFixed(3)}` });
    }));
    set(column, { x: 9 + j * cell });

    width.show(now.width);
    divided.show(now.scaled);
    temperature.show(now.temperature);
    nudged.show(j);
    view.say(`${words[top]} gets ${percent(weights[top])}. Entropy ${fixed(entropy)} of at most ${fixed(most)} nats, as if ` +
      `${fixed(Math.exp(entropy), 1)} keys shared evenly. Raise the score of ${words[j]} by 0.1, and its share of ${fixed(weights[j], 3)} ` +
      `grows by about ${fixed(0.1 * jacobian[j][j], 4)}, which the others lose together.`);
    view.fill(words.map((text, i) => [text, fixed(scores[i]), fixed(weights[i], 3), fixed(jacobian[i][j], 3)]));
  }

  view.paint();
  return view.stop;
}

export default { render };
