// Pattern explorer: put a sparse pattern together; the blocks that are computed, what they cost, and how far a stack sees.
import { button, choice, frame, h, percent, set, slider, toggle, update } from "./common.mjs";

const PARTS = ["causal", "window", "left", "right", "dilated", "reach", "step", "doubling", "tokens", "first_tokens", "blocks", "near", "first", "drawn", "seed"];
const FIELDS = ["patterns", "draws", "pattern", "seq", "block", "depth", "query", ...PARTS];
const WIDTH_OF_HEAD = 64;

/** The twin of masks._scramble: a fixed pseudo-random number below 2^20 for each number, given three salts. */
function scramble(number, salts) {
  let state = number % 1048576;
  [1597, 2039, 1861].forEach((factor, i) => { state = ((state ^ (state >> 9)) * factor + salts[i]) % 1048576; });
  return state ^ (state >> 9);
}

const stepIn = (state, layer) => (state.doubling ? state.step * 2 ** (layer - 1) : state.step);

/** The pattern of one layer: n × n bytes, 1 where a query (row) may see a key. Each part fills what it allows. */
function maskOf(state, layer) {
  const { seq: n, block } = state, count = Math.ceil(n / block), mask = new Uint8Array(n * n), step = stepIn(state, layer);
  const anything = state.window || state.dilated || state.tokens || state.blocks;
  for (let i = 0; i < n; i += 1) {
    const row = mask.subarray(i * n, (i + 1) * n), own = Math.floor(i / block);
    const fill = (from, to) => row.fill(1, Math.max(0, from), Math.max(0, to));
    const fillBlocks = (from, to) => fill(from * block, to * block);
    if (!anything) fill(0, n);
    if (state.window) fill(i - state.left, i + state.right + 1);
    if (state.dilated) for (let back = 0; back <= state.reach && i - back * step >= 0; back += 1) row[i - back * step] = 1;
    if (state.tokens) fill(0, i < state.first_tokens ? n : state.first_tokens);
    if (state.blocks) {
      fillBlocks(own - state.near, own + state.near + 1);
      fillBlocks(0, own < state.first ? count : state.first);
      for (const salts of state.draws[state.seed].slice(0, state.drawn)) {
        const chosen = scramble(own, salts) % count;
        fillBlocks(chosen, chosen + 1);
      }
    }
    if (state.causal) row.fill(0, i + 1);
  }
  return mask;
}

/** For each pair, the layer with which the key first reaches the query: 0 for the token itself, 255 if none does. */
function arrivals(state, masks) {
  const n = state.seq, words = Math.ceil(n / 32), arrives = new Uint8Array(n * n).fill(255);
  let seen = new Int32Array(n * words); // one bit for each key, 32 to a number
  for (let i = 0; i < n; i += 1) { seen[i * words + (i >> 5)] |= 1 << (i & 31); arrives[i * n + i] = 0; }
  masks.forEach((mask, at) => {
    const now = seen.slice();
    let changed = at === 0 || masks[at] !== masks[at - 1];
    for (let i = 0; i < n; i += 1) {
      for (let j = 0; j < n; j += 1)
        if (mask[i * n + j]) for (let word = 0; word < words; word += 1) now[i * words + word] |= seen[j * words + word];
      for (let word = 0; word < words; word += 1)
        for (let fresh = now[i * words + word] & ~seen[i * words + word]; fresh; fresh &= fresh - 1) {
          arrives[i * n + 32 * word + 31 - Math.clz32(fresh & -fresh)] = at + 1;
          changed = true;
        }
    }
    seen = now;
    if (!changed) masks.length = at + 1; // the same pattern again brings nothing more
  });
  return arrives;
}

