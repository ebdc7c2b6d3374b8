// Chromium, and the todo app's page as its users handle it.

import { chromium } from "playwright-core";
import { until } from "./harness.mjs";

export const launch = (args = []) =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...args,
    ],
  });

/** The name of the browser's database of a user's copy of a room. */
export const database = (room, user) => `partysync/app/${user ? `=${user}` : ""}/todos/${room}`;

/** A tab on a room; `problems` holds the errors that the page did not handle. */
export async function openPage(context, server, room, user) {
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  await page.goto(`${server.url}/${user ? `?user=${user}` : ""}#${room}`);
  return Object.assign(page, { problems });
}

/** A browser profile whose page has been opened once, so that it opens without a network too. */
export async function profile(browser, server, room, user) {
  const context = await browser.newContext();
  const page = await openPage(context, server, room, user);
  await phase(page, "live");
  await page.evaluate(() => navigator.serviceWorker.ready);
  return { context, page };
}

/** The server is gone, and the pages have noticed. */
export async function offline(server, ...pages) {
  await server.down("SIGKILL");
  for (const page of pages) await phase(page, "offline");
}

/** How many entries a store of a room's database has. */
export const entries = (page, store, room, user) =>
  page.evaluate(
    ([name, store]) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(name);
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const db = opening.result;
          const counting = db.transaction(store).objectStore(store).count();
          counting.onsuccess = () => resolve(counting.result);
          counting.onerror = () => reject(counting.error);
          db.close();
        };
      }),
    [database(room, user), store],
  );
/** How many actions the tabs of a profile have stored and not been answered. */
export const stored = (page, room, user) => entries(page, "pending", room, user);
export const storedAll = (page, room, count, user) =>
  until(`${count} actions are stored`, async () => (await stored(page, room, user)) === count);

/** The room that holds this todo: its rows in the order in which they were made, and its version. */
export const onServer = (server, text) =>
  until("SQLite has it", () => {
    const query = `SELECT text, (SELECT max(version) FROM _partysync_change) AS version FROM todos
      WHERE deleted_at IS NULL ORDER BY created_at, id`;
    return server.sqlite("todos", query).find((rows) => rows.some((row) => row.text === text));
  });

export const pending = (page) => page.locator(".todos li.pending").count();
export const nothingPending = (page) => until("nothing is pending", async () => (await pending(page)) === 0);
export const unsaved = (page, count) =>
  until(`the pill says ${count}`, async () => (await page.locator(".pill").textContent()).includes(`${count} not saved`));
export const warning = (page) => page.locator(".warning");

export const phase = (page, name) => page.locator(`.pill[data-phase="${name}"]`).waitFor();
/** The todos that are mounted, oldest first: the page shows the newest on top. */
export const texts = async (page) => (await page.locator(".todos .text").allTextContents()).reverse();
/** Scrolls to the end until this holds: each time more of the list is mounted. */
export const scrollUntil = (page, what, condition) =>
  until(what, async () => {
    if (await condition()) return true;
    await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
    return false;
  });
/** All todos of a list, however long it is, oldest first. */
export async function allTexts(page) {
  await scrollUntil(page, "the end of the list", async () => (await page.locator(".more").count()) === 0);
  return texts(page);
}
/** A text that the server refuses. */
export const tooLong = "x".repeat(501);
export const item = (page, text) => page.locator(".todos li", { hasText: text });
export const shows = (page, wanted) =>
  until(`the window shows ${wanted}`, async () => (await texts(page)).join() === wanted.join());

export async function add(page, text) {
  await page.getByLabel("What needs to be done?").fill(text);
  await page.getByRole("button", { name: "Add" }).click();
}

export async function rename(page, from, to) {
  await page.getByRole("button", { name: from, exact: true }).click();
  await page.getByLabel("Text", { exact: true }).fill(to);
  await page.keyboard.press("Enter");
}
