// Users who log in, in Chromium: a login that ends while the page is open and is renewed, by itself and
// by its user; one that is refused; and sessions and tokens as the worker takes them.

import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { after, before, test } from "node:test";
import { Client, Server, Socket, until } from "./harness.mjs";
import { launch } from "./page.mjs";

const passwords = { ada: "lovelace", bob: "kahn" };

/** An identity provider: two keys, one of which it publishes. */
const pair = () => generateKeyPairSync("rsa", { modulusLength: 2048 });
const [published, secret] = [pair(), pair()];
const provider = http.createServer((request, response) => {
  const key = { ...published.publicKey.export({ format: "jwk" }), kid: "2026-11", use: "sig", alg: "RS256" };
  const other = { kty: "EC", kid: "another", crv: "P-256", x: "", y: "" };
  response.statusCode = request.url === "/.well-known/jwks.json" ? 200 : 404;
  response.end(JSON.stringify({ keys: [other, key] }));
});

let server, browser, issuer;
before(async () => {
  await once(provider.listen(0, "127.0.0.1"), "listening");
  issuer = `http://127.0.0.1:${provider.address().port}`;
  // Tokens that end within a test.
  const vars = { TOKEN_SECONDS: "2", PROVIDER_ISSUER: issuer, PROVIDER_AUDIENCE: "notes" };
  server = await Server.start("fixtures/login", { vars });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
  provider.close();
});

/** A browser profile, and what it asks for tokens: `answer` may hold that up, or answer itself. */
async function visit(notebook, answer = (route) => route.continue()) {
  const context = await browser.newContext();
  const tokens = { asked: 0, answer };
  await context.route("**/token", (route) => {
    tokens.asked += 1;
    return tokens.answer(route);
  });
  const page = await context.newPage();
  await page.goto(`${server.url}/#${notebook}`);
  return { context, page, tokens };
}
async function login(page, name, password = passwords[name]) {
  const field = page.getByLabel("Name");
  if (!(await field.getAttribute("readonly").catch(() => null)) && (await field.isEditable())) await field.fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}
const status = (page, wanted) => until(`the page says ${wanted}`, async () => (await page.getByRole("status").textContent()).startsWith(wanted));
const unsaved = (page, count) => until(`${count} are not saved`, async () => (await page.getByRole("status").textContent()).endsWith(`· ${count} not saved`));
const saved = (page) => until("all is saved", async () => !(await page.getByRole("status").textContent()).includes("not saved"));
async function write(page, ...texts) {
  for (const text of texts) {
    await page.getByLabel("Note", { exact: true }).fill(text);
    await page.getByRole("button", { name: "Write" }).click();
  }
}
const notes = (page) => page.locator("li").allTextContents();
const shows = (page, wanted) => until(`it shows ${wanted}`, async () => (await notes(page)).join() === wanted.join());
/** What the room has, and how many changes that were. */
const onServer = (text) =>
  until("SQLite has it", () => {
    const query = "SELECT author || ': ' || text AS note, (SELECT max(version) FROM _partysync_change) AS version FROM notes ORDER BY created_at, id";
    return server.sqlite("notes", query).find((rows) => rows.some((row) => row.note.endsWith(text)));
  });

/** Requests for tokens that are held until they are let go. */
function held() {
  const waiting = [];
  const answer = (route) => new Promise((done) => waiting.push(() => done(route.continue())));
  return { waiting, answer };
}

test("a login that ends while the page is open is renewed, and what was written meanwhile is sent once", async () => {
  const { context, page, tokens } = await visit("renewed");
  await login(page, "ada");
  await status(page, "Live");
  await write(page, "Before");
  await saved(page);
  // Its token ends: the room lets go of it, and it asks for another one.
  const { waiting, answer } = held();
  tokens.answer = answer;
  await until("it asks for another token", () => waiting.length > 0);
  await write(page, "One", "Two", "Three");
  await unsaved(page, 3);
  assert.equal(await page.getByText("Your login has ended").count(), 0);
  tokens.answer = (route) => route.continue();
  waiting.forEach((go) => go());
  await saved(page);
  const wanted = ["ada: Before", "ada: One", "ada: Two", "ada: Three"];
  await shows(page, wanted);
  const rows = await onServer("Three");
  assert.deepEqual(rows.map((row) => row.note), wanted);
  assert.equal(rows[0].version, 4);
  assert.equal(await page.getByRole("alert").count(), 0);
  await context.close();
});

