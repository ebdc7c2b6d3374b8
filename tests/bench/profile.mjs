// Where the todo worker's time goes: workerd's CPU profile of one case, by function.
// `worker-build` keeps the name section of the wasm, so its functions have their Rust names.

import WebSocket from "ws";
import { freePort, until } from "../e2e/harness.mjs";
import { cases, fill, once } from "./cases.mjs";
import { Side } from "./servers.mjs";

const SAMPLE_US = 100;
const GAP_US = 1_000;
const ROWS = 40;
/** What V8 calls the time in which no function runs. */
const NOT_WORK = /^native  \((idle|root)\)$/;

/** A connection to the inspector of the worker, over the Chrome DevTools protocol. */
class Inspector {
  #calls = new Map();
  #last = 0;

  static async open(port) {
    const base = `http://127.0.0.1:${port}`;
    const target = await until("the inspector names the worker", async () => {
      const list = await fetch(`${base}/json`).then((answer) => answer.json()).catch(() => []);
      return list.find((one) => one.webSocketDebuggerUrl);
    });
    const inspector = new Inspector();
    const url = new URL(target.webSocketDebuggerUrl);
    url.host = `127.0.0.1:${port}`;
    inspector.ws = new WebSocket(url);
    inspector.ws.on("message", (data) => {
      const { id, result, error } = JSON.parse(data);
      const call = inspector.#calls.get(id);
      if (!call) return;
      inspector.#calls.delete(id);
      if (error) call.reject(new Error(error.message));
      else call.resolve(result);
    });
    await new Promise((resolve, reject) => inspector.ws.once("open", resolve).once("error", reject));
    return inspector;
  }

  call(method, params = {}) {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.ws.send(JSON.stringify({ id, method, params }));
    });
  }

  /** The text of the scripts that these functions are in. */
  async sources(nodes) {
    await this.call("Debugger.enable");
    const sources = new Map();
    for (const { callFrame } of nodes) {
      const { scriptId, url } = callFrame;
      if (!url || url.startsWith("wasm:") || sources.has(scriptId)) continue;
      sources.set(scriptId, (await this.call("Debugger.getScriptSource", { scriptId })).scriptSource);
    }
    return sources;
  }

  close() {
    this.ws.close();
  }
}

/** The glue that wasm calls is in functions without names, in a property that says what it is for. */
function nearestName(source, line, column) {
  const before = source.split("\n")[line]?.slice(0, column) ?? "";
  return before.match(/__wb(?:g|indgen)_\w+/g)?.at(-1)?.replace(/_[0-9a-f]{16}$/, "");
}

/** Where a function is, and its name without what the compiler adds to tell copies apart. */
function place({ scriptId, url, functionName, lineNumber, columnNumber }, sources) {
  if (url.startsWith("wasm:")) {
    const name = functionName.replace(/::h[0-9a-f]{16}$/, "").replaceAll(/\[[0-9a-f]{16}\]/g, "");
    return `wasm    ${name || `function at ${columnNumber}`}`;
  }
  if (!url) return `native  ${functionName || "(anonymous)"}`;
  const file = url.split("/").at(-1);
  const name = functionName || nearestName(sources.get(scriptId) ?? "", lineNumber, columnNumber) || "(anonymous)";
  return `js      ${name} (${file}:${lineNumber + 1}:${columnNumber + 1})`;
}

/** Times in microseconds by function: its own, and that of all it has called. */
function functionTimes({ nodes, samples, timeDeltas }, sources) {
  const byId = new Map(nodes.map(({ id, callFrame, children }) => [id, { name: place(callFrame, sources), children }]));
  for (const [id, { children }] of byId) for (const child of children ?? []) byId.get(child).parent = id;
  const times = new Map();
  const of = (name) => times.get(name) ?? times.set(name, { name, time: 0, total: 0 }).get(name);
  samples.forEach((id, index) => {
    // The profiler's clock goes on while the system runs something else: a gap is not the function's.
    const time = Math.min(timeDeltas[index], GAP_US);
    of(byId.get(id).name).time += time;
    const callers = new Set();
    for (let at = id; at; at = byId.get(at).parent) callers.add(byId.get(at).name);
    for (const name of callers) of(name).total += time;
  });
  return [...times.values()];
}

/** Runs a case on the todo worker with the profiler on; the table of the dearest functions. */
export async function profile(name, data, scale) {
  const inspectorPort = await freePort();
  const side = await Side.start("ours", data, { tracing: false, inspector: inspectorPort });
  try {
    const { filled } = cases[name];
    if (filled) await fill(side, filled, scale.rows[filled]);
    // The first run compiles and makes tables; the second is what is looked at.
    await once(name, side, scale, "warm");
    const inspector = await Inspector.open(inspectorPort);
    await inspector.call("Profiler.enable");
    await inspector.call("Profiler.setSamplingInterval", { interval: SAMPLE_US });
    await inspector.call("Profiler.start");
    const { value, cpu } = await once(name, side, scale, "profiled");
    const { profile } = await inspector.call("Profiler.stop");
    const sources = await inspector.sources(profile.nodes);
    inspector.close();
    const times = functionTimes(profile, sources).filter((one) => !NOT_WORK.test(one.name));
    const all = times.reduce((sum, one) => sum + one.time, 0);
    const inWasm = times.filter((one) => one.name.startsWith("wasm ")).reduce((sum, one) => sum + one.time, 0);
    const percent = (time) => `${((100 * time) / all).toFixed(1).padStart(5)} %`;
    const lines = (key) =>
      times
        .toSorted((a, b) => b[key] - a[key])
        .slice(0, ROWS)
        .map((one) => `${percent(one.time)} ${percent(one.total)}  ${one.name}`);
    return [
      `${name}: ${value.toFixed(1)} with the profiler on; ${cpu?.toFixed(0) ?? "?"} µs of CPU an operation`,
      `${(all / 1_000).toFixed(0)} ms in functions, of it in wasm ${percent(inWasm).trim()}; self time, and with what it calls:`,
      ...lines("time"),
      "by the time with what they call:",
      ...lines("total"),
    ].join("\n");
  } finally {
    await side.stop();
  }
}
