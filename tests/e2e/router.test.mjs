// The router: prefix, CORS, tokens, rooms that are not woken.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server, Socket, until } from "./harness.mjs";

let server;
before(async () => (server = await Server.start("tests/lab")));
after(() => server.stop());

const get = (path, init) => fetch(server.url + path, init);

test("paths that lead nowhere are 404", async () => {
  for (const path of ["/nope", "/parties", "/parties/lab", "/parties/nope/room", "/parties/l%61b'/x"]) {
    assert.equal((await get(path)).status, 404, path);
  }
});

test("a binding that is not named as a party is not reachable, whatever it is called", async () => {
  for (const party of ["hidden-lab", "HIDDEN_LAB", "hidden_lab", "HiddenLab", "LAB", "Lab"]) {
    const path = `/parties/${party}/room`;
    const answer = await get(path);
    assert.equal(answer.status, 404, party);
    assert.match(await answer.text(), /no party/);
    // A page can see that, too.
    assert.equal(answer.headers.get("access-control-allow-origin"), "*");
    await assert.rejects(Socket.open(server.ws + path), /404/);
    // Nor is a page told of a refused upgrade: it hears it from a close.
    const { closed } = await Socket.open(server.ws + path, ["partysync.v2"]).then(async (socket) => {
      await until("it is closed", () => socket.closed);
      return socket;
    });
    assert.deepEqual(closed, { code: 4404, reason: "no party of this router is there" });
  }
  assert.equal((await get("/parties/second-name/room")).headers.get("x-lab"), "yes");
});

test("a party whose binding is not there says so", async () => {
  const answer = await get("/parties/unbound/room");
  assert.equal(answer.status, 500);
  assert.match(await answer.text(), /`unbound` is not set up/);
  await until("the log says what is missing", () => server.output.includes("NOT_THERE"));
});

test("a room's name may hold anything that a URL can carry", async () => {
  const answer = await get(`/parties/lab/${encodeURIComponent("a room/ü")}`);
  assert.equal((await answer.json()).name, "a room/ü");
});

test("a preflight is answered without the room, and answers carry CORS", async () => {
  const preflight = await get("/parties/lab/x", {
    method: "OPTIONS",
    headers: { origin: "https://a.example", "access-control-request-headers": "x-token" },
  });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get("access-control-allow-origin"), "*");
  assert.equal(preflight.headers.get("access-control-allow-headers"), "x-token");
  const answer = await get("/parties/lab/x");
  assert.equal(answer.headers.get("access-control-allow-origin"), "*");
  assert.equal(answer.headers.get("x-lab"), "yes");
  const own = await get("/guarded/rooms/lab/x?token=good");
  assert.equal(own.headers.get("access-control-allow-origin"), "https://app.example");
  assert.equal(own.headers.get("vary"), "Origin");
});

test("a request without the right token is 401 or 403 and does not wake the room", async () => {
  assert.equal((await get("/guarded/rooms/lab/asleep")).status, 401);
  assert.equal((await get("/guarded/rooms/lab/asleep?token=bad")).status, 403);
  const open = (query) => Socket.open(`${server.ws}/guarded/rooms/lab/asleep${query}`, ["partysync.v2"]);
  // A browser tells a page of close codes only.
  const closed = async (query) => {
    const socket = await open(query);
    return until("it is closed", () => socket.closed);
  };
  assert.deepEqual(await closed(""), { code: 4401, reason: "a token is needed" });
  assert.deepEqual(await closed("?token=bad"), { code: 4403, reason: "the token is not valid" });
  const v1 = (query) => Socket.open(`${server.ws}/guarded/rooms/lab/asleep${query}`);
  await assert.rejects(v1(""), /401/);
  await assert.rejects(v1("?token=bad"), /403/);
  // A room that was woken has made its tables.
  const rooms = () => server.sqlite("_partysync_meta", "SELECT epoch FROM _partysync_meta").length;
  const before = rooms();
  const ok = await Client.join(`${server.ws}/guarded/rooms/lab/asleep?token=good`, { channels: { notes: null } });
  assert.equal(ok.welcome.version, 0);
  assert.equal(rooms(), before + 1);
  await ok.close();
});

test("pages of other origins are refused, the own and the allowed ones are not", async () => {
  const path = "/guarded/rooms/lab/origins?token=good";
  for (const [origin, status] of [["https://evil.example", 403], ["https://app.example", 200], [server.url, 200]]) {
    assert.equal((await get(path, { headers: { origin } })).status, status, origin);
  }
  const open = (origin) => Socket.open(`${server.ws}${path}`, ["partysync.v2"], { origin });
  await assert.rejects(open("https://evil.example"), /403/);
  await (await open("https://app.example")).close();
});

