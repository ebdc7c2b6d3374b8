// LiveStore's own clients against a backend in Rust, in workerd.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { Server, until } from "../e2e/harness.mjs";
import { Client, events, range } from "./client.mjs";

let server;
before(async () => (server = await Server.start("fixtures/livestore-sync")));
after(() => server?.stop());

const has = (following, wanted) =>
  until(`${wanted.length} events have come`, () => following.seqs.length >= wanted.length).then(() =>
    assert.deepEqual(following.seqs, wanted),
  );

for (const transport of ["ws", "http"]) {
  test(`${transport}: connect, ping, an empty pull, pushes, pulls from a cursor`, async () => {
    const client = await Client.connect(server.url, `basic-${transport}`, { transport });
    await client.connect();
    await client.ping();
    assert.deepEqual(await client.pull(), []);
    await client.push(events(1, 3));
    await client.push(events(4, 4, { text: "héllo \"q\" \u2028" }));
    const pages = await client.pages();
    assert.deepEqual(pages.flatMap(({ batch }) => batch.map(({ eventEncoded }) => eventEncoded)), [
      ...events(1, 3),
      ...events(4, 4, { text: "héllo \"q\" \u2028" }),
    ]);
    assert.deepEqual(await client.pull(2), [3, 4]);
    assert.deepEqual(await client.pull(4), []);
    await client.close();
  });

  test(`${transport}: a thousand events come in pages`, async () => {
    const client = await Client.connect(server.url, `pages-${transport}`, { transport });
    await client.pull();
    await client.push(events(1, 1_000));
    const pages = await client.pages();
    assert.deepEqual(pages.flatMap(({ batch }) => batch.map(({ eventEncoded }) => eventEncoded.seqNum)), range(1, 1_000));
    assert.deepEqual([pages[0].pageInfo._tag, pages.at(-1).pageInfo._tag], ["MoreKnown", "NoMore"]);
    await client.close();
  });

  test(`${transport}: a stale push and a gap are told the head`, async () => {
    const client = await Client.connect(server.url, `stale-${transport}`, { transport });
    await client.pull();
    await client.push(events(1, 2));
    for (const [from, provided] of [[2, 1], [9, 8]]) {
      const error = await client.push(events(from, from)).then(() => null, (error) => error);
      const { cause } = error.cause;
      assert.equal(cause?._tag ?? error.cause._tag, "ServerAheadError", String(error));
      assert.ok(String(JSON.stringify(error.cause)).includes(`"providedNum":${provided}`), JSON.stringify(error.cause));
    }
    assert.deepEqual(await client.pull(), [1, 2]);
    await client.close();
  });
}

test("two clients follow each other live, each with every event once", async () => {
  const [a, b] = [await Client.connect(server.url, "two"), await Client.connect(server.url, "two", { clientId: "b" })];
  const [of_a, again, of_b] = [a.live(), a.live(), b.live()];
  await until("they have begun", async () => (await a.pull()).length === 0 && (await b.pull()).length === 0);
  await a.push(events(1, 2));
  await has(of_b, [1, 2]);
  await b.push(events(3, 150, { clientId: "b" }));
  for (const following of [of_a, again, of_b]) await has(following, range(1, 150));
  await again.stop();
  await b.push(events(151, 151, { clientId: "b" }));
  for (const following of [of_a, of_b]) await has(following, range(1, 151));
  assert.equal(again.seqs.length, 150);
  await Promise.all([a.close(), b.close()]);
});

test("a client that joins under steady pushes has all of them", async () => {
  const [writer, reader] = [await Client.connect(server.url, "steady"), await Client.connect(server.url, "steady")];
  await writer.pull();
  await writer.push(events(1, 2_000));
  const following = reader.live();
  for (let seq = 2_001; seq <= 2_040; seq += 1) await writer.push(events(seq, seq));
  await has(following, range(1, 2_040));
  await Promise.all([writer.close(), reader.close()]);
});

