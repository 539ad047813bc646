// On the page that a host shows at an address it does not know: find the top of the site, then load what the page needs
// from there. Written into 404.html at build time, since at an unknown address even this file could not be found.
(async () => {
  const known = JSON.parse(document.getElementById("find-the-site").textContent);
  const page = document.documentElement;
  page.style.visibility = "hidden";  // until it has its style; without scripts it is never hidden
  if (page.dataset.theme === "auto") // as the theme's own script will, when it comes
    page.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

  // Where the top may be, the likeliest first: the published address, the place before one of the site's own folders,
  // then every folder of the address, the nearest first.
  function* candidates() {
    const here = location.origin + location.pathname;
    if (known.site && here.startsWith(known.site)) yield known.site;
    const parts = location.pathname.split("/").slice(1, -1);
    const own = parts.findIndex((part) => known.folders.includes(part));
    const depths = own < 0 ? [] : [own];
    for (let depth = parts.length; depth >= 0; depth--) depths.push(depth);
    for (const depth of new Set(depths)) yield location.origin + "/" + parts.slice(0, depth).map((part) => part + "/").join("");
  }

  async function find() {
    for (const root of candidates()) {
      try {
        const answer = await fetch(root + "_static/logo.svg", { method: "HEAD" });
        if (answer.ok && /svg/.test(answer.headers.get("content-type") ?? "svg")) return root;
      } catch { /* no connection: the next one will not do better, but costs nothing */ }
    }
    return "";
  }

  const root = await find();
  if (root) {
    page.dataset.content_root = root;  // Sphinx's search asks for this
    const loaded = [], styles = [];
    const wait = (element) => loaded.push(new Promise((done) => { element.onload = element.onerror = done; }));
    for (const element of document.querySelectorAll("[data-address]")) {
      const { attribute, address } = element.dataset;
      if (element.localName === "script") {  // a script that was parsed without an address must be made anew
        const script = document.createElement("script");
        for (const { name, value } of element.attributes) if (!name.startsWith("data-a")) script.setAttribute(name, value);
        script.async = false;                // in their order
        script.src = root + address;
        wait(script);
        element.replaceWith(script);
        continue;
      }
      if (element.localName === "link" && element.rel === "stylesheet") {
        wait(element);
        element.media = "not all"; // they come in any order and must apply at once: half of them would ask for what the others spare
        styles.push(element);
      }
      element.setAttribute(attribute, root + address);
    }
    await Promise.all(loaded);
    for (const style of styles) style.removeAttribute("media");
  }
  page.style.visibility = "";
})();
