// A store whose log is in D1: LiveStore's own clients, what fails between the object and D1, and a
// database that LiveStore's own backend has written.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Server, until } from "../e2e/harness.mjs";
import { Client, events } from "./client.mjs";

const OURS = "tests/livestore/d1";
const THEIRS = "tests/livestore/d1-reference";
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
const admin = async (server, task, store, options = {}) => {
  const authorization = "Bearer open sesame";
  const answer = await fetch(`${server.url}/admin/${task}?storeId=${store}`, { headers: { authorization }, ...options });
  return answer.ok ? answer.json() : answer.status;
};

async function client(t, server, store, options) {
  const client = await Client.connect(server.url, store, options);
  t.after(() => client.close());
  return client;
}

describe("served by ours", () => {
  let server;
  before(async () => (server = await Server.start(OURS)));
  after(() => server?.stop());

  for (const transport of ["ws", "http"]) {
    test(`${transport}: pushes, pages, cursors, refusals`, async (t) => {
      const a = await client(t, server, `d1-${transport}`, { transport });
      assert.deepEqual(await a.pull(), []);
      await a.push(events(1, 253, { text: 'héllo "q" \u2028' }));
      const pages = await a.pages();
      assert.deepEqual(pages.flatMap(({ batch }) => batch.map(({ eventEncoded }) => eventEncoded)), events(1, 253, { text: 'héllo "q" \u2028' }));
      assert.deepEqual(pages.map(({ pageInfo }) => pageInfo._tag), ["MoreKnown", "MoreKnown", "NoMore"]);
      assert.deepEqual(await a.pull(250), [251, 252, 253]);
      for (const from of [253, 300]) await assert.rejects(a.push(events(from, from)), /ServerAheadError/);
      // Events of several statements, and pages of few events.
      await a.push(events(254, 259, { text: "x".repeat(290_000) }));
      assert.deepEqual(await a.pull(253), range(254, 259));
    });
  }

  test("clients follow each other while pushes are made at once", async (t) => {
    const clients = [];
    for (const clientId of ["a", "b", "c"]) clients.push(await client(t, server, "d1-live", { clientId }));
    const [a, b] = clients;
    await a.pull();
    await a.push(events(1, 300));
    const all = clients.map((client) => client.live());
    for (let seq = 301; seq <= 320; seq += 1) await (seq % 2 ? a : b).pull(seq - 1).then(() => (seq % 2 ? a : b).push(events(seq, seq)));
    for (const following of all) {
      await until("all have come", () => following.seqs.length >= 320);
      assert.deepEqual(following.seqs, range(1, 320));
    }
  });

  test("stores whose tables would have one name have a table each", async (t) => {
    // SQLite takes names for the same that differ in case only.
    const stores = ["col-x", "col_x", "COL-X", "Col_x"];
    const clients = [];
    for (const store of stores) clients.push(await client(t, server, store));
    await Promise.all(clients.map((client) => client.pull()));
    for (const [n, client] of clients.entries()) {
      assert.deepEqual(await client.pull(), []);
      await client.push(events(1, n + 1, { text: stores[n] }));
    }
    for (const [n, client] of clients.entries()) {
      const pages = await client.pages();
      const texts = pages.flatMap(({ batch }) => batch.map(({ eventEncoded }) => eventEncoded.args.text));
      assert.deepEqual(texts, Array(n + 1).fill(stores[n]));
    }
  });

  test("whoever knows the secret hears of a store, and may empty it", async (t) => {
    const a = await client(t, server, "d1-admin");
    await a.pull();
    await a.push(events(1, 3));
    const info = await admin(server, "info", "d1-admin");
    assert.deepEqual([info.storeId, info.head, info.backendId.length], ["d1-admin", 3, 21]);
    for (const headers of [{}, { authorization: "Bearer wrong" }, { authorization: "open sesame" }]) {
      assert.equal(await admin(server, "reset", "d1-admin", { method: "POST", headers }), 401);
    }
    assert.equal(await admin(server, "reset", "d1-admin"), 405);
    assert.equal((await admin(server, "info", "d1-admin")).head, 3);
    await admin(server, "reset", "d1-admin", { method: "POST" });
    const emptied = await until("it is emptied", async () => {
      const now = await admin(server, "info", "d1-admin");
      return now.head === 0 && now;
    });
    assert.notEqual(emptied.backendId, info.backendId);
    const b = await client(t, server, "d1-admin");
    assert.deepEqual(await b.pull(), []);
    await b.push(events(1, 1));
    assert.deepEqual(await b.pull(), [1]);
  });
});

