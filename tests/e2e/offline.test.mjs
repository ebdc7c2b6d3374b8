// The todo app without a network: what is kept in the browser, by how many tabs, and what becomes
// of it.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { Server, until } from "./harness.mjs";
import {
  add, allTexts, database, item, launch, offline as serverGone, onServer as rowsOnServer, openPage, pending, phase, profile as profileIn, rename, shows,
  stored, storedAll, texts, unsaved, warning,
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

const profile = (room) => profileIn(browser, server, room);
const onServer = (text) => rowsOnServer(server, text);
const offline = (...pages) => serverGone(server, ...pages);

test("ten todos are added and edited offline, and the tab is closed and reopened before they are sent", async () => {
  const { context, page } = await profile("ten");
  await add(page, "Before");
  await phase(page, "live");
  await offline(page);
  const names = Array.from({ length: 10 }, (_, n) => `Todo ${n + 1}`);
  for (const name of names) await add(page, name);
  for (const name of names) await rename(page, name, `${name}, edited`);
  const wanted = ["Before", ...names.map((name) => `${name}, edited`)];
  await shows(page, wanted);
  await storedAll(page, "ten", 20);
  assert.deepEqual(page.problems, []);
  await page.close();

  const again = await context.newPage();
  const snapshots = [];
  again.on("websocket", (ws) =>
    ws.on("framereceived", ({ payload }) => {
      if (/"type":"catch_up".*"from":null/.test(payload)) snapshots.push(payload);
    }),
  );
  again.problems = [];
  again.on("pageerror", (error) => again.problems.push(error.message));
  await again.goto(`${server.url}/#ten`);
  await shows(again, wanted);
  assert.equal(await pending(again), 10);
  await until("the pill counts them", async () => /20 not saved/.test(await again.locator(".pill").textContent()));

  await server.up();
  await phase(again, "live");
  await shows(again, wanted);
  assert.equal(await pending(again), 0);
  const rows = await onServer("Todo 1, edited");
  assert.deepEqual(rows.map((row) => row.text), wanted);
  // One version for each row that an action changed: none was done twice.
  assert.equal(rows[0].version, 21);
  assert.deepEqual(snapshots, [], "it catches up by delta");
  await storedAll(again, "ten", 0);
  // Another window, with nothing stored, sees the same.
  const other = await openPage(await browser.newContext(), server, "ten");
  await shows(other, wanted);
  assert.deepEqual([...again.problems, ...other.problems], []);
  await context.close();
});

test("a tab that is killed offline loses nothing", async () => {
  const { context, page } = await profile("killed");
  await offline(page);
  await add(page, "Survives");
  await rename(page, "Survives", "Survives a crash");
  await storedAll(page, "killed", 2);
  const crashed = page.waitForEvent("crash");
  const session = await context.newCDPSession(page);
  session.send("Page.crash").catch(() => {});
  await crashed;

  const again = await openPage(context, server, "killed");
  await shows(again, ["Survives a crash"]);
  assert.equal(await pending(again), 1);
  await server.up();
  await phase(again, "live");
  assert.equal((await onServer("Survives a crash"))[0].version, 2);
  await context.close();
});

test("a tab that is killed at any moment comes back with what it had at one moment before", async () => {
  const { context, page: opened } = await profile("anytime");
  await offline(opened);
  // A living tab would inherit what the killed one left, and show it.
  await opened.close();
  let total = 0;
  for (let round = 0; round < 8; round += 1) {
    const page = await openPage(context, server, "anytime");
    await page.locator(".pill").waitFor();
    await until("it shows what it had", async () => (await allTexts(page)).length === total);
    const crashed = page.waitForEvent("crash");
    const session = await context.newCDPSession(page);
    // As fast as the page can, until it is killed in the midst of it.
    page
      .evaluate(async (first) => {
        const [input, form] = [document.querySelector(".new-todo input"), document.querySelector(".new-todo")];
        for (let n = first; ; n += 1) {
          input.value = `Todo ${String(n).padStart(5, "0")}`;
          input.dispatchEvent(new Event("input", { bubbles: true }));
          form.requestSubmit();
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      }, total)
      .catch(() => {});
    await until("it is in the midst", async () => (await stored(page, "anytime")) > total + 3 * round);
    session.send("Page.crash").catch(() => {});
    await crashed;
    const again = await openPage(context, server, "anytime");
    await until("its rows are there", async () => (await allTexts(again)).length > total);
    const shown = await allTexts(again);
    total = shown.length;
    // Without a gap: what was stored is a beginning of what was done.
    assert.deepEqual(shown, Array.from({ length: total }, (_, n) => `Todo ${String(n).padStart(5, "0")}`));
    assert.equal(await stored(again, "anytime"), total);
    await again.close();
  }
  await server.up();
  const last = await openPage(context, server, "anytime");
  await phase(last, "live");
  await until("nothing is pending", async () => (await pending(last)) === 0);
  const rows = await onServer("Todo 00000");
  assert.deepEqual(rows.map((row) => row.text), Array.from({ length: total }, (_, n) => `Todo ${String(n).padStart(5, "0")}`));
  assert.equal(rows[0].version, total);
  await context.close();
});

test("tabs have outboxes of their own, and a living one takes over what a closed one left", async () => {
  const { context, page: a } = await profile("tabs");
  const [b, c] = [await openPage(context, server, "tabs"), await openPage(context, server, "tabs")];
  for (const page of [b, c]) await phase(page, "live");
  await offline(a, b, c);
  // Each works at once, and shows what the others do.
  await add(a, "From A");
  await shows(b, ["From A"]);
  await add(b, "From B");
  await rename(b, "From B", "From B, edited");
  await shows(c, ["From A", "From B, edited"]);
  await add(c, "From C");
  const made = ["From A", "From B, edited", "From C"];
  for (const page of [a, b, c]) await shows(page, made);
  await storedAll(a, "tabs", 4);
  for (const [page, count] of [[a, 1], [b, 2], [c, 1]]) await unsaved(page, count);

  // One is closed, one is killed: the third has all that they made.
  await b.close();
  const crashed = c.waitForEvent("crash");
  (await context.newCDPSession(c)).send("Page.crash").catch(() => {});
  await crashed;
  await unsaved(a, 4);
  await shows(a, made);
  assert.equal(await pending(a), 3);

  // A tab that is opened meanwhile has the rows, and sends nothing that another sends.
  const d = await openPage(context, server, "tabs");
  await add(d, "From D");
  await storedAll(d, "tabs", 5);
  await server.up();
  for (const page of [a, d]) {
    await phase(page, "live");
    // Whose connection is there first is first.
    const all = ["From A", "From B, edited", "From C", "From D"];
    await until("all are shown", async () => (await texts(page)).sort().join() === all.join());
    await until("nothing is pending", async () => (await pending(page)) === 0);
  }
  const rows = await onServer("From A");
  assert.equal(rows.length, 4);
  assert.equal(rows[0].version, 5);
  await storedAll(a, "tabs", 0);
  assert.deepEqual([...a.problems, ...d.problems], []);
  await context.close();
});

test("a tab that is opened beside another shows the rows before it has a connection", async () => {
  const { context, page } = await profile("beside");
  for (const text of ["One", "Two"]) await add(page, text);
  await phase(page, "live");
  await offline(page);
  const beside = await openPage(context, server, "beside");
  await shows(beside, ["One", "Two"]);
  assert.equal(await pending(beside), 0);
  await server.up();
  await phase(beside, "live");
  await context.close();
});

test("what all tabs left behind is sent by the next one", async () => {
  const { context, page: a } = await profile("left");
  const b = await openPage(context, server, "left");
  await phase(b, "live");
  await offline(a, b);
  await add(a, "Left by A");
  await add(b, "Left by B");
  await storedAll(a, "left", 2);
  await Promise.all([a.close(), b.close()]);
  const next = await openPage(context, server, "left");
  await until("both are shown", async () => (await texts(next)).sort().join() === "Left by A,Left by B");
  await server.up();
  await phase(next, "live");
  await until("nothing is pending", async () => (await pending(next)) === 0);
  assert.equal((await onServer("Left by A"))[0].version, 2);
  await context.close();
});

/** A page whose storage is spoilt before the app starts. */
async function spoilt(room, spoil, argument) {
  const context = await browser.newContext();
  await context.addInitScript(spoil, argument);
  return openPage(context, server, room);
}

for (const [what, spoil] of [
  ["missing", () => Object.defineProperty(window, "indexedDB", { value: undefined })],
  ["blocked", () => (IDBFactory.prototype.open = () => new EventTarget())],
  ["refused", () => (IDBFactory.prototype.open = () => { throw new DOMException("no", "SecurityError"); })],
  ["without locks", () => Object.defineProperty(Navigator.prototype, "locks", { value: undefined })],
]) {
  test(`a storage that is ${what} costs a warning, and nothing else`, async () => {
    const page = await spoilt(`storage ${what}`, spoil);
    await warning(page).waitFor();
    await phase(page, "live");
    await add(page, `Storage ${what}`);
    await page.locator(".todos li:not(.pending)").waitFor();
    assert.equal((await onServer(`Storage ${what}`)).length, 1);
    assert.match(await warning(page).textContent(), /what is not saved is lost when this ends/);
    await page.context().close();
  });
}

test("a storage that is full costs a warning, and nothing is lost while the page lives", async () => {
  const { context, page } = await profile("full");
  await offline(page);
  // What the browser does to a transaction for which there is no room.
  await page.evaluate(() => {
    const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (...values) {
      const request = put.apply(this, values);
      this.transaction.abort();
      return request;
    };
  });
  await add(page, "Too much");
  await warning(page).waitFor();
  await add(page, "And more");
  await server.up();
  await phase(page, "live");
  await until("nothing is pending", async () => (await pending(page)) === 0);
  assert.deepEqual((await onServer("Too much")).map((row) => row.text), ["Too much", "And more"]);

  // The store stayed as it was before: the next tab notices, and counts anew.
  await page.close();
  const next = await openPage(context, server, "full");
  await phase(next, "live");
  await shows(next, ["Too much", "And more"]);
  await add(next, "Afterwards");
  await until("nothing is pending", async () => (await pending(next)) === 0);
  assert.equal((await onServer("Afterwards")).length, 3);
  await context.close();
});

/** Changes every value of an object store. */
const corrupt = (page, room, store, value) =>
  page.evaluate(
    ([name, store, value]) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(name);
        opening.onsuccess = () => {
          const db = opening.result;
          const tx = db.transaction(store, "readwrite");
          const walking = tx.objectStore(store).openCursor();
          walking.onsuccess = () => {
            walking.result?.update(value);
            walking.result?.continue();
          };
          tx.oncomplete = resolve;
          tx.onabort = () => reject(tx.error);
          db.close();
        };
      }),
    [database(room), store, value],
  );

