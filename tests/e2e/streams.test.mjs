// Durable Streams on every store: the official JavaScript client, and random operations with
// servers that are killed in between, against a model.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { DurableStream, IdempotentProducer, stream as follow } from "@durable-streams/client";
import { until } from "./harness.mjs";
import { launch } from "./page.mjs";
import { startStore, stores } from "./streams.mjs";

for (const store of stores) {
  test(`${store}: the official client, and random operations with a server that is killed`, async (t) => {
    const server = await startStore(store);
    t.after(() => server.stop());
    await t.test("JSON: create, append, read, close", () => json(server));
    await t.test("bytes: a stream and a fork of it", () => bytes(server));
    for (const live of ["long-poll", "sse"]) await t.test(`live by ${live}`, () => liveRead(server, live));
    await t.test("an idempotent producer", () => producer(server));
    await t.test("random operations", () => random(server, store));
  });
}

test("a stream whose time is over is deleted by the alarm, and nobody has to ask", async (t) => {
  const server = await startStore("sqlite");
  t.after(() => server.stop());
  const headers = { ...binary, "stream-ttl": "1" };
  assert.equal((await fetch(url(server, "short"), { method: "PUT", headers, body: "bytes" })).status, 201);
  assert.equal((await fetch(url(server, "long"), { method: "PUT", headers: binary, body: "bytes" })).status, 201);
  const count = (table) => server.sqlite(table, `SELECT count(*) AS n FROM ${table}`).reduce((sum, [row]) => sum + row.n, 0);
  assert.equal(count("_ds_rows"), 2);
  await until("one of the two is gone", () => count("_ds_streams") === 1 && count("_ds_rows") === 1);
  assert.equal((await fetch(url(server, "long"))).status, 200);
});

test("a lifetime that is longer than numbers go is refused, and fails no other stream", async (t) => {
  const server = await startStore("sqlite");
  t.after(() => server.stop());
  const put = (name, headers) => fetch(url(server, name), { method: "PUT", headers: { ...binary, ...headers } });
  const poison = await put("poison", { "stream-ttl": "9007199254740" });
  assert.equal((await put("other", {})).status, 201);
  const append = await fetch(url(server, "other"), { method: "POST", headers: binary, body: "bytes" });
  assert.equal(append.status, 204);
  assert.equal(poison.status, 400);
  assert.equal((await fetch(url(server, "poison"))).status, 404);
});

test("a lifetime that is over is refused, and keeps no other stream from ending", async (t) => {
  const server = await startStore("sqlite");
  t.after(() => server.stop());
  const put = (name, headers) => fetch(url(server, name), { method: "PUT", headers: { ...binary, ...headers } });
  const ancient = await put("ancient", { "stream-expires-at": "0001-01-01T00:00:00Z" });
  assert.equal((await put("short", { "stream-ttl": "1" })).status, 201);
  const left = () => server.sqlite("_ds_streams", "SELECT path FROM _ds_streams").flat().map((row) => row.path);
  await until("nothing is left", () => !left().includes("short"), 15_000);
  assert.equal(ancient.status, 400);
});

