// What a browser keeps for whom: databases that the browser closes, users who log out, tabs that
// show each other what they do, and pages that are frozen.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { Server, until } from "./harness.mjs";
import {
  add, database, launch, nothingPending, offline as serverGone, onServer, openPage, pending, phase, profile, shows, storedAll, texts, tooLong,
  unsaved, warning,
} from "./page.mjs";

let server, browser;
before(async () => {
  server = await Server.start("fixtures/todo-sync");
  browser = await launch();
});
// A test that failed may have left it down.
beforeEach(() => server.child ?? server.up());
after(async () => {
  await browser?.close();
  await server?.stop();
});

const offline = (...pages) => serverGone(server, ...pages);

// A browser that empties its storage meanwhile may never answer: then it is asked again.
const databases = (page) =>
  page.evaluate(async () => {
    const late = new Promise((resolve) => setTimeout(resolve, 2_000, []));
    return (await Promise.race([indexedDB.databases(), late])).map(({ name }) => name).sort();
  });

/** Makes an action that is kept, syncs, and opens the page again: everything was done once. */
async function worksAgain(context, page, room, kept) {
  const last = `Afterwards in ${room}`;
  await add(page, last);
  const all = [...kept, last];
  await storedAll(page, room, all.length);
  await until("there is no warning", async () => (await warning(page).count()) === 0);
  await server.up();
  await phase(page, "live");
  await nothingPending(page);
  await storedAll(page, room, 0);
  await page.close();
  const next = await openPage(context, server, room);
  await phase(next, "live");
  await shows(next, all);
  await nothingPending(next);
  const rows = await onServer(server, last);
  assert.deepEqual(rows.map((row) => row.text), all);
  assert.equal(rows[0].version, all.length);
  assert.deepEqual([...page.problems, ...next.problems], []);
}

test("a database that was closed behind the page's back is opened again, and nothing is done twice", async () => {
  const { context, page: first } = await profile(browser, server, "closed");
  await first.close();
  await context.addInitScript(() => {
    const { open } = IDBFactory.prototype;
    window.opened = [];
    IDBFactory.prototype.open = function (...values) {
      const request = open.apply(this, values);
      request.addEventListener("success", () => window.opened.push(request.result));
      return request;
    };
  });
  const page = await openPage(context, server, "closed");
  await phase(page, "live");
  await offline(page);
  await add(page, "Before");
  await storedAll(page, "closed", 1);
  await page.evaluate(() => window.opened.forEach((db) => db.close()));
  await add(page, "After");
  await storedAll(page, "closed", 2);
  await worksAgain(context, page, "closed", ["Before", "After"]);
  await context.close();
});

test("a database that the browser closes and empties is filled again", async () => {
  const { context, page } = await profile(browser, server, "emptied");
  await offline(page);
  await add(page, "Kept in memory");
  await storedAll(page, "emptied", 1);
  const session = await context.newCDPSession(page);
  await session.send("Storage.clearDataForOrigin", { origin: server.url, storageTypes: "indexeddb" });
  // The page hears of it by the event, and does nothing else meanwhile.
  await until("it is kept again", async () => (await databases(page)).includes(database("emptied")));
  await storedAll(page, "emptied", 1);
  await worksAgain(context, page, "emptied", ["Kept in memory"]);
  await context.close();
});

test("a list is forgotten with three tabs open: all are closed, and nothing of it is kept", async () => {
  const { context, page: a } = await profile(browser, server, "forget", "ada");
  const [b, c] = [await openPage(context, server, "forget", "ada"), await openPage(context, server, "forget", "ada")];
  await add(a, "Sent");
  for (const page of [a, b, c]) await shows(page, ["Sent"]);
  await nothingPending(a);
  await offline(a, b, c);
  await add(a, "Unsent");
  await storedAll(a, "forget", 1, "ada");
  await b.getByRole("button", { name: "Forget this list" }).click();
  for (const page of [a, b, c]) await phase(page, "closed");
  await until("it is deleted", async () => !(await databases(b)).includes(database("forget", "ada")));
  assert.equal(await b.locator(".toasts p").count(), 0);
  // The tabs that were told leave it alone.
  await a.reload();
  await shows(a, []);
  await server.up();
  await phase(a, "live");
  await shows(a, ["Sent"]);
  await nothingPending(a);
  assert.equal((await onServer(server, "Sent")).length, 1);
  assert.deepEqual([...a.problems, ...b.problems, ...c.problems], []);
  await context.close();
});

