// Rooms in Rust that take part in a store: they follow a backend over Durable Object RPC, push events
// of their own, and have partysync's clients follow the rows that events make.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client as Partysync, hashes, schemaHash, Server, until } from "../e2e/harness.mjs";
import { Client, events, log, range } from "./client.mjs";
import { Process } from "./stores.mjs";

hashes.entries = schemaHash("entries", [
  ["place", "INTEGER", false, "key"],
  ["id", "TEXT", false, "plain"],
  ["text", "TEXT", false, "plain"],
]);

let server, reference;
before(async () => {
  server = await Server.start("fixtures/livestore-sync");
  reference = await Server.start("tests/livestore/rooms-reference");
});
after(async () => {
  await server?.stop();
  await reference?.stop();
});

/** A client of a store's room: the list that it shows. */
async function room(t, server, store) {
  const url = `${server.ws}/parties/entries/${store}?authToken=ok`;
  const client = await Partysync.join(url, { channels: { entries: null } });
  t.after(() => client.close());
  const rows = new Map();
  const change = ({ channel, rows: list, gone, from }) => {
    if (channel !== "entries") return;
    if (from === null) rows.clear();
    for (const [place, id] of list) rows.set(place, id);
    for (const place of gone) rows.delete(place);
  };
  const take = (frame) => (frame.type === "catch_up" ? change(frame) : frame.type === "patch" && frame.changes?.forEach(change));
  client.parsed.forEach(take);
  client.ws.on("message", (data) => String(data) === "pong" || take(JSON.parse(data)));
  client.ids = () => [...rows].sort(([a], [b]) => a - b).map(([, id]) => id);
  client.shows = async (wanted) => {
    const same = () => client.ids().join() === wanted.join();
    await until(`the room shows ${wanted.length} entries`, same).catch(() => assert.deepEqual(client.ids(), wanted));
  };
  client.add = async (id) => {
    const answer = await client.act("entries", "add", { id, text: "x" });
    assert.equal(answer.code, undefined, answer.message);
  };
  return client;
}

/** The ids of a store's events are these, in this order. */
const logged = (server, store, wanted) =>
  until("the log has them", async () => (await log(server, store)).length >= wanted.length).then(async () =>
    assert.deepEqual(await log(server, store), wanted),
  );

test("without the token nobody is let in", async () => {
  const socket = await Partysync.open(`${server.ws}/parties/entries/closed`, ["partysync.v2"]);
  const { code } = await until("it is closed", () => socket.closed);
  assert.equal(code, 4401);
});

test("what was there, what others push and what the room's clients do is shown, and in the log", async (t) => {
  const store = "room-basics";
  const client = await Client.connect(server.url, store);
  t.after(() => client.close());
  await client.pull();
  await client.push(events(1, 250));
  const [one, other] = [await room(t, server, store), await room(t, server, store)];
  const there = range(1, 250).map(String);
  await one.shows(there);
  const following = client.live(250);
  await one.add("of the room");
  await other.shows([...there, "of the room"]);
  await until("the client hears of it", () => following.seqs.length === 1);
  assert.deepEqual(following.events[0].args, { id: "of the room", text: "x" });
  await client.push(events(252, 253));
  await other.shows([...there, "of the room", "252", "253"]);
  await logged(server, store, [...there, "of the room", "252", "253"]);
});

test("a room and a client commit at the same time, again and again: each event is there once, all agree", async (t) => {
  const store = "room-race";
  const client = await Client.connect(server.url, store);
  t.after(() => client.close());
  await client.pull();
  const following = client.live();
  const one = await room(t, server, store);
  const wanted = [];
  let head = 0;
  for (let n = 0; n < 30; n += 1) {
    wanted.push(`room ${n}`, `client ${n}`);
    const added = one.add(`room ${n}`);
    for (;;) {
      const [event] = events(head + 1, head + 1);
      const refused = await client.push([{ ...event, args: { id: `client ${n}`, text: "x" } }]).then(() => null, (error) => error);
      if (!refused) break;
      head = Number(/"minimumExpectedNum":(\d+)/.exec(JSON.stringify(refused.cause))[1]);
    }
    head += 1;
    await added;
  }
  await until("all have come", () => following.seqs.length === 60);
  const order = following.events.map(({ args }) => args.id);
  assert.deepEqual([...order].sort(), wanted.sort());
  await one.shows(order);
  await logged(server, store, order);
});

test("a room that sleeps is woken by what is pushed, and shows it to who is connected", async (t) => {
  const store = "room-sleeps";
  const client = await Client.connect(server.url, store, { transport: "http" });
  t.after(() => client.close());
  await client.pull();
  const one = await room(t, server, store);
  await one.add("first");
  await logged(server, store, ["first"]);
  // After 10 s without anything an object is put away; nothing tells of it.
  await new Promise((resolve) => setTimeout(resolve, 13_000));
  await client.push(events(2, 2));
  await one.shows(["first", "2"]);
  await one.add("last");
  await logged(server, store, ["first", "2", "last"]);
});

test("what was committed when the server was killed is pushed when it is back", async (t) => {
  const own = await Server.start("fixtures/livestore-sync");
  t.after(() => own.stop());
  const store = "room-killed";
  const wanted = [];
  for (let life = 0; life < 3; life += 1) {
    const one = await room(t, own, store);
    await one.shows(wanted);
    for (let n = 0; n < 20; n += 1) {
      const id = `${life}-${n}`;
      // The last ones are not waited for: those that were answered are there.
      await one.add(id);
      wanted.push(id);
    }
    await own.down("SIGKILL");
    await own.up();
  }
  await logged(own, store, wanted);
});

test("a full client and a room show the same list", async (t) => {
  const store = "room-full";
  const one = await room(t, server, store);
  const full = await new Process(t).open(server, store, "full");
  await Promise.all([full.add("a"), one.add("b")]);
  await Promise.all([full.add("c"), one.add("d")]);
  await until("the full client has all", async () => (await full.count()) === 4);
  await one.shows(await full.ids());
  await logged(server, store, await full.ids());
});

test("a room takes part in a store of LiveStore's own backend, also when that was rebuilt", async (t) => {
  const store = "room-reference";
  const client = await Client.connect(reference.url, store);
  t.after(() => client.close());
  await client.pull();
  await client.push(events(1, 250));
  const one = await room(t, reference, store);
  const wanted = range(1, 250).map(String);
  await one.shows(wanted);
  await one.add("of the room");
  wanted.push("of the room");
  await logged(reference, store, wanted);
  await client.push(events(252, 252));
  wanted.push("252");
  await one.shows(wanted);
  // It forgets who follows it.
  await fetch(`${reference.url}/restart/${store}`);
  const again = await Client.connect(reference.url, store);
  t.after(() => again.close());
  await again.pull();
  await again.push(events(253, 253));
  wanted.push("253");
  await one.shows(wanted);
  await one.add("last");
  wanted.push("last");
  await logged(reference, store, wanted);
});