for (const store of ["sqlite", "native-memory"]) {
  test(`${store}: a webhook that answers without content was delivered, and one that does not answer is hung up on`, async (t) => {
    const server = await startStore(store);
    const posts = [];
    let answers = true;
    const receiver = createServer((request, response) => {
      const chunks = [];
      request.on("data", (chunk) => chunks.push(chunk));
      request.on("end", () => {
        const post = { ...JSON.parse(Buffer.concat(chunks)), answered: answers, hungUp: false };
        response.on("close", () => (post.hungUp = !response.writableFinished));
        posts.push(post);
        if (answers) response.writeHead(204).end();
      });
    }).listen(0, "127.0.0.1");
    await once(receiver, "listening");
    t.after(async () => {
      await server.stop();
      receiver.closeAllConnections();
      receiver.close();
    });
    const json = { "content-type": "application/json" };
    const webhook = { url: `http://127.0.0.1:${receiver.address().port}/` };
    const config = { type: "webhook", streams: ["news"], webhook, lease_ttl_ms: 1000 };
    const subscription = url(server, "__ds/subscriptions/s");
    const made = await fetch(subscription, { method: "PUT", headers: json, body: JSON.stringify(config) });
    assert.equal(made.status, 201);
    assert.equal((await fetch(url(server, "news"), { method: "PUT", headers: json, body: "1" })).status, 201);
    // The worker does not come back within its lease: the next wake is another one.
    await until("the stream's news are posted twice", () => posts.length >= 2);
    assert.deepEqual(posts.slice(0, 2).map((post) => post.generation), [1, 2]);
    assert.equal((await (await fetch(subscription)).json()).status, "active");
    answers = false;
    const waiting = await until("a post is not answered", () => posts.find((post) => !post.answered));
    await until("the sender hangs up", () => waiting.hungUp);
    const failed = async () => (await (await fetch(subscription)).json()).status === "failed";
    await until("the delivery counts as failed", failed);
  });
}

test("a preflight without a router's CORS is answered by the streams", async (t) => {
  const server = await startStore("sqlite");
  t.after(() => server.stop());
  const headers = { origin: "https://app.example", "access-control-request-method": "PUT" };
  const preflight = await fetch(url(server, "any"), { method: "OPTIONS", headers });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get("access-control-allow-origin"), "*");
  assert.match(preflight.headers.get("access-control-allow-headers"), /stream-ttl/);
});

test("the page writes and follows a stream", async (t) => {
  const server = await startStore("sqlite");
  const browser = await launch();
  t.after(async () => {
    await browser.close();
    await server.stop();
  });
  const problems = [];
  const open = async () => {
    const page = await (await browser.newContext()).newPage();
    page.on("pageerror", (error) => problems.push(error.message));
    await page.goto(server.url);
    return page;
  };
  const shown = (page) => page.getByRole("listitem").allTextContents();
  const say = async (page, text) => {
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.getByRole("button", { name: "Append" }).click();
  };
  const [one, other] = [await open(), await open()];
  await say(one, "first");
  await say(other, "<b>second</b>");
  const wanted = ["first", "<b>second</b>"];
  const both = async () => (await Promise.all([shown(one), shown(other)])).every((list) => list.join() === wanted.join());
  await until("both pages show both messages", both);
  await one.reload();
  await until("a reloaded page shows them as well", both);
  // The server goes away and comes back: the pages go on from where they were.
  await server.down("SIGKILL");
  await server.up();
  await say(one, "third");
  wanted.push("third");
  await until("both pages show the third, and nothing twice", both);
  assert.deepEqual(problems, []);
});

const url = (server, name) => `${server.url}/v1/stream/${name}`;

async function json(server) {
  const stream = await DurableStream.create({ url: url(server, "json"), contentType: "application/json" });
  await stream.append(JSON.stringify({ n: 1 }));
  await stream.append(JSON.stringify({ n: 2 }));
  const read = await stream.stream({ live: false });
  assert.deepEqual(await read.json(), [{ n: 1 }, { n: 2 }]);
  await stream.close({ body: JSON.stringify({ n: 3 }) });
  const end = await stream.stream({ live: false, offset: read.offset });
  assert.deepEqual(await end.json(), [{ n: 3 }]);
  assert.equal(end.streamClosed, true);
  assert.equal((await stream.head()).streamClosed, true);
  await assert.rejects(stream.append(JSON.stringify({ n: 4 })), /closed/i);
  await DurableStream.delete({ url: stream.url });
  assert.equal((await fetch(stream.url)).status, 404);
}

