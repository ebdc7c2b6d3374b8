// Objects in JavaScript that are clients of the backend in Rust: LiveStore's own makeDoRpcSync, by
// Durable Object RPC.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Packr } from "msgpackr";
import { Server, until } from "../e2e/harness.mjs";
import { Client, events } from "./client.mjs";

let server;
before(async () => (server = await Server.start("tests/livestore/objects")));
after(() => server?.stop());

async function call(object, method, ...args) {
  const answer = await fetch(`${server.url}/FOLLOWER/${object}/${method}`, { method: "POST", body: JSON.stringify(args) });
  const { value, error } = await answer.json();
  if (error !== undefined) throw new Error(error);
  return value;
}
/** A client of the store, which has heard of its backend. */
async function connect(t, store, transport = "http") {
  const client = await Client.connect(server.url, store, { transport });
  t.after(() => client.close());
  await client.pull();
  return client;
}
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
const seqs = (pages) => pages.flatMap(({ events }) => events.map(({ seqNum }) => seqNum));
/** All of these have come at the object, each once and in order. */
const has = (object, wanted) =>
  until(`${wanted.length} events at ${object}`, async () => (await call(object, "state")).seqs.length >= wanted.length, 30_000).then(async () =>
    assert.deepEqual(await call(object, "state").then(({ seqs, ended }) => ({ seqs, ended })), { seqs: wanted, ended: null }),
  );

test("ping, an empty pull, pushes, pages, what is refused", async (t) => {
  const [object, store] = ["basics", "rpc-basics"];
  await call(object, "ping", store);
  assert.deepEqual(await call(object, "pull", store), [{ events: [], pageInfo: { _tag: "NoMore" } }]);
  await call(object, "push", store, events(1, 254, { text: 'héllo "q" \u2028' }));
  const pages = await call(object, "pull", store);
  assert.deepEqual(pages.flatMap(({ events }) => events), events(1, 254, { text: 'héllo "q" \u2028' }));
  assert.deepEqual(pages.map(({ pageInfo }) => pageInfo), [
    { _tag: "MoreKnown", remaining: 154 },
    { _tag: "MoreKnown", remaining: 54 },
    { _tag: "NoMore" },
  ]);
  assert.deepEqual(seqs(await call(object, "pull", store, 252)), [253, 254]);
  for (const [from, provided] of [[254, 253], [300, 299]]) {
    await assert.rejects(call(object, "push", store, events(from, from)), (error) => {
      assert.ok(error.message.includes("ServerAheadError") && error.message.includes(`"providedNum":${provided}`), error.message);
      return true;
    });
  }
  // The same log as by WebSocket.
  const client = await connect(t, store, "ws");
  assert.deepEqual(await client.pull(252), [253, 254]);
});

test("two objects and a client by WebSocket follow each other", async (t) => {
  const store = "rpc-follow";
  const client = await connect(t, store, "ws");
  const following = client.live();
  for (const object of ["follow-a", "follow-b"]) await call(object, "follow", store);
  await client.push(events(1, 3));
  for (const object of ["follow-a", "follow-b"]) await has(object, [1, 2, 3]);
  await call("follow-a", "push", store, events(4, 150));
  for (const object of ["follow-a", "follow-b"]) await has(object, range(1, 150));
  await until("they have come by WebSocket", () => following.seqs.length >= 150);
  assert.deepEqual(following.seqs, range(1, 150));
});

test("an object that joins under steady pushes has all of them", async (t) => {
  const store = "rpc-steady";
  const client = await connect(t, store, "ws");
  await client.push(events(1, 500));
  const followed = call("steady", "follow", store);
  for (let seq = 501; seq <= 560; seq += 1) await client.push(events(seq, seq));
  await followed;
  await client.push(events(561, 561));
  await has("steady", range(1, 561));
});

test("subscribers are called by a backend that was rebuilt twice", async (t) => {
  const store = "rpc-rebuilt";
  const client = await connect(t, store);
  const objects = ["rebuilt-a", "rebuilt-b"];
  for (const object of objects) await call(object, "follow", store);
  let head = 0;
  for (let life = 0; life < 3; life += 1) {
    await client.push(events(head + 1, head + 5));
    head += 5;
    for (const object of objects) await has(object, range(1, head));
    await call("rebuilt-a", "push", store, events(head + 1, head + 1));
    head += 1;
    for (const object of objects) await has(object, range(1, head));
    await call("other", "restartBackend", store);
  }
});

