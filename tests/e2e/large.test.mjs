// A room with a million rows: who comes, who comes back and who is there while a fifth of them
// changes gets what it lacks, and the worker's memory stays small.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server, Socket, until } from "./harness.mjs";

const rows = 1_000_000;
const changed = 200_000;
const most = 64 * 1024 * 1024;
const long = 120_000;

const path = "/parties/lab/large";
let server, url;
before(async () => {
  // Without a history, which would be as large again.
  server = await Server.start("tests/lab", { vars: { HISTORY: "no" } });
  url = `${server.ws}${path}`;
});
after(() => server.stop());

const look = async () => (await fetch(`${server.url}${path}`)).json();

/** Says how long this took and what memory it left the worker with, which has to be little. */
async function takesLittle(t, what, work) {
  const began = performance.now();
  const result = await work();
  const { memory } = await look();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  t.diagnostic(`${what}: ${seconds} s, ${(memory / 1024 / 1024).toFixed(1)} MiB`);
  assert.ok(memory <= most, `${what}: ${memory} bytes of memory`);
  return result;
}

/** Counts the rows that a socket is sent, in place of keeping them. */
function count(socket) {
  const tally = { rows: 0, version: 0, whole: false, acks: 0 };
  const add = (text) => {
    const frame = JSON.parse(text);
    const changes = frame.type === "patch" ? frame.changes : [frame];
    for (const { rows, payload } of changes) tally.rows += (rows ?? payload ?? []).length;
    tally.acks += frame.acks?.length ?? 0;
    if (frame.to === undefined) return;
    [tally.version, tally.whole] = [frame.to, !frame.more];
  };
  const early = socket.frames;
  socket.frames = { push: add };
  early.forEach(add);
  return tally;
}

test("a million rows, and a change of a fifth of them", async (t) => {
  await takesLittle(t, "a million rows", async () => {
    for (let from = 0; from < rows; from += rows / 10) {
      const body = `INSERT INTO notes (number, text)
        WITH RECURSIVE n(i) AS (SELECT ${from} UNION ALL SELECT i + 1 FROM n WHERE i < ${from + rows / 10 - 1})
        SELECT i, 'a text that is as long as one might be ' || i FROM n`;
      const filled = await fetch(`${server.url}${path}`, { method: "POST", body });
      assert.equal(await filled.text(), `${rows / 10}`);
    }
  });
  const join = async (what, since = null, epoch = null) => {
    const client = await Client.join(url, { epoch, channels: { notes: since } });
    const tally = count(client);
    await until(what, () => tally.whole, long);
    return [client, tally];
  };
  const [a, first] = await takesLittle(t, "a first snapshot", () => join("a snapshot"));
  const [b, second] = await takesLittle(t, "a second snapshot", () => join("a snapshot"));
  assert.deepEqual([first, second].map(({ rows, version }) => [rows, version]), Array(2).fill([rows, rows]));

  await takesLittle(t, "a change of 200,000 rows with two that follow", async () => {
    const action = { type: "touch_notes", payload: { up_to: changed - 1 } };
    a.send({ type: "push", actions: [{ seq: 1, channel: "items", action }] });
    const all = ({ version, whole }) => whole && version === rows + changed;
    await until("both have it", () => all(first) && all(second), long);
  });
  assert.deepEqual([first.rows, second.rows, first.acks], [rows + changed, rows + changed, 1]);

  const [c, delta] = await takesLittle(t, "a delta of 200,000 rows", () => join("a delta", rows, a.welcome.epoch));
  assert.deepEqual([delta.rows, delta.version], [changed, rows + changed]);
  await Promise.all([a, b, c].map((client) => client.close()));
});

test("a v1 client of a million rows", async (t) => {
  const v1 = await Socket.open(url);
  const tally = count(v1);
  await takesLittle(t, "a change of 200,000 rows", async () => {
    const body = `UPDATE notes SET text = text || '?' WHERE number < ${changed}`;
    await fetch(`${server.url}${path}`, { method: "POST", body });
    await until("all changes", () => tally.rows === changed, long);
  });
  await takesLittle(t, "a sync", async () => {
    v1.send({ channel: "notes", sync: true, from: null });
    await until("all rows", () => tally.rows === changed + rows, long);
  });
  await takesLittle(t, "a change of all rows", async () => {
    await fetch(`${server.url}${path}`, { method: "POST", body: "UPDATE notes SET text = text || '.'" });
    await until("all changes", () => tally.rows === changed + 2 * rows, long);
  });
  await takesLittle(t, "the deletion of all rows", async () => {
    await fetch(`${server.url}${path}`, { method: "POST", body: "DELETE FROM notes" });
    await until("all deletions", () => tally.rows === changed + 3 * rows, long);
  });
  const late = await Socket.open(url);
  // A row that changed several times may come several times.
  const [gone, seen] = [new Uint8Array(rows), { count: 0 }];
  late.frames = {
    push(text) {
      for (const [number] of JSON.parse(text).payload) {
        seen.count += 1 - gone[number];
        gone[number] = 1;
      }
    },
  };
  await takesLittle(t, "a sync of all deletions", async () => {
    late.send({ channel: "notes", sync: true, from: 1 });
    await until("all deletions", () => seen.count === rows, long);
  });
  await Promise.all([v1.close(), late.close()]);
});
