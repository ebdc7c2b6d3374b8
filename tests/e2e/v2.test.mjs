// The wire of partysync.v2 against the lab worker: what good and bad frames get.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server, Socket, hashes, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const room = (name, query = "") => `${server.ws}/parties/lab/${name}${query}`;
const look = async (name) => (await fetch(`${server.url}/parties/lab/${name}`)).json();
const run = (name, sql) => fetch(`${server.url}/parties/lab/${name}`, { method: "POST", body: sql });
const both = { items: null, notes: null };

test("hello is answered with welcome and a snapshot of each channel", async () => {
  const a = await Client.join(room("hello"), { channels: both });
  assert.equal(a.ws.protocol, "partysync.v2");
  assert.equal(a.welcome.version, 0);
  const pages = [await a.next("a page"), await a.next("a page")];
  assert.deepEqual(pages.map((p) => [p.type, p.channel, p.from, p.to, p.rows, p.more]), [
    ["catch_up", "items", null, 0, [], false],
    ["catch_up", "notes", null, 0, [], false],
  ]);
  await a.close();
});

test("an action is answered to its sender in the patch that shows it to all", async () => {
  const a = await Client.join(room("act"), { channels: both });
  const b = await Client.join(room("act"), { channels: both });
  const { patch, code } = await a.act("notes", "write", { number: 7, text: "seven" });
  assert.equal(code, undefined);
  assert.deepEqual(patch, {
    type: "patch",
    from: 0,
    to: 1,
    changes: [{ channel: "notes", rows: [[7, "seven"]], gone: [] }],
    acks: [{ seq: 1 }],
    more: false,
  });
  const seen = await b.next("a patch", (f) => f.type === "patch");
  assert.deepEqual(seen, { ...patch, acks: [] });
  const erased = await a.act("notes", "erase", { number: 7 });
  assert.deepEqual(erased.patch.changes, [{ channel: "notes", rows: [], gone: [7] }]);
  await Promise.all([a.close(), b.close()]);
});

test("one push of many actions is one patch with many answers", async () => {
  const a = await Client.join(room("batch"), { channels: both });
  const b = await Client.join(room("batch"), { channels: both });
  const action = (number) => ({ type: "write", payload: { number, text: "" } });
  const actions = [1, 2, 2, 3].map((n, i) => ({ seq: i + 1, channel: "notes", action: action(n) }));
  a.send({ type: "push", actions });
  const patch = await a.next("a patch", (f) => f.acks?.length);
  assert.deepEqual(patch.acks.map((ack) => ack.code), [undefined, undefined, "key_exists", undefined]);
  const seen = await b.next("a patch", (f) => f.type === "patch");
  assert.deepEqual([seen.from, seen.to, seen.changes[0].rows.length], [0, 3, 3]);
  await Promise.all([a.close(), b.close()]);
});

test("every column type arrives as it was sent", async () => {
  const a = await Client.join(room("types"), { channels: both });
  const item = { id: "i", big: 0, ratio: 0.1 + 0.2, bytes: "00FF10", level: "very_high", tags: ["a", "ü"] };
  // JavaScript would round it: the number is written into the text.
  const big = "9007199254740993";
  const text = JSON.stringify({ type: "put", payload: item }).replace('"big":0', `"big":${big}`);
  a.send(`{"type":"push","actions":[{"seq":1,"channel":"items","action":${text}}]}`);
  const raw = await until("the raw patch", () => a.frames.find((f) => f.includes('"acks":[{"seq":1}]')));
  assert.ok(raw.includes(`["i",${big},0.30000000000000004,"00FF10","very_high",["a","ü"],null,`), raw);
  await a.close();
});

test("64-bit keys stay whole in patches, snapshots and deletions", async () => {
  const a = await Client.join(room("big"), { channels: both });
  const big = "9007199254740993";
  const raw = (socket, part) => until(part, () => socket.frames.some((text) => text.includes(part)));
  await run("big", `INSERT INTO notes (number) VALUES (${big}), (${big} + 1)`);
  await raw(a, `"rows":[[${big},""],[9007199254740994,""]]`);
  const b = await Client.join(room("big"), { channels: both });
  await raw(b, `"rows":[[${big},""],[9007199254740994,""]]`);
  const action = `{"type":"erase","payload":{"number":${big}}}`;
  b.send(`{"type":"push","actions":[{"seq":1,"channel":"notes","action":${action}}]}`);
  await raw(a, `"gone":[${big}]`);
  await raw(b, `"acks":[{"seq":1}]`);
  await Promise.all([a.close(), b.close()]);
});

