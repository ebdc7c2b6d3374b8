// LiveStore's web app in Chromium, with its workers and its files, against a backend in Rust: what
// windows and tabs show is the backend's log, in its order.

import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { Server, until } from "../e2e/harness.mjs";
import { launch } from "../e2e/page.mjs";
import { agree, Client, events, exchange, log, range } from "./client.mjs";
import { Site } from "./site.mjs";

let server, site, browser;
before(async () => {
  server = await Server.start("fixtures/livestore-sync");
  site = await Site.start(server);
  browser = await launch();
});
beforeEach(() => site.back());
after(async () => {
  await browser?.close();
  await site?.stop();
  await server?.stop();
});

/** What the page says of its connection. */
const says = (page, words) => until(`the page says ${words}`, async () => (await page.locator("#connection").textContent()) === words);

/** Whether the page has its store, once that is known. */
async function ready(page) {
  await page.waitForFunction(() => window.app || window.failed);
  return page.evaluate(() => !window.failed);
}

/** A browser profile: a client of its own. */
async function profile(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return context;
}

/** A tab of a profile; `problems` holds the errors that the page did not handle. */
async function open(context, storeId, authToken = "ok") {
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  await page.goto(`${site.url}/?storeId=${storeId}&authToken=${authToken}`);
  assert.ok(await ready(page), problems.join());
  assert.equal(await page.evaluate(() => window.app.store.storageMode), "persisted");
  const shown = page.locator("#entries li");
  return Object.assign(page, {
    problems,
    ids: () => shown.allTextContents(),
    count: () => shown.count(),
    add: (...names) => page.evaluate((names) => window.app.add(...names), names),
    /** Its worker has written what the page did: a reload before that would lose it. */
    kept: () => page.waitForFunction(() => window.app.store.syncStatus().isSynced),
  });
}

test("two windows sync, each with what was there before", async (t) => {
  const first = await Client.connect(server.url, "windows");
  t.after(() => first.close());
  await first.pull();
  await first.push(events(1, 250));
  const wanted = range(1, 250).map(String);
  const [a, b] = await Promise.all([0, 1].map(async () => open(await profile(t), "windows")));
  await agree(server, "windows", [a, b], wanted);
  await Promise.all([says(a, "connected"), says(b, "connected")]);
  await Promise.all([a.add("a1"), b.add("b1")]);
  wanted.push("a1", "b1");
  await agree(server, "windows", [a, b], wanted);
  // One by one, so that pushes of different sizes follow each other while the other goes on too.
  const many = range(2, 60).map((n) => `a${n}`);
  await Promise.all([a.evaluate((names) => names.forEach((name) => window.app.add(name)), many), b.add("b2", "b3")]);
  wanted.push(...many, "b2", "b3");
  await exchange(server, "windows", [a, b], wanted);
});

test("two tabs share a socket, and the one that stays goes on alone", async (t) => {
  const context = await profile(t);
  const one = await open(context, "tabs");
  await one.add("a1");
  await agree(server, "tabs", [one], ["a1"]);
  const two = await open(context, "tabs");
  await two.add("b1");
  await one.add("a2");
  await agree(server, "tabs", [one, two], ["a1", "a2", "b1"]);
  assert.equal(site.sockets.size, 1);
  // The first holds the socket. What the second does before it has one too, LiveStore may never send.
  const { attempts } = site;
  await one.close();
  await until("the second has a socket", () => site.attempts > attempts && site.sockets.size === 1);
  await two.add("b2", "b3");
  await agree(server, "tabs", [two], ["a1", "a2", "b1", "b2", "b3"]);
  const [three, other] = [await open(context, "tabs"), await open(await profile(t), "tabs")];
  await exchange(server, "tabs", [two, three, other], ["a1", "a2", "b1", "b2", "b3"]);
  assert.equal(site.sockets.size, 2);
});

test("windows work without a connection, over a reload too, and nothing is lost", async (t) => {
  const [a, b] = [await open(await profile(t), "offline"), await open(await profile(t), "offline")];
  await a.add("a1");
  await agree(server, "offline", [a, b], ["a1"]);
  site.away();
  await Promise.all([says(a, "not connected"), says(b, "not connected")]);
  await a.add("a2", "a3");
  await b.add("b1");
  assert.deepEqual([await a.ids(), await b.ids()], [["a1", "a2", "a3"], ["a1", "b1"]]);
  await a.kept();
  await a.reload();
  assert.ok(await ready(a));
  await a.add("a4");
  assert.deepEqual(await a.ids(), ["a1", "a2", "a3", "a4"]);
  assert.deepEqual(await log(server, "offline"), ["a1"]);
  site.back();
  await agree(server, "offline", [a, b], ["a1", "a2", "a3", "a4", "b1"]);
  await exchange(server, "offline", [a, b], ["a1", "a2", "a3", "a4", "b1"]);
});

test("the backend's data is removed: a window that is loaded again starts over", async (t) => {
  const page = await open(await profile(t), "wiped");
  await page.add("before");
  await agree(server, "wiped", [page], ["before"]);
  site.away();
  await server.down();
  rmSync(join(server.data, "v3"), { recursive: true });
  await server.up();
  // LiveStore hears that this is another backend, empties its files and closes the socket. It goes on
  // showing what it had; its first page after that finds the files broken.
  const { attempts } = site;
  site.back();
  await until("it has been there", () => site.attempts > attempts && site.sockets.size === 0);
  await until("a page loads, and is empty", async () => {
    await page.reload();
    if (await ready(page)) return (await page.ids()).length === 0;
    // Its worker makes the files anew, and connects.
    await until("the worker has started", () => site.sockets.size > 0);
    page.problems.splice(0);
    return false;
  });
  assert.deepEqual(await log(server, "wiped"), []);
  await page.add("after");
  const another = await open(await profile(t), "wiped");
  await another.add("more");
  await exchange(server, "wiped", [page, another], ["after", "more"]);
});

test("a window with a wrong token is not connected: it gets nothing and sends nothing", async (t) => {
  const good = await open(await profile(t), "token");
  await good.add("secret");
  await agree(server, "token", [good], ["secret"]);
  const attempts = site.attempts;
  const bad = await open(await profile(t), "token", "wrong");
  await bad.add("unwanted");
  await until("it has tried three times", () => site.attempts >= attempts + 3);
  await says(bad, "not connected");
  assert.deepEqual(await bad.ids(), ["unwanted"]);
  await good.add("later");
  await agree(server, "token", [good], ["secret", "later"]);
  assert.deepEqual(await bad.ids(), ["unwanted"]);
  // With the right one it sends what it kept.
  await bad.kept();
  await bad.goto(`${site.url}/?storeId=token&authToken=ok`);
  await exchange(server, "token", [good, bad], ["secret", "later", "unwanted"]);
});

test("the worker serves the page, and what is added there is in the log", async (t) => {
  const page = await (await profile(t)).newPage();
  await page.goto(`${server.url}/?storeId=served`);
  assert.ok(await ready(page));
  await page.getByRole("textbox").fill("by hand");
  await page.keyboard.press("Enter");
  await says(page, "connected");
  await until("it is in the log", async () => (await log(server, "served")).join() === "by hand");
  assert.deepEqual(await page.locator("#entries li").allTextContents(), ["by hand"]);
  assert.equal((await fetch(`${server.url}/nothing`)).status, 404);
});
