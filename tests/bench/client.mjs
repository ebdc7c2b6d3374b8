// How fast a client is: in Chromium with and without a slow processor, and natively. `cargo xtask
// bench client` runs it; docs/performance.md tells about it.

import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { root, until } from "../e2e/harness.mjs";
import { entries, launch } from "../e2e/page.mjs";
import { repeats, stop } from "./arguments.mjs";
import { fill } from "./cases.mjs";
import { clientTable, writeClientDocs } from "./client-report.mjs";
import { barePage, inputs } from "./input.mjs";
import { median } from "./report.mjs";
import { Side, temporaryFolder } from "./servers.mjs";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    json: { type: "string" },
    smoke: { type: "boolean" },
    "write-docs": { type: "boolean" },
  },
});
const rounds = repeats("rounds", options);
if (options.smoke && options["write-docs"]) stop("--write-docs wants a whole run");
const scale = options.smoke ? { rows: 2_000, todos: 200 } : { rows: 50_000, todos: 10_000 };
/** How many times slower the page's processor is made. */
const throttles = [1, 4];
/** How many todos are toggled, and keys pressed, in a round. */
const times = 5;
/** How many todos the page mounts at first. */
const mounted = Math.min(100, scale.todos);

/** The page without a framework, as `cargo xtask` has built it. */
const page = process.env.BENCH_PAGE ?? stop("run `cargo xtask bench client`");
const types = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };
const files = Object.fromEntries(readdirSync(page).map((name) => [name, readFileSync(join(page, name))]));
files["index.html"] = Buffer.from(`<!doctype html><script type="module">
  import init, { Client } from "/bench/app.js";
  const { memory } = await init({ module_or_path: "/bench/app_bg.wasm" });
  const tasks = [];
  const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries()));
  observer.observe({ type: "longtask" });
  const from = memory.buffer.byteLength;
  window.load = async (room) => {
    const begun = performance.now();
    const client = (window.client = Client.open(room));
    const since = async (wait) => (await wait, performance.now() - begun);
    const [first, live] = await Promise.all([since(client.first_rows()), since(client.live())]);
    const stored = await since(client.stored());
    // What a task was is told when it has ended.
    await new Promise((resolve) => setTimeout(resolve, 200));
    tasks.push(...observer.takeRecords());
    const own = tasks.filter((task) => task.startTime + task.duration > begun);
    const longest = Math.max(0, ...own.map((task) => task.duration));
    return { first, live, stored, longest, long: own.length, rows: client.rows(), memory: memory.buffer.byteLength - from };
  };
</script>`);

/** A profile of its own in which /bench/ is the page, whoever serves the rest. */
async function withProfile(browser, body) {
  const context = await browser.newContext({ serviceWorkers: "block" });
  await context.route(/\/bench\//, (route) => {
    const name = new URL(route.request().url()).pathname.slice("/bench/".length) || "index.html";
    return route.fulfill({ body: files[name], contentType: types[name.split(".").at(-1)] });
  });
  try {
    return await body(context);
  } finally {
    await context.close();
  }
}

async function throttled(context, rate) {
  const tab = await context.newPage();
  const session = await context.newCDPSession(tab);
  await session.send("Emulation.setCPUThrottlingRate", { rate });
  return tab;
}

const expect = (what, found, wanted) => {
  if (found !== wanted) throw new Error(`${what}: ${found}, not ${wanted}`);
};

/** A first load of the rows, and one of what it has stored. */
const loads = (browser, server, rate) =>
  withProfile(browser, async (context) => {
    const found = {};
    for (const from of ["network", "stored"]) {
      const tab = await throttled(context, rate);
      await tab.goto(`${server.url}/bench/`);
      await tab.waitForFunction(() => window.load);
      const load = await tab.evaluate((room) => window.load(room), "rows");
      expect("rows", load.rows, scale.rows);
      found[from] = load;
      await tab.close();
    }
    return found;
  });

/** The todo app's page: from its address to the first todos in it, and what it does for an input. */
const todos = (browser, server, rate) =>
  withProfile(browser, async (context) => {
    const found = {};
    for (const from of ["network", "stored"]) {
      const tab = await throttled(context, rate);
      await tab.goto(`${server.url}/#todos`, { waitUntil: "commit" });
      const shown = (count) => document.querySelectorAll(".todos li").length === count;
      await tab.waitForFunction(shown, mounted, { polling: 20, timeout: 120_000 });
      found[from] = await tab.evaluate(() => performance.now());
      await tab.locator('.pill[data-phase="live"]').waitFor();
      // All rows are stored in one transaction with their channel.
      await until("the rows are stored", async () => (await entries(tab, "channel", "todos")) > 0);
      if (from === "stored") found.inputs = await inputs(browser, tab, times);
      await tab.close();
    }
    return found;
  });