test("a hello while another's push awaits its hooks begins where the push's patch goes on", async () => {
  const action = (number, text) => ({ type: "write", payload: { number, text } });
  const actions = [action(1, ""), action(2, "wait 300"), action(3, "")];
  const push = actions.map((action, i) => ({ seq: i + 1, channel: "notes", action }));
  let attempt = 0;
  // The hello has to arrive while the push is asked about: where it comes too late, another room
  // is tried.
  const [a, b] = await until("a hello before the push is committed", async () => {
    const name = `middle-${attempt++}`;
    const a = await Client.join(room(name), { channels: both });
    // Connected before the push: connecting sends what there is, and that would hide the fault.
    const b = await Socket.open(room(name), ["partysync.v2"]);
    await new Promise((sent) => a.ws.send(JSON.stringify({ type: "push", actions: push }), sent));
    const channels = Object.keys(both).map((channel) => ({ channel, since: null, schema: hashes[channel] }));
    b.send({ type: "hello", client: "b", epoch: null, channels });
    const { version } = await b.next("welcome", (f) => f.type === "welcome");
    if (version === 0) return [a, b];
    await Promise.all([a.close(), b.close()]);
  });
  // All of a push is one commit, and one patch.
  const page = await b.next("the snapshot", (f) => f.channel === "notes");
  const patch = await b.next("a patch", (f) => f.type === "patch");
  assert.deepEqual([page.to, page.rows.length, patch.from, patch.to], [0, 0, 0, 3]);
  assert.equal(patch.changes[0].rows.length, 3);
  await Promise.all([a.close(), b.close()]);
});

test("SQL that is no action reaches every client too: an upsert, a replace, a cascade", async () => {
  const a = await Client.join(room("raw"), { channels: both });
  const patch = () => a.next("a patch", (f) => f.type === "patch");
  const inserted = await run("raw", "INSERT INTO items (id, name) VALUES ('a', 'one'), ('b', 'two')");
  assert.equal(await inserted.text(), "2");
  assert.deepEqual((await patch()).changes[0].rows.map((r) => r[0]), ["a", "b"]);
  await run("raw", "INSERT INTO items (id, name) VALUES ('a', 'new') ON CONFLICT (id) DO UPDATE SET name = 'up'");
  assert.deepEqual((await patch()).changes[0].rows.map((r) => [r[0], r[6]]), [["a", "up"]]);
  await run("raw", "INSERT OR IGNORE INTO items (id, name) VALUES ('a', 'x'), ('c', 'three')");
  assert.deepEqual((await patch()).changes[0].rows.map((r) => r[0]), ["c"]);
  // The new row takes the unique name of `b`, which SQLite then removes.
  await run("raw", "INSERT OR REPLACE INTO items (id, name) VALUES ('d', 'two')");
  const replaced = (await patch()).changes[0];
  assert.deepEqual([replaced.rows.map((r) => r[0]), replaced.gone], [["d"], ["b"]]);
  await run("raw", "UPDATE items SET id = 'e' WHERE id = 'd'");
  const renamed = (await patch()).changes[0];
  assert.deepEqual([renamed.rows.map((r) => r[0]), renamed.gone], [["e"], ["d"]]);
  await a.close();
});

test("times are the framework's even where the SQL forgets them", async () => {
  const before = Date.now();
  await run("times", "INSERT INTO items (id) VALUES ('a')");
  const a = await Client.join(room("times"), { channels: both });
  const page = await a.next("a page", (f) => f.channel === "items");
  const [created, updated] = page.rows[0].slice(7, 9);
  assert.ok(created >= before && created === updated);
  await until("time passes", () => Date.now() > updated + 1);
  await run("times", "UPDATE items SET big = 1 WHERE id = 'a'");
  const { changes } = await a.next("a patch", (f) => f.type === "patch");
  assert.equal(changes[0].rows[0][7], created);
  assert.ok(changes[0].rows[0][8] > updated);
  await a.close();
});

