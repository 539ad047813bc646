// Cost calculator: a model's shape and a context, and what follows in exact whole numbers (BigInt: 10^24 is no rarity).
import { button, choice, fixed, frame, h, s, set, slider, toggle, update } from "./common.mjs";

const SHAPE = ["layers", "dim", "heads", "kv_heads", "dim_head", "hidden", "vocab", "positions"];
const FLAGS = ["gated", "centred", "bias", "tied"];
const FIELDS = ["presets", "preset", ...SHAPE, ...FLAGS, "context", "batch", "bytes_per_number", "causal"];
const NAMES = {
  parameters: "parameters", projections: "FLOPs of the projections of attention", products: "FLOPs of the products of attention", mlp: "FLOPs of the MLPs",
  unembedding: "FLOPs of the output matrix", token: "FLOPs of one token more", weights: "bytes of the weights", cache: "bytes of the key-value cache",
  meeting: "tokens from which on the products are the larger part", full: "tokens from which on the cache is larger than the weights",
};
const PARTS = [["projections", "projections"], ["mlp", "MLPs"], ["unembedding", "output matrix"], ["products", "products of attention"]];
const W = 340, H = 260, LEFT = 58, RIGHT = 14, TOP = 14, BOTTOM = 38;

const ceiling = (a, b) => (a + b - 1n) / b;
const atLeast = (a, least) => (a > least ? a : least);

/** The twin of CostCalculator.computed in Python, in whole numbers of any size; `exact` keeps them as BigInt. */
function exact(state) {
  const [L, D, hq, hk, d, F, V, P, n, batch, bytes] = [...SHAPE, "context", "batch", "bytes_per_number"].map((name) => BigInt(state[name]));
  const width = hq * d, both = width + 2n * hk * d, one = BigInt(state.bias), gate = state.gated ? 2n : 1n, norm = D * (state.centred ? 2n : 1n);
  const attention = D * both + one * both + width * D + one * D;
  const mlp = D * F * gate + one * F * gate + F * D + one * D;
  const parameters = L * (attention + mlp + 2n * norm) + norm + V * D * (state.tied ? 1n : 2n) + P * D;
  const projections = L * 2n * (D * both + width * D), mlps = L * 2n * (D * F * gate + F * D), out = 2n * D * V; // for one token
  const pair = L * 4n * width, rest = projections + mlps + out;                                                  // for one pair, for one token
  const pairs = state.causal ? (n * (n + 1n)) / 2n : n * n;
  const perToken = 2n * L * hk * d * batch * bytes, weights = parameters * bytes;
  return {
    parameters, projections: n * projections, mlp: n * mlps, unembedding: n * out, products: pair * pairs, token: rest + pair * n,
    weights, cache: perToken * n,
    meeting: atLeast(state.causal ? ceiling(2n * rest, pair) - 1n : ceiling(rest, pair), 1n),
    full: atLeast(ceiling(weights, perToken), 1n),
  };
}

export function computed(state) {
  return Object.fromEntries(Object.entries(exact(state)).map(([name, count]) => [name, String(count)]));
}

const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");

/** A count as people say it: three digits and a unit. */
function said(count, unit, step = 1000, names = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"]) {
  let number = Number(count), i = 0;
  while (number >= 999.5 && i < names.length - 1) { number /= step; i += 1; }
  return `${number >= 100 || i === 0 ? Math.round(number) : number.toPrecision(3)} ${names[i]}${unit}`;
}
const flops = (count) => said(count, "FLOP");
const size = (count) => said(count, "B", 1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]);

/** A round number of an axis: 10 G, 32 Mi. */
function round(number, step, names) {
  let i = 0;
  while (number >= step * 0.999 && i < names.length - 1) { number /= step; i += 1; }
  return `${Math.round(number)} ${names[i]}`;
}

