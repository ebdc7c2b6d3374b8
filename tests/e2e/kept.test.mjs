// How rows are kept in the browser: pages of many, single ones over them, and pages anew.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, Server, until } from "./harness.mjs";
import { allTexts, database, item, launch, openPage, phase, scrollUntil } from "./page.mjs";

let server, browser;
before(async () => {
  server = await Server.start("fixtures/todo-sync");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const id = (n) => `todo-${String(n).padStart(5, "0")}`;

/** Somebody else, who changes a list. */
async function writer(room) {
  const client = await Client.join(`${server.ws}/parties/todos/${room}`);
  return {
    /** Does these in pushes of 200. */
    async act(actions) {
      for (let from = 0; from < actions.length; from += 200) {
        const some = actions.slice(from, from + 200).map(([type, payload]) => ({ seq: ++client.seq, channel: "todos", action: { type, payload } }));
        client.send({ type: "push", actions: some });
        await client.next("an answer", (f) => f.acks?.some((ack) => ack.seq === client.seq && !ack.code));
      }
    },
    close: () => client.close(),
  };
}
const creates = (from, to) =>
  Array.from({ length: to - from }, (_, n) => ["create", { id: id(from + n), text: `Todo ${from + n}`, completed: 0 }]);

/** How many pages and single rows are kept, and how many of the latter are `null`. */
const kept = (page, room) =>
  page.evaluate(
    (name) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(name);
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const db = opening.result;
          const found = { pages: 0, single: 0, gone: 0 };
          const walking = db.transaction("row").objectStore("row").openCursor();
          walking.onsuccess = () => {
            const at = walking.result;
            if (!at) return resolve(found);
            if (typeof at.key[1] === "number") found.pages += 1;
            else found.single += 1;
            if (at.value === "null") found.gone += 1;
            at.continue();
          };
          walking.onerror = () => reject(walking.error);
          db.close();
        };
      }),
    database(room),
  );
const keeps = (page, room, what, wanted) =>
  until(what, async () => {
    const found = await kept(page, room);
    return Object.entries(wanted).every(([name, test]) => test(found[name]));
  });
/** This todo is there: the list is scrolled to it. */
const reach = (page, text) => scrollUntil(page, text, async () => (await item(page, text).count()) === 1);
const is = (wanted) => (found) => found === wanted;
const some = (found) => found > 0;

test("many rows are kept in pages, and what changes over them", async () => {
  const other = await writer("paged");
  await other.act(creates(0, 1_500));
  const context = await browser.newContext();
  const page = await openPage(context, server, "paged");
  await phase(page, "live");
  await keeps(page, "paged", "pages", { pages: some, single: is(0) });

  await other.act([
    ["update", { id: id(7), text: "Changed" }],
    ["delete", { id: id(8) }],
    ["create", { id: id(1_500), text: "New", completed: 0 }],
  ]);
  await reach(page, "New");
  await keeps(page, "paged", "three rows over them", { pages: some, single: is(3), gone: is(1) });
  await other.act([
    ["create", { id: id(8), text: "Again", completed: 0 }],
    ["delete", { id: id(9) }],
    // No text comes before it, and all numbers.
    ["create", { id: "", text: "Nameless", completed: 0 }],
  ]);
  await reach(page, "Nameless");
  await keeps(page, "paged", "five rows over them", { single: is(5), gone: is(1) });
  await other.close();
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.close();

  await server.down("SIGKILL");
  const offline = await openPage(context, server, "paged");
  await reach(offline, "Nameless");
  const shown = new Set(await allTexts(offline));
  const wanted = new Set(creates(0, 1_500).map(([, { text }]) => text));
  for (const text of ["Todo 7", "Todo 8", "Todo 9"]) wanted.delete(text);
  for (const text of ["Changed", "Again", "New", "Nameless"]) wanted.add(text);
  assert.deepEqual(shown, wanted);
  assert.deepEqual(offline.problems, []);
  await context.close();
  await server.up();
});

test("many single rows are made into pages when they are opened, by one of two tabs", async () => {
  const context = await browser.newContext();
  const page = await openPage(context, server, "loose");
  await phase(page, "live");
  const other = await writer("loose");
  await other.act(creates(0, 1_200));
  await keeps(page, "loose", "single rows", { single: is(1_200) });
  await page.close();

  const tabs = await Promise.all([0, 1].map(() => openPage(context, server, "loose")));
  for (const tab of tabs) await phase(tab, "live");
  await keeps(tabs[0], "loose", "pages of them", { pages: some, single: is(0) });
  await other.act([["delete", { id: id(0) }], ["update", { id: id(1), text: "Changed" }]]);
  await other.close();
  await reach(tabs[1], "Changed");
  await keeps(tabs[1], "loose", "changes over them", { pages: some, single: is(2), gone: is(1) });
  for (const tab of tabs) assert.deepEqual([tab.problems, (await allTexts(tab)).length], [[], 1_199]);
  for (const tab of tabs) await tab.close();

  const again = await openPage(context, server, "loose");
  await reach(again, "Changed");
  assert.equal((await allTexts(again)).length, 1_199);
  await context.close();
});
