// Flash stepper: walk the tiles of FlashAttention's forward pass; what is in fast memory, what is rescaled, what is moved.
import { button, choice, clamp, fixed, frame, h, percent, s, set, slider, sum, toggle, unique, update } from "./common.mjs";

const FIELDS = ["scores", "values_of", "words", "queries", "dim_head", "tile_q", "tile_k", "causal", "reverse", "query", "step", "fast"];
const COLUMNS = ["query", "running max before", "after", "factor", "running sum before", "after", "difference from the final output"];
const BYTES = 4; // of a float32
const MEMORIES = [512, 1024, 2048, 4096, 8192, 16384, 32768];
const SIZE = 340, LEFT = 62, TOP = 58; // of a drawing, and of the gutters for tokens
const PAUSE = 1100; // between two steps, in milliseconds
const QUIET = "(prefers-reduced-motion: reduce)";

/** Whether query i sees key j: causal is aligned to the end. */
const sees = ({ causal, queries, words }, i, j) => !causal || j <= i + words.length - queries.length;

/** Every step: what is done, to which queries (start, stop), with which keys (first, last). */
export function walkOf(state) {
  const { queries, words, tile_q, tile_k, reverse } = state, walk = [], firsts = [];
  for (let first = 0; first < words.length; first += tile_k) firsts.push(first);
  if (reverse) firsts.reverse();
  for (let start = 0; start < queries.length; start += tile_q) {
    const stop = Math.min(start + tile_q, queries.length);
    walk.push(["load", start, stop, 0, 0]);
    for (const first of firsts) // the last query of a block sees most
      if (sees(state, stop - 1, first)) walk.push(["tile", start, stop, first, Math.min(first + tile_k, words.length)]);
    walk.push(["store", start, stop, 0, 0]);
  }
  return walk;
}

/** One row takes in a block of keys: the twin of attnlib.reference.online_softmax_update. */
function onlineUpdate({ max, total, out }, scores, values) {
  const most = Math.max(max, ...scores), shift = most === -Infinity ? 0 : most;
  const rescale = Math.exp(max - shift), powers = scores.map((score) => Math.exp(score - shift));
  return { max: most, total: rescale * total + sum(powers),
    out: out.map((x, c) => rescale * x + sum(powers.map((power, j) => power * values[j][c]))) };
}

const held = ({ dim_head, values_of }, rows, keys) => ({
  q: BYTES * rows * dim_head, k: BYTES * keys * dim_head, v: BYTES * keys * values_of[0].length, scores: BYTES * rows * keys,
  row_max: BYTES * rows, row_sum: BYTES * rows, out: BYTES * rows * values_of[0].length,
});
const all = (bytes) => sum(Object.values(bytes));

function byTiles({ dim_head, values_of }, steps) {
  const wide = values_of[0].length;
  return BYTES * sum(steps.map(([kind, start, stop, first, last]) => ({
    load: (stop - start) * dim_head, tile: (last - first) * (dim_head + wide), store: (stop - start) * (wide + 1) }[kind])));
}

/** Naive attention for what the steps have met. It skips nothing, so a finished query has met all keys. */
function naively({ dim_head, values_of, words }, steps) {
  const wide = values_of[0].length, now = steps.at(-1)[1];
  const rows = (wanted) => sum(steps.map(([kind, start, stop]) => (kind === wanted ? stop - start : 0)));
  const loaded = rows("load"), stored = rows("store");
  const here = sum(steps.map(([kind, start, , first, last]) => (kind === "tile" && start === now ? last - first : 0)));
  const pairs = stored * words.length + (loaded - stored) * here;
  return BYTES * (loaded * dim_head + (stored ? words.length : here) * (dim_head + wide) + 4 * pairs + stored * wide);
}