/** Makes what is kept of each outbox beside its actions unreadable. */
const spoilHeads = (page, room) =>
  page.evaluate(
    (name) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(name);
        opening.onsuccess = () => {
          const db = opening.result;
          const tx = db.transaction(["outbox", "pending"], "readwrite");
          const keys = tx.objectStore("pending").getAllKeys();
          keys.onsuccess = () => keys.result.forEach(([client]) => tx.objectStore("outbox").put("?", client));
          tx.oncomplete = resolve;
          tx.onabort = () => reject(tx.error);
          db.close();
        };
      }),
    database(room),
  );

test("rows that cannot be read are fetched anew, and actions that cannot be read hold up no others", async () => {
  const { context, page } = await profile("corrupt");
  await add(page, "Kept");
  await phase(page, "live");
  await offline(page);
  await add(page, "Unreadable");
  await storedAll(page, "corrupt", 1);
  await corrupt(page, "corrupt", "pending", "{");
  await corrupt(page, "corrupt", "row", "[[]");
  await page.close();
  await server.up();
  const next = await openPage(context, server, "corrupt");
  await phase(next, "live");
  await shows(next, ["Kept"]);
  await next.locator(".toasts").getByText("given up").waitFor();
  await add(next, "New");
  await until("nothing is pending", async () => (await pending(next)) === 0);
  assert.deepEqual((await onServer("New")).map((row) => row.text), ["Kept", "New"]);
  assert.equal(await item(next, "Kept").count(), 1);
  await storedAll(next, "corrupt", 0);

  // Of what is not known to have been pushed, it is not said that it was not.
  await offline(next);
  await add(next, "Later");
  await storedAll(next, "corrupt", 1);
  await spoilHeads(next, "corrupt");
  await next.close();
  const last = await openPage(context, server, "corrupt");
  await shows(last, ["Kept", "New", "Later"]);
  await server.up();
  await phase(last, "live");
  await until("nothing is pending", async () => (await pending(last)) === 0);
  assert.equal((await onServer("Later")).length, 3);
  await storedAll(last, "corrupt", 0);
  assert.equal(await warning(last).count(), 0);
  await context.close();
});