/** What a browser works for an input in a page of nothing else. */
const bare = (browser, rate) =>
  withProfile(browser, async (context) => {
    const tab = await throttled(context, rate);
    await tab.setContent(barePage(mounted));
    return inputs(browser, tab, times);
  });

/** How many bytes a mounted todo takes: of the wasm's memory, and of the heap of JavaScript. */
const mountedBytes = (browser, server) =>
  withProfile(browser, async (context) => {
    const tab = await context.newPage();
    await tab.addInitScript(() => {
      const { instantiateStreaming } = WebAssembly;
      WebAssembly.instantiateStreaming = async (...given) => {
        const module = await instantiateStreaming.apply(WebAssembly, given);
        window.memory = module.instance.exports.memory;
        return module;
      };
    });
    const session = await context.newCDPSession(tab);
    const count = () => tab.locator(".todos li").count();
    const look = async () => {
      await session.send("HeapProfiler.collectGarbage");
      const { usedSize } = await session.send("Runtime.getHeapUsage");
      return { count: await count(), js: usedSize, wasm: await tab.evaluate(() => window.memory.buffer.byteLength) };
    };
    await tab.goto(`${server.url}/#todos`);
    await tab.locator('.pill[data-phase="live"]').waitFor();
    const from = await look();
    const wanted = Math.min(scale.todos, 3_000);
    await until(`${wanted} are mounted`, async () => {
      await tab.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
      return (await count()) >= wanted;
    });
    const to = await look();
    const each = (name) => Math.round((to[name] - from[name]) / (to.count - from.count));
    return { count: to.count, wasm: each("wasm"), js: each("js") };
  });

const medians = (list, keys) => Object.fromEntries(keys.map((key) => [key, median(list.map((one) => one[key]))]));

const gzipped = (folder, names) => names.reduce((sum, name) => sum + gzipSync(readFileSync(join(folder, name)), { level: 9 }).length, 0);

const begun = Date.now();
const native = JSON.parse(execFileSync(process.env.BENCH_NATIVE ?? stop("run `cargo xtask bench client`"), options.smoke ? ["--smoke"] : [], { encoding: "utf8" }));
const figures = {
  ...scale,
  rounds,
  native,
  sizes: {
    page: gzipped(page, ["app_bg.wasm", "app.js"]),
    todo: gzipped(join(root, "fixtures/todo-sync/web/dist"), ["app_bg.wasm", "app.js"]),
  },
  loads: [],
  todoPage: [],
};
const side = await Side.start("ours", temporaryFolder(), { tracing: false });
// A page that is fulfilled has no address, and may not open sockets to this machine.
const browser = await launch(["--disable-features=LocalNetworkAccessChecks"]);
try {
  await fill(side, "rows", scale.rows);
  await fill(side, "todos", scale.todos);
  figures.mounted = await mountedBytes(browser, side.server);
  for (const rate of throttles) {
    const [loaded, shown, floor] = [[], [], []];
    for (let round = 0; round < rounds; round += 1) {
      loaded.push(await loads(browser, side.server, rate));
      shown.push(await todos(browser, side.server, rate));
      floor.push(await bare(browser, rate));
      console.error(`${rate}x ${round + 1}/${rounds}: ${JSON.stringify(loaded.at(-1))} ${JSON.stringify(shown.at(-1))}`);
    }
    for (const from of ["network", "stored"]) {
      const keys = ["first", "live", "stored", "longest", "long", "memory"];
      figures.loads.push({ rate, from, ...medians(loaded.map((one) => one[from]), keys) });
    }
    const input = (all, name) => medians(all.map((inputs) => inputs[name]), ["frame", "longest"]);
    const both = (all) => ({ toggle: input(all, "toggle"), key: input(all, "key") });
    const own = both(shown.map((one) => one.inputs));
    figures.todoPage.push({ rate, ...medians(shown, ["network", "stored"]), ...own, bare: both(floor) });
  }
} finally {
  await browser.close();
  await side.stop();
}
console.log(`\n${clientTable(figures)}\n\n${((Date.now() - begun) / 60_000).toFixed(1)} minutes`);
if (options.json) writeFileSync(options.json, `${JSON.stringify(figures, null, 2)}\n`);
if (options["write-docs"]) writeClientDocs(figures);