test("a user who logs out leaves nothing behind: not of this list, nor of others; other users stay", async () => {
  const { context, page: a } = await profile(browser, server, "logout", "ada");
  const other = await openPage(context, server, "another", "ada");
  const bob = await openPage(context, server, "logout", "bob");
  for (const page of [other, bob]) await phase(page, "live");
  // A list that no tab shows any more.
  const third = await openPage(context, server, "third", "ada");
  await phase(third, "live");
  await third.close();
  const adas = ["another", "logout", "third"].map((room) => database(room, "ada"));
  const bobs = database("logout", "bob");
  const untilKept = (what, names) =>
    until(what, async () => (await databases(bob)).join() === [...names].sort().join());
  await untilKept("all are kept", [...adas, bobs]);
  await a.getByRole("button", { name: "Log out" }).click();
  // The list is gone from the page before its database is deleted.
  await a.getByText("Logged out").waitFor();
  assert.deepEqual(await databases(bob), [bobs]);
  await phase(other, "closed");
  await phase(bob, "live");
  await add(bob, "Bob is here");
  await nothingPending(bob);
  assert.deepEqual([...a.problems, ...other.problems, ...bob.problems], []);
  await context.close();
});

test("two users of a browser see nothing of each other, and send nothing of each other", async () => {
  const { context, page: ada } = await profile(browser, server, "users", "ada");
  const bobBefore = await openPage(context, server, "users", "bob");
  await phase(bobBefore, "live");
  await bobBefore.close();
  await offline(ada);
  await add(ada, "Only Ada's");
  await storedAll(ada, "users", 1, "ada");
  const living = await openPage(context, server, "users", "bob");
  await phase(living, "offline");
  assert.deepEqual(await texts(living), []);
  await add(living, "Bob's");
  await shows(ada, ["Only Ada's"]);
  await ada.close();
  const bob = await openPage(context, server, "users", "bob");
  await shows(bob, ["Bob's"]);
  await server.up();
  for (const page of [living, bob]) await phase(page, "live");
  await nothingPending(living);
  const rows = await onServer(server, "Bob's");
  assert.deepEqual(rows.map((row) => row.text), ["Bob's"]);
  // She is back: what she made is sent by her.
  const again = await openPage(context, server, "users", "ada");
  await phase(again, "live");
  await nothingPending(again);
  // Neither knew of the other's: which is first is decided by their keys.
  await until("bob sees both", async () => (await texts(bob)).sort().join() === ["Bob's", "Only Ada's"].join());
  assert.equal((await onServer(server, "Only Ada's"))[0].version, 2);
  await context.close();
});

test("what is done offline in one tab is shown in another, and goes away there when it is rejected", async () => {
  const { context, page: a } = await profile(browser, server, "shown");
  const b = await openPage(context, server, "shown");
  await phase(b, "live");
  await offline(a, b);
  await add(a, "Shown");
  await add(a, tooLong);
  await shows(b, ["Shown", tooLong]);
  assert.equal(await pending(b), 2);
  // It is the other one's to send.
  assert.doesNotMatch(await b.locator(".pill").textContent(), /not saved/);
  // A tab that is opened meanwhile shows it, too.
  const c = await openPage(context, server, "shown");
  await shows(c, ["Shown", tooLong]);
  await server.up();
  for (const page of [a, b, c]) {
    await phase(page, "live");
    await shows(page, ["Shown"]);
    await nothingPending(page);
  }
  assert.equal((await onServer(server, "Shown"))[0].version, 1);
  assert.equal(await a.locator(".toasts p").count(), 1);
  assert.equal(await b.locator(".toasts p").count(), 0);
  assert.deepEqual([...a.problems, ...b.problems, ...c.problems], []);
  await context.close();
});