test("a client that was away is sent what changed and no more", async () => {
  const a = await Client.join(room("away"), { channels: both });
  for (const number of [1, 2, 3]) await a.act("notes", "write", { number, text: "" });
  const { epoch } = a.welcome;
  await a.close();
  const b = await Client.join(room("away"), { channels: both });
  await b.act("notes", "write", { number: 4, text: "new" });
  await b.act("notes", "erase", { number: 1 });
  const again = await Client.join(room("away"), { epoch, channels: { items: 3, notes: 3 } });
  const page = await again.next("the delta", (f) => f.channel === "notes");
  assert.deepEqual(
    { from: page.from, to: page.to, rows: page.rows, gone: page.gone, more: page.more },
    { from: 3, to: 5, rows: [[4, "new"]], gone: [1], more: false },
  );
  await Promise.all([b.close(), again.close()]);
});

test("a long snapshot comes in pages under 512 KiB", async () => {
  const a = await Client.join(room("pages"), { channels: both });
  await a.act("items", "fill", { count: 2_000, size: 400 });
  const b = await Client.join(room("pages"), { channels: both });
  await b.next("the last page", (f) => f.channel === "notes");
  const texts = b.frames.filter((text) => text.includes('"items"'));
  const pages = texts.map((text) => JSON.parse(text));
  assert.ok(pages.length > 3);
  assert.ok(texts.every((text) => text.length < 512 * 1024));
  assert.equal(new Set(pages.flatMap((p) => p.rows.map((r) => r[0]))).size, 2_000);
  assert.deepEqual(pages.map((p) => p.more), [...pages.slice(1).map(() => true), false]);
  assert.deepEqual([pages.at(-1).sent, pages.at(-1).total], [2_000, 2_000]);
  // The patch that told the first client was cut as well.
  const patch = a.frames.filter((text) => text.includes('"patch"'));
  assert.ok(patch.every((text) => text.length < 512 * 1024));
  await Promise.all([a.close(), b.close()]);
});

test("a resent action is answered as it was the first time and not done again", async () => {
  const client = "resend";
  const a = await Client.join(room("resend"), { client, channels: both });
  assert.equal((await a.act("notes", "write", { number: 1, text: "" })).code, undefined);
  assert.equal((await a.act("notes", "write", { number: 1, text: "" })).code, "key_exists");
  const write = (seq, number) => ({
    seq,
    channel: "notes",
    action: { type: "write", payload: { number, text: "" } },
  });
  await a.close();
  const again = await Client.join(room("resend"), { client, channels: both });
  again.send({ type: "push", actions: [write(1, 1), write(2, 1), write(3, 3)] });
  const patch = await again.next("the answers", (f) => f.acks?.length);
  assert.deepEqual(patch.acks.map((ack) => [ack.seq, ack.code]), [
    [1, undefined],
    [2, "key_exists"],
    [3, undefined],
  ]);
  assert.equal((await look("resend")).version, 2);
  await again.close();
});

const badFrames = {
  "text that is not JSON": ["{oops", "invalid_frame"],
  "a binary frame": [Buffer.from([1, 2, 3]), "invalid_frame"],
  "JSON that is no frame": [[1, 2], "invalid_frame"],
  "an unknown frame": [{ type: "telepathy" }, "invalid_frame"],
  "a push without actions": [{ type: "push" }, "invalid_frame"],
  "a seq beyond i64": ['{"type":"push","actions":[{"seq":99999999999999999999,"channel":"notes","action":{}}]}', "invalid_frame"],
  "10,000 levels of nesting": ["[".repeat(10_000) + "]".repeat(10_000), "invalid_frame"],
  "hello twice": [{ type: "hello", client: "other", channels: [] }, "hello_twice"],
  "a message that no hook wants": [{ type: "message" }, "invalid_frame"],
};