test("a session that has ended asks for the password, and nothing that was written is lost", async () => {
  const { context, page } = await visit("ended");
  await login(page, "ada");
  await status(page, "Live");
  await write(page, "Before");
  await saved(page);
  // It is ended elsewhere.
  const [{ value }] = await context.cookies();
  assert.equal((await fetch(`${server.url}/logout`, { method: "POST", headers: { cookie: `session=${value}` } })).status, 200);
  await page.getByText("Your login has ended. Nothing that you have written is lost.").waitFor();
  await write(page, "Meanwhile");
  await unsaved(page, 1);
  await shows(page, ["ada: Before", "ada: Meanwhile"]);
  // Also by a page that is opened anew.
  await page.reload();
  await page.getByText("Your login has ended").waitFor();
  await shows(page, ["ada: Before", "ada: Meanwhile"]);
  await unsaved(page, 1);

  await login(page, "ada", "wrong");
  await page.getByRole("alert").getByText("the name or the password is wrong").waitFor();
  await login(page, "ada");
  await status(page, "Live");
  await saved(page);
  await until("the form is gone", async () => (await page.getByLabel("Password").count()) === 0);
  assert.deepEqual((await onServer("Meanwhile")).map((row) => row.note), ["ada: Before", "ada: Meanwhile"]);
  await context.close();
});

test("a login that is refused says so, and keeps nothing in the browser", async () => {
  const { context, page, tokens } = await visit("refused");
  await login(page, "ada", "kahn");
  await page.getByRole("alert").getByText("the name or the password is wrong").waitFor();
  assert.deepEqual(await page.evaluate(() => indexedDB.databases()), []);
  assert.deepEqual([tokens.asked, await context.cookies()], [0, []]);
  await login(page, "ada");
  await status(page, "Live");
  await context.close();
});

test("who is sent away hears why, keeps what was not sent, and sends it when let in again", async () => {
  const owner = await visit("ada");
  await login(owner.page, "ada");
  await status(owner.page, "Live");
  const guest = await visit("ada");
  await login(guest.page, "bob");
  await status(guest.page, "Live");
  await write(guest.page, "Hello");
  await shows(owner.page, ["bob: Hello"]);
  const { waiting, answer } = held();
  guest.tokens.answer = answer;
  await until("it asks for another token", () => waiting.length > 0);
  await write(guest.page, "Not sent");
  await unsaved(guest.page, 1);

  await owner.page.getByLabel("Who").fill("bob");
  await owner.page.getByRole("button", { name: "Send away" }).click();
  await until("the room knows", () => server.sqlite("sent_away", "SELECT name FROM sent_away").some((rows) => rows.length === 1));
  guest.tokens.answer = (route) => route.continue();
  waiting.forEach((go) => go());
  await status(guest.page, "ada has closed this notebook to you");
  await unsaved(guest.page, 1);
  // No other password would help.
  assert.equal(await guest.page.getByText("Your login has ended").count(), 0);
  const { asked } = guest.tokens;
  await guest.page.reload();
  await status(guest.page, "ada has closed this notebook to you");
  await shows(guest.page, ["bob: Hello", "bob: Not sent"]);
  // It does not try for ever.
  assert.equal(guest.tokens.asked, asked + 1);

  await owner.page.getByRole("button", { name: "Let in" }).click();
  await until("the room knows", () => server.sqlite("sent_away", "SELECT name FROM sent_away").every((rows) => rows.length === 0));
  await guest.page.reload();
  await saved(guest.page);
  await shows(owner.page, ["bob: Hello", "bob: Not sent"]);
  for (const { context } of [owner, guest]) await context.close();
});

test("another user of the same browser sees nothing of the one before, and logging out deletes it", async () => {
  const { context, page } = await visit("shared");
  await login(page, "ada");
  await status(page, "Live");
  await write(page, "From Ada");
  await saved(page);
  await page.getByRole("button", { name: "Log out" }).click();
  await until("all is deleted", async () => (await page.evaluate(() => indexedDB.databases())).length === 0);
  assert.deepEqual((await context.cookies()).map((cookie) => cookie.name), []);
  await login(page, "bob");
  await write(page, "From Bob");
  await shows(page, ["ada: From Ada", "bob: From Bob"]);
  await context.close();
});

test("who logs out without a network is logged out when there is one", async () => {
  const { context, page } = await visit("ada");
  await login(page, "ada");
  await status(page, "Live");
  const [{ value }] = await context.cookies();
  const ask = () => fetch(`${server.url}/token`, { method: "POST", body: "ada", headers: { cookie: `session=${value}` } });
  assert.equal((await ask()).status, 200);
  await context.setOffline(true);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Password").waitFor();
  assert.equal((await ask()).status, 200);
  await context.setOffline(false);
  await until("the session has ended", async () => (await ask()).status === 401);
  assert.deepEqual(await context.cookies(), []);
  await context.close();
});

