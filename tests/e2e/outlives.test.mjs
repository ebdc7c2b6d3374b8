// What a room outlives: bodies that are too large, actions that trap, SQL and ids of any kind.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { Client, Server, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const room = (name) => `${server.ws}/parties/lab/${name}`;
const url = (name) => `${server.url}/parties/lab/${name}`;
const look = async (name) => (await fetch(url(name))).json();
const run = async (name, sql) => (await fetch(url(name), { method: "POST", body: sql })).text();
const both = { items: null, notes: null };

/** The answer to a POST whose body begins with this, and goes on for as long as it is waited for. */
async function post(name, headers, begin) {
  const sent = request(url(name), { method: "POST", headers });
  let answer;
  sent.on("response", async (response) => {
    let text = "";
    for await (const part of response) text += part;
    answer = { status: response.statusCode, text };
  });
  sent.on("error", () => {});
  sent.flushHeaders();
  if (begin) sent.write(begin);
  await until("an answer", () => answer);
  sent.destroy();
  return answer;
}

const limit = 1024 * 1024;
const tooLarge = { status: 413, text: `too_large: the limit is ${limit} bytes` };

const bodies = {
  "that says so": [{ "content-length": limit + 1 }, ""],
  "that does not say so": [{ "transfer-encoding": "chunked" }, "x".repeat(limit + 1)],
};

for (const [what, [headers, begin]] of Object.entries(bodies)) {
  test(`a body over the limit ${what} is answered with 413 before its end, and the room lives on`, async () => {
    const name = `body-${what.length}`;
    const a = await Client.join(room(name), { channels: both });
    const { instance } = await look(name);
    assert.deepEqual(await post(name, headers, begin), tooLarge);
    assert.equal((await a.act("notes", "write", { number: 1, text: "" })).code, undefined);
    assert.equal((await look(name)).instance, instance);
    // One that is as large as it may be is read: it is SQL, and SQLite says that it is too long.
    assert.match(await run(name, "-".repeat(limit)), /^sql: /);
    await a.close();
  });
}

test("an action that traps takes its turn back, and what comes again is done once", async () => {
  const [name, client] = ["trap", "trapped"];
  const a = await Client.join(room(name), { client, channels: both });
  const other = await Client.join(room(name), { channels: both });
  const bystander = await Client.join(room("no-trap"), { channels: both });
  await a.act("notes", "write", { number: 1, text: "before" });
  await bystander.act("notes", "write", { number: 1, text: "before" });
  const { instance } = await look(name);
  const actions = [
    { seq: 2, channel: "notes", action: { type: "write", payload: { number: 2, text: "same turn" } } },
    { seq: 3, channel: "items", action: { type: "trap", payload: { id: "half" } } },
  ];
  a.send({ type: "push", actions });
  for (const socket of [a, other]) assert.equal((await until("the sockets break", () => socket.closed)).code, 1006);
  assert.ok(![a, other].some(({ frames }) => frames.some((text) => text.includes("same turn"))));

  // Nothing of the turn is there.
  const again = await Client.join(room(name), { client, epoch: a.welcome.epoch, seq: 1, channels: { items: 1, notes: 1 } });
  assert.deepEqual([again.welcome.epoch, again.welcome.version], [a.welcome.epoch, 1]);
  const pages = [await again.next("a page"), await again.next("a page")];
  assert.deepEqual(pages.map((page) => page.rows), [[], []]);
  const reborn = await look(name);
  assert.notEqual(reborn.instance, instance);

  // Nor has it asked for the alarm: one that is asked for later rings, and that is the only one.
  again.send({ type: "message", data: { alarm_after_ms: 50 } });
  const rung = await again.next("the alarm", (f) => f.type === "patch");
  assert.deepEqual([rung.to, rung.changes[0].rows.length], [2, 1]);

  await run(name, "INSERT INTO lab_log (what) VALUES ('no traps')");
  for (const _ of [1, 2]) again.send({ type: "push", actions });
  const acks = [];
  while (acks.length < 4) acks.push(...(await again.next("the answers", (f) => f.acks?.length)).acks);
  assert.deepEqual(acks, [{ seq: 2 }, { seq: 3 }, { seq: 2 }, { seq: 3 }]);
  // Two rows, and the alarm's that it asks for where it does not trap.
  await until("the alarm", async () => (await look(name)).version === 5);
  const fresh = await Client.join(room(name), { channels: both });
  const rows = [await fresh.next("the items"), await fresh.next("the notes")].map((page) => page.rows);
  assert.deepEqual(rows[0].map((row) => row[0]), ["half"]);
  assert.deepEqual(rows[1].map((row) => row[1]), ["before", "same turn", "by the alarm", "by the alarm"]);

  // A room beside it has kept its sockets.
  assert.equal((await bystander.act("notes", "write", { number: 2, text: "after" })).code, undefined);
  assert.equal(bystander.closed, null);
  await Promise.all([again, fresh, bystander].map((socket) => socket.close()));
});

test("several statements in one text do what they do in the tests' SQLite", async () => {
  const cases = JSON.parse(readFileSync(new URL("../lab/several.json", import.meta.url)));
  for (const [sql, expected] of cases) {
    const answer = await run("several", sql);
    if (expected === null) assert.match(answer, /^sql: /, sql);
    else assert.equal(answer, expected, sql);
  }
});

test("whatever id a connection wishes for, it has one that it is heard by", async () => {
  const wishes = ["", " ", "\0", "ü🙂", ",", "x".repeat(64), "x".repeat(65), "x".repeat(300), "🙂".repeat(16), "\ud800"];
  for (const wish of wishes) {
    const pk = wish === "\ud800" ? "%ED%A0%80" : encodeURIComponent(wish);
    const a = await Client.join(`${room("wishes")}?_pk=${pk}`, { channels: both });
    assert.ok(a.welcome.connection.length > 0, JSON.stringify(wish));
    assert.equal((await a.act("notes", "write", { number: wishes.indexOf(wish), text: "" })).code, undefined);
    await a.close();
  }
  await until("all are gone", async () => (await look("wishes")).connections.length === 0);
});

test("rows that nobody reads do not keep a table from being dropped", async () => {
  const statements = [
    "CREATE TABLE short (n)",
    "INSERT INTO short VALUES (1), (2), (3)",
    "SELECT n FROM short",
    "UPDATE short SET n = n + 1 RETURNING n",
    "DROP TABLE short",
  ];
  for (const sql of statements) {
    assert.match(await run("unread", sql), /^\d+$/, sql);
  }
});

test("what follows a commit may wait for a timer", async () => {
  const client = await Client.join(room("later"), { channels: both });
  const { commits } = await look("later");
  assert.equal((await client.act("notes", "write", { number: 1, text: "count later" })).code, undefined);
  await until("the hook has gone on", async () => (await look("later")).commits === commits + 1);
  await client.close();
});
