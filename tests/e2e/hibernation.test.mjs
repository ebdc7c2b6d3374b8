// The object is rebuilt while its sockets stay open.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server, Socket, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

test("after hibernation the next action still reaches every socket", async () => {
  const url = `${server.ws}/parties/lab/sleeper`;
  const look = async () => (await fetch(`${server.url}/parties/lab/sleeper`)).json();
  const channels = { items: null, notes: null };
  const a = await Client.join(`${url}?vip`, { channels });
  const b = await Client.join(`${url}?plain`, { channels });
  const v1 = await Socket.open(url);
  const known = await Client.join(`${server.ws}/known/lab/sleeper?user=ada`);
  await a.act("notes", "write", { number: 1, text: "before" });
  await b.next("the first patch", (f) => f.type === "patch");
  await v1.next("the first broadcast", (f) => f.broadcast);
  const { instance } = await look();

  // Pings are answered by the runtime: they must not keep the object awake. It sleeps when it
  // has been left alone for a while, which a look would end: so each look comes later.
  let pause = 12_000;
  const rebuilt = await until("the object is rebuilt", async () => {
    for (const socket of [a, b, v1, known]) socket.send("ping");
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause += 5_000;
    const now = await look();
    return now.instance !== instance && now;
  }, 90_000);
  assert.ok([a, b, v1].every((socket) => socket.frames.includes("pong") && !socket.closed));
  assert.deepEqual(rebuilt.connections.map((c) => c.state).sort(), ["", "plain", "user=ada", "vip"]);
  assert.deepEqual(rebuilt.connections.map((c) => c.who?.name).filter(Boolean), ["ada"]);

  const { patch } = await a.act("notes", "write", { number: 2, text: "after" });
  assert.deepEqual([patch.from, patch.to], [1, 2]);
  const seen = await b.next("the second patch", (f) => f.type === "patch");
  assert.deepEqual(seen.changes[0].rows, [[2, "after"]]);
  assert.deepEqual((await v1.next("the second broadcast", (f) => f.broadcast)).payload, [[2, "after", null]]);
  b.send({ type: "message", data: "to vips" });
  assert.equal((await a.next("a message", (f) => f.type === "message")).data, "hello vip");
  known.send({ type: "message", data: "still me" });
  const heard = await b.next("whose message it is", (f) => f.data?.message === "still me");
  assert.equal(heard.data.who.name, "ada");
  await Promise.all([a, b, v1, known].map((socket) => socket.close()));
});