test("what a user has written is not sent by the session of another, who has logged in beside", async () => {
  const { context, page, tokens } = await visit("beside");
  await login(page, "ada");
  await status(page, "Live");
  // Offline, as far as this page goes.
  const { waiting, answer } = held();
  tokens.answer = answer;
  await until("it asks for another token", () => waiting.length > 0);
  await write(page, "Ada's own");
  await unsaved(page, 1);
  const other = await context.newPage();
  await other.goto(`${server.url}/#beside`);
  await other.evaluate(async () => fetch("/login", { method: "POST", body: JSON.stringify({ name: "bob", password: "kahn" }) }));
  tokens.answer = (route) => route.continue();
  waiting.forEach((go) => go());
  await page.getByText("Your login has ended. Nothing that you have written is lost.").waitFor();
  await unsaved(page, 1);
  await login(page, "ada");
  await saved(page);
  assert.deepEqual((await onServer("Ada's own")).map((row) => row.note), ["ada: Ada's own"]);
  await context.close();
});

test("a page of another site logs nobody in or out", async () => {
  const body = JSON.stringify({ name: "bob", password: passwords.bob });
  const post = (path, origin) => fetch(server.url + path, { method: "POST", body, headers: { origin } });
  for (const path of ["/login", "/logout", "/token"]) assert.equal((await post(path, "https://evil.example")).status, 403, path);
  assert.equal((await post("/login", server.url)).status, 200);
});

test("a session's cookie is as good as a token, until it is ended; and what is neither is 4401", async () => {
  const post = (path, init) => fetch(server.url + path, { method: "POST", ...init });
  const answer = await post("/login", { body: JSON.stringify({ name: "bob", password: passwords.bob }) });
  assert.equal(await answer.text(), "bob");
  const cookie = answer.headers.get("set-cookie");
  for (const part of ["HttpOnly", "Secure", "SameSite=Lax"]) assert.ok(cookie.includes(part), cookie);
  const headers = { cookie: cookie.split(";")[0] };
  const room = `${server.ws}/parties/notes/cookies`;
  const connect = async (query, options) => {
    const socket = await Client.open(room + query, ["partysync.v2"], options);
    socket.send({ type: "hello", client: crypto.randomUUID(), epoch: null, channels: [] });
    await until("it is answered", () => socket.closed ?? socket.frames.length);
    return socket;
  };
  const who = async (...how) => {
    const socket = await connect(...how);
    const { identity } = await socket.next("welcome");
    await socket.close();
    return identity.name;
  };
  const token = async () => (await post("/token", { headers, body: "bob" })).text();
  assert.equal(await who("", { headers }), "bob");
  assert.equal(await who(`?token=${await token()}`), "bob");

  const [head, claims, signature] = (await token()).split(".");
  const mallory = Buffer.from(JSON.stringify({ sub: "ada", exp: 4102444800 })).toString("base64url");
  const none = Buffer.from(`{"alg":"none"}`).toString("base64url");
  assert.equal((await post("/logout", { headers })).status, 200);
  for (const [query, options, reason] of [
    ["", undefined, "log in first"],
    ["", { headers }, "your session has ended: log in again"],
    ["?token=x", undefined, "the token is not valid"],
    [`?token=${head}.${mallory}.${signature}`, undefined, "the token is not valid"],
    [`?token=${none}.${mallory}.`, undefined, "the token is not valid"],
    [`?token=${none}.${claims}.${signature}`, undefined, "the token is not valid"],
  ]) {
    const socket = await Socket.open(room + query, ["partysync.v2"], options);
    await until("it is closed", () => socket.closed);
    assert.deepEqual(socket.closed, { code: 4401, reason });
  }
  assert.equal((await post("/token", { headers, body: "bob" })).status, 401);
});

test("a token of an identity provider is checked with the key that it publishes", async () => {
  const base64 = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
  const token = ({ head, claims, by = published } = {}) => {
    const ends = Math.floor(Date.now() / 1000) + 60;
    const signed = `${base64({ alg: "RS256", kid: "2026-11", ...head })}.${base64({ iss: issuer, aud: "notes", sub: "ada", exp: ends, ...claims })}`;
    return `${signed}.${sign("sha256", Buffer.from(signed), by.privateKey).toString("base64url")}`;
  };
  const open = (text) =>
    Client.open(`${server.ws}/parties/notes/provided`, ["partysync.v2"], { headers: { authorization: `Bearer ${text}` } });
  const socket = await open(token());
  socket.send({ type: "hello", client: crypto.randomUUID(), epoch: null, channels: [] });
  assert.equal((await socket.next("welcome", (frame) => frame.type === "welcome")).identity.name, "ada");
  await socket.close();
  for (const [text, reason] of [
    [token({ by: secret }), "the token is not valid"],
    [token({ head: { kid: "2026-12" } }), "the token is not valid"],
    [token({ head: { kid: "another" } }), "the token is not valid"],
    [token({ head: { alg: "HS256" } }), "the token is not valid"],
    [token({ claims: { aud: "others" } }), "the token is not valid"],
    [token({ claims: { iss: "http://127.0.0.1" } }), "the token is not valid"],
    [token({ claims: { exp: 1000 } }), "the token has ended"],
  ]) {
    const refused = await open(text);
    await until("it is closed", () => refused.closed);
    assert.deepEqual(refused.closed, { code: 4401, reason });
  }
});
