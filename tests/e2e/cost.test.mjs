// What a push costs in workerd: statements, and rows written as they are billed.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/e2e/cost")));
after(() => server.stop());

const path = "/parties/todos/cost";
const cost = async () => (await fetch(`${server.url}${path}?cost`)).json();

test("a push of N actions runs N + 4 statements and writes 3 N + 2 rows, or 2 N + 2 where no index changes", async () => {
  const client = await Client.join(`${server.ws}${path}`, { channels: { todos: null } });
  const other = await Client.join(`${server.ws}${path}`, { channels: { todos: null } });
  const push = async (actions) => {
    await cost();
    const pushed = actions.map((action) => ({ seq: ++client.seq, channel: "todos", action }));
    client.send({ type: "push", actions: pushed });
    const { acks } = await client.next("the answers", (f) => f.acks?.length);
    assert.deepEqual(acks, pushed.map(({ seq }) => ({ seq })));
    return cost();
  };
  const create = (n) => ({ type: "create", payload: { id: `${n}`, text: "milk", completed: false, position: "a5" } });
  const update = (n) => ({ type: "update", payload: { id: `${n}`, completed: true } });
  const remove = (n) => ({ type: "delete", payload: { id: `${n}` } });
  // The first change plans when deletions are forgotten.
  await push([create("first")]);
  for (const n of [1, 32, 128]) {
    const ids = Array.from({ length: n }, (_, i) => `${n}-${i}`);
    // A soft deletion has an entry of its own in the index of what is deleted.
    for (const [action, rows] of [[create, 3], [update, 2], [remove, 3]]) {
      const expected = { statements: n + 4, rows: rows * n + 2 };
      assert.deepEqual(await push(ids.map(action)), expected, `${n} times ${action.name}`);
    }
  }
  await Promise.all([client.close(), other.close()]);
});