for (const [what, [frame, code]] of Object.entries(badFrames)) {
  test(`v2: ${what} is answered with ${code} and the socket stays`, async () => {
    const a = await Client.join(room("bad"), { channels: both });
    const other = await Client.join(room("bad"), { channels: both });
    await other.next("the last page", (f) => f.channel === "notes");
    a.send(frame);
    assert.equal((await a.next("an error", (f) => f.type === "error")).code, code);
    const number = Date.now();
    assert.equal((await a.act("notes", "write", { number, text: "" })).code, undefined);
    // The first thing that the other one hears of is the good action.
    const heard = await other.next("a patch", (f) => f.type !== "catch_up");
    assert.equal(heard.changes[0].rows[0][0], number);
    await Promise.all([a.close(), other.close()]);
  });
}

const badActions = {
  "an unknown channel": ["nope", "write", {}, "unknown_channel"],
  "a channel name with SQL in it": ["notes; DROP TABLE notes", "write", {}, "unknown_channel"],
  "an unknown action": ["notes", "explode", {}, "unknown_action"],
  "a missing field": ["notes", "write", { text: "" }, "action_mismatch"],
  "a field that is not known": ["notes", "write", { number: 5, text: "", txet: "" }, "action_mismatch"],
  "a wrong type": ["notes", "write", { number: "one", text: "" }, "invalid_action"],
  "a number beyond i64": ["notes", "write", { number: 1e19, text: "" }, "invalid_action"],
  "a NUL in text": ["notes", "write", { number: 5, text: "a\0b" }, "invalid_action"],
  "a NUL in JSON": ["items", "put", { id: "a", big: 0, ratio: 0, bytes: null, level: "low", tags: ["\0"] }, "invalid_action"],
  "a variant that is none": ["items", "put", { id: "a", big: 0, ratio: 0, bytes: null, level: "mid", tags: [] }, "action_mismatch"],
  "a key that exists": ["notes", "write", { number: 1, text: "" }, "key_exists"],
  "a row that is not there": ["items", "change", { id: "nobody", big: 1 }, "not_found"],
  "a value that has to be unique": ["items", "create", { id: "second", name: "taken" }, "constraint"],
  "an on_action that fails halfway": ["items", "fail_halfway", { id: "half" }, "rejected"],
  "a before_action that says no": ["notes", "write", { number: 9, text: "forbidden" }, "forbidden"],
};

for (const [what, [channel, type, payload, code]] of Object.entries(badActions)) {
  test(`v2: ${what} is rejected with ${code} and nothing is written`, async () => {
    const name = `bad-action-${code}-${type}-${channel.length}-${what.length}`;
    const a = await Client.join(room(name), { channels: both });
    const other = await Client.join(room(name), { channels: both });
    await a.act("notes", "write", { number: 1, text: "" });
    await a.act("items", "create", { id: "first", name: "taken" });
    const before = await look(name);
    const rejected = await a.act(channel, type, payload);
    assert.equal(rejected.code, code);
    assert.ok(rejected.message.length > 0);
    assert.deepEqual(rejected.patch.changes, []);
    assert.equal((await look(name)).version, before.version);
    await other.next("the second patch", (f) => f.to === 2);
    assert.equal((await a.act("notes", "erase", { number: 1 })).code, undefined);
    assert.deepEqual((await other.next("the next patch", (f) => f.type === "patch" && f.from > 1)).changes[0].gone, [1]);
    assert.ok(!other.frames.some((text) => text.includes("never sent")));
    await Promise.all([a.close(), other.close()]);
  });
}

const closing = {
  "a frame over the limit": [{ type: "message", data: "x".repeat(300 * 1024) }, 1009, "too_large"],
  "a push of 100,000 actions": [
    `{"type":"push","actions":[${Array(100_000).fill('{"seq":1,"channel":"a","action":1}').join()}]}`,
    1009,
    "too_large",
  ],
  "a push of too many actions": [
    { type: "push", actions: Array(1_001).fill({ seq: 1, channel: "notes", action: 0 }) },
    4400,
    "too_many_actions",
  ],
  "an action that leaves one out": [
    { type: "push", actions: [{ seq: 5, channel: "notes", action: { type: "erase", payload: { number: 1 } } }] },
    4400,
    "sequence_gap",
  ],
};

