// Who is here: through hibernation, kills, and silence.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server, Socket, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const room = (name) => `${server.ws}/parties/lab/${name}`;
const here = (state) => ({ type: "presence", here: true, state });
const isPresence = (frame) => frame.type === "presence";

/** What a client is told of who is here, put together. */
class Others {
  known = new Map();

  constructor(client) {
    this.client = client;
  }

  /** Takes in frames until this holds. */
  async until(what, condition) {
    while (!condition(this)) {
      const frame = await this.client.next(what, isPresence);
      if (frame.own) this.own = frame.own;
      if (frame.all) {
        this.known.clear();
        this.all = true;
      }
      for (const { id, who, state } of frame.here ?? []) this.known.set(id, { who, state });
      for (const id of frame.gone ?? []) this.known.delete(id);
      this.known.delete(this.own);
      this.connections = frame.connections;
    }
  }

  get states() {
    return [...this.known.values()].map(({ who, state }) => `${who} ${state}`).sort();
  }
}

const join = async (name, query, state, options = {}) => {
  const client = await Client.join(`${room(name)}?${query}`, { channels: { items: null }, ...options });
  client.send(here(state));
  const others = new Others(client);
  await others.until("who is here", ({ all }) => all);
  return { client, others };
};

test("those who are here are told of each other, and of nobody who is hidden", async () => {
  const ada = await join("met", "ada", 1);
  const bob = await join("met", "bob", 2);
  await ada.others.until("Bob", ({ states }) => states.includes("bob 2"));
  assert.deepEqual(bob.others.states, ["ada 1"]);
  const guest = await join("met", "hidden", 3);
  assert.deepEqual([guest.others.states, guest.others.connections], [[], 3]);
  const v1 = await Socket.open(room("met"));
  await ada.others.until("four connections", ({ connections }) => connections === 4);
  bob.client.send(here(5));
  await ada.others.until("what Bob says", ({ states }) => states.includes("bob 5"));
  await bob.client.close();
  await ada.others.until("Bob is gone", ({ states }) => states.length === 0);
  const told = guest.client.parsed.filter(isPresence);
  assert.ok(told.every((frame) => !frame.here && !frame.gone), JSON.stringify(told));
  await Promise.all([ada.client, guest.client, v1].map((socket) => socket.close()));
});

test("after a kill nobody is left over", async () => {
  const before = [await join("killed", "ada", 1), await join("killed", "bob", 2)];
  await before[0].others.until("Bob", ({ states }) => states.includes("bob 2"));
  await server.down("SIGKILL");
  await server.up();
  const eve = await join("killed", "eve", 3);
  assert.deepEqual([eve.others.states, eve.others.connections], [[], 1]);
  const ada = await join("killed", "ada", 4);
  assert.deepEqual(ada.others.states, ["eve 3"]);
  await eve.others.until("Ada is back", ({ states }) => states.includes("ada 4"));
  await Promise.all([ada.client, eve.client].map((client) => client.close()));
});

test("who pings is here while the room sleeps, and who is silent is gone", async () => {
  const look = async () => (await fetch(`${server.url}/parties/lab/silent`)).json();
  const ada = await join("silent", "ada", 1);
  const bob = await join("silent", "bob", 2);
  await ada.others.until("Bob", ({ states }) => states.includes("bob 2"));
  const { instance } = await look();
  // The runtime answers them; Bob's computer sleeps.
  const pings = setInterval(() => ada.client.send("ping"), 1_000);
  try {
    await ada.others.until("Bob is gone", ({ states }) => states.length === 0);
  } finally {
    clearInterval(pings);
  }
  const { code, reason } = await until("Bob's socket is closed", () => bob.client.closed);
  assert.deepEqual([code, reason], [1012, "silent"]);
  // It has slept meanwhile, and woken to look.
  assert.notEqual((await look()).instance, instance);
  const again = await join("silent", "bob", 3);
  assert.deepEqual(again.others.states, ["ada 1"]);
  await ada.others.until("Bob is back", ({ states }) => states.includes("bob 3"));
  await Promise.all([ada.client, again.client].map((client) => client.close()));
});