async function bytes(server) {
  const stream = await DurableStream.create({ url: url(server, "bytes"), contentType: "application/octet-stream" });
  // Large enough to be put aside piece by piece, and to be sealed in several chunks.
  const data = Uint8Array.from({ length: 12_000_000 }, (_, i) => (i * 7 + (i >> 11)) % 256);
  await stream.append(data);
  const read = await stream.stream({ live: false });
  assert.ok(Buffer.from(data).equals(Buffer.from(await read.body())));
  const headers = { "stream-forked-from": "/v1/stream/bytes", "content-type": "application/octet-stream" };
  const forked = await fetch(url(server, "fork"), { method: "PUT", headers });
  assert.equal(forked.status, 201);
  const fork = new DurableStream({ url: url(server, "fork"), contentType: "application/octet-stream" });
  await fork.append(new Uint8Array([1, 2, 3]));
  const both = await fork.stream({ live: false });
  assert.ok(Buffer.concat([data, new Uint8Array([1, 2, 3])]).equals(Buffer.from(await both.body())));
  // JSON has to be read at once: there is a limit, and nothing is left of what was over it.
  const json = { "content-type": "application/json" };
  await fetch(url(server, "limited"), { method: "PUT", headers: json });
  const over = JSON.stringify("x".repeat(17 * 1024 * 1024));
  assert.equal((await fetch(url(server, "limited"), { method: "POST", headers: json, body: over })).status, 413);
  assert.deepEqual(await (await fetch(url(server, "limited"))).json(), []);
}

async function liveRead(server, live) {
  const stream = await DurableStream.create({ url: url(server, live), contentType: "application/json" });
  await stream.append(JSON.stringify("before"));
  const session = await follow({ url: stream.url, offset: "-1", live });
  const seen = [];
  const all = new Promise((resolve, reject) => {
    session.closed.catch(reject);
    session.subscribeJson(async (batch) => {
      for (const item of batch.items) {
        seen.push(item);
        if (item === "before") await stream.append(JSON.stringify("while it waits"));
        if (item === "while it waits") await stream.close({ body: JSON.stringify("at last") });
        if (item === "at last") resolve();
      }
    });
  });
  await all;
  assert.deepEqual(seen, ["before", "while it waits", "at last"]);
}

async function producer(server) {
  const stream = await DurableStream.create({ url: url(server, "produced"), contentType: "application/json" });
  const errors = [];
  const options = { maxBatchBytes: 64, onError: (error) => errors.push(error) };
  const first = new IdempotentProducer(stream, "p", { ...options, autoClaim: true });
  for (let n = 0; n < 50; n += 1) first.append(JSON.stringify(n));
  await first.flush();
  // Another one of the same name takes over, and the first one claims it back.
  const second = new IdempotentProducer(stream, "p", { ...options, epoch: 1 });
  for (let n = 50; n < 100; n += 1) second.append(JSON.stringify(n));
  await second.flush();
  for (let n = 100; n < 110; n += 1) first.append(JSON.stringify(n));
  await first.flush();
  assert.equal(first.epoch, 2);
  const read = await stream.stream({ live: false });
  assert.deepEqual(await read.json(), Array.from({ length: 110 }, (_, n) => n));
  assert.deepEqual(errors, []);
}

/** mulberry32: a seed gives the same numbers everywhere. */
function numbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const binary = { "content-type": "application/octet-stream" };