for (const [what, [frame, code, reason]] of Object.entries(closing)) {
  test(`v2: ${what} closes the socket with ${code} ${reason}`, async () => {
    const a = await Client.join(room("closing"), { channels: both });
    const other = await Client.join(room("closing"), { channels: both });
    a.send(frame);
    assert.equal((await a.next("an error", (f) => f.type === "error")).code, reason);
    assert.deepEqual(await until("the socket closes", () => a.closed), { code, reason });
    const number = Date.now();
    assert.equal((await other.act("notes", "write", { number, text: "" })).code, undefined);
    await other.close();
  });
}

const badHellos = {
  "an unknown channel": [[{ channel: "nope", since: null, schema: "" }], 4409, "schema_mismatch"],
  "a channel name with SQL in it": [[{ channel: "notes'--", since: null, schema: "" }], 4409, "schema_mismatch"],
  "another schema": [[{ channel: "notes", since: null, schema: "0" }], 4409, "schema_mismatch"],
};

for (const [what, [channels, code, reason]] of Object.entries(badHellos)) {
  test(`v2: hello with ${what} closes the socket with ${code} ${reason}`, async () => {
    const a = await Socket.open(room("hellos"), ["partysync.v2"]);
    a.send({ type: "hello", client: "c", epoch: null, channels });
    assert.equal((await a.next("an error")).code, reason);
    assert.deepEqual(await until("the socket closes", () => a.closed), { code, reason });
  });
}

test("v2: push before hello is answered with hello_first", async () => {
  const a = await Socket.open(room("first"), ["partysync.v2"]);
  a.send({ type: "push", actions: [] });
  assert.equal((await a.next("an error")).code, "hello_first");
  await a.close();
});

const resets = { "`since` from the future": ["own", 99, "future"], "an epoch that is not ours": ["other", 1, "epoch"] };

for (const [what, [epoch, since, reason]] of Object.entries(resets)) {
  test(`v2: ${what} gets a reset and the whole snapshot`, async () => {
    const name = `reset-${reason}`;
    const a = await Client.join(room(name), { channels: both });
    await a.act("notes", "write", { number: 1, text: "here" });
    const b = await Client.join(room(name), {
      epoch: epoch === "own" ? a.welcome.epoch : epoch,
      channels: { items: since, notes: since },
    });
    assert.deepEqual(await b.next("a reset", (f) => f.type === "reset"), { type: "reset", reason });
    const page = await b.next("a page", (f) => f.channel === "notes");
    assert.deepEqual([page.from, page.rows], [null, [[1, "here"]]]);
    await Promise.all([a.close(), b.close()]);
  });
}

test("a socket that closes in the middle of a push leaves whole actions", async () => {
  const name = "mid-push";
  const client = "leaver";
  const a = await Client.join(room(name), { client, channels: both });
  const action = (i) => ({ type: "write", payload: { number: i, text: i === 2 ? "wait 300" : "" } });
  const actions = [1, 2, 3].map((seq) => ({ seq, channel: "notes", action: action(seq) }));
  await new Promise((sent) => a.ws.send(JSON.stringify({ type: "push", actions }), sent));
  a.ws.terminate();
  await until("the room saw it go", async () => (await look(name)).connections.length === 0);
  const again = await Client.join(room(name), { client, channels: both });
  // What was done is whole: each action has written one row.
  const page = await again.next("a page", (f) => f.channel === "notes");
  assert.equal(page.rows.length, (await look(name)).version);
  again.send({ type: "push", actions });
  const answered = new Set();
  while (answered.size < 3) {
    const { acks } = await again.next("the answers", (f) => f.acks?.length);
    for (const ack of acks) {
      assert.equal(ack.code, undefined);
      answered.add(ack.seq);
    }
  }
  assert.equal((await look(name)).version, 3);
  await again.close();
});

