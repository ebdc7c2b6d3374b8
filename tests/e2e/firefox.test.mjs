// The todo app in Firefox: what its storage, locks and channels between tabs do that Chromium's
// have been seen to do in the other tests.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import puppeteer from "puppeteer-core";
import { Front } from "./front.mjs";
import { Server, until } from "./harness.mjs";
import { onServer } from "./page.mjs";

let server, front, browser, home;
before(async () => {
  server = await Server.start("fixtures/todo-sync");
  front = await Front.start(server);
  const executablePath = process.env.FIREFOX ?? "/usr/bin/firefox-esr";
  // It does not start for a user whose home is another's.
  home = mkdtempSync(join(tmpdir(), "partysync-"));
  const env = { ...process.env, HOME: home };
  browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, env });
});
// A test that failed may have left it down.
beforeEach(async () => {
  front.answer = "pass";
  if (!server.child) await server.up();
});
after(async () => {
  await browser?.close();
  await front?.stop();
  await server?.stop();
  rmSync(home, { recursive: true, force: true, maxRetries: 10 });
});

/** Has a page keep what it opens, so that a test can close it behind the page's back. */
function noteDatabases() {
  const { open } = IDBFactory.prototype;
  window.opened = [];
  IDBFactory.prototype.open = function (...values) {
    const request = open.apply(this, values);
    request.addEventListener("success", () => window.opened.push(request.result));
    return request;
  };
}
/** A tab of the app; `problems` holds the errors that the page did not handle. */
async function open(context, room, user, at = server) {
  const page = await context.newPage();
  const problems = [];
  // Firefox tells of connections that were lost as of errors.
  const lost = /connection to (the server at )?ws:/;
  page.on("pageerror", ({ message }) => lost.test(message) || problems.push(message));
  await page.evaluateOnNewDocument(noteDatabases);
  await page.goto(`${at.url}/${user ? `?user=${user}` : ""}#${room}`);
  return Object.assign(page, { problems });
}
/** A profile whose page has been opened once, so that it opens without a network too. */
async function profile(room, user) {
  const context = await browser.createBrowserContext();
  const page = await open(context, room, user);
  await phase(page, "live");
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => null));
  return { context, page };
}
const phase = (page, name) => page.waitForSelector(`.pill[data-phase="${name}"]`);
async function add(page, text) {
  await page.bringToFront();
  await page.type(".new-todo input", text);
  await page.keyboard.press("Enter");
  // The next one is typed into an empty field.
  await until(`${text} is added`, async () => (await texts(page)).at(-1) === text);
}
const texts = (page) => page.$$eval(".todos .text", (all) => all.map((one) => one.textContent).reverse());
const shows = (page, wanted) => until(`it shows ${wanted}`, async () => (await texts(page)).join() === wanted.join());
const unsaved = (page) => page.$eval(".pill", (pill) => Number(/(\d+) not saved/.exec(pill.textContent)?.[1] ?? 0));
const counts = (page, count) => until(`${count} are not saved`, async () => (await unsaved(page)) === count);
const databases = (page) =>
  page.evaluate(() => indexedDB.databases().then((all) => all.map(({ name }) => name).sort()));
/** How many pending actions the page's database holds. */
const stored = (page) =>
  page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const count = window.opened.at(-1).transaction("pending").objectStore("pending").count();
        count.onsuccess = () => resolve(count.result);
        count.onerror = () => reject(count.error);
      }),
  );
async function offline(...pages) {
  await server.down("SIGKILL");
  for (const page of pages) await phase(page, "offline");
}

test("what is done offline outlives its tab, and is done once", async () => {
  const { context, page } = await profile("firefox");
  await add(page, "Before");
  await counts(page, 0);
  await offline(page);
  for (const text of ["One", "Two", "Three"]) await add(page, text);
  await counts(page, 3);
  await page.close();

  const again = await open(context, "firefox");
  await shows(again, ["Before", "One", "Two", "Three"]);
  await counts(again, 3);
  await server.up();
  await phase(again, "live");
  await counts(again, 0);
  await shows(again, ["Before", "One", "Two", "Three"]);
  const rows = await onServer(server, "Three");
  assert.deepEqual(rows.map((row) => row.text), ["Before", "One", "Two", "Three"]);
  assert.equal(rows[0].version, 4);
  assert.deepEqual([...page.problems, ...again.problems], []);
  await context.close();
});