/** All that does not depend on the query followed. */
function figured(state) {
  const { seq: n, block, depth } = state, count = Math.ceil(n / block);
  const first = maskOf(state, 1), varies = state.dilated && state.doubling;
  const masks = Array.from({ length: depth }, (_, at) => (varies && at ? maskOf(state, at + 1) : first));
  const mask = masks[depth - 1], kinds = new Uint8Array(count * count);
  let pairs = 0, inside = 0;
  for (let y = 0; y < count; y += 1)
    for (let x = 0; x < count; x += 1) {
      const bottom = Math.min(n, (y + 1) * block), right = Math.min(n, (x + 1) * block), size = (bottom - y * block) * (right - x * block);
      let allowed = 0;
      for (let i = y * block; i < bottom; i += 1) for (let j = x * block; j < right; j += 1) allowed += mask[i * n + j];
      kinds[y * count + x] = (allowed > 0) + (allowed === size);
      pairs += allowed;
      if (allowed) inside += size;
    }
  const arrives = arrivals(state, masks);
  return { mask, kinds, count, pairs, inside, arrives, all: within(arrives, depth) };
}

/** How many of these arrive with the first layer, with the first two, and so on. */
function within(arrives, depth) {
  const by = new Array(256).fill(0);
  for (const layer of arrives) by[layer] += 1;
  let soFar = by[0];
  return Array.from({ length: depth }, (_, at) => { soFar += by[at + 1]; return soFar; });
}

const rowOf = (arrives, n, i) => arrives.subarray(i * n, (i + 1) * n);

/** The pattern as Python writes it. */
function written(state) {
  const parts = [];
  if (state.window) parts.push(`masks.sliding_window(${state.left}, ${state.right})`);
  if (state.dilated) parts.push(`masks.dilated(${state.reach}, ${stepIn(state, state.depth)})`);
  if (state.tokens) parts.push(`masks.global_tokens(${state.first_tokens})`);
  if (state.blocks) parts.push(`masks.bigbird(${state.seq}, ${state.block}, ${state.near}, ${state.first}, ${state.drawn}, seed=${state.seed})`);
  if (!parts.length) return state.causal ? "masks.causal" : "None";
  const union = parts.length === 1 ? parts[0] : `masks.either(${parts.join(", ")})`;
  return state.causal ? `masks.both(masks.causal, ${union})` : union;
}

/** FLOPs of one head: two products, each a multiplication and an addition for each pair and each of 64 numbers. */
const flops = (pairs) => 4 * WIDTH_OF_HEAD * pairs;

/** The twin of PatternExplorer.computed in Python. */
export function computed(state) {
  const { seq: n } = state, { mask, kinds, count, pairs, inside, arrives, all } = figured(state), own = rowOf(arrives, n, state.query);
  const texts = (numbers, width) => Array.from({ length: width }, (_, i) => numbers.slice(i * width, (i + 1) * width).join(""));
  return { written: written(state), mask: texts(mask, n), kinds: texts(kinds, count), pairs, inside,
    flops: { dense: flops(n * n), blocks: flops(inside), pairs: flops(pairs) },
    arrives: Array.from(own, (layer) => (layer === 255 ? -1 : layer)), reached: within(own, state.depth), all };
}

const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");
const counted = (count, one) => `${grouped(count)} ${one}${count === 1 ? "" : "s"}`;

