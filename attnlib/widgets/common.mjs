// What the figures share: building elements, points that can be dragged, controls with names, numbers as text.
// A figure is a function of its state. It is drawn at most once a frame, from the state alone, and every change goes
// through `model`: the widget's model in JupyterLab, a small stand-in on the page (see _static/live-figures/load.mjs).

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element: h("p", { class: "note", text: "..." }, child, ...); "onclick" and the like listen. */
export function h(name, attributes, ...children) {
  const node = document.createElement(name);
  // In JupyterLab arrow keys and Enter would go to the notebook, but for this attribute on what has the focus.
  if (["input", "select", "button", "summary"].includes(name)) node.dataset.lmSuppressShortcuts = "true";
  return build(node, attributes, children);
}

/** An SVG element, in the same way. */
export function s(name, attributes, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

/** Change attributes of an element that is there already. */
export function set(node, attributes) {
  return build(node, attributes, []);
}

/** A number as the figures write it: rounded, with a true minus sign, never a negative zero. */
export function fixed(number, digits = 2) {
  const text = number.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}

/** A share in words of a hundred: 0.314 is "31 %". */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/** Softmax of one row of scores: the largest is taken away first, so that no power overflows. */
export function softmax(scores) {
  const most = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
export const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
export const sum = (xs) => xs.reduce((a, b) => a + b, 0);

let numbered = 0;
const own = Math.random().toString(36).slice(2, 8); // in JupyterLab each figure brings a copy of this module, and each counts from 1
/** A name that no other element of the page has. */
export function unique(stem) {
  numbered += 1;
  return `lf-${stem}-${own}-${numbered}`;
}

/**
 * The frame of a figure: a title, controls, panels, a line that says what is to be seen, and the numbers as a table.
 * `draw(state)` is called at most once a frame, after any change of the model, from wherever it came.
 *
 * returns { figure, controls, panels, say, fill, ask, stop }: three elements; say(text) writes the line below and tells
 * screen readers once things rest; fill(rows) writes the table; ask() draws in the next frame; stop() takes all off.
 */
export function frame({ model, el, title, fields, columns, draw }) {
  const heading = unique("title");
  const controls = h("div", { class: "lf-controls" });
  const panels = h("div", { class: "lf-panels" });
  const line = h("p", { class: "lf-line" });
  const spoken = h("p", { class: "lf-spoken", "aria-live": "polite" });
  const body = h("tbody");
  const head = h("thead", null, h("tr", null, ...columns.map((text) => h("th", { scope: "col", text }))));
  const box = h("div", { class: "lf-scroll", tabindex: "0", role: "group", "aria-label": `${title}, in numbers` },
    h("table", { class: "lf-table" }, head, body));
  const numbers = h("details", { class: "lf-numbers" }, h("summary", { text: "In numbers" }), box);
  const caption = h("figcaption", { text: model.get("caption") ?? "" });
  const figure = h("figure", { class: "live-figure lf-alive", "aria-labelledby": heading },
    h("p", { class: "lf-title", id: heading, text: title }), controls, panels, line, numbers, caption, spoken);
  el.replaceChildren(figure);

  const state = () => Object.fromEntries(fields.map((name) => [name, model.get(name)]));
  let asked = 0, waiting = 0, rows = [], first = true;
  const paint = () => { asked = 0; draw(state()); };
  const ask = () => { if (!asked) asked = requestAnimationFrame(paint); };
  const write = () => body.replaceChildren(...rows.map((row) =>
    h("tr", null, ...row.map((text, i) => h(i ? "td" : "th", i ? { text } : { text, scope: "row" })))));
  numbers.addEventListener("toggle", () => { if (numbers.open) write(); });
  const fill = (now) => { rows = now; if (numbers.open) write(); };
  const say = (text) => {
    line.textContent = text;
    clearTimeout(waiting);
    if (!first) waiting = setTimeout(() => { spoken.textContent = text; }, 700);
    first = false;
  };
  const changed = fields.map((name) => [`change:${name}`, ask]);
  for (const [event, listener] of changed) model.on(event, listener);
  const stop = () => {
    for (const [event, listener] of changed) model.off(event, listener);
    cancelAnimationFrame(asked);
    clearTimeout(waiting);
  };
  return { figure, controls, panels, say, fill, ask, stop, state, paint };
}

/** Change some of the state and tell the kernel, if there is one. */
export function update(model, changes) {
  for (const [name, value] of Object.entries(changes)) model.set(name, value);
  model.save_changes();
}

/**
 * A labelled slider. `steps` gives its positions (any values, evenly spaced on the slider); `format` writes one.
 * The returned element has show(value), which moves it without telling anyone.
 */
export function slider({ label, steps, format = String, input }) {
  const id = unique("slider");
  const output = h("output", { for: id });
  const range = h("input", { type: "range", id, min: 0, max: steps.length - 1, step: 1,
    oninput: () => { write(); input(steps[Number(range.value)]); } });
  const write = () => {
    const text = format(steps[Number(range.value)]);
    output.textContent = text;
    range.setAttribute("aria-valuetext", text);
  };
  const control = h("div", { class: "lf-control" }, h("label", { for: id, text: label }), range, output);
  control.show = (value) => {
    const near = steps.reduce((best, step, i) => (Math.abs(step - value) < Math.abs(steps[best] - value) ? i : best), 0);
    if (Number(range.value) !== near || !output.textContent) { range.value = near; write(); }
  };
  return control;
}

/** A labelled choice of one among a few: options is a list of [value, text]. show(value) as above. */
export function choice({ label, options, input }) {
  const id = unique("choice");
  const select = h("select", { id, onchange: () => input(options[select.selectedIndex][0]) },
    ...options.map(([, text]) => h("option", { text })));
  const control = h("div", { class: "lf-control" }, h("label", { for: id, text: label }), select);
  control.show = (value) => { select.selectedIndex = options.findIndex(([own]) => own === value); };
  return control;
}

/** A labelled switch. show(value) as above. */
export function toggle({ label, input }) {
  const id = unique("toggle");
  const box = h("input", { type: "checkbox", id, onchange: () => input(box.checked) });
  const control = h("div", { class: "lf-control lf-toggle" }, box, h("label", { for: id, text: label }));
  control.show = (value) => { box.checked = value; };
  return control;
}

/** A button. */
export function button({ label, press }) {
  return h("button", { type: "button", class: "lf-button", text: label, onclick: press });
}

/**
 * Points of a drawing that can be moved: each by mouse and finger, and one of them, the picked one, by the arrow keys
 * (with Shift in large steps). To a screen reader the picked point is two sliders, across and up; all four arrows work
 * on both. Touching a point picks it.
 *
 *   inside         the <svg>
 *   toPlace([x, y])  from the coordinates of the <svg> to those of the points
 *   low, high      how far a point can go, either way; step: how far one key press goes
 *   at(i), name(i) where point i is, and what it is called
 *   move(i, [x, y])  called with the place wanted
 *   pick(i)        called when another point is picked
 *
 * returns { grab(node, i), sliders, show(i, text) }: grab makes an element of the drawing the grip of point i; `sliders`
 * stand right after the <svg>; show says which point is picked and what is to be read out for it.
 */
export function movable({ inside, toPlace, low, high, step, at, name, move, pick }) {
  let grip = null, picked = 0;
  const grips = new Map();
  const inBounds = ([x, y]) => [clamp(x, low, high), clamp(y, low, high)];
  const pointed = (event) => {
    const m = inside.getScreenCTM().inverse();
    return toPlace([event.clientX * m.a + event.clientY * m.c + m.e, event.clientX * m.b + event.clientY * m.d + m.f]);
  };
  const mark = (name, i) => grips.forEach((node, own) => node.classList.toggle(name, own === i));

  const axis = (word, i) => h("input", { type: "range", class: "lf-hidden", min: low, max: high, step: "any",
    tabindex: i ? -1 : 0, "data-axis": word, onkeydown: pressed,
    onfocus: () => mark("lf-focus", picked), onblur: () => mark("lf-focus", -1),
    oninput: (event) => { const place = [...at(picked)]; place[i] = Number(event.target.value); move(picked, place); } });
  function pressed(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const far = step * (event.shiftKey ? 5 : 1), [x, y] = at(picked);
    move(picked, inBounds([x + way[0] * far, y + way[1] * far]));
  }
  const sliders = [axis("across", 0), axis("up", 1)];

  const grab = (node, i) => {
    grips.set(i, node);
    node.classList.add("lf-grip");
    // A finger on a point moves the point, not the page. (touch-action alone is not heeded on SVG shapes everywhere.)
    node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    node.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const [x, y] = at(i), [px, py] = pointed(event);
      grip = [i, x - px, y - py];
      node.setPointerCapture(event.pointerId);
      node.classList.add("lf-held");
      pick(i);
      picked = i;
      sliders[0].focus({ preventScroll: true });
      mark("lf-focus", -1); // held: the ring of the keyboard is not needed
      event.preventDefault();
    });
    node.addEventListener("pointermove", (event) => {
      if (grip?.[0] !== i) return;
      const [px, py] = pointed(event);
      move(i, inBounds([px + grip[1], py + grip[2]]));
    });
    const release = () => { grip = null; node.classList.remove("lf-held"); };
    node.addEventListener("pointerup", release);
    node.addEventListener("pointercancel", release);
    node.addEventListener("lostpointercapture", release);
  };
  const show = (i, text) => {
    picked = i;
    sliders.forEach((input, axis) => {
      input.value = at(i)[axis];
      input.setAttribute("aria-label", `${name(i)}, ${input.dataset.axis}`);
      input.setAttribute("aria-valuetext", text);
    });
    if (sliders.includes(document.activeElement) && !grip) mark("lf-focus", i);
  };
  return { grab, sliders, show };
}