async function random(server, store) {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`    ${store}: SEED=${seed}`);
  const next = numbers(seed);
  const below = (n) => Math.floor(next() * n);
  const names = ["one", "two", "three", "four", "five"].map((name) => `random/${name}`);
  /** What each stream holds, and how many forks have it as their source. */
  const model = new Map();
  const gone = (name) => model.get(name)?.deleted;
  const release = (name) => {
    const { source } = model.get(name);
    model.delete(name);
    if (!source) return;
    const above = model.get(source);
    above.forks -= 1;
    if (above.deleted && above.forks === 0) release(source);
  };
  const body = () => {
    // Some are as large as what is sealed at once.
    const size = next() < 0.3 ? 100_000 + below(900_000) : 1 + below(500);
    return Buffer.alloc(size, String(below(1e9)));
  };
  const put = async (name) => {
    const there = model.get(name);
    const { status } = await fetch(url(server, name), { method: "PUT", headers: binary });
    assert.equal(status, gone(name) ? 409 : there ? 200 : 201);
    if (!there) model.set(name, { data: Buffer.alloc(0), forks: 0 });
  };
  const append = async (name) => {
    const data = body();
    const { status } = await fetch(url(server, name), { method: "POST", headers: binary, body: data });
    const there = model.get(name);
    assert.equal(status, gone(name) ? 410 : there ? 204 : 404);
    if (status === 204) there.data = Buffer.concat([there.data, data]);
  };
  const fork = async (from, to) => {
    const source = model.get(from);
    const at = below((source?.data.length ?? 0) + 1);
    const headers = {
      "stream-forked-from": `/v1/stream/${from}`,
      "stream-fork-offset": `0000000000000000_${String(at).padStart(16, "0")}`,
    };
    const { status } = await fetch(url(server, to), { method: "PUT", headers });
    const there = model.get(to);
    // The same fork once more is there already; anything else is in the way.
    const same = there && !there.deleted && there.source === from && there.at === at;
    if (there) return assert.equal(status, same ? 200 : 409);
    assert.equal(status, !source ? 404 : source.deleted ? 409 : 201);
    if (status !== 201) return;
    source.forks += 1;
    model.set(to, { data: source.data.subarray(0, at), forks: 0, source: from, at });
  };
  const remove = async (name) => {
    const { status } = await fetch(url(server, name), { method: "DELETE" });
    assert.equal(status, gone(name) ? 410 : model.has(name) ? 204 : 404);
    if (status !== 204) return;
    const there = model.get(name);
    if (there.forks > 0) there.deleted = true;
    else release(name);
  };
  const read = async (name) => {
    const parts = [];
    for (let offset = "-1"; ; ) {
      const answer = await fetch(`${url(server, name)}?offset=${offset}`);
      if (answer.status === 503) continue;
      if (answer.status !== 200) return answer.status;
      parts.push(Buffer.from(await answer.arrayBuffer()));
      offset = answer.headers.get("stream-next-offset");
      if (answer.headers.get("stream-up-to-date")) return Buffer.concat(parts);
    }
  };
  const check = async () => {
    for (const name of names) {
      const there = model.get(name);
      const seen = await read(name);
      if (!there || there.deleted) assert.equal(seen, there ? 410 : 404, name);
      else assert.ok(there.data.equals(seen), `${name} has ${seen.length} bytes, ${there.data.length} were appended`);
    }
  };
  /** Kills the server while it appends: afterwards the append is there or it is not. */
  const kill = async () => {
    const name = names.find((name) => model.has(name) && !gone(name));
    if (!name) return;
    const data = body();
    const sent = fetch(url(server, name), { method: "POST", headers: binary, body: data }).catch(() => null);
    await new Promise((resolve) => setTimeout(resolve, below(8)));
    await server.down("SIGKILL");
    const answer = await sent;
    await server.up();
    const there = model.get(name);
    const after = Buffer.concat([there.data, data]);
    const seen = await read(name);
    const done = after.equals(seen);
    assert.ok(done || (there.data.equals(seen) && !answer?.ok), `${name} holds half an append, or lost one`);
    if (done) there.data = after;
  };
  await put(names[0]);
  for (let n = 1; n <= 150; n += 1) {
    const [name, other] = [names[below(5)], names[below(5)]];
    const kind = next();
    if (kind < 0.12) await put(name);
    else if (kind < 0.75) await append(name);
    else if (kind < 0.9) await fork(name, other);
    else await remove(name);
    if (n % 25 === 0) await check();
    if (n % 50 === 0 && !store.endsWith("memory")) await kill();
  }
  await check();
}