test("actions of one connection stay in order while a hook awaits", async () => {
  const a = await Client.join(room("order"), { channels: both });
  const b = await Client.join(room("order"), { channels: both });
  const push = (seq, action) => a.send({ type: "push", actions: [{ seq, channel: "notes", action }] });
  push(1, { type: "write", payload: { number: 1, text: "wait 200" } });
  push(2, { type: "erase", payload: { number: 1 } });
  // Another connection does not wait for them.
  assert.equal((await b.act("notes", "write", { number: 2, text: "" })).patch.to, 1);
  await a.next("the second answer", (f) => f.acks?.some((ack) => ack.seq === 2 && !ack.code));
  assert.equal((await look("order")).commits, 3);
  await Promise.all([a.close(), b.close()]);
});

test("hooks see state and tags, and the app's own messages reach whom they should", async () => {
  const vip = await Client.join(room("hooks", "?vip"), { channels: both });
  const guest = await Client.join(room("hooks", "?plain"), { channels: both });
  guest.send({ type: "message", data: "to vips" });
  assert.deepEqual(await vip.next("a message", (f) => f.type === "message"), { type: "message", data: "hello vip" });
  guest.send({ type: "message", data: { hi: 1 } });
  for (const socket of [vip, guest]) {
    const { data } = await socket.next("a message", (f) => f.type === "message");
    assert.deepEqual(data, { from: guest.welcome.connection, message: { hi: 1 }, who: null });
  }
  const { connections, name } = await look("hooks");
  assert.equal(name, "hooks");
  assert.deepEqual(connections.map((c) => [c.tags[0], c.state]).sort(), [["guest", "plain"], ["vip", "vip"]]);
  await guest.close();
  await until("the hook saw it go", async () => (await look("hooks")).log.includes(`close ${guest.welcome.connection}`));
  await vip.close();
});

test("on_connect can refuse, with 4403 and its reason", async () => {
  const a = await Socket.open(room("refuse", "?refuse=me"), ["partysync.v2"]);
  assert.equal((await a.next("an error")).code, "rejected");
  assert.deepEqual(await until("the socket closes", () => a.closed), { code: 4403, reason: "not you" });
  assert.equal((await look("refuse")).connections.length, 0);
});

test("the app's alarm rings and what it writes reaches the clients", async () => {
  const a = await Client.join(room("alarm"), { channels: both });
  a.send({ type: "message", data: { alarm_after_ms: 50 } });
  const patch = await a.next("a patch", (f) => f.type === "patch");
  assert.equal(patch.changes[0].rows[0][1], "by the alarm");
  await a.close();
});

test("_pk is the connection's id where it is free", async () => {
  const a = await Client.join(room("pk", "?_pk=mine"), { channels: both });
  const b = await Client.join(room("pk", "?_pk=mine"), { channels: both });
  assert.equal(a.welcome.connection, "mine");
  assert.notEqual(b.welcome.connection, "mine");
  await Promise.all([a.close(), b.close()]);
});

test("keep-alive is answered", async () => {
  const a = await Client.join(room("ping"), { channels: both });
  a.send("ping");
  await until("a pong", () => a.frames.includes("pong"));
  await a.close();
});

for (const [what, action, expected] of [
  ["a key that exists", { type: "create", payload: { id: "first", name: null } }, /has a row with the key `first`/],
  ["a value that has to be unique", { type: "create", payload: { id: "second", name: "taken" } }, /UNIQUE.*items\.name/],
  ["an on_action that fails halfway", { type: "fail_halfway", payload: { id: "half" } }, /failed halfway/],
  ["a number beyond i64", { type: "change", payload: { id: "first", big: 1e19 } }, /`big`.*out of range/],
]) {
  test(`v1: ${what} is an error to its caller and nothing is written`, async () => {
    const name = `v1-${action.type}-${what.length}`;
    await run(name, "INSERT INTO items (id, name) VALUES ('first', 'taken')");
    const [a, b] = [await Socket.open(room(name)), await Socket.open(room(name))];
    const before = await look(name);
    a.send({ id: "1", channel: "items", rpc: true, action });
    const answer = await a.next("an answer");
    assert.deepEqual([answer.type, answer.id], ["error", "1"]);
    assert.match(answer.error[0], expected);
    assert.equal((await look(name)).version, before.version);
    a.send({ id: "2", channel: "items", rpc: true, action: { type: "remove", payload: { id: "first" } } });
    assert.equal((await a.next("an answer")).type, "success");
    assert.equal((await b.next("the first broadcast")).payload[0][0], "first");
    await Promise.all([a.close(), b.close()]);
  });
}

