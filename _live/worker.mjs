// Python for one page: Pyodide in a worker of its own, so that the page stays alive, and a loop without end can be stopped.
import { loadPyodide } from "./pyodide/pyodide.mjs";

const FOLDER = new URL("./", import.meta.url).href;
let python, runner, current = 0;

async function bytes(name) {
  const answer = await fetch(FOLDER + name);
  if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
  return answer.arrayBuffer();
}

async function start({ extras }) {
  postMessage({ kind: "phase", text: "Loading Python" });
  const own = bytes("book.zip"), more = extras.map((name) => bytes(`data/${name}`));
  // Pyodide waits for ever if its program cannot be fetched, and only writes a warning: make an error of it.
  const warn = console.warn;
  const broken = new Promise((_, reject) => {
    console.warn = (...said) => (String(said[0]).startsWith("wasm instantiation failed") ? reject(new Error("pyodide.asm.wasm could not be loaded")) : warn(...said));
  });
  python = await Promise.race([broken, loadPyodide({ indexURL: `${FOLDER}pyodide/`, packages: ["numpy"], env: { MPLBACKEND: "agg" },
    stdout: () => {}, stderr: () => {} })]);
  console.warn = warn;
  postMessage({ kind: "phase", text: "Unpacking the book's library" });
  const place = python.runPython("import site; site.getsitepackages()[0]");
  python.unpackArchive(await own, "zip", { extractDir: place });
  for (let i = 0; i < extras.length; i += 1)
    python.FS.writeFile(`${place}/attnlib/data/${extras[i]}`, new Uint8Array(await more[i]));
  runner = python.pyimport("runner");
  runner.send = (kind, text) => postMessage({ kind, text, cell: current });
}

async function run({ cell, code }) {
  current = cell;
  const wanted = runner.needs(code), packages = wanted.toJs();
  wanted.destroy();
  if (packages.length) {
    postMessage({ kind: "phase", text: "Loading matplotlib", cell });
    await python.loadPackage(packages, { messageCallback: () => {} });
    runner.prepare();
  }
  postMessage({ kind: "phase", text: "Running", cell });
  postMessage({ kind: "done", cell, error: runner.run(code, cell) });
}

onmessage = async ({ data }) => {
  try {
    if (data.kind === "start") { await start(data); postMessage({ kind: "ready" }); } else await run(data);
  } catch (problem) {
    postMessage({ kind: "failed", cell: data.cell, text: String(problem?.message ?? problem) });
  }
};
