// Make one document of the built site's pages, inside the browser that will print it. No library; everything comes from the site.
// tools/pdf.py opens an empty page at the site's address and calls what is exported here, in this order:
// assemble (all pages in one), typeset (formulas, figures), fit (what is wider than the paper), number (page numbers, once known).

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const words = (element) => element.textContent.replace(/\s+/g, " ").trim();
const slug = (address) => new URL(address).pathname.replace(/\.html$/, "").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
const pageOf = (id) => make("span", { class: "page-of", "data-of": id }, "000");

/** Kinds of words in code that print.css gives a look. */
const COLOURED = new Set("k kc kd kn kr kt ow c c1 ch cm cs sd s s1 s2 sa sb se sf si".split(" "));

async function load(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`The site has no page ${address}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  page.address = address.split("#")[0];
  for (const article of page.querySelectorAll("article")) strip(article);
  return page;
}

/** The parts of the book with their pages, as the site's own menu lists them; what stands before the first caption is the root. */
function contents(root) {
  const parts = [{ title: "", pages: [root.address] }];
  for (const entry of root.querySelectorAll("nav.bd-links :is(p.caption, li.toctree-l1 > a)")) {
    if (entry.matches("p.caption")) parts.push({ title: words(entry), pages: [] });
    else if (entry.getAttribute("href") !== "#") parts.at(-1).pages.push(new URL(entry.getAttribute("href"), root.address).href);
  }
  return parts;
}

/** What only a screen needs goes, what is folded opens. */
function strip(article) {
  for (const screen of article.querySelectorAll(".headerlink, button.copybtn, .sd-summary-state-marker, script, style, noscript")) screen.remove();
  for (const details of article.querySelectorAll("details")) details.open = true;
  // Each element becomes one in the PDF's structure; words of code that look like their surroundings need none.
  for (const word of article.querySelectorAll(".highlight span")) if (!COLOURED.has(word.className)) word.replaceWith(...word.childNodes);
  article.normalize();
  for (const link of article.querySelectorAll("a[title]")) link.removeAttribute("title");
}

/** Names are unique on a page only: in the book each gets its page's name in front, and links point to that. */
function rename(article, page, inside, outside) {
  const own = slug(page.address);
  for (const named of article.querySelectorAll("[id]")) named.id = `${own}--${named.id}`;
  for (const attribute of ["for", "aria-labelledby", "aria-describedby", "aria-controls"])
    for (const user of article.querySelectorAll(`[${attribute}]`)) user.setAttribute(attribute, `${own}--${user.getAttribute(attribute)}`);
  for (const picture of article.querySelectorAll("img[src]")) picture.setAttribute("src", new URL(picture.getAttribute("src"), page.address).href);
  for (const link of article.querySelectorAll("a[href]")) {
    const target = new URL(link.getAttribute("href"), page.address);
    const address = target.href.split("#")[0];
    if (target.origin !== location.origin) continue;
    if (inside.has(address)) {
      const name = decodeURIComponent(target.hash.slice(1));
      link.setAttribute("href", `#${slug(address)}${name ? `--${name}` : ""}`);
      if (address !== page.address && address.includes("/chapters/")) link.classList.add("elsewhere"); // its page number is written beside it
    } else if (outside) link.setAttribute("href", new URL(target.pathname.slice(1) + target.hash, outside).href);
    else link.replaceWith(...link.childNodes); // a page that is not printed, of a site that has no address
  }
}

