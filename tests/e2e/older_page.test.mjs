// A page that was built before, on a server that was deployed since, with work in its outbox that was
// made offline: nothing is lost, and the user sees what is to be done about it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server, until } from "./harness.mjs";
import { launch } from "./page.mjs";

let server, browser;
const pages = {};

const shown = async (page, list) => (await page.locator(`${list} li`).allTextContents()).map((text) => JSON.parse(text));
const rows = (page) => shown(page, ".rows");
const kept = (page) => shown(page, ".kept");
const toasts = (page) => page.locator(".toasts p").allTextContents();
const pill = (page) => page.locator(".pill").textContent();
const phase = (page, name) => page.locator(`.pill[data-phase="${name}"]`).waitFor();
const act = (page, type, payload) => page.evaluate(([type, payload]) => act(type, payload), [type, payload]);
const says = (page, words) => until(`the page says ${words}`, async () => (await pill(page)).includes(words));
const shows = (page, wanted) =>
  until(`the page shows ${JSON.stringify(wanted)}`, async () => JSON.stringify(await rows(page)) === JSON.stringify(wanted));
const unreadable = (page) => page.locator(".unreadable:visible");
/** The rows of a room's table, which has one that is called so. */
const inRoom = (table, id) => {
  const query = `SELECT * FROM ${table} ORDER BY id`;
  return server.sqlite(table, query).find((found) => found.some((row) => row.id === id))?.map((row) => ({ ...row }));
};

async function open(channel, room, context) {
  const page = await (context ?? (await browser.newContext())).newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  await page.goto(`${server.url}/#${channel}/${room}`);
  await page.locator("main[data-version]").waitFor();
  return page;
}

/** What the user does when the page says so. */
async function reload(page) {
  await page.reload();
  await page.locator('main[data-version="now"]').waitFor();
}

const sql = async (room, body) => {
  const answer = await fetch(`${server.url}/parties/board/${room}`, { method: "POST", body });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.text();
};

/** Deploys the application as it is now. */
async function deploy(vars = {}) {
  await server.down();
  Object.assign(server, { args: ["--config", "now.toml"], vars });
  await server.up();
}

/** The network is back, as the browser says. */
const wake = (page) => page.evaluate(() => window.dispatchEvent(new Event("online")));

