// A backend's object sleeps with live pulls open, and hooks that take their time hold nothing up.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server, Socket, until } from "../e2e/harness.mjs";
import { events } from "./client.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server?.stop());

const address = (store, payload, transport = "ws") =>
  `/?storeId=${store}&transport=${transport}${payload ? `&payload=${encodeURIComponent(JSON.stringify(payload))}` : ""}`;
const text = (store, id, tag, payload) =>
  JSON.stringify({ _tag: "Request", id, tag: `SyncWsRpc.${tag}`, payload: { storeId: store, ...payload }, headers: [] });
const pull = (store, id) => text(store, id, "Pull", { live: true, cursor: { _tag: "None" } });
const push = (store, id, batch) => text(store, id, "Push", { batch, backendId: { _tag: "None" } });
const parsed = (socket) => socket.frames.map((frame) => JSON.parse(frame));
const seqs = (socket, id) =>
  parsed(socket)
    .filter((frame) => frame._tag === "Chunk" && frame.requestId === id)
    .flatMap((chunk) => chunk.values[0].batch.map(({ eventEncoded }) => eventEncoded.seqNum));

/** Which life of the object answers. */
async function instance(store) {
  const body = text(store, "0", "Pull", { cursor: { _tag: "None" } });
  const answer = await fetch(server.url + address(store, { ask: "instance" }, "http"), { method: "POST", body });
  return (await answer.json())[0].exit.cause.error.cause.message;
}

test("a live pull goes on after the object has slept", async () => {
  const store = "sleeper";
  const [a, b] = [await Socket.open(server.ws + address(store)), await Socket.open(server.ws + address(store))];
  a.send(pull(store, "7"));
  b.send(push(store, "1", events(1, 2)));
  await until("both have come", () => seqs(a, "7").length === 2);
  const first = await instance(store);
  // Pings are answered by the runtime. An object that is left alone for a while sleeps, and a look
  // would end that: so each look comes later.
  let pause = 12_000;
  await until("the object is rebuilt", async () => {
    for (const socket of [a, b]) socket.send('{"_tag":"Ping"}');
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause += 5_000;
    return (await instance(store)) !== first;
  }, 90_000);
  assert.ok([a, b].every((socket) => socket.frames.includes('{"_tag":"Pong"}') && !socket.closed));
  b.send(push(store, "2", events(3, 3)));
  await until("it has come", () => seqs(a, "7").length === 3);
  assert.deepEqual(seqs(a, "7"), [1, 2, 3]);
  a.send(JSON.stringify({ _tag: "Interrupt", requestId: "7" }));
  const ended = await until("it is ended", () => parsed(a).find((frame) => frame._tag === "Exit" && frame.requestId === "7"));
  assert.equal(ended.exit.cause._tag, "Interrupt");
  await Promise.all([a, b].map((socket) => socket.close()));
});

test("a hook that waits holds up pushes, and no pulls", async () => {
  const store = "waits";
  const a = await Socket.open(server.ws + address(store, { ask: "wait" }));
  const b = await Socket.open(server.ws + address(store));
  a.send(push(store, "1", events(1, 1)));
  a.send(pull(store, "0"));
  // The push has come before the pull, and waits.
  await until("the pull is answered", () => parsed(a).some((frame) => frame._tag === "Chunk"));
  assert.deepEqual(seqs(a, "0"), []);
  b.send(push(store, "2", events(2, 2)));
  b.send(pull(store, "3"));
  await until("both are there", () => seqs(b, "3").length === 2);
  assert.deepEqual(seqs(b, "3"), [1, 2]);
  for (const [socket, id] of [[a, "1"], [b, "2"]]) {
    const exit = await until("it has ended", () => parsed(socket).find((frame) => frame.requestId === id));
    assert.equal(exit.exit._tag, "Success");
  }
  await Promise.all([a, b].map((socket) => socket.close()));
});

test("what a hook refuses is told in its words, with the headers that it has seen", async () => {
  const store = "refuses";
  const batch = [{ ...events(1, 1)[0], name: "refused" }];
  const answer = await fetch(server.url + address(store, undefined, "http"), {
    method: "POST",
    headers: { "X-Lab": "seen", "X-Other": "not" },
    body: push(store, "1", batch),
  });
  const { error } = (await answer.json())[0].exit.cause;
  assert.deepEqual([error._tag, error.cause.message], ["UnknownError", 'refused: [("x-lab", "seen")]']);
});
