// The page's Python: one worker, so that a long computation never stops the page and Stop can always end it.
// No SharedArrayBuffer, so that any static host will do: Stop ends the worker and its variables with it.

let python; // the module live_runtime, packed into the book's wheel
let pyodide;

const post = (message, transfer) => self.postMessage(message, transfer);

async function start({ folder, lock }) {
  const { loadPyodide } = await import(`${folder}pyodide.mjs`);
  pyodide = await loadPyodide({
    indexURL: folder,
    lockFileURL: folder + lock,
    packages: ["attnlib"], // fetched while the interpreter starts
    env: { MPLBACKEND: "agg", PYTHONHASHSEED: "0" },
    stdout: () => {},
    stderr: () => {},
  });
  python = pyodide.pyimport("live_runtime");
  python.prepare();
}

function emit(kind, data) {
  if (typeof data === "string") return post({ kind, data });
  const bytes = data.toJs(); // a PNG: its bytes are handed over, not copied again
  data.destroy?.();
  post({ kind, data: bytes }, [bytes.buffer]);
}

async function run({ number, source }) {
  const missing = python.needs(source);
  const packages = missing.toJs();
  missing.destroy();
  for (const name of packages) {
    post({ kind: "loading", data: name });
    const failed = [];
    await pyodide.loadPackage(name, { messageCallback() {}, errorCallback: (text) => failed.push(text) });
    if (failed.length) throw new Error(failed.join("\n"));
    python.arrived(name);
  }
  post({ kind: "begun" });
  return python.run(number, source, emit);
}

// One message at a time: the page sends the next cell when it has heard of the last.
self.onmessage = async ({ data }) => {
  try {
    if (data.type === "start") {
      await start(data);
      post({ kind: "ready" });
    } else {
      post({ kind: "done", data: await run(data) });
    }
  } catch (problem) {
    post({ kind: "broken", data: String(problem?.message ?? problem) });
  }
};