test("a page of another origin opens no socket, unless it is allowed to", async () => {
  const path = "/parties/lab/own-origin";
  const open = (origin) => Socket.open(server.ws + path, ["partysync.v2"], origin && { origin });
  for (const origin of ["https://evil.example", "null", "http://127.0.0.1:1"]) {
    await assert.rejects(open(origin), /403/, origin);
    // Other requests are what CORS is for.
    assert.equal((await get(path, { headers: { origin } })).status, 200, origin);
  }
  for (const origin of [server.url, undefined]) await (await open(origin)).close();
  const anywhere = `${server.ws}/open/lab/anywhere`;
  await (await Socket.open(anywhere, ["partysync.v2"], { origin: "https://elsewhere.example" })).close();
});

test("streams are behind the same hooks, origins and CORS as rooms", async () => {
  const put = (query, headers = {}) =>
    get(`/guarded/streams/a/log${query}`, { method: "PUT", headers: { "content-type": "text/plain", ...headers }, body: "bytes" });
  assert.equal((await put("")).status, 401);
  assert.equal((await put("?token=bad")).status, 403);
  assert.equal((await put("?token=good", { origin: "https://evil.example" })).status, 403);
  const made = await put("?token=good", { origin: "https://app.example" });
  assert.equal(made.status, 201);
  assert.equal(made.headers.get("access-control-allow-origin"), "https://app.example");
  const read = await get("/guarded/streams/a/log?token=good");
  assert.equal(await read.text(), "bytes");
  assert.match(read.headers.get("access-control-expose-headers"), /stream-next-offset/);
  const preflight = await get("/guarded/streams/a/log", {
    method: "OPTIONS",
    headers: { origin: "https://app.example", "access-control-request-headers": "stream-ttl" },
  });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get("access-control-allow-origin"), "https://app.example");
  assert.equal(preflight.headers.get("access-control-allow-headers"), "stream-ttl");
  assert.equal((await get("/guarded/streamsx/log?token=good")).status, 404);
});

test("who is behind a request is what the worker says, and nothing that a client sends", async () => {
  const look = async (path, headers) => (await get(path, { headers })).json();
  const ada = { name: "Ada Ü€", number: 18446744073709551615 };
  const query = `?user=${encodeURIComponent(ada.name)}`;
  assert.deepEqual((await look(`/known/lab/who${query}`)).who, ada);
  // Not by a header, whatever it is called, and not where nobody asks.
  const forged = JSON.stringify(ada);
  const headers = Object.fromEntries(["cf", "partysync", "x-partysync-identity", "identity"].map((name) => [name, encodeURIComponent(forged)]));
  assert.equal((await look("/parties/lab/who", headers)).who, null);
  assert.equal((await look(`/known/lab/who?user=bob`, headers)).who.name, "bob");

  const client = await Client.join(`${server.ws}/known/lab/who${query}`);
  assert.deepEqual(client.welcome.identity, ada);
  assert.equal((await Client.join(`${server.ws}/parties/lab/who`)).welcome.identity, undefined);
  client.send({ type: "message", data: "hi" });
  assert.deepEqual((await client.next("a message", (f) => f.type === "message")).data.who, ada);

  // Who is not let in hears why.
  for (const [path, status, code, reason] of [
    ["/known/lab/who", 401, 4401, "who are you?"],
    ["/known/lab/who?user=nobody", 403, 4403, "nobody may come in"],
  ]) {
    assert.equal((await get(path)).status, status);
    const socket = await Socket.open(server.ws + path, ["partysync.v2"]);
    await until("it is closed", () => socket.closed);
    assert.deepEqual(socket.closed, { code, reason });
  }
});

test("what fails in a hook of the router is in the log, and its client is told an id", async () => {
  const path = "/known/lab/who?user=unknown";
  const told = /^Something went wrong at the server \(error ([0-9a-f]{8})\)$/;
  const answer = await get(path);
  assert.equal(answer.status, 500);
  const ids = [told.exec(await answer.text())[1]];
  const socket = await Socket.open(server.ws + path, ["partysync.v2"]);
  const { code, reason } = await until("it is closed", () => socket.closed);
  assert.equal(code, 1011);
  ids.push(told.exec(reason)[1]);
  for (const id of ids) {
    const line = `room \`who\`: \`identify\` of the router, for the party \`lab\`, failed (error ${id}): internal: the sessions do not answer`;
    await until("the log says why", () => server.output.includes(line));
  }
});
