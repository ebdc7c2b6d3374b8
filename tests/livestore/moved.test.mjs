// A log that LiveStore's own backend has written is opened by ours, and by that one again.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Server } from "../e2e/harness.mjs";
import { Client, events } from "./client.mjs";

const data = mkdtempSync(join(tmpdir(), "partysync-"));
after(() => rmSync(data, { recursive: true, force: true, maxRetries: 10 }));

/** Does something with a client of the store, served by one of the two. */
async function served(fixture, body) {
  const server = await Server.start(fixture, { data });
  try {
    const client = await Client.connect(server.url, "moved/Störe.1");
    try {
      return await body(client, server);
    } finally {
      await client.close();
    }
  } finally {
    await server.stop();
  }
}

const OURS = "fixtures/livestore-sync";
const THEIRS = "tests/livestore/reference";
const range = (to) => Array.from({ length: to }, (_, n) => n + 1);
const stored = (server) =>
  server.sqlite("context_7", "SELECT storeId, currentHead, backendId FROM context_7").flat()[0];

test("a log moves from TypeScript to Rust and back, and no event is lost", async () => {
  const rows = (server) => server.sqlite("eventlog_7_moved_St_re_1", `SELECT * FROM "eventlog_7_moved_St_re_1"`)[0];
  const before = await served(THEIRS, async (client, server) => {
    assert.deepEqual(await client.pull(), []);
    await client.push(events(1, 150, { text: "héllo \"q\"" }));
    await client.push([{ ...events(151, 151)[0], args: undefined }]);
    return { context: stored(server), rows: rows(server) };
  });
  assert.equal(before.rows.length, 151);
  const moved = await served(OURS, async (client, server) => {
    assert.deepEqual(await client.pull(), range(151));
    await client.push(events(152, 260));
    await client.push([{ ...events(261, 261)[0], args: undefined }]);
    return { context: stored(server), rows: rows(server) };
  });
  assert.deepEqual(moved.rows.slice(0, 151), before.rows);
  assert.deepEqual({ ...moved.context }, { ...before.context, currentHead: 261 });
  // What ours has written looks as theirs does.
  const shape = ({ createdAt, args, seqNum, parentSeqNum, ...row }) => ({
    ...row,
    step: seqNum - parentSeqNum,
    createdAt: createdAt.replace(/\d/g, "0"),
    args: args && args.replace(/\d+|x|héllo \\"q\\"/g, ""),
  });
  assert.deepEqual(shape(moved.rows[151]), shape(before.rows[0]));
  assert.deepEqual(shape(moved.rows[260]), shape(before.rows[150]));
  await served(THEIRS, async (client) => {
    assert.deepEqual(await client.pull(), range(261));
    await client.push(events(262, 262));
    assert.deepEqual(await client.pull(260), [261, 262]);
  });
});
