// Score geometry: drag the query, or a key; scores, weights and the output follow.
import { button, choice, dot, fixed, frame, h, movable, percent, s, set, softmax, toggle, update } from "./common.mjs";

const FIELDS = ["query", "keys_at", "values_at", "words", "word", "dim_head", "scaled"];
const SIZE = 340, MIDDLE = SIZE / 2, RADIUS = 150; // of a drawing, in its own units

/** What attention makes of the points: the twin of ScoreGeometry.computed in Python. */
export function computed({ query, keys_at: keys, values_at: values, dim_head, scaled }) {
  const scores = keys.map((key) => dot(key, query) / (scaled ? Math.sqrt(dim_head) : 1));
  const weights = softmax(scores);
  return { scores, weights, out: [0, 1].map((axis) => dot(weights, values.map((value) => value[axis]))) };
}

/** From the units of the points to those of the drawing, and back: the origin in the middle, up is up. */
function plane(points) {
  const reach = 1.12 * Math.max(...points.flat().map(Math.abs), 1e-6), unit = RADIUS / reach;
  return {
    reach,
    unit,
    toDrawing: ([x, y]) => [MIDDLE + unit * x, MIDDLE - unit * y],
    toPlace: ([x, y]) => [(x - MIDDLE) / unit, (MIDDLE - y) / unit],
  };
}

/** A round number near `wanted`: 1, 2 or 5 times a power of ten. */
function round(wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted)), rest = wanted / power;
  return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}

const radius = (weight) => 3.5 + 15 * Math.sqrt(weight); // the disc's area grows with the weight

function drawing(label) {
  const svg = s("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": label });
  const cross = s("path", { class: "lf-axis", d: `M10 ${MIDDLE}H${SIZE - 10}M${MIDDLE} 10V${SIZE - 10}` });
  return [svg, cross];
}