test("a server that was killed is found again, and goes on where it was", async () => {
  const client = await Client.connect(server.url, "killed");
  const following = client.live();
  await client.push(events(1, 3));
  await has(following, [1, 2, 3]);
  await server.down("SIGKILL");
  await server.up();
  await until("the pull has failed as offline", () => following.ended);
  assert.equal(following.ended._tag, "IsOfflineError");
  const again = client.live(3);
  await until("it pushes again", () => client.push(events(4, 4)).then(() => true, () => false), 60_000);
  await has(again, [4]);
  assert.deepEqual(await client.pull(), [1, 2, 3, 4]);
  await client.close();
});

test("a wrong payload is refused, and nothing of the store is seen", async (t) => {
  const client = async (options) => {
    const client = await Client.connect(server.url, "secret", options);
    t.after(() => client.close());
    return client;
  };
  const good = await client({ transport: "http" });
  await good.pull();
  await good.push(events(1, 1));
  for (const payload of [{}, { authToken: "wrong" }, "ok", null]) {
    const http = await client({ transport: "http", payload });
    await assert.rejects(http.pull());
    const query = `storeId=secret&transport=ws&payload=${encodeURIComponent(JSON.stringify(payload))}`;
    const socket = new WebSocket(`${server.ws}/?${query}`);
    const status = await new Promise((resolve, reject) => {
      socket.on("unexpected-response", (_, response) => resolve(response.statusCode));
      socket.on("open", () => reject(new Error("it was let in")));
    });
    assert.equal(status, 403);
    socket.on("error", () => {});
    socket.terminate();
  }
});

test("another backend's cursor is told so", async () => {
  const [a, b] = [await Client.connect(server.url, "mismatch-a"), await Client.connect(server.url, "mismatch-b")];
  await a.pull();
  await b.pull();
  await a.push(events(1, 1));
  const raw = new WebSocket(`${server.ws}/any/path?storeId=mismatch-a&transport=ws&payload=${encodeURIComponent(JSON.stringify({ authToken: "ok" }))}`);
  await new Promise((resolve) => raw.on("open", resolve));
  const answer = new Promise((resolve) => raw.on("message", (data) => resolve(JSON.parse(String(data)))));
  const cursor = { _tag: "Some", value: { backendId: "another", eventSequenceNumber: 1 } };
  raw.send(JSON.stringify({ _tag: "Request", id: "0", tag: "SyncWsRpc.Pull", payload: { storeId: "mismatch-a", live: true, cursor }, headers: [] }));
  assert.equal((await answer).exit.cause.error._tag, "BackendIdMismatchError");
  raw.close();
  await Promise.all([a.close(), b.close()]);
});

test("an event that could never be pulled is refused, and one at the limit is not", async () => {
  const client = await Client.connect(server.url, "large");
  await client.pull();
  await client.push(events(1, 3, { text: "x".repeat(290_000) }));
  await assert.rejects(client.push(events(4, 4, { text: "x".repeat(899_990) })));
  assert.deepEqual(await client.pull(), [1, 2, 3]);
  await client.close();
});

test("what is no sync request is the worker's own", async () => {
  for (const path of ["/", "/?storeId=x", "/?storeId=&transport=ws", "/?storeId=x&transport=ws&payload=%25%25"]) {
    const answer = await fetch(server.url + path);
    assert.match(await answer.text(), /<title>LiveStore on Rust/, path);
  }
  const payload = encodeURIComponent(JSON.stringify({ authToken: "ok" }));
  const upgrade = await fetch(`${server.url}/?storeId=x&transport=ws&payload=${payload}`);
  assert.equal(upgrade.status, 426);
  // Encoded once, twice or three times.
  for (const times of [1, 2, 3]) {
    let encoded = JSON.stringify({ authToken: "ok" });
    for (let n = 0; n < times; n += 1) encoded = encodeURIComponent(encoded);
    const answer = await fetch(`${server.url}/?storeId=x&transport=http&payload=${encoded}`, { method: "POST", body: "nonsense" });
    assert.equal((await answer.json())[0]._tag, "Defect", `${times}`);
  }
});
