// How fast a LiveStore backend is: ours against LiveStore's own, under the same wrangler, pair by
// pair, with raw sockets that parse what they are sent and acknowledge it. `cargo xtask bench
// livestore` runs it; docs/performance.md tells about it.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import WebSocket from "ws";
import { root, Server } from "../e2e/harness.mjs";
import { chosen, repeats, stop } from "./arguments.mjs";
import { livestoreTable, median, writeLivestoreDocs } from "./report.mjs";

const { values: options } = parseArgs({
  options: {
    pairs: { type: "string", default: "5" },
    cases: { type: "string" },
    json: { type: "string" },
    smoke: { type: "boolean" },
    "write-docs": { type: "boolean" },
  },
});
const pairs = repeats("pairs", options);
const scale = options.smoke ? 0.05 : 1;
const scaled = (count) => Math.max(2, Math.round(count * scale));

/** A client of a store that keeps its head, and follows live pulls. */
class Raw {
  static async open(server, store) {
    const raw = new Raw();
    Object.assign(raw, { store, head: 0, ids: 0, waits: new Map(), seen: 0, listeners: new Set() });
    const payload = encodeURIComponent(JSON.stringify({ authToken: "ok" }));
    raw.ws = new WebSocket(`${server.ws}/?storeId=${store}&transport=ws&payload=${payload}`, { perMessageDeflate: false });
    raw.ws.on("message", (data) => raw.heard(String(data)));
    await new Promise((resolve, reject) => raw.ws.once("open", resolve).once("error", reject));
    return raw;
  }

  heard(text) {
    const message = JSON.parse(text);
    if (message._tag === "Chunk") {
      this.ws.send(JSON.stringify({ _tag: "Ack", requestId: message.requestId }));
      for (const { batch } of message.values) {
        for (const { eventEncoded } of batch) {
          if (eventEncoded.seqNum !== this.seen + 1) throw new Error(`${eventEncoded.seqNum} after ${this.seen}`);
          this.seen = eventEncoded.seqNum;
        }
      }
      this.listeners.forEach((listener) => listener());
    } else if (message._tag === "Exit") {
      if (message.exit._tag !== "Success") throw new Error(text);
      this.waits.get(message.requestId)?.();
      this.waits.delete(message.requestId);
    }
  }

  request(tag, payload) {
    const id = String(this.ids++);
    const done = new Promise((resolve) => this.waits.set(id, resolve));
    const head = { _tag: "Request", id, tag: `SyncWsRpc.${tag}`, traceId: "t", spanId: "s", sampled: false, headers: [] };
    this.ws.send(JSON.stringify({ ...head, payload: { storeId: this.store, ...payload } }));
    return done;
  }

  push(count) {
    const batch = Array.from({ length: count }, () => {
      this.head += 1;
      const args = { id: `todo-${this.head}`, text: "Buy some milk, and bread" };
      return { name: "v1.TodoCreated", args, seqNum: this.head, parentSeqNum: this.head - 1, clientId: "client", sessionId: "session" };
    });
    return this.request("Push", { batch, backendId: { _tag: "None" } });
  }

  pull(live) {
    return this.request("Pull", { live, cursor: { _tag: "None" } });
  }

  /** Waits until it has seen this many events. */
  sees(count) {
    return new Promise((resolve) => {
      const listener = () => this.seen >= count && (this.listeners.delete(listener), resolve());
      this.listeners.add(listener);
      listener();
    });
  }

  close() {
    this.ws.terminate();
  }
}

const timed = async (body) => {
  const begun = performance.now();
  await body();
  return performance.now() - begun;
};
let stores = 0;
const fresh = () => `bench-${process.pid}-${stores++}`;

