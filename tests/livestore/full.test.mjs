// LiveStore's full clients in Node, each with a log and a state of its own, against a backend in
// Rust: whatever happens, all apply the same events in the order of the backend's log.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Server, until } from "../e2e/harness.mjs";
import { agree, Client, events, exchange, log, range } from "./client.mjs";
import { Process } from "./stores.mjs";

let server;
before(async () => (server = await Server.start("fixtures/livestore-sync")));
after(() => server?.stop());

/** Pushes an event each 150 ms until it is stopped, as the only one or not; gives the ids. */
function pushing(client, head) {
  const pushed = [];
  let stopped = false;
  const loop = (async () => {
    while (!stopped) {
      const id = `w${pushed.length}`;
      const [event] = events(head + 1, head + 1);
      const refused = await client.push([{ ...event, args: { id, text: "x" } }]).then(() => null, (error) => error);
      if (refused) {
        // Another was faster.
        const ahead = /"minimumExpectedNum":(\d+)/.exec(JSON.stringify(refused.cause));
        assert.ok(ahead, String(refused));
        head = Number(ahead[1]);
        continue;
      }
      head += 1;
      pushed.push(id);
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    return pushed;
  })();
  return { pushed, stop: () => ((stopped = true), loop) };
}

test("twenty clients join a store of 2,000 events while another pushes, and each is heard", async (t) => {
  const writer = await Client.connect(server.url, "join");
  t.after(() => writer.close());
  await writer.pull();
  await writer.push(events(1, 2_000));
  const processes = range(1, 4).map(() => new Process(t));
  const steady = pushing(writer, 2_000);
  t.after(() => steady.stop());
  const own = range(1, 20).map((n) => `own${n}`);
  const joined = await Promise.all(own.map(async (id, n) => {
    const store = await processes[n % 4].open(server, "join", id);
    // At once: before it has the others it puts its own behind them again and again.
    await store.add(id);
    return store;
  }));
  const pushed = steady.pushed.length;
  for (const store of joined) await until("it has all that was there", async () => (await store.count()) > 2_000 + pushed, 300_000);
  const written = await steady.stop();
  const wanted = [...range(1, 2_000).map(String), ...written, ...own];
  await agree(server, "join", joined, wanted);
  // All go on.
  const again = own.map((id) => `${id} again`);
  await Promise.all(joined.map((store, n) => store.add(again[n])));
  await agree(server, "join", joined, [...wanted, ...again]);
});

test("two clients commit at once, and end with both events in one order", async (t) => {
  const processes = [new Process(t), new Process(t)];
  const both = await Promise.all(processes.map((process, n) => process.open(server, "race", `c${n}`)));
  const wanted = [];
  for (const n of range(1, 10)) {
    await Promise.all([both[0].add(`a${n}`), both[1].add(`b${n}`, `c${n}`)]);
    wanted.push(`a${n}`, `b${n}`, `c${n}`);
    await agree(server, "race", both, wanted);
  }
});

test("the server is killed and comes back: clients go on, with what they did meanwhile", async (t) => {
  const process = new Process(t);
  const [a, b] = [await process.open(server, "killed", "a"), await process.open(server, "killed", "b")];
  await a.add("a1", "a2");
  await b.add("b1");
  await agree(server, "killed", [a, b], ["a1", "a2", "b1"]);
  await a.add("a3");
  await server.down("SIGKILL");
  await a.add("a4");
  await b.add("b2", "b3");
  await server.up();
  await agree(server, "killed", [a, b], ["a1", "a2", "a3", "a4", "b1", "b2", "b3"]);
  await exchange(server, "killed", [a, b], ["a1", "a2", "a3", "a4", "b1", "b2", "b3"]);
});

test("the backend's data is removed: a client gives its own up, and starts over", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "partysync-"));
  t.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 10 }));
  const process = new Process(t);
  const old = await process.open(server, "wiped", "old", folder);
  await old.add("before");
  await agree(server, "wiped", [old], ["before"]);
  await server.down();
  rmSync(join(server.data, "v3"), { recursive: true });
  await server.up();
  assert.equal(await old.ended(), "backend-id-mismatch");
  assert.deepEqual(await log(server, "wiped"), []);
  const another = await process.open(server, "wiped", "another");
  await another.add("after");
  await agree(server, "wiped", [another], ["after"]);
  // LiveStore has emptied its files.
  const again = await process.open(server, "wiped", "old", folder);
  await again.add("more");
  await agree(server, "wiped", [another, again], ["after", "more"]);
  await exchange(server, "wiped", [another, again], ["after", "more"]);
});