function render({ model, el }) {
  const start = Object.fromEntries(FIELDS.map((name) => [name, model.get(name)])), patterns = start.patterns, names = Object.keys(patterns);
  const view = frame({ model, el, title: "Patterns, blocks and reach", fields: FIELDS, columns: ["what", "count"], draw });
  const range = (from, to, by = 1) => Array.from({ length: Math.floor((to - from) / by) + 1 }, (_, i) => from + i * by);
  const of = (name) => (value) => update(model, { [name]: value, pattern: "" });

  const pattern = choice({ label: "Pattern", options: [["", "(your own)"], ...names.map((name) => [name, name])],
    input: (name) => (name ? update(model, { pattern: name, ...patterns[name] }) : open()) });
  const seq = slider({ label: "Tokens", steps: range(8, 256, 4), input: (value) => update(model, { seq: value,
    query: model.get("query") === model.get("seq") - 1 ? value - 1 : Math.min(model.get("query"), value - 1) }) }); // the last stays the last
  const block = choice({ label: "Block", options: [1, 2, 4, 8, 16, 32].map((side) => [side, `${side} × ${side}`]), input: (value) => update(model, { block: value }) });
  const depth = slider({ label: "Layers", steps: range(1, 8), input: (value) => update(model, { depth: value }) });
  const query = slider({ label: "Token followed", steps: range(0, 255), input: (value) => update(model, { query: Math.min(value, model.get("seq") - 1) }) });
  view.controls.append(pattern, seq, block, depth, query, button({ label: "Start again", press: () => update(model, start) }));

  // Its parts, each with a switch and its numbers.
  const flags = Object.fromEntries([["causal", "Causal: no key after the query"], ["window", "Window"], ["dilated", "Dilated window"], ["doubling", "twice the step in each layer"],
    ["tokens", "Global tokens"], ["blocks", "Blocks, Big Bird"]].map(([name, label]) => [name, toggle({ label, input: of(name) })]));
  const numbers = Object.fromEntries([["left", "keys before", 0, 64], ["right", "keys after", 0, 64], ["reach", "keys back", 0, 64], ["step", "every", 1, 32],
    ["first_tokens", "how many", 0, 32], ["near", "neighbours to a side", 0, 4], ["first", "first blocks", 0, 4], ["drawn", "drawn at random", 0, 3], ["seed", "which draw (seed)", 0, 7]]
    .map(([name, label, low, high]) => [name, slider({ label, steps: range(low, high), input: of(name) })]));
  const group = (flag, ...rest) => h("div", { class: "pe-part", role: "group", "aria-label": flags[flag].textContent }, flags[flag], ...rest);
  const own = h("details", { class: "pe-own" }, h("summary", { text: "Put a pattern together" }),
    h("div", { class: "pe-parts" }, group("causal"), group("window", numbers.left, numbers.right), group("dilated", numbers.reach, numbers.step, flags.doubling),
      group("tokens", numbers.first_tokens), group("blocks", numbers.near, numbers.first, numbers.drawn, numbers.seed)));
  const open = () => { own.open = true; }; // "(your own)" alone changes nothing
  const code = h("code", { class: "pe-code" });
  view.controls.after(own, h("p", { class: "pe-line" }, code));

  // Two square drawings: the pattern with its blocks, and the layers with which keys arrive. A row is a query.
  const square = (title, label, legend) => {
    const canvas = h("canvas", { role: "img", "aria-label": label }), row = h("i", { class: "pe-row" }), grid = h("i", { class: "pe-grid", hidden: true });
    const tip = h("p", { class: "ae-tip", text: "\u00a0" }), keys = h("p", { class: "pe-legend", "aria-hidden": "true" }, ...legend);
    const board = h("div", { class: "pe-board" }, canvas, grid, row);
    const at = (event) => {
      const box = board.getBoundingClientRect(), n = model.get("seq");
      const inside = (x, size) => Math.min(n - 1, Math.max(0, Math.floor((x / size) * n)));
      return [inside(event.clientY - box.top, box.height), inside(event.clientX - box.left, box.width)];
    };
    board.addEventListener("click", (event) => update(model, { query: at(event)[0] }));
    board.addEventListener("pointermove", (event) => {
      const [i, j] = at(event);
      if (event.pointerType === "mouse" && event.buttons === 1 && i !== model.get("query")) update(model, { query: i });
      tip.textContent = told(i, j);
    });
    board.addEventListener("pointerleave", () => { tip.textContent = "\u00a0"; });
    const heading = h("p", { text: title });
    return { canvas, grid, row, keys, heading, node: h("div", { class: "lf-panel" }, heading, board, keys, tip) };
  };
  const swatch = (kind, text, style) => h("span", { class: "pe-item" }, h("i", { class: `pe-swatch pe-${kind}`, style }), text);
  const pairs = square("", "The pattern, cut into blocks", [swatch("needed", "needed"), swatch("vain", "computed in vain"), swatch("skipped", "skipped")]);
  const field = square("The stack: the layer with which a key arrives", "With how many layers each key reaches each query", []);
  const bar = (name) => { const i = h("i"), b = h("b"); return { i, b, node: h("div", { class: "cc-bar" }, h("span", { text: name }), h("u", null, i), b) }; };
  const costBars = { dense: bar("all pairs"), blocks: bar("computed blocks"), pairs: bar("pairs needed") };
  for (const [name, { node }] of Object.entries(costBars)) node.classList.add(`pe-${name}`);
  const steps = h("div", { class: "cc-bars", "aria-hidden": "true" }), stepsTitle = h("p");
  view.panels.append(pairs.node, field.node, h("div", { class: "lf-panel" }, h("p", { text: `FLOPs of one head of width ${WIDTH_OF_HEAD}` }),
    h("div", { class: "cc-bars", "aria-hidden": "true" }, ...Object.values(costBars).map(({ node }) => node))), h("div", { class: "lf-panel" }, stepsTitle, steps));

  let last = null;
  function told(i, j) {
    if (!last) return "";
    const { now, all } = last, n = now.seq, kind = all.kinds[Math.floor(i / now.block) * all.count + Math.floor(j / now.block)];
    const arrives = all.arrives[i * n + j];
    return `query ${i}, key ${j}: ${all.mask[i * n + j] ? "needed" : kind ? "computed in vain" : "skipped"}; ` +
      (arrives === 255 ? `not within ${counted(now.depth, "layer")}` : arrives ? `arrives with layer ${arrives}` : "the token itself");
  }

  /** A colour of the style as four bytes, read from a drawing of one pixel; share mixes it with another. */
  const pixel = h("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  function bytes(colour, other, share = 1) {
    pixel.globalAlpha = 1;
    pixel.fillStyle = other ?? colour;
    pixel.fillRect(0, 0, 1, 1);
    pixel.globalAlpha = share;
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return new Uint32Array(pixel.getImageData(0, 0, 1, 1).data.buffer)[0];
  }
  const strength = (layer, depth) => (depth === 1 ? 1 : 1 - (0.88 * (layer - 1)) / (depth - 1));

  /** One pixel for each pair. */
  function paint(canvas, n, colourOf) {
    if (canvas.width !== n) { canvas.width = n; canvas.height = n; }
    const pen = canvas.getContext("2d"), image = pen.createImageData(n, n), pixels = new Uint32Array(image.data.buffer);
    for (let i = 0, at = 0; i < n; i += 1) for (let j = 0; j < n; j += 1, at += 1) pixels[at] = colourOf(at, i, j);
    pen.putImageData(image, 0, 0);
  }

  let kept = "", painted = "";
  function draw(now) {
    const n = now.seq, stamp = [n, now.block, now.depth, ...PARTS.map((name) => now[name])].join();
    const all = stamp === kept ? last.all : figured(now);
    kept = stamp;
    last = { now, all, reached: within(rowOf(all.arrives, n, now.query), now.depth) };
    const style = getComputedStyle(view.figure), [line, warm, ground] = ["--lf-line", "--lf-warm", "--lf-ground"].map((name) => style.getPropertyValue(name) || "#000");
    const look = [stamp, line, warm, ground].join();
    if (look !== painted) {
      painted = look;
      const colours = [bytes(ground), bytes(warm, ground, 0.4), bytes(line)], shift = Math.log2(now.block);
      paint(pairs.canvas, n, (at, i, j) => colours[all.mask[at] ? 2 : all.kinds[(i >> shift) * all.count + (j >> shift)] ? 1 : 0]);
      const shades = new Uint32Array(256).fill(bytes(ground)), layers = Array.from({ length: now.depth }, (_, at) => at + 1);
      for (const layer of layers) shades[layer] = bytes(line, ground, strength(layer, now.depth));
      shades[0] = shades[1];
      paint(field.canvas, n, (at) => shades[all.arrives[at]]);
      field.keys.replaceChildren(...layers.map((layer) => swatch("shade", String(layer), `--a:${strength(layer, now.depth)}`)), swatch("skipped", "never"));
    }
    for (const part of [pairs, field]) part.row.style.cssText = `--y:${now.query};--n:${n}`;
    pairs.grid.style.backgroundSize = `${(100 * now.block) / n}cqw ${(100 * now.block) / n}cqw`;
    pairs.grid.hidden = now.block === 1 || all.count > 64; // finer lines would hide what they cut

    pairs.heading.textContent = `${now.dilated && now.doubling ? `Layer ${now.depth}` : "One layer"}: queries down, keys across`;
    const cost = { dense: n * n, blocks: all.inside, pairs: all.pairs };
    for (const [name, { i, b }] of Object.entries(costBars)) {
      i.style.width = `${(100 * cost[name]) / (n * n)}%`;
      b.textContent = `${grouped(flops(cost[name]))}, ${shareOf(cost[name], n * n)}`;
    }
    stepsTitle.textContent = `Tokens that reach token ${now.query}, by layers`;
    steps.replaceChildren(...last.reached.map((count, at) => {
      const { node, i, b } = bar(`${at + 1}`);
      node.classList.add("pe-reached");
      i.style.width = `${(100 * count) / n}%`;
      b.textContent = `${count}`;
      return node;
    }));

    pattern.show(now.pattern);
    seq.show(n);
    block.show(now.block);
    depth.show(now.depth);
    set(query.querySelector("input"), { max: n - 1 });
    query.show(now.query);
    for (const [name, control] of Object.entries({ ...flags, ...numbers })) control.show(now[name]);
    const on = { left: "window", right: "window", reach: "dilated", step: "dilated", first_tokens: "tokens", near: "blocks", first: "blocks", drawn: "blocks", seed: "blocks" };
    for (const [name, flag] of Object.entries(on)) numbers[name].hidden = !now[flag];
    flags.doubling.hidden = !now.dilated;

    code.textContent = written(now);
    const byKind = [0, 0, 0], possible = now.causal ? (n * (n + 1)) / 2 : n * n;
    for (const kind of all.kinds) byKind[kind] += 1;
    const complete = all.all.findIndex((count) => count === possible) + 1;
    view.say(`${grouped(all.pairs)} of ${grouped(n * n)} pairs are needed (${shareOf(all.pairs, n * n)}); ${grouped(byKind[1] + byKind[2])} of ${grouped(all.count ** 2)} blocks are computed, ` +
      `${shareOf(all.inside, n * n)} of the FLOPs of all pairs. Token ${now.query} is reached by ${counted(last.reached[0], "token")} after one layer` +
      (now.depth > 1 ? `, by ${grouped(last.reached[now.depth - 1])} after ${now.depth}. ` : ". ") +
      (complete ? `${complete === 1 ? "One layer connects" : `${complete} layers connect`} every token with ${now.causal ? "all of its past" : "every other"}.`
        : `Of all ${now.causal ? "pairs of a token and its past" : "pairs"}, ${shareOf(all.all[now.depth - 1], possible)} are within reach.`));
    view.fill([["pairs", n * n], ["pairs allowed", all.pairs], ["pairs computed", all.inside], ["blocks whole", byKind[2]], ["blocks in part", byKind[1]], ["blocks skipped", byKind[0]],
      ["FLOPs of all pairs, one head of width 64", flops(n * n)], ["FLOPs of the computed blocks", flops(all.inside)],
      ...last.reached.map((count, at) => [`tokens that reach token ${now.query} within ${counted(at + 1, "layer")}`, count])].map(([what, count]) => [what, grouped(count)]));
  }
  const shareOf = (part, whole) => (part === whole || part / whole >= 0.095 || !part ? percent(part / whole) : `${(100 * part / whole).toFixed(1)} %`);

  const themed = new MutationObserver(view.ask);
  themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  view.paint();
  requestAnimationFrame(() => view.ask()); // once in the page, where colours are known
  return () => { themed.disconnect(); view.stop(); };
}

export default { render };
