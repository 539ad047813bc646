// Two small things the pages need: boxes that scroll sideways can be reached from the keyboard,
// and the words of the picture on the title page can be chosen. No library, no request.
"use strict";

function reachScrollingBoxes() {
  for (const formula of document.querySelectorAll("article mjx-container:not([display='true'])")) {
    const line = formula.parentElement.closest("p, li, td, dd, summary, figcaption, h1, h2, h3");
    if (line && formula.getBoundingClientRect().width > line.clientWidth + 1) formula.classList.add("wide-inline");
  }
  const boxes = document.querySelectorAll(
    "article mjx-container[display='true'], article mjx-container.wide-inline, article div.math, article .output, article .cell_output pre, " +
    "article div.highlight pre, article .table-wrap, article .pst-scrollable-table-container"
  );
  for (const box of boxes) {
    if (box.scrollWidth > box.clientWidth + 1) {
      box.tabIndex = 0;
      if (!box.hasAttribute("role")) box.setAttribute("role", "group");
      if (!box.hasAttribute("aria-label")) box.setAttribute("aria-label", "scrolls sideways");
    }
  }
}

function choose(figure, row) {
  for (const panel of figure.querySelectorAll(".al-panel")) {
    const weights = JSON.parse(panel.dataset.weights)[row];
    const lines = panel.querySelectorAll("line");
    const keys = panel.querySelectorAll(".al-keys li");
    weights.forEach((weight, j) => {
      lines[j].setAttribute("y1", row + 0.5);
      lines[j].style.setProperty("--w", weight);
      keys[j].style.setProperty("--w", weight);
      keys[j].querySelector("b").textContent = weight >= 0.045 ? weight.toFixed(2) : "";
    });
    panel.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", String(i === row)));
  }
}

// A page opened as a file: browsers load no modules there, so that no figure comes to life. (Pages with live cells say so themselves.)
function sayWhyNothingMoves() {
  if (location.protocol !== "file:" || document.getElementById("live-cells") || !document.querySelector("figure.live-figure")) return;
  const note = document.createElement("p");
  note.className = "live-note";
  note.textContent = "This page was opened as a file. Its figures move if the folder is served: `make book`, or `python -m http.server` in it.";
  document.querySelector("article h1")?.after(note);
}

document.addEventListener("DOMContentLoaded", () => {
  sayWhyNothingMoves();
  for (const figure of document.querySelectorAll(".attention-lines")) {
    figure.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-row]");
      if (button) choose(figure, Number(button.dataset.row));
    });
  }
});

window.addEventListener("load", () => {
  reachScrollingBoxes();
  if (window.MathJax?.startup?.promise) window.MathJax.startup.promise.then(reachScrollingBoxes);
  let waiting;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(reachScrollingBoxes, 200);
  });
  document.addEventListener("toggle", reachScrollingBoxes, true);
});
