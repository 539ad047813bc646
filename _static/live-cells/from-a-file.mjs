// Loaded as a plain script (browsers load no modules from a file): a page opened as a file says why its cells do not run.
if (location.protocol === "file:") {
  document.addEventListener("DOMContentLoaded", () => {
    const kinds = JSON.parse(document.getElementById("live-cells").textContent).cells;
    const first = document.querySelectorAll("article div.cell")[kinds.findIndex((cell) => cell.kind)];
    const note = document.createElement("p");
    note.className = "live-file";
    note.textContent = "Opened as a file, this page only shows its cells. They run here, in the browser, once the book is served over http: in its folder, python -m http.server, then open http://localhost:8000.";
    first?.before(note);
  });
}
