// Actions that are answered with data: the same after a kill, and forgotten when it was heard.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const room = (name) => `${server.ws}/parties/lab/${name}`;
const both = { items: null, notes: null };
const write = (seq) => ({ seq, channel: "notes", action: { type: "write", payload: { number: seq, text: "answer" } } });
const kept = () => server.sqlite("_partysync_result", "SELECT seq FROM _partysync_result").flat().map((row) => row.seq);

async function push(client, answered, actions) {
  client.send({ type: "push", answered, actions });
  return (await client.next("the answers", (f) => f.acks?.length)).acks;
}

test("a room that was killed answers with what it has answered before", async () => {
  const client = crypto.randomUUID();
  const a = await Client.join(room("killed"), { client, channels: both });
  const first = await push(a, 0, [write(1), write(2)]);
  assert.deepEqual(first.map(({ seq, code, result }) => [seq, code, result.number]), [
    [1, undefined, 1],
    [2, undefined, 2],
  ]);

  await server.down("SIGKILL");
  assert.deepEqual(kept(), [1, 2]);
  await server.up();
  const again = await Client.join(room("killed"), { client, channels: both });
  // Each life of the room says another `instance`.
  assert.deepEqual(await push(again, 0, [write(1), write(2)]), first);
  const [third] = await push(again, 2, [write(3)]);
  assert.equal(third.result.number, 3);
  assert.notEqual(third.result.instance, first[0].result.instance);
  await again.close();

  await server.down();
  assert.deepEqual(kept(), [3]);
  await server.up();
});
