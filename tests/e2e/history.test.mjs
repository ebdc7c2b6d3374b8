// A room's history as a durable stream: the official client follows it, and has what the room has.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { stream } from "@durable-streams/client";
import { Client, Server, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const both = { items: null, notes: null };
const room = (name) => `${server.ws}/parties/lab/${name}`;
const history = (name) => `${server.url}/parties/lab/${name}/history`;
const run = (name, sql) => fetch(`${server.url}/parties/lab/${name}`, { method: "POST", body: sql });

/** What the messages say, applied in their order. */
function materialized(messages) {
  const rows = new Map();
  for (const { type, key, value, headers } of messages) {
    if (headers.operation === "delete") rows.delete(`${type} ${key}`);
    else rows.set(`${type} ${key}`, value);
  }
  return rows;
}

async function read(name) {
  const answer = await stream({ url: history(name), live: false });
  return answer.json();
}

test("a follower has every change, once and in order, and what the room has at the end", async () => {
  const name = "followed";
  const client = await Client.join(room(name), { channels: both });
  await client.act("notes", "write", { number: 1, text: "one" });
  const seen = [];
  const session = await stream({ url: history(name), live: true });
  session.subscribeJson((batch) => void seen.push(...batch.items));
  await client.act("notes", "write", { number: 4294967297, text: "large" });
  await client.act("items", "create", { id: "a", name: "thing" });
  // What is rejected is no history.
  assert.equal((await client.act("notes", "write", { number: 1, text: "again" })).code, "key_exists");
  await client.act("notes", "erase", { number: 1 });
  assert.equal((await run(name, "INSERT INTO notes VALUES (2, 'by SQL'), (3, 'as well')")).status, 200);
  await run(name, "UPDATE items SET big = 9007199254740993");
  await run(name, "UPDATE items SET deleted_at = 1 WHERE id = 'a'");
  await until("the follower has the last change", () => seen.some((m) => m.key === "a" && m.headers.operation === "delete"));
  session.cancel();
  const all = await read(name);
  assert.deepEqual(seen, all);
  const versions = all.map((m) => Number(m.headers.txid));
  assert.deepEqual(versions, [...versions].sort((a, b) => a - b));
  assert.equal(new Set(all.map((m) => `${m.type} ${m.key} ${m.headers.txid}`)).size, all.length);
  assert.ok(all.every((m) => Date.parse(m.headers.timestamp) > 0));
  // JavaScript would round it; the stream does not.
  const text = await (await fetch(history(name))).text();
  assert.match(text, /"id":"a","big":9007199254740993,.*"name":"thing"/);
  const rows = materialized(all);
  assert.deepEqual([...rows.keys()].sort(), ["notes 2", "notes 3", "notes 4294967297"]);
  assert.deepEqual(rows.get("notes 2"), { number: 2, text: "by SQL" });
  await client.close();
});

test("the history survives a server that is killed, and goes on behind it", async () => {
  const name = "killed";
  const client = await Client.join(room(name), { channels: both });
  for (let number = 1; number <= 20; number += 1) await client.act("notes", "write", { number, text: "before" });
  await server.down("SIGKILL");
  await server.up();
  const again = await Client.join(room(name), { channels: both });
  for (let number = 21; number <= 30; number += 1) await again.act("notes", "write", { number, text: "after" });
  const messages = await read(name);
  assert.deepEqual(messages.map((m) => m.key), Array.from({ length: 30 }, (_, n) => String(n + 1)));
  await again.close();
});

test("readers do not write into it", async () => {
  const name = "read-only";
  const client = await Client.join(room(name), { channels: both });
  await client.act("notes", "write", { number: 1, text: "" });
  const headers = { "content-type": "application/json" };
  for (const method of ["PUT", "POST", "DELETE"]) {
    const answer = await fetch(history(name), { method, headers, body: method === "DELETE" ? undefined : "[1]" });
    assert.equal(answer.status, 405, method);
  }
  assert.equal((await read(name)).length, 1);
  assert.equal((await fetch(history("nobody-was-here"))).status, 404);
  await client.close();
});