/** What is uploaded of a worker, minified where it is JavaScript, in bytes when it is compressed. */
function bundle(fixture) {
  const out = mkdtempSync(join(tmpdir(), "partysync-"));
  try {
    const args = ["deploy", "--dry-run", "--minify", "--outdir", out];
    execFileSync(join(root, "node_modules/.bin/wrangler"), args, { cwd: join(root, fixture), env: { ...process.env, WRANGLER_SEND_METRICS: "false" }, stdio: "ignore" });
    const parts = readdirSync(out, { recursive: true }).filter((name) => /\.(js|mjs|wasm)$/.test(name));
    return parts.reduce((sum, name) => sum + gzipSync(readFileSync(join(out, name)), { level: 9 }).length, 0);
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

/** A store with so many events; filled once for each side. */
const filled = { ours: new Map(), baseline: new Map() };
async function storeOf(side, count) {
  const known = filled[side.name].get(count);
  if (known) return known;
  const client = await Raw.open(side.server, fresh());
  while (client.head < count) await client.push(Math.min(100, count - client.head));
  client.close();
  filled[side.name].set(count, client.store);
  return client.store;
}

async function rate(side, pushes, size, pipelined) {
  const client = await Raw.open(side.server, fresh());
  await client.push(1);
  const ms = await timed(async () => {
    if (pipelined) return Promise.all(Array.from({ length: pushes }, () => client.push(size)));
    for (let n = 0; n < pushes; n += 1) await client.push(size);
  });
  client.close();
  return (pushes * size * 1_000) / ms;
}

async function fan(side, size) {
  const readers = 50;
  const store = fresh();
  const writer = await Raw.open(side.server, store);
  await writer.push(1);
  const clients = await Promise.all(Array.from({ length: readers }, () => Raw.open(side.server, store)));
  for (const client of clients) void client.pull(true);
  await Promise.all(clients.map((client) => client.sees(1)));
  const times = [];
  for (let n = 0; n < scaled(20); n += 1) {
    times.push(await timed(async () => {
      void writer.push(size);
      await Promise.all(clients.map((client) => client.sees(writer.head)));
    }));
  }
  [writer, ...clients].forEach((client) => client.close());
  return median(times);
}

async function pullAll(side, count) {
  const client = await Raw.open(side.server, await storeOf(side, count));
  const ms = await timed(() => client.pull(false));
  if (client.seen !== count) throw new Error(`${client.seen} of ${count} events`);
  client.close();
  return ms;
}

const cases = {
  push_1: { unit: "events/s", better: "higher", run: (side) => rate(side, scaled(200), 1) },
  push_1_pipelined: { unit: "events/s", better: "higher", run: (side) => rate(side, scaled(500), 1, true) },
  push_100: { unit: "events/s", better: "higher", run: (side) => rate(side, scaled(40), 100) },
  fan_out_1: { unit: "ms", better: "lower", run: (side) => fan(side, 1) },
  fan_out_100: { unit: "ms", better: "lower", run: (side) => fan(side, 100) },
  pull_20k: { unit: "ms", better: "lower", run: (side) => pullAll(side, scaled(20_000)) },
  pull_100k: { unit: "ms", better: "lower", run: (side) => pullAll(side, scaled(100_000)) },
  bundle: { unit: "bytes, gzipped", better: "lower", once: true, run: (side) => bundle(fixtures[side.name]) },
};
const names = chosen(cases, options);
if (options["write-docs"] && (options.cases || options.smoke)) stop("--write-docs wants all cases");

const fixtures = { ours: "tests/bench/livestore", baseline: "tests/livestore/reference" };
const env = { X_LOCAL_OBSERVABILITY: "false" };
const sides = [];
const figures = [];
try {
  for (const name of ["ours", "baseline"]) sides.push({ name, server: await Server.start(fixtures[name], { env }) });
  for (const name of names) {
    const { unit, better, run, once } = cases[name];
    const found = { ours: [], baseline: [], ratios: [] };
    for (let pair = 0; pair < (once ? 1 : pairs); pair += 1) {
      const order = pair % 2 ? [...sides].reverse() : sides;
      const one = {};
      for (const side of order) one[side.name] = await run(side);
      found.ours.push(one.ours);
      found.baseline.push(one.baseline);
      found.ratios.push(one.ours / one.baseline);
      console.error(`${name} ${pair + 1}/${pairs}: ours ${one.ours.toFixed(1)}, LiveStore's ${one.baseline.toFixed(1)} ${unit}`);
    }
    const [min, max] = [Math.min(...found.ratios), Math.max(...found.ratios)];
    figures.push({ case: name, unit, better, ours: median(found.ours), baseline: median(found.baseline), ratio: median(found.ratios), ratio_min: min, ratio_max: max });
  }
} finally {
  await Promise.all(sides.map(({ server }) => server.stop()));
}
console.log(`\n${livestoreTable(figures, pairs)}`);
if (options.json) writeFileSync(options.json, `${JSON.stringify({ pairs, figures }, null, 2)}\n`);
if (options["write-docs"]) writeLivestoreDocs(figures, pairs);
