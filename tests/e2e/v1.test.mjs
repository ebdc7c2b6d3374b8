// TypeScript partysync's wire (v1) against the todo app, over the npm package `partysocket`.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { PartySocket } from "partysocket";
import WebSocket from "ws";
import { Server, Socket, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("fixtures/todo-sync")));
after(() => server.stop());

/** The v1 envelope, as TypeScript's client writes it. */
class V1 {
  static async open(room) {
    const v1 = new V1();
    v1.frames = [];
    v1.socket = new PartySocket({ host: `127.0.0.1:${server.port}`, party: "todos", room, WebSocket });
    v1.socket.addEventListener("message", (event) => v1.frames.push(JSON.parse(event.data)));
    await new Promise((resolve) => v1.socket.addEventListener("open", resolve, { once: true }));
    return v1;
  }

  next(what, fits) {
    return until(what, () => {
      const index = this.frames.findIndex(fits);
      if (index >= 0) return this.frames.splice(index, 1)[0];
    });
  }

  async sync(from = null) {
    this.socket.send(JSON.stringify({ channel: "todos", sync: true, from }));
    return (await this.next("a sync answer", (f) => f.sync)).payload;
  }

  async call(type, payload) {
    const id = crypto.randomUUID().slice(0, 8);
    this.socket.send(JSON.stringify({ id, channel: "todos", rpc: true, action: { type, payload } }));
    return this.next(`an answer to ${type}`, (f) => f.rpc && f.id === id);
  }

  broadcast() {
    return this.next("a broadcast", (f) => f.broadcast);
  }
}

test("two TypeScript clients create, update and delete", async () => {
  const [a, b] = [await V1.open("two"), await V1.open("two")];
  assert.deepEqual(await a.sync(), []);

  const created = await a.call("create", { id: "x", text: "milk", completed: 0 });
  assert.deepEqual(Object.keys(created), ["type", "rpc", "channel", "id", "result"]);
  assert.equal(created.type, "success");
  const [row] = created.result;
  assert.deepEqual(row, ["x", "milk", 0, row[3], row[4], row[4], null]);
  assert.deepEqual(await b.broadcast(), {
    broadcast: true,
    type: "update",
    channel: "todos",
    payload: [row],
  });

  const updated = await b.call("update", { id: "x", text: "oat milk", completed: 1 });
  assert.deepEqual(updated.result[0].slice(0, 3), ["x", "oat milk", 1]);
  assert.deepEqual((await a.broadcast()).payload, updated.result);

  const deleted = await a.call("delete", { id: "x" });
  assert.equal(typeof deleted.result[0][6], "number");
  assert.deepEqual((await b.broadcast()).payload, deleted.result);
  assert.deepEqual(await b.sync(), []);
  a.socket.close();
  b.socket.close();
});

test("an action that is refused is an error to its caller and nothing to the others", async () => {
  const [a, b] = [await V1.open("error"), await V1.open("error")];
  const refused = await a.call("create", { id: "x", text: "", completed: 0 });
  assert.deepEqual(refused, {
    type: "error",
    rpc: true,
    channel: "todos",
    id: refused.id,
    error: ["A todo needs some text"],
  });
  assert.deepEqual(await b.sync(), []);
  await a.call("create", { id: "x", text: "first", completed: 0 });
  const again = await a.call("create", { id: "x", text: "second", completed: 0 });
  assert.match(again.error[0], /has a row with the key `x` already/);
  // The first broadcast is that of the action that succeeded.
  assert.equal((await b.broadcast()).payload[0][1], "first");
  assert.equal((await b.sync())[0][1], "first");
  a.socket.close();
  b.socket.close();
});

test("a sync from a time gives what changed since, and the deletions after it", async () => {
  const a = await V1.open("from");
  const isPast = (row) => until("time passes", () => Date.now() > row[5]);
  await a.call("create", { id: "old", text: "old", completed: 0 });
  const gone = await a.call("create", { id: "gone", text: "gone", completed: 0 });
  await isPast(gone.result[0]);
  const kept = await a.call("create", { id: "new", text: "new", completed: 0 });
  const from = kept.result[0][5];
  await isPast(kept.result[0]);
  await a.call("delete", { id: "gone" });

  const b = await V1.open("from");
  // A row that changed at that very time comes again: two can share a millisecond.
  assert.deepEqual((await b.sync(from)).map((row) => row[0]), ["new"]);
  const deletions = await b.broadcast();
  assert.deepEqual(deletions.payload.map((row) => row[0]), ["gone"]);
  assert.equal(typeof deletions.payload[0].at(-1), "number");
  // Without a time: all live rows and no deletions.
  assert.deepEqual((await b.sync()).map((row) => row[0]).sort(), ["new", "old"]);
  assert.equal(b.frames.length, 0);
  a.socket.close();
  b.socket.close();
});