describe("between two servers", () => {
  const data = mkdtempSync(join(tmpdir(), "partysync-"));
  after(() => rmSync(data, { recursive: true, force: true, maxRetries: 10 }));
  const served = async (fixture, body) => {
    const server = await Server.start(fixture, { data });
    try {
      return await body(server);
    } finally {
      await server.stop();
    }
  };
  const using = (server, store, body) =>
    Client.connect(server.url, store, { transport: "http" }).then((client) => body(client).finally(() => client.close()));
  const context = (server, store) =>
    server.sqlite("context_7", `SELECT currentHead, backendId FROM context_7 WHERE storeId = '${store}'`).flat()[0];

  test("a log moves from TypeScript to Rust and back, and a pair of one name is recognised", async () => {
    const before = await served(THEIRS, async (server) => {
      await using(server, "pair-x", async (client) => {
        await client.pull();
        await client.push(events(1, 150));
      });
      // LiveStore's own backend gives a store the events of the other one.
      await using(server, "pair_x", async (client) => assert.deepEqual(await client.pull(), range(1, 150)));
      return context(server, "pair-x");
    });
    await served(OURS, async (server) => {
      // Whichever comes first.
      await using(server, "pair_x", async (client) => {
        assert.deepEqual(await client.pull(), []);
        await client.push(events(1, 1));
      });
      await using(server, "pair-x", async (client) => {
        assert.deepEqual(await client.pull(), range(1, 150));
        await client.push(events(151, 270));
      });
      assert.deepEqual({ ...context(server, "pair-x") }, { ...before, currentHead: 270 });
    });
    await served(THEIRS, (server) =>
      using(server, "pair-x", async (client) => {
        assert.deepEqual(await client.pull(), range(1, 270));
        await client.push(events(271, 271));
        assert.deepEqual(await client.pull(269), [270, 271]);
      }),
    );
  });

  test("an object that has lost what it knew has its log from D1", async () => {
    const before = await served(OURS, async (server) => {
      await using(server, "wiped", async (client) => {
        await client.pull();
        await client.push(events(1, 5));
      });
      return context(server, "wiped");
    });
    rmSync(join(data, "v3/do"), { recursive: true });
    await served(OURS, async (server) => {
      await using(server, "wiped", async (client) => {
        assert.deepEqual(await client.pull(), range(1, 5));
        await client.push(events(6, 6));
      });
      const after = context(server, "wiped");
      assert.equal(after.currentHead, 6);
      assert.notEqual(after.backendId, before.backendId);
    });
  });

  test("what is acknowledged is there after a kill, and a push that fails half-way leaves nothing", async () => {
    const server = await Server.start(OURS, { data });
    try {
      let acknowledged = 0;
      await using(server, "killed", async (client) => {
        await client.pull();
        const pushing = (async () => {
          for (let seq = 1; ; seq += 1) {
            await client.push(events(seq, seq));
            acknowledged = seq;
          }
        })().catch(() => {});
        await until("some are there", () => acknowledged >= 20);
        await server.down("SIGKILL");
        await pushing;
      });
      // The second of two statements fails.
      const [log] = server.sqlite("eventlog_7_killed", "SELECT max(seqNum) AS head FROM eventlog_7_killed", { of: "d1" })[0];
      assert.ok(log.head >= acknowledged, `${log.head} of ${acknowledged}`);
      const fails = `CREATE TRIGGER fails BEFORE INSERT ON eventlog_7_killed WHEN NEW.name = 'fails' BEGIN SELECT RAISE(ABORT, 'it fails'); END`;
      server.sqlite("eventlog_7_killed", fails, { of: "d1", write: true });
      await server.up();
      const raw = async (batch) => {
        const body = JSON.stringify({ _tag: "Request", id: "1", tag: "SyncHttpRpc.Push", payload: { storeId: "killed", batch, backendId: { _tag: "None" } }, headers: [] });
        const answer = await fetch(`${server.url}/?storeId=killed&transport=http`, { method: "POST", body });
        return (await answer.json())[0].exit;
      };
      await using(server, "killed", async (client) => {
        const head = (await client.pull()).at(-1);
        assert.equal(head, log.head);
        const batch = events(head + 1, head + 2, { text: "x".repeat(800_000) });
        batch[1].name = "fails";
        const exit = await raw(batch);
        assert.equal(exit.cause.error._tag, "UnknownError", JSON.stringify(exit).slice(0, 300));
        assert.deepEqual(await client.pull(head), []);
        await client.push(events(head + 1, head + 1));
        assert.deepEqual(await client.pull(head), [head + 1]);
      });
    } finally {
      await server.stop();
    }
  });
});