const many = 50_000;
before(async () => {
  server = await Server.start("tests/versions");
  browser = await launch();
  const begin = {
    books: [["put", { id: "a", title: "Emma" }]],
    tickets: [["put", { id: "a", level: "low" }], ["put", { id: "b", level: "high" }]],
    cards: [["put", { id: "a", labels: ["one"] }]],
    things: [["put", { id: "a", name: "Chair" }], ["resize", { id: "a", size: 3 }]],
  };
  for (const [channel, actions] of Object.entries(begin)) {
    pages[channel] = await open(channel, channel);
    await phase(pages[channel], "live");
    for (const [type, payload] of actions) await act(pages[channel], type, payload);
    await until("all is saved", async () => (await pill(pages[channel])) === "live");
  }
  for (const [room, count] of [["large", many], ["odd", 2_500]]) {
    await sql(room, `INSERT INTO cards (id, labels) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
      SELECT printf('%06d', i), '["one"]' FROM n`);
    pages[room] = await open("books", room);
    await phase(pages[room], "live");
    await act(pages[room], "put", { id: room, title: "Persuasion" });
    await until("it is saved", async () => (await pill(pages[room])) === "live");
  }
  await server.down();
  for (const page of Object.values(pages)) await phase(page, "offline");
  await act(pages.books, "put", { id: "a", title: "Persuasion" });
  await act(pages.books, "put", { id: "b", title: "Sanditon" });
  await act(pages.tickets, "put", { id: "a", level: "high" });
  await act(pages.cards, "put", { id: "b", labels: ["two", "three"] });
  await act(pages.things, "put", { id: "a", name: "Armchair" });
  await act(pages.things, "resize", { id: "a", size: 5 });
  await act(pages.large, "put", { id: "b", title: "Emma" });
  await act(pages.odd, "put", { id: "b", title: "Emma" });
  await says(pages.things, "2 not saved");
  await deploy({ ODD: "002000" });
  for (const page of Object.values(pages)) await wake(page);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("a column has another name: the older page goes on, and what it made is done under the new one", async () => {
  const page = pages.books;
  await phase(page, "live");
  await until("all is saved", async () => (await pill(page)) === "live");
  await shows(page, [{ id: "a", title: "Persuasion" }, { id: "b", title: "Sanditon" }]);
  assert.deepEqual(inRoom("books", "a"), [{ id: "a", name: "Persuasion" }, { id: "b", name: "Sanditon" }]);
  assert.deepEqual([await toasts(page), await kept(page), page.problems], [[], [], []]);
  await reload(page);
  await shows(page, [{ id: "a", name: "Persuasion" }, { id: "b", name: "Sanditon" }]);
});

test("an enum has another variant: the older page shows the other rows and says that some are not shown, once", async () => {
  const page = pages.tickets;
  await phase(page, "live");
  await shows(page, [{ id: "a", level: "high" }, { id: "b", level: "high" }]);
  assert.equal(await unreadable(page).count(), 0);
  const other = await open("tickets", "tickets");
  await phase(other, "live");
  for (const id of ["b", "c", "d"]) await act(other, "put", { id, level: "urgent" });
  await act(other, "put", { id: "e", level: "low" });
  await shows(page, [{ id: "a", level: "high" }, { id: "e", level: "low" }]);
  assert.equal(await unreadable(page).textContent(), "3 not shown: reload");
  const [told, ...more] = await toasts(page);
  assert.match(told, /rows of `tickets` are of another version of the application, and not shown: reload it.*`urgent`/);
  assert.deepEqual(more, []);
  // It works on, and says so no second time.
  await act(page, "put", { id: "a", level: "low" });
  await act(page, "put", { id: "b", level: "low" });
  await shows(page, [{ id: "a", level: "low" }, { id: "b", level: "low" }, { id: "e", level: "low" }]);
  await until("two are not shown", async () => (await unreadable(page).textContent()) === "2 not shown: reload");
  assert.equal((await toasts(page)).length, 1);
  assert.deepEqual([await kept(page), page.problems], [[], []]);
  await reload(page);
  await shows(page, [["a", "low"], ["b", "low"], ["c", "urgent"], ["d", "urgent"], ["e", "low"]].map(([id, level]) => ({ id, level })));
  assert.equal(await unreadable(page).count(), 0);
});

test("JSON has another shape: the older page is told to reload, and what it made is done then", async () => {
  const page = pages.cards;
  await phase(page, "refused");
  await says(page, "the app is outdated: reload it · 1 not saved");
  // Its own rows are there, and what it made.
  await shows(page, [{ id: "a", labels: ["one"] }, { id: "b", labels: ["two", "three"] }]);
  const grey = (...names) => names.map((name) => ({ color: "grey", name }));
  assert.deepEqual(inRoom("cards", "a").map(({ labels }) => JSON.parse(labels)), [[{ name: "one", color: "grey" }]]);
  await act(page, "put", { id: "c", labels: ["four"] });
  await says(page, "2 not saved");
  assert.deepEqual([await toasts(page), page.problems], [[], []]);
  await reload(page);
  await phase(page, "live");
  await shows(page, [{ id: "a", labels: grey("one") }, { id: "b", labels: grey("two", "three") }, { id: "c", labels: grey("four") }]);
  await until("all is saved", async () => (await pill(page)) === "live");
  assert.deepEqual([await toasts(page), await kept(page), page.problems], [[], [], []]);
  assert.deepEqual(JSON.parse(inRoom("cards", "a")[1].labels), [{ name: "two", color: "grey" }, { name: "three", color: "grey" }]);
});

test("a column was dropped: the older page is told to reload; what can be done is, and the rest is kept and shown", async () => {
  const page = pages.things;
  await phase(page, "refused");
  await says(page, "the app is outdated: reload it · 2 not saved");
  await shows(page, [{ id: "a", name: "Armchair", size: 5 }]);
  await reload(page);
  await phase(page, "live");
  await shows(page, [{ id: "a", name: "Armchair" }]);
  assert.deepEqual(inRoom("things", "a"), [{ id: "a", name: "Armchair" }]);
  const resize = { payload: { id: "a", size: 5 }, type: "resize" };
  await until("it is kept", async () => (await kept(page)).length === 1);
  assert.deepEqual(await kept(page), [resize]);
  const told = await toasts(page);
  assert.ok(told.some((text) => text.includes("of different versions")), told.join("\n"));
  // It outlives the page.
  await reload(page);
  await phase(page, "live");
  assert.deepEqual([await kept(page), page.problems], [[resize], []]);
});

test("a migration that fails keeps what it has done, is logged, and the page waits", async () => {
  const page = pages.odd;
  await says(page, "offline · Something went wrong at the server (error ");
  await says(page, " · 1 not saved");
  const logged = () => server.output.match(/its rows could not be migrated from version 1 to 2: this card is odd/g)?.length ?? 0;
  assert.ok(logged() >= 1, server.output);
  // Once for a life of the object, which may have slept since.
  server.output = "";
  for (let attempt = 0; attempt < 3; attempt++) {
    await wake(page);
    await says(page, "Something went wrong at the server");
  }
  const query = "SELECT sum(labels LIKE '%grey%') AS done, count(*) AS all_of_them FROM cards";
  const found = server.sqlite("cards", query).flat().find(({ all_of_them }) => all_of_them === 2_500);
  assert.equal(found.done, 1_900);
  assert.ok(logged() <= 1, server.output);
  assert.deepEqual(await toasts(page), []);
});

test("while 50,000 rows are migrated the page says so, and then goes on by itself", async (t) => {
  // The other tests gave it time to be done: once more, from the beginning.
  await server.down();
  server.sqlite("cards", `UPDATE _partysync_schema SET columns = json_remove(columns, '$.version', '$.compatible', '$.cursor')
    WHERE channel = 'cards' AND (SELECT count(*) FROM cards) = ${many}`, { write: true });
  server.sqlite("cards", `UPDATE cards SET labels = '["one"]' WHERE (SELECT count(*) FROM cards) = ${many}`, { write: true });
  const page = pages.large;
  await phase(page, "offline");
  await act(page, "put", { id: "c", title: "Sanditon" });
  await deploy();
  const began = performance.now();
  await wake(page);
  await says(page, "offline · the room's data is being brought up to date");
  await phase(page, "live");
  t.diagnostic(`${((performance.now() - began) / 1000).toFixed(1)} s`);
  await until("all is saved", async () => (await pill(page)) === "live");
  await shows(page, [["b", "Emma"], ["c", "Sanditon"], ["large", "Persuasion"]].map(([id, title]) => ({ id, title })));
  const query = `SELECT sum(labels = '[{"name":"one","color":"grey"}]') AS done, count(*) AS all_of_them FROM cards`;
  const found = server.sqlite("cards", query).flat().find(({ all_of_them }) => all_of_them === many);
  assert.equal(found.done, many);
  assert.deepEqual([await toasts(page), await kept(page), page.problems], [[], [], []]);
  // What had failed goes on where it was, as the code that is deployed now can do it.
  await wake(pages.odd);
  await phase(pages.odd, "live");
  await shows(pages.odd, [{ id: "b", title: "Emma" }, { id: "odd", title: "Persuasion" }]);
});
