// Bring the page's figures to life: each is stored with its state and its numbers; its ES module draws it in their
// place. Where the module cannot be loaded, the numbers stay. The same modules run in JupyterLab, as widgets.

/** What a module needs of a widget's model, without a kernel behind it. */
function model(state) {
  const listeners = new Map();
  return {
    state,
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const listener of listeners.get(`change:${name}`) ?? []) listener();
    },
    save_changes() {},
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: (event, listener) => listeners.set(event, (listeners.get(event) ?? []).filter((own) => own !== listener)),
  };
}

for (const still of document.querySelectorAll("figure.live-figure[data-figure]")) {
  try {
    const { default: module } = await import(`./${still.dataset.figure}.mjs`);
    const room = document.createElement("div");
    const state = model(JSON.parse(still.dataset.state));
    await module.render({ model: state, el: room });
    room.firstChild.model = state; // for the console, and for the tests
    still.replaceWith(room.firstChild);
  } catch (problem) {
    console.warn(`The figure ${still.dataset.figure} stays as it is printed:`, problem);
  }
}
document.documentElement.dataset.figures = "ready";