test("several rejections in one answer are each told", async () => {
  const { context, page } = await profile(browser, server, "several");
  await offline(page);
  for (let n = 0; n < 3; n += 1) await add(page, tooLong);
  await storedAll(page, "several", 3);
  await page.close();
  const next = await openPage(context, server, "several");
  await unsaved(next, 3);
  await server.up();
  await phase(next, "live");
  await until("three toasts", async () => (await next.locator(".toasts p").count()) === 3);
  await shows(next, []);
  await context.close();
});

/** Freezes a page as a browser does in the background; gives what thaws it. */
async function freeze(page) {
  // A page that is emulated as focused is never frozen, and the session that says so is Playwright's own.
  const client = page._connection.toImpl(page).delegate._mainFrameSession._client;
  await client.send("Emulation.setFocusEmulationEnabled", { enabled: false });
  await client.send("Page.setWebLifecycleState", { state: "frozen" });
  return async () => {
    await client.send("Page.setWebLifecycleState", { state: "active" });
    await client.send("Emulation.setFocusEmulationEnabled", { enabled: true });
  };
}

test("a tab that was frozen comes back without a loss", async () => {
  const { context, page: a } = await profile(browser, server, "frozen");
  const b = await openPage(context, server, "frozen");
  await phase(b, "live");
  await b.evaluate(() => {
    window.lifecycle = [];
    for (const name of ["freeze", "resume"]) document.addEventListener(name, () => window.lifecycle.push(name));
  });
  let thaw = await freeze(b);
  await add(a, "While it slept");
  await nothingPending(a);
  await thaw();
  await shows(b, ["While it slept"]);
  await phase(b, "live");

  // It is frozen with something to send, and the connection ends meanwhile.
  await offline(a, b);
  await add(b, "Made before");
  await storedAll(a, "frozen", 1);
  await shows(a, ["While it slept", "Made before"]);
  thaw = await freeze(b);
  await server.up();
  await a.evaluate(() => window.dispatchEvent(new Event("online")));
  await phase(a, "live");
  // It lives: nobody sends it in its place.
  await add(a, "Made after");
  assert.deepEqual((await onServer(server, "Made after")).map((row) => row.text), ["While it slept", "Made after"]);
  await thaw();
  for (const page of [a, b]) {
    await until("all are shown", async () => (await texts(page)).length === 3);
    await nothingPending(page);
    await phase(page, "live");
  }
  assert.equal((await onServer(server, "Made before"))[0].version, 3);
  assert.deepEqual(await b.evaluate(() => window.lifecycle), ["freeze", "resume", "freeze", "resume"]);
  assert.deepEqual([...a.problems, ...b.problems], []);
  await context.close();
});

test("a page tries again at once when the network is back, or it is seen or runs again", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const sockets = [];
  await page.routeWebSocket(/parties/, (ws) => {
    ws.connectToServer();
    sockets.push(ws);
  });
  await page.clock.install();
  await page.goto(`${server.url}/#nudged`);
  await phase(page, "live");
  // No timer of the page rings from here on.
  await page.clock.pauseAt(Date.now() + 60_000);
  for (const nudge of [
    () => window.dispatchEvent(new Event("online")),
    () => window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })),
    () => document.dispatchEvent(new Event("resume")),
    () => document.dispatchEvent(new Event("visibilitychange")),
  ]) {
    const count = sockets.length;
    await sockets.at(-1).close({ code: 1012 });
    await phase(page, "offline");
    assert.equal(sockets.length, count);
    await page.evaluate(nudge);
    await phase(page, "live");
    assert.equal(sockets.length, count + 1);
  }
  await context.close();
});