/** Solutions go to the back of the book; in their place stands the page where they are. */
function takeSolutions(section, chapter, solutions) {
  const found = [];
  let exercise = null;
  for (const element of section.querySelectorAll("div.admonition.exercise, div.cell.tag_ex-solution")) {
    if (element.matches(".exercise")) { exercise = element; continue; }
    if (!exercise) continue;
    exercise.id ||= `${section.id}--exercise-${found.length + 1}`;
    const id = `solution--${exercise.id}`;
    element.replaceWith(make("p", { class: "to-solution" }, make("a", { href: `#${id}` }, "A solution is on page ", pageOf(id), ".")));
    const title = words(exercise.querySelector(".admonition-title"));
    for (const fold of element.querySelectorAll("details")) fold.replaceWith(...[...fold.children].filter((part) => !part.matches("summary")));
    element.classList.remove("tag_ex-solution");
    found.push(make("div", { class: "solution", id },
      make("p", { class: "solution-title" }, title, " ", make("a", { href: `#${exercise.id}` }, "page ", pageOf(exercise.id))), element));
    exercise = null;
  }
  if (found.length) solutions.push(make("section", {}, make("h2", {}, chapter), ...found));
}

const heading = (id, title, chapters) => make("section", { class: "part", id }, make("h1", {}, title),
  ...chapters.map(([chapter, name]) => make("a", { href: `#${chapter}` }, make("span", { class: "entry" }, name), pageOf(chapter))));
const quoted = (text) => `"${text.replace(/[\\"]/g, "\\$&").replace(/\n/g, " ")}"`;
/** Page numbers outside, the book's title on left pages and the chapter's on right ones: pages of one name share them. */
const running = (name, left, right) => `
  @page ${name}:left { @top-left { content: counter(page) } @top-center { content: ${quoted(left)} } }
  @page ${name}:right { @top-right { content: counter(page) } @top-center { content: ${quoted(right)} } }
  .in-${name} { page: ${name} }`;