test("three tabs show each other what they do offline, and one sends what the closed ones left", async () => {
  const { context, page: a } = await profile("tabs");
  const b = await open(context, "tabs");
  const c = await open(context, "tabs");
  for (const page of [b, c]) await phase(page, "live");
  await offline(a, b, c);
  await add(a, "Of A");
  await add(b, "Of B");
  await add(c, "Of C");
  for (const page of [a, b, c]) await until("it shows all", async () => (await texts(page)).length === 3);
  await b.close();
  await c.close();
  await counts(a, 3);
  await server.up();
  await phase(a, "live");
  await counts(a, 0);
  const rows = await onServer(server, "Of C");
  assert.deepEqual(rows.map((row) => row.text).sort(), ["Of A", "Of B", "Of C"]);
  assert.equal(rows[0].version, 3);
  assert.deepEqual([...a.problems, ...b.problems, ...c.problems], []);
  await context.close();
});

test("two users see nothing of each other, and one who logs out leaves nothing behind", async () => {
  const { context, page: ada } = await profile("users", "ada");
  const bob = await open(context, "users", "bob");
  await phase(bob, "live");
  await offline(ada, bob);
  await add(ada, "Only Ada's");
  await counts(ada, 1);
  await add(bob, "Only Bob's");
  await counts(bob, 1);
  assert.deepEqual([await texts(ada), await texts(bob)], [["Only Ada's"], ["Only Bob's"]]);
  const another = await open(context, "another", "ada");
  await phase(another, "offline");
  await ada.bringToFront();
  await ada.$$eval("button", (all) => all.find((one) => one.textContent === "Log out").click());
  await until("Ada's are gone", async () => (await databases(bob)).every((name) => name.includes("=bob")));
  await phase(another, "closed");
  assert.equal((await databases(bob)).length, 1);
  await server.up();
  await phase(bob, "live");
  await counts(bob, 0);
  const rows = await onServer(server, "Only Bob's");
  assert.deepEqual(rows.map((row) => row.text), ["Only Bob's"]);
  assert.deepEqual([...ada.problems, ...another.problems, ...bob.problems], []);
  await context.close();
});

test("a database that is closed behind the page's back is opened again, and nothing is lost", async () => {
  const { context, page } = await profile("closed");
  await offline(page);
  await add(page, "Before");
  await counts(page, 1);
  const opened = await page.evaluate(() => {
    window.opened.forEach((db) => db.close());
    return window.opened.length;
  });
  await add(page, "After");
  await until("it is opened again", () => page.evaluate((before) => window.opened.length > before, opened));
  await until("both are stored", async () => (await stored(page)) === 2);
  await page.close();
  const again = await open(context, "closed");
  await shows(again, ["Before", "After"]);
  await server.up();
  await phase(again, "live");
  await counts(again, 0);
  const rows = await onServer(server, "After");
  assert.deepEqual(rows.map((row) => row.text), ["Before", "After"]);
  assert.equal(rows[0].version, 2);
  await context.close();
});

/** All is as if nothing had been: each action was done, once. */
async function isWhole(context, page) {
  await phase(page, "live");
  await counts(page, 0);
  await shows(page, ["One", "Two", "Third"]);
  const rows = await onServer(server, "Third");
  assert.deepEqual(rows.map((row) => row.text), ["One", "Two", "Third"]);
  assert.equal(rows[0].version, 3);
  assert.equal((await page.$$(".toasts p")).length, 0);
  assert.deepEqual(page.problems, []);
  await context.close();
}

test("a server that fails at each push costs nothing, and nothing is given up", async () => {
  const context = await browser.createBrowserContext();
  const page = await open(context, "fails", undefined, front);
  await phase(page, "live");
  front.answer = "fails";
  const before = front.pushes;
  for (const text of ["One", "Two", "Third"]) await add(page, text);
  await until("it was pushed four times", () => front.pushes - before >= 4, 120_000);
  await phase(page, "offline");
  await counts(page, 3);
  front.answer = "pass";
  await page.evaluate(() => void window.dispatchEvent(new Event("online")));
  await isWhole(context, page);
});

test("credentials that have ended are renewed before the second attempt", async () => {
  const context = await browser.createBrowserContext();
  let valid = "first";
  const refused = [];
  front.answer = (request) => {
    const token = /token=(\w+)/.exec(request.headers.cookie ?? "")?.[1];
    if (token === valid) return "pass";
    refused.push(token);
    return { code: 4401, reason: "this token has ended", cookie: `token=${valid}; Path=/` };
  };
  const page = await open(context, "renewed", undefined, front);
  await phase(page, "live");
  valid = "second";
  front.sockets.clients.forEach((socket) => socket.terminate());
  for (const text of ["One", "Two", "Third"]) await add(page, text);
  await isWhole(context, page);
  assert.deepEqual(refused, [undefined, "first"]);
});