/** The twin of FlashStepper.computed in Python. */
export function computed(state) {
  const walk = walkOf(state), { scores, values_of: values, queries, words, tile_q, tile_k, fast } = state;
  const at = clamp(state.step, 0, walk.length - 1), [, start, stop, first, last] = walk[at], wide = values[0].length;
  const rows = Array.from({ length: stop - start }, (_, i) => start + i);
  const seen = (i, from, to) => scores[i].slice(from, to).map((score, j) => (sees(state, i, from + j) ? score : -Infinity));
  const empty = () => ({ max: -Infinity, total: 0, out: Array(wide).fill(0) });
  let now = rows.map(empty), before = now, after = now, largest = 0;
  walk.forEach(([kind, begin, , from, to], i) => {
    if (begin !== start) return;
    const old = now;
    if (kind === "tile") {
      now = now.map((row, r) => onlineUpdate(row, seen(start + r, from, to), values.slice(from, to)));
      largest = Math.max(largest, ...now.map((row) => row.total));
    }
    if (i === at) [before, after] = [old, now];
  });
  // Attention with the whole row at once: the oracle of the walk, not its result.
  const final = rows.map((i) => {
    const { total, out } = onlineUpdate(empty(), seen(i, 0, words.length), values);
    return out.map((x) => x / (total || 1));
  });
  const length = (xs) => Math.hypot(...xs);
  const plain = (x) => (x === -Infinity ? null : x);
  let fits = 0;
  for (let r = 1; r <= queries.length; r += 1) if (all(held(state, r, tile_k)) <= fast) fits = r;
  const [n, m, passed] = [queries.length, words.length, walk.slice(0, at + 1)];
  return {
    walk, max_before: before.map((row) => plain(row.max)), max_after: after.map((row) => plain(row.max)),
    sum_before: before.map((row) => row.total), sum_after: after.map((row) => row.total),
    rescale: before.map((row, i) => Math.exp(row.max - (after[i].max === -Infinity ? 0 : after[i].max))),
    out: after.map((row) => row.out), final,
    off: after.map((row, i) => length(row.out.map((x, c) => x / (row.total || 1) - final[i][c])) / (length(final[i]) || 1)),
    largest, held: held(state, stop - start, last - first), peak: all(held(state, tile_q, tile_k)), fits,
    moved: [byTiles(state, passed), naively(state, passed), byTiles(state, walk),
      BYTES * (n * state.dim_head + m * (state.dim_head + wide) + 4 * n * m + n * wide)],
  };
}

const bytes = (count) => `${count.toLocaleString("en")} B`;
const number = (x, digits = 2) => (x === null ? "none" : fixed(x, digits));
/** Whether a row's maximum rises in this step, over one that it had: then what was summed is rescaled. */
const rises = (now, i) => now.max_before[i] !== null && now.max_after[i] > now.max_before[i];

