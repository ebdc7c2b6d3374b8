// What a room does at a time, also when its server was killed meanwhile.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const room = (name) => `${server.ws}/parties/lab/${name}`;
const both = { items: null, notes: null };

test("jobs are done at their times, and one that fails is done again", async () => {
  const a = await Client.join(room("jobs"), { channels: both });
  a.send({ type: "message", data: { job_after_ms: 150, name: "second" } });
  a.send({ type: "message", data: { job_after_ms: 50, name: "first" } });
  a.send({ type: "message", data: { job_after_ms: 0, name: "failed once", fails: 1 } });
  const done = [];
  while (done.length < 3) {
    const patch = await a.next("a patch", (f) => f.type === "patch");
    done.push(...patch.changes.flatMap(({ rows }) => rows.map((row) => row[1])));
  }
  assert.deepEqual(done, ["first", "second", "failed once"]);
  await a.close();
});

test("a job that ends the process is put off, and keeps no other from being done", async () => {
  const a = await Client.join(room("traps"), { channels: both });
  // They are due at once, and it is the first.
  a.send({ type: "message", data: { job_after_ms: 300, name: "a", traps: true } });
  for (const name of ["b", "c"]) a.send({ type: "message", data: { job_after_ms: 300, name } });
  const query = "SELECT (SELECT group_concat(text) FROM notes) AS done, name, attempts FROM _partysync_job";
  const left = await until("the others are done", () => {
    const rows = server.sqlite("_partysync_job", query).flat();
    return rows.find(({ name, done }) => name === "a" && done === "b,c");
  }, 60_000);
  assert.ok(left.attempts >= 1, `${left.attempts}`);
});

test("jobs are done once each, whenever the server is killed", async () => {
  const names = Array.from({ length: 40 }, (_, n) => `job ${n}`);
  const a = await Client.join(room("killed"), { channels: both });
  for (const [n, name] of names.entries()) {
    a.send({ type: "message", data: { job_after_ms: 100 * n, name, fails: n % 5 === 0 ? 1 : 0 } });
  }
  // What it says after them has been read behind them.
  assert.equal((await a.act("notes", "write", { number: 1_000, text: "all are planned" })).code, undefined);
  const done = () => server.sqlite("notes", "SELECT text FROM notes").flat().map(({ text }) => text);
  for (const least of [3, 12, 30]) {
    await until(`${least} jobs`, () => done().filter((text) => names.includes(text)).length >= least);
    await server.down("SIGKILL");
    await server.up();
    // Somebody comes: an object of the local runtime that nobody asks for is not always woken.
    if (least === 12) await (await Client.join(room("killed"), { channels: both })).close();
  }
  await until("all jobs", () => names.every((name) => done().includes(name)), 60_000);
  const times = names.map((name) => done().filter((text) => text === name).length);
  assert.deepEqual(times, names.map(() => 1));
  assert.deepEqual(server.sqlite("_partysync_job", "SELECT name FROM _partysync_job WHERE name LIKE 'job %'").flat(), []);
});