function render({ model, el }) {
  const start = Object.fromEntries(FIELDS.map((name) => [name, model.get(name)]));
  const { words, word, dim_head } = start;
  const left = plane([start.query, ...start.keys_at]), right = plane(start.values_at);
  let picked = 0; // 0 is the query, i + 1 is key i

  const view = frame({ model, el, title: "Score geometry", fields: FIELDS, columns: ["key", "score", "weight"], draw });
  const nameOf = (i) => (i ? `key of ${words[i - 1]}` : `query of ${word}`);
  const at = (i) => (i ? model.get("keys_at")[i - 1] : model.get("query"));
  const move = (i, place) => {
    if (i) update(model, { keys_at: model.get("keys_at").map((key, own) => (own === i - 1 ? place : key)) });
    else update(model, { query: place });
  };

  // Controls.
  const which = choice({ label: "Point for the arrow keys", options: [[0, nameOf(0)], ...words.map((_, i) => [i + 1, nameOf(i + 1)])],
    input: (i) => { picked = i; view.ask(); } });
  const scaled = toggle({ label: `divide by √d, d = ${dim_head}`, input: (on) => update(model, { scaled: on }) });
  view.controls.append(which, scaled, button({ label: "Start again", press: () => update(model, start) }));

  // The plane of the query and the keys.
  const [svg, cross] = drawing("The query and the keys");
  const levels = s("g", { class: "lf-levels" });
  const line = s("line", { class: "lf-along" }), drop = s("line", { class: "lf-drop" });
  const arrow = s("line", { class: "lf-arrow" });
  const dots = words.map((text) => s("g", { class: "lf-key" }, s("circle"), s("text", { text })));
  const tip = s("g", { class: "lf-query" }, s("circle", { class: "lf-reach", r: 17 }), s("circle", { r: 6 }), s("text", { text: word }));
  svg.append(cross, levels, line, drop, ...dots, arrow, tip);
  const points = movable({ inside: svg, toPlace: left.toPlace, low: -left.reach, high: left.reach, step: left.reach / 50, at,
    name: nameOf, move, pick: (i) => { picked = i; view.ask(); } });
  points.grab(tip, 0);
  dots.forEach((node, i) => points.grab(node, i + 1));

  // The plane of the values and the output.
  const [svgOut, crossOut] = drawing("The values and the output");
  const pulls = words.map(() => s("line", { class: "lf-pull" }));
  const marks = words.map((text) => s("g", { class: "lf-value" }, s("circle"), s("text", { text })));
  const out = s("g", { class: "lf-out" }, s("path", { d: "M0 -9L9 0L0 9L-9 0Z" }), s("text", { x: 12, y: 4, text: "output" }));
  svgOut.append(crossOut, ...pulls, ...marks, out);
  marks.forEach((node, i) => {
    const [x, y] = right.toDrawing(start.values_at[i]);
    set(node, { transform: `translate(${x} ${y})` });
    set(pulls[i], { x1: x, y1: y });
  });

  // One row for each key: its score to either side of zero, its weight.
  const rows = words.map((text) => {
    const score = h("i", { class: "lf-score" }), weight = h("i", { class: "lf-weight" });
    const number = h("b"), share = h("b");
    const row = h("div", { class: "lf-bar" }, h("span", { text }), h("u", null, score), number, h("u", null, weight), share);
    return { row, score, weight, number, share };
  });
  const bars = h("div", { class: "lf-bars", "aria-hidden": "true" },
    h("div", { class: "lf-bar lf-heads" }, h("span", { text: "key" }), h("u", { text: "score" }), h("b"), h("u", { text: "weight" }), h("b")),
    ...rows.map(({ row }) => row));

  view.panels.append(
    h("div", { class: "lf-panel" }, h("p", { text: "Query and keys" }), svg, ...points.sliders),
    h("div", { class: "lf-panel" }, h("p", { text: "Values and output" }), svgOut),
    h("div", { class: "lf-panel" }, h("p", { text: "Scores and weights" }), bars));

  function draw(now) {
    const { scores, weights, out: result } = computed(now);
    const [qx, qy] = left.toDrawing(now.query), length = Math.hypot(...now.query);
    const along = length > 1e-9 ? now.query.map((x) => x / length) : [1, 0];
    const top = weights.indexOf(Math.max(...weights)), shown = picked ? picked - 1 : top;

    set(arrow, { x1: MIDDLE, y1: MIDDLE, x2: qx, y2: qy });
    set(tip, { transform: `translate(${qx} ${qy})` });
    beside(tip.lastChild, side([qx], 10, widthOf(tip.lastChild)), 10);
    set(line, ends(MIDDLE, MIDDLE, along[0], -along[1]));
    const places = now.keys_at.map(left.toDrawing);
    dots.forEach((node, i) => {
      const [x, y] = places[i];
      set(node, { transform: `translate(${x} ${y})`, style: `--w:${weights[i].toFixed(3)}` });
      set(node.firstChild, { r: radius(weights[i]).toFixed(2) });
    });
    label(dots, places, weights);
    const [kx, ky] = places[shown];
    const foot = dot(now.keys_at[shown], along), [fx, fy] = left.toDrawing(along.map((x) => x * foot));
    set(drop, { x1: kx, y1: ky, x2: fx, y2: fy });
    drawLevels(along, length, now);

    const [ox, oy] = right.toDrawing(result);
    marks.forEach((node, i) => {
      set(node, { style: `--w:${weights[i].toFixed(3)}` });
      set(node.firstChild, { r: radius(weights[i]).toFixed(2) });
    });
    label(marks, start.values_at.map(right.toDrawing), weights, [[ox + 20, oy, 62]]);
    set(out, { transform: `translate(${ox} ${oy})` });
    pulls.forEach((pull, i) => set(pull, { x2: ox, y2: oy, style: `--w:${weights[i].toFixed(3)}` }));

    const most = Math.max(...scores.map(Math.abs), 1e-9);
    rows.forEach((row, i) => {
      const share = (50 * Math.abs(scores[i])) / most;
      row.score.style.cssText = `left:${scores[i] < 0 ? 50 - share : 50}%;width:${share}%`;
      row.weight.style.cssText = `left:0;width:${100 * weights[i]}%`;
      row.number.textContent = fixed(scores[i], 1);
      row.share.textContent = fixed(weights[i]);
      row.row.classList.toggle("lf-chosen", i === shown);
    });

    which.show(picked);
    scaled.show(now.scaled);
    points.show(picked, `${fixed(at(picked)[0])} across, ${fixed(at(picked)[1])} up`);
    view.say(`${words[top]} gets the largest share, ${percent(weights[top])}.` +
      (picked ? ` Score of ${words[shown]}: ${fixed(scores[shown])}, share ${percent(weights[shown])}.` : "") +
      ` Output at ${fixed(result[0])} across, ${fixed(result[1])} up.`);
    view.fill(words.map((text, i) => [text, fixed(scores[i]), fixed(weights[i])]));
  }

  /** Lines of equal score: at right angles to the query, closer together the longer it is. */
  function drawLevels(along, length, { dim_head: d, scaled: divided }) {
    levels.replaceChildren();
    if (length < 1e-9) return;
    const slope = length / (divided ? Math.sqrt(d) : 1); // of the score, for each unit along the query
    const step = round((slope * left.reach) / 3);
    for (let k = -Math.ceil((1.4 * slope * left.reach) / step); k * step < 1.4 * slope * left.reach; k += 1) {
      const [x, y] = left.toDrawing(along.map((part) => (part * k * step) / slope));
      if (Math.hypot(x - MIDDLE, y - MIDDLE) > 1.3 * RADIUS) continue;
      levels.append(s("line", ends(x, y, along[1], along[0])));
      if (Math.abs(x - MIDDLE) < 158 && Math.abs(y - MIDDLE) < 158)
        levels.append(s("text", { x: x + 3, y: y - 3, text: fixed(k * step, step < 1 ? 1 : 0) }));
    }
  }

  view.paint();
  return view.stop;
}

/** A line through (x, y) that leaves the drawing on both sides. */
function ends(x, y, dx, dy) {
  return { x1: x - 500 * dx, y1: y - 500 * dy, x2: x + 500 * dx, y2: y + 500 * dy };
}

/** Where a label goes beside its point: away from the middle if there is room for it, else towards it. */
function side([x], far, wide) {
  return (x < MIDDLE) === (Math.abs(x - MIDDLE) < MIDDLE - far - wide) ? -1 : 1;
}

function beside(text, way, far) {
  set(text, { x: way * far, y: 4, "text-anchor": way < 0 ? "end" : "start" });
}

const widthOf = (text) => 7 * text.textContent.length;

/** Label the points in order of their weight, on the side where a label covers none of `taken` and none before; else not. */
function label(nodes, places, weights, taken = []) {
  for (const i of weights.map((_, own) => own).sort((a, b) => weights[b] - weights[a])) {
    const text = nodes[i].lastChild, far = radius(weights[i]) + 3, wide = widthOf(text), [x, y] = places[i];
    const first = side(places[i], far, wide);
    const box = (way) => [x + way * (far + wide / 2), y, wide];
    const free = (way) => {
      const [middle] = box(way);
      return middle > wide / 2 && middle < SIZE - wide / 2 && taken.every(([ox, oy, other]) => Math.abs(middle - ox) > (wide + other) / 2 || Math.abs(y - oy) > 11);
    };
    const way = [first, -first].find(free);
    if (way) { taken.push(box(way)); beside(text, way, far); }
    set(text, { visibility: way ? "visible" : "hidden" });
  }
}

export default { render };