test("v1: a call whose socket closes while it is asked about is not done", async () => {
  const name = "v1-mid-call";
  const [a, b] = [await Socket.open(room(name)), await Socket.open(room(name))];
  const action = { type: "write", payload: { number: 1, text: "wait 200" } };
  await new Promise((sent) => a.ws.send(JSON.stringify({ id: "1", channel: "notes", rpc: true, action }), sent));
  a.ws.terminate();
  // When this hook has returned, so has the other.
  const longer = { type: "write", payload: { number: 2, text: "wait 400" } };
  b.send({ id: "2", channel: "notes", rpc: true, action: longer });
  assert.deepEqual((await b.next("an answer")).result, [[2, "wait 400", null]]);
  assert.equal((await look(name)).version, 1);
  await b.close();
});

test("a room that cannot start says why in its log, keeps its data and starts when it can", async () => {
  const name = "broken";
  await run(name, "INSERT INTO notes (number, text) VALUES (1, 'kept')");
  await run(name, "UPDATE _partysync_schema SET columns = replace(columns, 'TEXT', 'BLOB') WHERE channel = 'notes'");
  await server.down();
  await server.up();
  const told = /^Something went wrong at the server \(error ([0-9a-f]{8})\)$/;
  let id;
  for (const [protocols, frames] of [[["partysync.v2"], 1], [[], 0]]) {
    const a = await Socket.open(room(name), protocols);
    assert.deepEqual(await until("the socket closes", () => a.closed), { code: 4500, reason: "migration" });
    assert.equal(a.frames.length, frames);
    if (frames) id = told.exec(a.parsed[0].message)[1];
  }
  const answer = await fetch(`${server.url}/parties/lab/${name}`);
  assert.equal(answer.status, 500);
  // It is the same one for all, and in the log.
  assert.equal(await answer.text(), `migration: Something went wrong at the server (error ${id})`);
  const why = /`notes`: column `text` changed from BLOB to TEXT/;
  await until("the log says why", () => why.test(server.output));
  // Once, however often clients come.
  assert.equal(server.output.split("opening the room failed").length, 2);
  assert.ok(server.output.includes(`opening the room failed (error ${id}): migration`));
  // Other rooms notice nothing.
  const other = await Client.join(room("fine"), { channels: both });
  assert.equal((await other.act("notes", "write", { number: 1, text: "" })).code, undefined);
  await other.close();
});

test("hashes are those of the records", () => {
  assert.match(hashes.todos, /^[0-9a-f]{16}$/);
});

test("a reader that is too slow is sent no more until it has read, and then what it lacks", async () => {
  const slow = await Client.join(room("slow"), { channels: { items: null } });
  const writer = await Client.join(room("slow"), { channels: { items: null } });
  for (const client of [slow, writer]) await client.next("the snapshot", (f) => f.type === "catch_up");
  await writer.act("items", "fill", { count: 40, size: 4000 });
  slow.ws._socket.pause();
  // 160 KiB each: far more than the limit and what systems buffer on the way.
  const rounds = 200;
  for (let n = 0; n < rounds; n += 1) assert.equal(await (await run("slow", "UPDATE items SET big = big + 1")).text(), "40");
  const { version } = await look("slow");
  slow.ws._socket.resume();
  const last = await until("the slow one has it all", () =>
    slow.parsed.findLast((f) => f.type === "patch" && f.to === version && !f.more));
  assert.equal(slow.closed, null);
  const patches = slow.parsed.filter((f) => f.type === "patch");
  assert.ok(patches.length < rounds, "several rounds came as one");
  const rows = patches.filter((f) => f.from === last.from).flatMap((f) => f.changes).flatMap((c) => c.rows);
  assert.equal(new Set(rows.map((row) => row[0])).size, 40);
  for (const client of [slow, writer]) await client.close();
});