function render({ model, el }) {
  const start = Object.fromEntries(FIELDS.map((name) => [name, model.get(name)]));
  const { words, queries, values_of } = start, n = queries.length, m = words.length, wide = values_of[0].length;
  const view = frame({ model, el, title: "FlashAttention, tile by tile", fields: FIELDS, columns: COLUMNS, draw });

  // The walk and the place in it.
  const here = () => {
    const walk = walkOf(view.state());
    return [walk, clamp(model.get("step"), 0, walk.length - 1)];
  };
  const go = (step) => update(model, { step: clamp(step, 0, here()[0].length - 1) });
  const move = (by) => { pause(); go(here()[1] + by); };
  /** The first step from `from` on at which the maximum of some row rises; -1 if there is none. */
  const nextRise = (from) => {
    const state = view.state(), [walk] = here();
    for (let step = from; step < walk.length; step += 1)
      if (walk[step][0] === "tile" && ((now) => now.rescale.some((_, i) => rises(now, i)))(computed({ ...state, step }))) return step;
    return -1;
  };
  /** New tiles or another order: stay near the query that is looked at and the keys that were there. */
  const retile = (changes) => {
    pause();
    const [walk, at] = here(), [, from, to, first] = walk[at], row = clamp(model.get("query"), from, to - 1);
    const other = walkOf({ ...view.state(), ...changes });
    const mine = other.findIndex(([kind, a, b, c, d]) => kind === "tile" && a <= row && row < b && c <= first && first < d);
    update(model, { ...changes, step: mine < 0 ? other.findIndex(([, a, b]) => a <= row && row < b) : mine });
  };
  /** Look at another query; if it is not in fast memory now, go to where it is. */
  const look = (query) => {
    const [walk, at] = here(), inside = walk[at][1] <= query && query < walk[at][2];
    if (!inside) pause();
    update(model, inside ? { query } : { query, step: walk.findIndex(([, a, b]) => a <= query && query < b) + 1 });
  };

  // Play: one step after the other. Where little motion is asked for nothing moves by itself.
  let timer = 0;
  const quiet = matchMedia(QUIET);
  const play = button({ label: "Play", press: () => (timer ? pause() : run()) });
  function pause() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }
  function run() {
    if (here()[1] === here()[0].length - 1) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (!el.isConnected && !view.figure.isConnected) return pause();
      const [walk, at] = here();
      if (at + 1 < walk.length) go(at + 1);
      if (at + 2 >= walk.length) pause();
    }, PAUSE);
  }
  const heed = () => { if (quiet.matches) pause(); play.hidden = quiet.matches; };
  quiet.addEventListener("change", heed);
  heed();

  const back = button({ label: "Back", press: () => move(-1) });
  const on = button({ label: "Forward", press: () => move(1) });
  const rise = button({ label: "Next rise of a maximum", press: () => { pause(); const to = nextRise(here()[1] + 1); go(to < 0 ? nextRise(0) : to); } });
  const name = unique("step");
  const range = h("input", { type: "range", id: name, min: 0, step: 1, oninput: () => { pause(); go(Number(range.value)); } });
  const place = h("output", { for: name });
  const tileQ = slider({ label: "Queries in a tile", steps: queries.map((_, i) => i + 1), input: (tile_q) => retile({ tile_q }) });
  const tileK = slider({ label: "Keys in a tile", steps: words.map((_, i) => i + 1), input: (tile_k) => retile({ tile_k }) });
  const causal = toggle({ label: "causal", input: (on) => retile({ causal: on }) });
  const reverse = toggle({ label: "keys from right to left", input: (on) => retile({ reverse: on }) });
  const query = choice({ label: "Look at query", options: queries.map((text, i) => [i, `${i} ${text}`]), input: look });
  const memory = slider({ label: "Fast memory", steps: MEMORIES, format: bytes, input: (fast) => update(model, { fast }) });
  view.controls.append(
    h("div", { class: "lf-control fs-step" }, h("label", { for: name, text: "Step" }), range, place),
    h("div", { class: "lf-control" }, back, on, play), rise,
    button({ label: "Start again", press: () => { pause(); update(model, start); } }));

  // All scores: only those of the present tile exist.
  const cell = Math.min((SIZE - LEFT - 6) / m, (SIZE - TOP - 6) / n, 30);
  const x = (j) => LEFT + j * cell, y = (i) => TOP + i * cell;
  const short = (text) => (text.length > 8 ? `${text.slice(0, 7)}…` : text);
  const downs = queries.map((text, i) => s("text", { class: "lf-tick", x: LEFT - 5, y: y(i + 0.5) + 4, "text-anchor": "end", text: short(text) }));
  const acrosses = words.map((text, j) => s("text", { class: "lf-tick", transform: `translate(${x(j + 0.5) + 4} ${TOP - 5}) rotate(-90)`, text: short(text) }));
  const ground = s("g"), map = s("svg", { class: "fs-map", viewBox: `0 0 ${SIZE} ${Math.ceil(y(n) + 6)}`, role: "img",
    "aria-label": "The scores, queries down and keys across; the present tile is filled" }, ...downs, ...acrosses, ground);
  map.addEventListener("click", (event) => {
    const box = map.getBoundingClientRect(), unit = SIZE / box.width;
    const i = Math.floor(((event.clientY - box.top) * unit - TOP) / cell), j = Math.floor(((event.clientX - box.left) * unit - LEFT) / cell);
    const to = here()[0].findIndex(([kind, a, b, c, d]) => kind === "tile" && a <= i && i < b && c <= j && j < d);
    if (to < 0) return;
    pause();
    update(model, { step: to, query: i });
  });
  const most = Math.max(...start.scores.flat().map(Math.abs), 1e-9);

  // The running sums: before, shrunk, and with the new keys. The output: as far as it is, and the final one.
  const sums = s("svg", { class: "fs-sums", role: "img", "aria-label": "Running sums of the queries of the tile, before the step and after it" });
  const outs = s("svg", { viewBox: `0 0 ${SIZE} 190`, role: "img", "aria-label": "The output, divided now, against the final output" });
  const namesHeld = { q: "q", k: "k", v: "v", scores: "scores", row_max: "running max", row_sum: "running sum", out: "unfinished output" };
  const bar = (text) => {
    const fill = h("i"), count = h("b");
    return { node: h("div", { class: "fs-bar" }, h("span", { text }), h("u", null, fill), count), fill, count };
  };
  const bars = (list) => h("div", { class: "fs-bars" }, ...list.map(({ node }) => node));
  const inside = Object.fromEntries(Object.entries(namesHeld).map(([key, text]) => [key, bar(text)])), together = bar("together");
  const room = h("p", { class: "fs-note" });
  const traffic = ["tiles, up to here", "naive, up to here", "tiles, in all", "naive, in all"].map(bar);
  const trade = h("p", { class: "fs-note" });
  traffic.forEach(({ node }, i) => node.classList.toggle("fs-naive", i % 2 === 1));
  const panel = (text, ...children) => h("div", { class: "lf-panel" }, h("p", { text }), ...children);
  const sumsTitle = h("p"), outsTitle = h("p");
  // What changes a picture stands below that picture: on a phone the walk and its first picture are then seen together.
  const below = (...controls) => h("div", { class: "lf-controls fs-below" }, ...controls);
  view.panels.append(
    panel("Queries (down) by keys (across): only the framed tile of scores exists", map, below(tileQ, tileK, causal, reverse)),
    h("div", { class: "lf-panel" }, sumsTitle, sums, below(query), outsTitle, outs),
    panel("In fast memory now", bars([...Object.values(inside), together]), room, below(memory)),
    panel("Moved between slow and fast memory", bars(traffic), trade));

  // The scale of the output stays while one query is looked at, so that what moves is the output and not the scale.
  let known = "", reach = 1;
  function reachOf(state, walk, from, r) {
    const key = [from, r, state.tile_q, state.tile_k, state.causal, state.reverse].join();
    if (key === known) return reach;
    const steps = walk.flatMap(([, begin], step) => (begin === from ? [computed({ ...state, step })] : []));
    known = key;
    reach = Math.max(...steps[0].final[r].map(Math.abs), ...steps.flatMap((each) => each.out[r].map((value) => Math.abs(value / (each.sum_after[r] || 1)))), 1e-9);
    return reach;
  }

  function draw(state) {
    const now = computed(state), { walk } = now, at = clamp(state.step, 0, walk.length - 1);
    const [kind, from, to, first, last] = walk[at], row = clamp(state.query, from, to - 1), r = row - from;

    // Scores.
    const parts = [];
    const visits = new Map(walk.map(([what, a, , c], i) => [what === "tile" ? `${a} ${c}` : `${what} ${a}`, i]));
    for (let a = 0; a < n; a += state.tile_q)
      for (let c = 0; c < m; c += state.tile_k) {
        const visit = visits.get(`${a} ${c}`), high = Math.min(state.tile_q, n - a), across = Math.min(state.tile_k, m - c);
        parts.push(s("rect", { class: visit === undefined ? "fs-skipped" : visit < at ? "fs-gone" : "fs-ahead",
          x: x(c), y: y(a), width: across * cell, height: high * cell }));
        if (visit === undefined) parts.push(s("path", { class: "lf-axis", d: `M${x(c)} ${y(a + high)}L${x(c + across)} ${y(a)}` }));
      }
    for (let i = from; i < to; i += 1)
      for (let j = first; j < last; j += 1) {
        const score = state.scores[i][j], seen = sees(state, i, j);
        parts.push(s("rect", { class: !seen ? "fs-hidden" : score < 0 ? "lf-minus" : "lf-plus", x: x(j) + 0.5, y: y(i) + 0.5, width: cell - 1,
          height: cell - 1, style: `--a:${(Math.abs(score) / most).toFixed(3)}` }));
      }
    parts.push(s("rect", { class: "fs-block", x: x(0), y: y(from), width: m * cell, height: (to - from) * cell }));
    if (kind === "tile") parts.push(s("rect", { class: "fs-tile", x: x(first), y: y(from), width: (last - first) * cell, height: (to - from) * cell }));
    ground.replaceChildren(...parts);
    downs.forEach((text, i) => text.classList.toggle("fs-here", i === row));

    // Sums.
    const high = 53, wideAs = (value) => (value / (now.largest || 1)) * (SIZE - 20);
    sumsTitle.textContent = kind === "tile" ? "Running sums: before, × factor, + new keys" : kind === "load" ? "Running sums: not begun" : "Running sums: complete";
    set(sums, { viewBox: `0 0 ${SIZE} ${high * (to - from) + 8}` });
    sums.replaceChildren(...now.rescale.map((factor, i) => {
      const old = now.sum_before[i], kept = factor * old, top = 8 + high * i, [a, b, c] = [old, kept, now.sum_after[i]].map(wideAs);
      const max = rises(now, i) ? `${number(now.max_before[i])} → ${number(now.max_after[i])}` : number(now.max_after[i]);
      const text = kind !== "tile" || old === 0 ? `sum ${fixed(now.sum_after[i])}`
        : `${fixed(old)} × ${fixed(factor, factor < 1 ? 3 : 0)} + ${fixed(now.sum_after[i] - kept)} = ${fixed(now.sum_after[i])}`;
      return s("g", { class: `fs-row${rises(now, i) ? " fs-rises" : ""}${i === r ? " fs-here" : ""}`, onclick: () => look(from + i) },
        s("rect", { class: "fs-reach", x: 2, y: top - 5, width: SIZE - 4, height: high - 2, rx: 4 }),
        s("text", { x: 10, y: top + 9 }, s("tspan", { class: "fs-name", text: short(queries[from + i]) }), ` max ${max}`),
        s("text", { x: SIZE - 10, y: top + 9, "text-anchor": "end", text }),
        s("rect", { class: "fs-old", x: 10, y: top + 15, width: a.toFixed(2), height: 6 }),
        s("path", { class: "fs-shrink", d: `M10 ${top + 21}H${(10 + a).toFixed(2)}L${(10 + b).toFixed(2)} ${top + 33}H10Z` }),
        s("rect", { class: "fs-kept", x: 10, y: top + 33, width: b.toFixed(2), height: 8 }),
        s("rect", { class: "fs-new", x: (10 + b).toFixed(2), y: top + 33, width: Math.max(0, c - b).toFixed(2), height: 8 }));
    }));

    // Output: one bar for each component of the row that is looked at.
    const so = now.out[r].map((value) => value / (now.sum_after[r] || 1)), final = now.final[r];
    const step = (SIZE - 20) / wide, zero = 95, unit = 85 / reachOf(state, walk, from, r);
    outsTitle.textContent = `Output of “${queries[row]}”: divided now (bars), final (lines)`;
    outs.replaceChildren(s("path", { class: "lf-axis", d: `M10 ${zero}H${SIZE - 10}` }),
      ...so.map((value, c) => s("rect", { class: "fs-out", x: (10 + c * step + 1).toFixed(2), y: Math.min(zero, zero - value * unit).toFixed(2),
        width: Math.max(1, step - 2).toFixed(2), height: Math.abs(value * unit).toFixed(2) })),
      ...final.map((value, c) => s("path", { class: "fs-final", d: `M${(10 + c * step).toFixed(2)} ${(zero - value * unit).toFixed(2)}h${step.toFixed(2)}` })));

    // Bytes.
    const total = all(now.held), longest = Math.max(now.peak, state.fast, total);
    const write = ({ fill, count }, value, whole) => { fill.style.width = `${(100 * value) / whole}%`; count.textContent = value.toLocaleString("en"); };
    for (const [key, own] of Object.entries(inside)) write(own, now.held[key], longest);
    write(together, total, longest);
    together.node.style.setProperty("--limit", `${(100 * state.fast) / longest}%`);
    together.node.classList.toggle("fs-over", total > state.fast);
    together.node.classList.add("fs-limit");
    room.textContent = `Bytes of float32; the mark is the size of fast memory. A whole tile takes ${bytes(now.peak)} of ${bytes(state.fast)}: it ${now.peak <= state.fast ? "fits" : "does not fit"}. ` +
      (now.fits ? `Beside ${keysText(state.tile_k)} there is room for ${now.fits === n ? `all ${n} queries` : `${now.fits} ${now.fits === 1 ? "query" : "queries"}`}.`
        : `Beside ${keysText(state.tile_k)} there is no room for a single query.`);
    traffic.forEach((own, i) => write(own, now.moved[i], Math.max(now.moved[2], now.moved[3])));
    const each = (state.dim_head + wide) / state.tile_q;
    const more = now.moved[2] - now.moved[3];
    trade.textContent = `Bytes. Naive attention reads once what has been met up to here, and writes and reads each score and each weight. ` +
      `In all, this walk moves ${more === 0 ? "as much as naive attention" : `${Math.abs(more).toLocaleString("en")} ${more > 0 ? "more" : "less"} than naive attention`}. In a long text, for each pair of a query and a key, naive attention moves 4 numbers of scores and weights; these tiles move ` +
      `${fixed(each, each % 1 ? 1 : 0)} of keys and values, (${state.dim_head} + ${wide}) / ${state.tile_q}. ` +
      `Without a mask, tiles of more than ${fixed((state.dim_head + wide) / 4, 0)} queries move less, however short the keys are cut.` + (state.causal ? " (A causal walk skips about half of the tiles, naive attention none of the pairs.)" : "");

    // Controls, and the line.
    set(range, { max: walk.length - 1 });
    range.value = at;
    place.textContent = `${at + 1} of ${walk.length}`;
    range.setAttribute("aria-valuetext", `${at + 1} of ${walk.length}, ${kind} queries ${from} to ${to - 1}` + (kind === "tile" ? `, keys ${first} to ${last - 1}` : ""));
    back.disabled = at === 0;
    on.disabled = at === walk.length - 1;
    tileQ.show(state.tile_q);
    tileK.show(state.tile_k);
    causal.show(state.causal);
    reverse.show(state.reverse);
    query.show(row);
    memory.show(state.fast);
    view.say(`${sentence(state, now, at, r)} Moved so far: ${bytes(now.moved[0])}; naive attention up to here: ${bytes(now.moved[1])}.`);
    view.fill(now.rescale.map((factor, i) => [queries[from + i], number(now.max_before[i]), number(now.max_after[i]),
      now.max_before[i] === null ? "none" : fixed(factor, 3), fixed(now.sum_before[i]), fixed(now.sum_after[i]), fixed(now.off[i], 3)]));
  }

  const keysText = (count) => (count === 1 ? "1 key" : `${count} keys`);
  const span = (from, to, one, many) => (to - from === 1 ? `${one} ${from}` : `${many} ${from} to ${to - 1}`);
  function sentence(state, now, at, r) {
    const [kind, from, to, first, last] = now.walk[at], word = `“${queries[from + r]}”`, tiles = now.walk.filter((w) => w[0] === "tile" && w[1] === from).length;
    const skipped = Math.ceil(m / state.tile_k) - tiles;
    if (kind === "load")
      return `${span(from, to, "Query", "Queries")}: loaded; sums and outputs start at 0. ${tiles} ${tiles === 1 ? "tile" : "tiles"} of keys to come` +
        `${skipped ? `, ${skipped} skipped as all its keys lie in the future`.replace("its", skipped === 1 ? "its" : "their") : ""}.`;
    if (kind === "store")
      return `${span(from, to, "Query", "Queries")}: each output is divided by its sum, for ${word} by ${fixed(now.sum_after[r])}, and written, with one number L for each row. ` +
        (now.max_after[r] === null ? `${word} sees no key and gets zeros.` : `It is attention's own, to rounding.`);
    const [old, fresh] = [now.max_before[r], now.max_after[r]], risen = now.rescale.filter((_, i) => rises(now, i)).length;
    const head = `${span(from, to, "Query", "Queries")}, ${span(first, last, "key", "keys")}: `;
    const off = now.off[r], share = off < 0.01 ? "less than 1 %" : percent(off);
    const rest = off < 1e-12 ? ` The output of ${word} lacks nothing but the division.` : ` Divided now, the output of ${word} would be off by ${share} of its length.`;
    if (fresh === null) return `${head}${word} sees none of these keys.`;
    if (old === null) return `${head}the first keys that ${word} sees. Its maximum is ${fixed(fresh)}, its sum ${fixed(now.sum_after[r])}.${rest}`;
    const others = risen === 0 ? "no maximum rises." : to - from === 1 ? "the maximum rises." : `${risen} of ${to - from} maxima rise.`;
    if (!rises(now, r)) return `${head}${others} That of ${word} stays at ${fixed(fresh)}: factor 1, its sum goes from ${fixed(now.sum_before[r])} to ${fixed(now.sum_after[r])}.${rest}`;
    return `${head}${others} For ${word} from ${fixed(old)} to ${fixed(fresh)}: what was summed, ${fixed(now.sum_before[r])}, ` +
      `shrinks to ${fixed(now.rescale[r], 3)} of itself, ${fixed(now.rescale[r] * now.sum_before[r])}, and so does the unfinished output; the new keys bring the sum to ${fixed(now.sum_after[r])}.${rest}`;
  }

  view.paint();
  return () => { pause(); quiet.removeEventListener("change", heed); view.stop(); };
}

export default { render };
