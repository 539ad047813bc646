// What a reader can do by now. The list "What you can now do" of a chapter gets boxes to tick; what is ticked is kept in this
// browser and nowhere else, and shown beside the chapters in the sidebar and on the title page. Without this script, and without
// ticks, every page is as it was built.
const script = document.querySelector("script[data-abilities]");
const root = new URL(document.documentElement.dataset.content_root, location.href);
const PLACE = `can-do:${root.pathname}`; // another copy of the book on this host keeps its own
let kept = true; // whether this browser lets us keep anything
let ticks = read(); // "page#item"
let forgotten = null; // what "Forget all ticks" took away, until something else is ticked

function read() {
  try {
    return new Set(JSON.parse(localStorage.getItem(PLACE)) ?? []);
  } catch (error) {
    kept = error instanceof SyntaxError || error instanceof TypeError; // spoilt ticks are no ticks; no storage is something else
    return new Set();
  }
}

function change(how) {
  if (kept) ticks = read(); // another tab may have been faster
  how();
  try {
    if (ticks.size) localStorage.setItem(PLACE, JSON.stringify([...ticks]));
    else localStorage.removeItem(PLACE);
  } catch {
    kept = false; // for this visit the boxes work all the same
  }
  show();
}

// --- The boxes of this page ---

const boxes = new Map();
for (const item of document.querySelectorAll(".can-do li[id]")) {
  const box = Object.assign(document.createElement("input"), { type: "checkbox", id: `${item.id}-box`, autocomplete: "off" });
  const label = Object.assign(document.createElement("label"), { htmlFor: box.id });
  label.append(...(item.querySelector(":scope > p") ?? item).childNodes);
  item.replaceChildren(box, label);
  const name = `${script.dataset.page}#${item.id}`;
  boxes.set(name, box);
  box.addEventListener("change", () => change(() => {
    forgotten = null;
    if (box.checked) ticks.add(name);
    else ticks.delete(name);
  }));
}
const list = document.querySelector(".can-do"), status = list?.querySelector(".can-do-status");
if (boxes.size) list.classList.add("can-be-ticked");

// --- The chapters, in the sidebar and on the title page ---

let abilities; // page -> its items; asked for when something is ticked
const ask = () => abilities ??= fetch(new URL(script.dataset.abilities, script.src)).then((answer) => answer.json()).catch(() => ({}));

function mark(link, done, all) {
  const place = link.closest(".chapter-list") ? link.parentElement : link;
  let said = place.querySelector(".can-do-mark");
  if (!done) return said?.remove();
  if (!said) place.append(said = Object.assign(document.createElement("span"), { className: "can-do-mark" }));
  said.textContent = ` ${done} of ${all}`;
  said.title = `You ticked ${done} of the ${all} things that this chapter teaches`;
  said.style.setProperty("--done", done / all);
}

async function showChapters() {
  const known = ticks.size ? await ask() : {};
  for (const link of document.querySelectorAll(".bd-sidebar-primary .toctree-l1 > a, .chapter-list li a")) {
    const page = decodeURI(link.pathname.slice(root.pathname.length)).replace(/\.html$/, "");
    const all = known[page] ?? [];
    mark(link, all.filter((item) => ticks.has(`${page}#${item}`)).length, all.length);
  }
}

// --- The title page: forget them all ---

const forget = document.querySelector(".can-do-forget");
const words = document.createElement("span"), button = Object.assign(document.createElement("button"), { type: "button", hidden: true });
button.className = "btn btn-sm";
button.addEventListener("click", () => change(() => {
  [ticks, forgotten] = forgotten ? [forgotten, null] : [new Set(), ticks];
}));
forget?.append(words, " ", button);

function show() {
  for (const [name, box] of boxes) box.checked = ticks.has(name);
  if (boxes.size) {
    const done = [...boxes.values()].filter((box) => box.checked).length;
    const where = kept ? "Ticks are kept in this browser only." : "This browser keeps nothing: ticks last until you leave the page.";
    status.textContent = `${done ? `${done} of ${boxes.size}.` : "Tick what you can do."} ${where}`;
  }
  words.textContent = forgotten ? "All ticks forgotten." : ticks.size ? "Ticks stay in this browser." : "";
  button.textContent = forgotten ? "Bring them back" : "Forget all ticks";
  button.hidden = !forgotten && !ticks.size;
  showChapters();
}

show();
// Said aloud from now on, not on arrival.
for (const place of [status, words]) place?.setAttribute("role", "status");

function again() {
  ticks = read();
  if (ticks.size) forgotten = null;
  show();
}
addEventListener("storage", (event) => { if (event.key === PLACE || event.key === null) again(); });
addEventListener("pageshow", (event) => { if (event.persisted) again(); }); // back to a page that was put aside
