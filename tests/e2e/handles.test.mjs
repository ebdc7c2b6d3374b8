// What hooks write while they await, and what they begin.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const room = (name) => `${server.ws}/parties/lab/${name}`;
const both = { items: null, notes: null };

/** The texts of the notes that come until one of them is this. */
async function texts(client, last) {
  const found = [];
  while (!found.includes(last)) {
    const patch = await client.next(`the note ${last}`, (f) => f.type === "patch");
    found.push(...patch.changes.flatMap(({ rows }) => rows.map((row) => row[1])));
  }
  return found;
}

test("a request that waits holds up nobody, and what it writes then is sent", async () => {
  const [a, b] = await Promise.all(["a", "b"].map(() => Client.join(room("request"), { channels: both })));
  const answer = fetch(`${server.url}/parties/lab/request`, { method: "PUT", body: "1000" });
  assert.equal((await a.act("notes", "write", { number: 1, text: "meanwhile" })).code, undefined);
  assert.deepEqual(await texts(b, "requested"), ["meanwhile", "requested"]);
  assert.equal((await answer).status, 200);
  await Promise.all([a.close(), b.close()]);
});

test("what a hook has begun is written when it has waited", async () => {
  const a = await Client.join(room("begun"), { channels: both });
  a.send({ type: "message", data: { begun_after_ms: 50 } });
  assert.deepEqual(await texts(a, "begun"), ["begun"]);
  await a.close();
});

test("what is written before an action is there when it is done", async () => {
  const [a, b] = await Promise.all(["a", "b"].map(() => Client.join(room("asked"), { channels: both })));
  assert.equal((await a.act("notes", "write", { number: 10, text: "asks" })).code, undefined);
  assert.deepEqual(await texts(b, "asks"), ["asked", "asks"]);
  await Promise.all([a.close(), b.close()]);
});