test("an object that was rebuilt subscribes anew, and goes on", async (t) => {
  const store = "rpc-object";
  const client = await connect(t, store);
  await call("object", "follow", store);
  await client.push(events(1, 4));
  await has("object", range(1, 4));
  const { instance } = await call("object", "state");
  await call("object", "restart").catch(() => {});
  await client.push(events(5, 6));
  assert.notEqual((await call("object", "state")).instance, instance);
  await call("object", "pull", store);
  await call("object", "follow", store, 4);
  await client.push(events(7, 7));
  await has("object", [5, 6, 7]);
});

test("an object that fails for a while is called again with all that it lacks", async (t) => {
  const store = "rpc-fails";
  const client = await connect(t, store);
  await call("fails", "follow", store);
  await client.push(events(1, 1));
  await has("fails", [1]);
  await call("fails", "state", true);
  for (let seq = 2; seq <= 130; seq += 16) await client.push(events(seq, Math.min(seq + 15, 130)));
  await call("fails", "state", false);
  await has("fails", range(1, 130));
});

test("a backend that was rebuilt calls again by its alarm, when nobody else comes", async (t) => {
  const store = "rpc-alarm";
  const client = await connect(t, store);
  await call("alarm", "follow", store);
  await client.push(events(1, 1));
  await has("alarm", [1]);
  await call("alarm", "state", true);
  await client.push(events(2, 3));
  await call("other", "restartBackend", store);
  await call("alarm", "state", false);
  await has("alarm", [1, 2, 3]);
});

test("a text that was cut in the middle of a letter is pulled by objects, too", async (t) => {
  const store = "rpc-cut";
  const client = await connect(t, store);
  await client.push(events(1, 1, { text: "🎉".slice(0, 1) }));
  const [page] = await call("cut", "pull", store);
  assert.equal(page.events[0].args.text, "\ufffd");
});

test("bytes that are something else, unknown tags, several requests at once", async () => {
  const store = "rpc-odd";
  const packr = () => new Packr({ useRecords: true });
  const raw = async (bytes) => packr().unpack(Buffer.from(await call("odd", "raw", store, [...bytes])));
  const request = (id, tag, payload) => ({ _tag: "Request", id, tag, payload: { storeId: store, ...payload }, headers: [] });
  for (const bytes of [Buffer.from('{"_tag":"Ping"}'), Buffer.from([0xc1]), Buffer.from([0x91, 0x40])]) {
    assert.equal((await raw(bytes))[0]._tag, "Defect", bytes.toString("hex"));
  }
  assert.deepEqual(await raw([]), []);
  assert.deepEqual(await raw(packr().pack([{ _tag: "Interrupt", requestId: "0" }])), []);
  assert.equal((await raw(packr().pack([request("1", "SyncDoRpc.Nope", {})])))[0]._tag, "Defect");
  const exits = await raw(packr().pack([request("1", "SyncDoRpc.Ping", {}), request("2", "SyncDoRpc.Push", { batch: events(1, 2), backendId: { _tag: "None" } })]));
  assert.deepEqual(exits.map(({ requestId, exit }) => [requestId, exit._tag]), [["1", "Success"], ["2", "Success"]]);
  // A message that is in no array, and a wrong backend.
  const cursor = { _tag: "Some", value: { backendId: "another", eventSequenceNumber: 1 } };
  const [refused] = await raw(packr().pack(request("3", "SyncDoRpc.Pull", { cursor })));
  assert.equal(refused.exit.cause.error._tag, "BackendIdMismatchError");
  const [other] = await raw(packr().pack([{ ...request("4", "SyncDoRpc.Pull", { cursor: { _tag: "None" } }), payload: { storeId: "another", cursor: { _tag: "None" } } }]));
  assert.equal(other.exit.cause.error._tag, "UnknownError");
});
