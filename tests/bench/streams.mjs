// How fast streams are, on each store: appends, catch-up, waking. Figures of one run on one
// machine, to be compared with each other; `node streams.mjs [STORE ...]` takes some of them, and
// any other server that runs at a URL.

import { performance } from "node:perf_hooks";
import { startStore, stores } from "../e2e/streams.mjs";

const APPENDS = 2_000;
const READERS = 100;
const ROUNDS = 20;

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
const json = { "content-type": "application/json" };
const binary = { "content-type": "application/octet-stream" };

async function ok(answer) {
  const { status } = await answer;
  if (status >= 300) throw new Error(`${status}: ${await (await answer).text()}`);
  return answer;
}

/** Appends a second, with so many in flight. */
async function appends(url, inFlight, count) {
  await ok(fetch(url, { method: "PUT", headers: json }));
  let left = count;
  const one = async () => {
    while (left-- > 0) await (await ok(fetch(url, { method: "POST", headers: json, body: '{"n":1,"text":"a hundred bytes of text, more or less, as a message has them on an ordinary day"}' }))).arrayBuffer();
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: inFlight }, one));
  return (count / (performance.now() - start)) * 1000;
}

/** MB a second when 10 MB are read from the beginning. */
async function catchUp(url) {
  await ok(fetch(url, { method: "PUT", headers: binary }));
  const body = Buffer.alloc(100_000, 7);
  for (let n = 0; n < 100; n += 1) await ok(fetch(url, { method: "POST", headers: binary, body }));
  const start = performance.now();
  let [offset, bytes] = ["-1", 0];
  for (let more = true; more; ) {
    const answer = await ok(fetch(`${url}?offset=${offset}`));
    bytes += (await answer.arrayBuffer()).byteLength;
    offset = answer.headers.get("stream-next-offset");
    more = !answer.headers.get("stream-up-to-date");
  }
  if (bytes !== 10_000_000) throw new Error(`${bytes} bytes were read`);
  return bytes / 1_000 / (performance.now() - start);
}

/** From an append until a reader has it, in ms: the middle one and the last of 100 readers. */
async function wakes(url) {
  await ok(fetch(url, { method: "PUT", headers: json }));
  const [middle, last] = [[], []];
  let offset = "-1";
  for (let round = 0; round < ROUNDS; round += 1) {
    const arrived = [];
    let begun;
    const readers = Array.from({ length: READERS }, async () => {
      const answer = await ok(fetch(`${url}?offset=${offset}&live=long-poll`));
      await answer.arrayBuffer();
      arrived.push(performance.now() - begun);
      return answer.headers.get("stream-next-offset");
    });
    // All of them wait by now: a quarter of a second is many times what it takes.
    await new Promise((resolve) => setTimeout(resolve, 250));
    begun = performance.now();
    await ok(fetch(url, { method: "POST", headers: json, body: "1" }));
    [offset] = await Promise.all(readers);
    arrived.sort((a, b) => a - b);
    middle.push(quantile(arrived, 0.5));
    last.push(arrived.at(-1));
  }
  const median = (list) => quantile(list.sort((a, b) => a - b), 0.5);
  return [median(middle), median(last)];
}

const wanted = process.argv.length > 2 ? process.argv.slice(2) : stores;
const table = [];
for (const store of wanted) {
  const server = store.startsWith("http") ? { url: store, stop() {} } : await startStore(store);
  try {
    const url = (name) => `${server.url}/v1/stream/bench/${name}`;
    await appends(url("warm"), 8, 200);
    const one = await appends(url("one"), 1, APPENDS / 4);
    const many = await appends(url("many"), 32, APPENDS);
    const mb = await catchUp(url("large"));
    const [middle, last] = await wakes(url("wake"));
    table.push({ store, one, many, mb, middle, last });
  } finally {
    await server.stop();
  }
}
const head = ["store", "appends/s, 1 in flight", "32 in flight", "catch-up MB/s", "wake ms, median", "last of 100"];
console.log(head.join(" | "));
for (const { store, ...figures } of table) {
  console.log([store, ...Object.values(figures).map((n) => n.toFixed(1))].join(" | "));
}