test("a sync from the future gives nothing, and what happens then still arrives", async () => {
  const [a, b] = [await V1.open("future"), await V1.open("future")];
  await a.call("create", { id: "x", text: "now", completed: 0 });
  assert.equal((await b.broadcast()).payload[0][0], "x");
  assert.deepEqual(await b.sync(Date.now() + 1_000_000), []);
  await a.call("delete", { id: "x" });
  assert.equal((await b.broadcast()).payload[0][0], "x");
  a.socket.close();
  b.socket.close();
});

test("v1 and v2 clients share a room", async () => {
  const v1 = await V1.open("mixed");
  const { Client } = await import("./harness.mjs");
  const v2 = await Client.join(`${server.ws}/parties/todos/mixed`, { channels: { todos: null } });
  await v1.call("create", { id: "from-v1", text: "one", completed: 0 });
  const patch = await v2.next("a patch", (f) => f.type === "patch");
  assert.deepEqual(patch.changes[0].rows[0].slice(0, 3), ["from-v1", "one", 0]);
  await v2.act("todos", "create", { id: "from-v2", text: "two", completed: true });
  assert.deepEqual((await v1.broadcast()).payload[0].slice(0, 3), ["from-v2", "two", 1]);
  v1.socket.close();
  await v2.close();
});

const bad = {
  "text that is not JSON": ["{oops", /^Failed to parse message: /],
  "a binary frame": [Buffer.from([1, 2, 3]), /binary/],
  "an unknown channel": [{ channel: "nope", sync: true, from: null }, /there is no channel `nope`/],
  "a channel name with SQL in it": [
    { channel: "todos; DROP TABLE todos", sync: true, from: null },
    /there is no channel `todos; DROP TABLE todos`/,
  ],
  "`from` that is no time": [{ channel: "todos", sync: true, from: "yesterday" }, /`from`/],
  "`from` beyond i64": [{ channel: "todos", sync: true, from: 1e19 }, /`from`.*out of range/],
  "neither sync nor a call": [{ channel: "todos" }, /neither/],
  "10,000 levels of nesting": ["[".repeat(10_000) + "]".repeat(10_000), /Failed to parse/],
};

const badCalls = {
  "an unknown channel": [{ channel: "nope" }, /there is no channel `nope`/],
  "a channel name with SQL in it": [{ channel: "todos'--" }, /there is no channel/],
  "an unknown action": [{ action: { type: "explode", payload: {} } }, /there is no action `explode`/],
  "a missing field": [{ action: { type: "create", payload: { id: "a", text: "b" } } }, /`completed`.*missing/],
  "a wrong type": [
    { action: { type: "create", payload: { id: "a", text: 7, completed: 0 } } },
    /`text`.*expected TEXT, found a number/,
  ],
  "a number beyond i64": [
    { action: { type: "create", payload: { id: "a", text: "b", completed: 1e19 } } },
    /`completed`.*out of range/,
  ],
  "a NUL in text": [
    { action: { type: "create", payload: { id: "a", text: "b\0c", completed: 0 } } },
    /NUL/,
  ],
  "nesting in the action": [
    `{"id":"1","channel":"todos","rpc":true,"action":{"type":"create","payload":${"[".repeat(10_000)}${"]".repeat(10_000)}}}`,
    /`payload` is an object/,
  ],
  "nesting in a field": [
    `{"id":"1","channel":"todos","rpc":true,"action":{"type":"create","payload":{"id":${"[".repeat(10_000)}${"]".repeat(10_000)}}}}`,
    /recursion limit/,
  ],
};

for (const [what, [frame, expected]] of Object.entries(bad)) {
  test(`v1: ${what} is answered with an exception and the socket stays`, async () => {
    const socket = await Socket.open(`${server.ws}/parties/todos/bad`);
    socket.send(frame);
    const answer = await socket.next("an exception");
    assert.equal(answer.type, "exception");
    assert.match(answer.exception[0], expected);
    socket.send({ channel: "todos", sync: true, from: null });
    assert.deepEqual((await socket.next("a sync answer")).payload, []);
    await socket.close();
  });
}

for (const [what, [part, expected]] of Object.entries(badCalls)) {
  test(`v1: a call with ${what} is answered with an error and nothing is written`, async () => {
    const socket = await Socket.open(`${server.ws}/parties/todos/bad-calls`);
    const action = { type: "create", payload: { id: "a", text: "b", completed: 0 } };
    socket.send(
      typeof part === "string" ? part : { id: "1", channel: "todos", rpc: true, action, ...part },
    );
    const answer = await socket.next("an error");
    assert.equal(answer.type, "error");
    assert.match(answer.error[0], expected);
    socket.send({ channel: "todos", sync: true, from: null });
    assert.deepEqual((await socket.next("a sync answer")).payload, []);
    await socket.close();
  });
}

test("v1: a frame over the limit closes its socket with 1009", async () => {
  const socket = await Socket.open(`${server.ws}/parties/todos/large`);
  socket.send({ channel: "todos", sync: true, from: null, padding: "x".repeat(1024 * 1024) });
  assert.equal((await socket.next("an exception")).type, "exception");
  assert.equal((await until("the socket closes", () => socket.closed)).code, 1009);
});