function render({ model, el }) {
  const start = Object.fromEntries(FIELDS.map((name) => [name, model.get(name)]));
  const presets = start.presets, names = Object.keys(presets);
  const view = frame({ model, el, title: "What a model costs", fields: FIELDS, columns: ["what", "exactly"], draw });
  const powers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => 2 ** (from + i));
  const of = (name) => (value) => update(model, { [name]: value, preset: "" });

  const preset = choice({ label: "Model", options: [["", "(your own)"], ...names.map((name) => [name, name])],
    input: (name) => (name ? update(model, { preset: name, ...presets[name] }) : open()) });
  const context = slider({ label: "Context, tokens", steps: powers(4, 21), format: grouped, input: (value) => update(model, { context: value }) });
  const batch = slider({ label: "Texts at once", steps: powers(0, 10), format: grouped, input: (value) => update(model, { batch: value }) });
  const bytes = choice({ label: "Bytes a number", options: [[4, "4 (float32)"], [2, "2 (bfloat16)"], [1, "1 (8 bits)"]], input: (value) => update(model, { bytes_per_number: value }) });
  const causal = toggle({ label: "causal, masked tiles skipped", input: (on) => update(model, { causal: on }) });
  view.controls.append(preset, context, batch, bytes, causal, button({ label: "Start again", press: () => update(model, start) }));

  const divisors = (whole) => Array.from({ length: whole }, (_, i) => i + 1).filter((each) => whole % each === 0);
  const sliders = {
    layers: slider({ label: "layers", steps: [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 126], input: of("layers") }),
    dim: slider({ label: "width D", steps: [256, 384, 512, 768, 1024, 2048, 4096, 8192, 12288, 16384], format: grouped, input: of("dim") }),
    heads: slider({ label: "query heads", steps: [4, 8, 12, 16, 32, 64, 96, 128],
      input: (value) => update(model, { heads: value, kv_heads: value % model.get("kv_heads") ? value : model.get("kv_heads"), preset: "" }) }),
    dim_head: slider({ label: "width of a head", steps: [32, 64, 80, 96, 128, 192, 256], input: of("dim_head") }),
    hidden: slider({ label: "width in the MLP", steps: [1024, 1536, 3072, 4096, 8192, 14336, 28672, 49152, 53248], format: grouped, input: of("hidden") }),
  };
  const shared = choice({ label: "heads of keys and values", options: [], input: of("kv_heads") });
  const own = h("details", { class: "cc-own" }, h("summary", { text: "Another shape" }), h("div", { class: "lf-controls" }, ...Object.values(sliders), shared));
  view.controls.after(own);
  const open = () => { own.open = true; }; // "(your own)" alone changes nothing

  // What one forward pass takes, part by part.
  const bars = PARTS.map(([key, name]) => {
    const bar = h("i"), number = h("b");
    return { key, bar, number, row: h("div", { class: `cc-bar cc-${key}` }, h("span", { text: name }), h("u", null, bar), number) };
  });
  const stack = h("div", { class: "cc-bars", "aria-hidden": "true" }, ...bars.map(({ row }) => row));

  const chart = (label, title, lines) => {
    const paths = Object.fromEntries(lines.map(([key, name, style]) => [key, { path: s("path", { class: `lf-curve ${style}` }), text: s("text", { class: `cc-name ${style}`, text: name }) }]));
    const here = s("line", { class: "lf-drop", y1: TOP, y2: H - BOTTOM }), cross = s("circle", { class: "lf-here lf-warm", r: 5 });
    const ticks = s("g"), left = s("g");
    const svg = s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label }, left, ticks, here, ...Object.values(paths).flatMap(({ path, text }) => [path, text]), cross,
      s("text", { class: "lf-tick", x: (W + LEFT) / 2, y: H - 4, "text-anchor": "middle", text: "tokens of context" }));
    return { node: h("div", { class: "lf-panel" }, h("p", { text: title }), svg), paths, here, cross, ticks, left };
  };
  const work = chart("FLOPs of one token against the context", "FLOPs for one token more", [["products", "products of attention", "lf-warm"], ["rest", "everything else", ""]]);
  const memory = chart("Bytes of weights and cache against the context", "Bytes that generating has to hold", [["cache", "key-value cache", "lf-warm"], ["weights", "weights", ""]]);
  const note = h("p", { class: "lf-line" });
  view.panels.append(h("div", { class: "lf-panel cc-all" }, h("p", { text: "FLOPs of one forward pass over the context" }), stack, note), work.node, memory.node);

  const toX = (n) => LEFT + ((W - LEFT - RIGHT) * (Math.log2(n) - 4)) / 17;
  function plot(part, curves, meeting, now, base, name) {
    const values = Object.values(curves).flatMap((curve) => [curve(16), curve(2 ** 21)]), log = (value) => Math.log(value) / Math.log(base);
    const low = Math.floor(log(Math.min(...values))), high = Math.ceil(log(Math.max(...values)));
    const toY = (value) => TOP + (H - TOP - BOTTOM) * (1 - (log(value) - low) / (high - low));
    part.left.replaceChildren();
    for (let power = low; power <= high; power += Math.max(1, Math.round((high - low) / 5)))
      part.left.append(s("line", { class: "lf-axis", x1: LEFT, x2: W - RIGHT, y1: toY(base ** power), y2: toY(base ** power) }),
        s("text", { class: "lf-tick", x: LEFT - 4, y: toY(base ** power) + 4, "text-anchor": "end", text: name(base ** power) }));
    part.ticks.replaceChildren(...[["64", 64], ["1k", 2 ** 10], ["16k", 2 ** 14], ["256k", 2 ** 18], ["2M", 2 ** 21]].map(([text, n]) =>
      s("text", { class: "lf-tick", x: toX(n), y: H - BOTTOM + 15, "text-anchor": "middle", text })));
    const steps = Array.from({ length: 35 }, (_, i) => 2 ** (4 + i / 2));
    for (const [key, curve] of Object.entries(curves)) {
      set(part.paths[key].path, { d: `M${steps.map((n) => `${toX(n).toFixed(1)} ${toY(curve(n)).toFixed(1)}`).join("L")}` });
      const flat = curve(16) === curve(2 ** 21), at = flat ? 16 : 2 ** 9; // the flat line is named above its beginning, the other below
      set(part.paths[key].text, { x: toX(at) + 4, y: toY(curve(at)) + (flat ? -6 : 18) });
    }
    set(part.here, { x1: toX(now), x2: toX(now) });
    const inside = meeting >= 16 && meeting <= 2 ** 21;
    set(part.cross, inside ? { cx: toX(meeting), cy: toY(Object.values(curves)[1](meeting)), visibility: "visible" } : { visibility: "hidden" });
  }

  function draw(now) {
    const counts = exact(now), total = PARTS.reduce((sum, [key]) => sum + counts[key], 0n);
    for (const { key, bar, number } of bars) {
      const share = Number((10000n * counts[key]) / total) / 100;
      bar.style.width = `${share}%`;
      number.textContent = `${flops(counts[key])}, ${share >= 10 ? Math.round(share) : share.toFixed(1)} %`;
    }
    const n = BigInt(now.context), one = (counts.token - BigInt(now.layers) * 4n * BigInt(now.heads * now.dim_head) * n), pair = Number(now.layers * 4 * now.heads * now.dim_head);
    plot(work, { products: (x) => pair * x, rest: () => Number(one) }, Number(one) / pair, now.context, 10, (count) => round(count, 1000, ["", "k", "M", "G", "T", "P", "E"]));
    const each = Number(counts.cache / n);
    plot(memory, { cache: (x) => each * x, weights: () => Number(counts.weights) }, Number(counts.full), now.context, 32, (count) => `${round(count, 1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])}B`);

    preset.show(now.preset);
    context.show(now.context);
    batch.show(now.batch);
    bytes.show(now.bytes_per_number);
    causal.show(now.causal);
    for (const [name, control] of Object.entries(sliders)) control.show(now[name]);
    const select = shared.querySelector("select"), wanted = divisors(now.heads);
    if (select.options.length !== wanted.length || select.dataset.of !== String(now.heads)) {
      select.replaceChildren(...wanted.map((count) => h("option", { text: String(count) })));
      select.dataset.of = String(now.heads);
      select.onchange = () => update(model, { kv_heads: wanted[select.selectedIndex], preset: "" });
    }
    select.selectedIndex = wanted.indexOf(now.kv_heads);

    const share = Number((10000n * counts.products) / total) / 100;
    note.textContent = `${flops(total)} in all; ${grouped(counts.parameters)} parameters.`;
    view.say(`At ${grouped(now.context)} tokens the products of attention are ${share >= 0.5 ? Math.round(share) : "less than 1"} % of a forward pass; they are half of it from ${grouped(counts.meeting)} on, ${fixed(Number(counts.meeting) / now.dim, 1)} widths, and of one token more from ${grouped(Math.ceil(Number(one) / pair))} on. ` +
      `The cache of ${grouped(now.batch)} ${now.batch === 1 ? "text" : "texts"} takes ${size(counts.cache)}, the weights ${size(counts.weights)}; the cache is the larger from ${grouped(counts.full)} tokens on.`);
    view.fill(Object.entries(NAMES).map(([key, name]) => [name, grouped(counts[key])]));
  }

  view.paint();
  return view.stop;
}

export default { render };