export async function assemble({ skip, size, subtitle, author, imprint }) {
  document.documentElement.lang = "en-GB";
  document.documentElement.dataset.theme = "light";
  let root = await load(new URL("index.html", location.href).href);
  const onward = root.querySelector("meta[http-equiv=Refresh i]")?.content.match(/url=["']?([^"';]+)/i);
  if (onward) root = await load(new URL(onward[1], root.address).href);
  const parts = contents(root)
    .map((part) => ({ ...part, pages: part.pages.filter((address) => !skip.some((start) => new URL(address).pathname.startsWith(`/${start}`))) }))
    .filter((part) => part.pages.length);
  const inside = new Set(parts.flatMap((part) => part.pages));
  const outside = root.querySelector("link[rel=canonical]")?.href.replace(/[^/]*$/, "");
  const pages = new Map();
  for (const address of inside) pages.set(address, address === root.address ? root : await load(address));

  // The site's own look, each sheet once, then the book's.
  const sheets = new Set([...pages.values()].flatMap((page) =>
    [...page.querySelectorAll("link[rel=stylesheet]")].map((link) => new URL(link.getAttribute("href"), page.address).href)));
  const loaded = [...sheets, new URL("/--/pdf.css", location.href).href].map((href) => new Promise((done, failed) => {
    const link = make("link", { rel: "stylesheet", href });
    link.onload = done;
    link.onerror = () => failed(new Error(`no style ${href}`));
    document.head.append(link);
  }));
  await Promise.all(loaded);

  const title = words(root.querySelector("h1") ?? root.querySelector("title"));
  document.title = title;
  const toc = [], solutions = [], styles = [], book = make("main", { class: "bd-content" });
  for (const [number, part] of parts.entries()) {
    if (part.title) {
      const id = `part-${number}`;
      book.append(heading(id, part.title, part.pages.map((address) => [slug(address), words(pages.get(address).querySelector("article h1"))])));
      toc.push({ id, title: part.title, level: 0 });
    }
    for (const address of part.pages) {
      const page = pages.get(address), article = document.adoptNode(page.querySelector("article"));
      rename(article, page, inside, outside);
      const section = make("div", { class: "chapter bd-article-container", id: slug(address) }, article), h1 = article.querySelector("h1");
      const name = address === root.address ? "About this book" : words(h1);
      if (address === root.address) h1.textContent = name;
      const style = `p${styles.length}`;
      section.classList.add(`in-${style}`);
      styles.push(running(style, title, name.replace(/^(\d+)\. /, "$1  ")));
      const level = address === root.address ? 0 : 1;
      toc.push({ id: section.id, title: name, level });
      for (const h2 of article.querySelectorAll("h2")) {
        const id = h2.closest("section[id]")?.id;
        if (id) toc.push({ id, title: words(h2), level: level + 1 });
      }
      takeSolutions(section, name, solutions);
      book.append(section);
    }
  }
  if (solutions.length) {
    const back = make("div", { class: "chapter bd-article-container in-solutions", id: "solutions" },
      make("article", { class: "bd-article" }, make("h1", {}, "Solutions"),
        make("p", {}, "One way of many for each exercise, kept away from the chapters so that nobody reads one in passing."), ...solutions));
    styles.push(running("solutions", title, "Solutions"));
    toc.push({ id: "solutions", title: "Solutions", level: 0 });
    for (const section of back.querySelectorAll("section")) {
      section.id = `solutions--${toc.length}`;
      toc.push({ id: section.id, title: words(section.querySelector("h2")), level: 1 });
    }
    book.append(back);
  }
  const front = make("section", { class: "title-page" },
    make("div", {}, make("h1", {}, title), make("p", { class: "subtitle" }, subtitle)), make("p", { class: "author" }, author),
    make("p", { class: "imprint" }, ...[root.querySelector(".copyright"), imprint].filter(Boolean).flatMap((line) => [line.textContent ? words(line) : line, make("br")])));
  const list = make("nav", { class: "book-contents in-contents", id: "contents" }, make("h1", {}, make("a", { href: "#contents" }, "Contents")),
    ...toc.map((entry) => make("a", { class: `level-${entry.level}`, href: `#${entry.id}` },
      make("span", { class: "entry" }, entry.title), make("i"), pageOf(entry.id))));
  styles.push(running("contents", title, "Contents"));
  document.head.append(make("style", {}, `@page { size: ${size} }${styles.join("")}`));
  document.body.append(front, list, book);
  for (const link of book.querySelectorAll("a.elsewhere")) link.after(make("span", { class: "on-page" }, " p. ", pageOf(link.hash.slice(1))));

  const lost = [...document.querySelectorAll("a[href^='#']")].filter((link) => !document.getElementById(link.getAttribute("href").slice(1)));
  const math = [...pages.values()].map((page) => [...page.querySelectorAll("script")]).find((all) => all.some((one) => /mathjax/.test(one.src)));
  return {
    title, toc, pages: [...inside], problems: lost.map((link) => `a link to ${link.getAttribute("href")} leads nowhere (“${words(link)}”)`),
    mathjax: math ? {
      config: math.find((one) => /window\.MathJax\s*=/.test(one.textContent))?.textContent ?? "",
      script: new URL(math.find((one) => /mathjax/.test(one.src)).getAttribute("src"), root.address).pathname.replace(/^.*(?=_static)/, "/"),
    } : null,
  };
}

/** Formulas by the site's MathJax; figures that answer as they stand before anyone touches them; then wait for pictures and fonts. */
export async function typeset(mathjax) {
  if (mathjax) {
    document.head.append(make("script", {}, mathjax.config));
    window.MathJax ??= {};
    // The hidden MathML is for screen readers of a page; in a PDF it would be a second, invisible copy of every formula.
    window.MathJax.options = { ...window.MathJax.options, enableAssistiveMml: false, menuOptions: { settings: { assistiveMml: false } } };
    await new Promise((done, failed) => {
      const script = make("script", { src: mathjax.script });
      script.onload = done;
      script.onerror = () => failed(new Error(`no MathJax at ${mathjax.script}`));
      document.head.append(script);
    });
    await window.MathJax.startup.promise;
    for (const item of window.MathJax.startup.document.math) {
      item.typesetRoot?.setAttribute("role", "img");
      item.typesetRoot?.setAttribute("aria-label", item.math.trim());
    }
  }
  const loader = "/_static/live-figures/load.mjs";
  if (document.querySelector("figure.live-figure[data-figure]")) await import(loader);
  await Promise.all([...document.images].map((picture) => picture.decode().catch(() => { throw new Error(`no picture ${picture.src}`); })));
  await document.fonts.ready;
  return [...document.querySelectorAll("mjx-merror")].map((error) => `MathJax: ${error.textContent}`);
}

/** Code that is too wide, the gentlest means first: comments move up to their line, letters get smaller, lines hang below themselves. */
function fitCode(pre) {
  const style = getComputedStyle(pre), room = pre.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const width = () => {
    pre.style.whiteSpace = "pre";
    pre.style.width = "max-content";
    const wide = pre.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    pre.style.whiteSpace = pre.style.width = "";
    return wide;
  };
  let wide = width();
  if (wide <= room) return;
  const plain = pre.textContent.split("\n"), most = Math.floor(room / (wide / Math.max(...plain.map((line) => line.length))));
  const lines = pre.innerHTML.replace(/\n$/, "").split("\n").map((line, number) => // no word of highlighted code goes over a line's end
    plain[number].length > most ? line.replace(/(\S) {3,}(<span class="c1">)/, "$1  $2") : line);
  pre.innerHTML = lines.join("\n");
  wide = width();
  if (wide <= room) return;
  // More so for what was printed: its columns stand below each other.
  if (room / wide >= (pre.closest(".cell_output") ? 0.76 : 0.86)) {
    pre.style.setProperty("font-size", `${Math.floor(parseFloat(style.fontSize) * (room / wide) * 100) / 100}px`, "important");
    return;
  }
  pre.innerHTML = lines.map((line, number) => {
    const hang = plain[number].length - plain[number].trimStart().length + 4;
    return `<span class="line" style="padding-left:${hang}ch;text-indent:-${hang}ch">${line || " "}\n</span>`;
  }).join("");
}

/** In the width of the paper: long lines of code hang below their first, formulas and tables shrink; say what still sticks out. */
export function fit() {
  for (const pre of document.querySelectorAll(".highlight pre")) fitCode(pre);
  for (const picture of document.querySelectorAll(".cell_output img"))
    if (picture.naturalHeight > 0.8 * picture.naturalWidth) picture.classList.add("tall");
  const small = [];
  for (const box of document.querySelectorAll("mjx-container[display='true'], article table, mjx-container:not([display])")) {
    const room = box.parentElement.closest("p, li, dd, div, td, th, section, figure, h1, h2, h3, nav, main").clientWidth;
    const wide = box.matches("table") ? box.getBoundingClientRect().width : (box.firstElementChild ?? box).getBoundingClientRect().width;
    if (wide <= room + 1 || room === 0) continue;
    const scale = Math.max(0.5, room / wide);
    box.style.zoom = scale;
    if (scale < 0.7) small.push(`a ${box.tagName.toLowerCase()} at ${Math.round(100 * scale)} % in ${box.closest(".chapter")?.id}`);
  }
  // What leaves the text block is cut off on paper. (A space at the end of a line of code hangs out of it, and nobody sees it.)
  const edge = document.documentElement.clientWidth, out = [];
  for (const element of document.querySelectorAll("main *, nav *")) {
    if (element.closest("svg, .highlight pre *, .lf-spoken, .lf-hidden, .sr-only, .visually-hidden") || element.parentElement.closest("[data-out]")) continue;
    const box = element.getBoundingClientRect(), right = element.matches("pre") ? box.left + element.scrollWidth : box.right;
    if (!box.width || (right <= edge + 2 && box.left >= -2)) continue;
    element.dataset.out = ""; // its parts need not be named, too
    out.push(`<${element.tagName.toLowerCase()} class="${element.className}"> reaches from ${Math.round(box.left)} to ${Math.round(right)}, the text from 0 to ${edge} px: ${words(element).slice(0, 50)}`);
  }
  return { small, out };
}

/** Write each page number where its name is asked for; say which are still unknown. */
export function number(pages) {
  const unknown = [];
  for (const place of document.querySelectorAll(".page-of")) {
    const page = pages[place.dataset.of];
    if (page) place.textContent = page;
    else unknown.push(place.dataset.of);
  }
  return unknown;
}
