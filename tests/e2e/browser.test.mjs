// Two windows of the todo app in Chromium, through real workerd.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { root, Server, until } from "./harness.mjs";
import { add, item, launch, openPage, phase, shows, texts, tooLong } from "./page.mjs";

let server, browser;
before(async () => {
  server = await Server.start("fixtures/todo-sync");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A window of its own on a room. */
async function open(room, options = {}) {
  const context = await browser.newContext({ viewport: { width: 800, height: 640 }, ...options });
  const page = await openPage(context, server, room);
  await phase(page, "live");
  return page;
}

/** Holds back what the server sends until it is let go. */
async function hold(page) {
  let held = [];
  await page.routeWebSocket(/parties/, (ws) => {
    const up = ws.connectToServer();
    up.onMessage((message) => (held ? held.push([ws, message]) : ws.send(message)));
  });
  return () => {
    for (const [ws, message] of held) ws.send(message);
    held = null;
  };
}

test("what one window does appears in the other", async () => {
  const [a, b] = [await open("share"), await open("share")];
  await add(a, "Buy milk");
  await shows(b, ["Buy milk"]);

  await item(b, "Buy milk").getByRole("checkbox").check();
  await a.locator("li.done", { hasText: "Buy milk" }).waitFor();

  await item(a, "Buy milk").locator(".text").click();
  await a.getByLabel("Text", { exact: true }).fill("Buy oat milk");
  await a.keyboard.press("Enter");
  await shows(b, ["Buy oat milk"]);

  await add(b, "Bake bread");
  await shows(a, ["Buy oat milk", "Bake bread"]);
  await a.getByRole("button", { name: "Active" }).click();
  await shows(a, ["Bake bread"]);
  await a.getByRole("button", { name: "All" }).click();
  await a.getByRole("button", { name: "Clear done" }).click();
  await shows(b, ["Bake bread"]);
  await b.getByRole("button", { name: "Delete Bake bread" }).click();
  await shows(a, []);
  assert.deepEqual([...a.problems, ...b.problems], []);
});

test("a new row is shown as pending until the server has confirmed it", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const release = await hold(page);
  await page.goto(`${server.url}/#pending`);
  await page.locator(".pill").waitFor();
  await add(page, "Unsure");
  await page.locator("li.pending", { hasText: "Unsure" }).waitFor();
  // A mark, when that has taken a while; the text is as it will be.
  const mark = () => item(page, "Unsure").locator(".text").evaluate((e) => getComputedStyle(e, "::after").visibility);
  await until("it is marked", async () => (await mark()) === "visible");
  assert.match(await page.locator(".pill").textContent(), /1 not saved/);
  release();
  await page.locator("li:not(.pending)", { hasText: "Unsure" }).waitFor();
  await phase(page, "live");
  await context.close();
});

test("what the server rejects goes back, and a toast says why", async () => {
  const [a, b] = [await open("reject"), await open("reject")];
  await add(a, "Keep me");
  await shows(b, ["Keep me"]);
  await add(a, tooLong);
  await a.locator(".toasts").getByText("A todo has at most 500 characters").waitFor();
  await a.getByRole("status").getByText("A todo has at most 500 characters").waitFor();
  await shows(a, ["Keep me"]);

  await item(a, "Keep me").locator(".text").click();
  await a.getByLabel("Text", { exact: true }).fill(tooLong);
  await a.keyboard.press("Enter");
  await until("two toasts", async () => (await a.locator(".toasts p").count()) === 2);
  await shows(a, ["Keep me"]);
  await shows(b, ["Keep me"]);
  await a.getByRole("button", { name: "Dismiss" }).first().click();
  await until("one toast", async () => (await a.locator(".toasts p").count()) === 1);
  assert.deepEqual([...a.problems, ...b.problems], []);
});

test("only the row that changed is rendered again", async () => {
  const page = await open("rerender");
  for (const text of ["one", "two", "three"]) await add(page, text);
  await shows(page, ["one", "two", "three"]);
  await phase(page, "live");
  await page.evaluate(() => {
    window.changed = new Set();
    new MutationObserver((records) => {
      for (const { target } of records) {
        const li = (target.nodeType === 1 ? target : target.parentElement)?.closest("li");
        if (li) window.changed.add(li.querySelector(".text")?.textContent);
      }
    }).observe(document.querySelector(".todos"), {
      subtree: true,
      childList: true,
      characterData: true,
      attributes: true,
    });
  });
  await item(page, "two").getByRole("checkbox").check();
  await page.locator("li.done:not(.pending)", { hasText: "two" }).waitFor();
  assert.deepEqual(await page.evaluate(() => [...window.changed]), ["two"]);
});

test("the server is stopped and restarted under two windows, and they recover by themselves", async () => {
  const [a, b] = [await open("restart"), await open("restart")];
  await add(a, "Before");
  await shows(b, ["Before"]);

  await server.down("SIGKILL");
  await phase(a, "offline");
  await phase(b, "offline");
  await add(a, "From A while it was away");
  await add(b, "From B while it was away");
  await item(b, "Before").getByRole("checkbox").check();
  assert.equal(await a.locator("li.pending").count(), 1);
  assert.equal(await b.locator("li.pending").count(), 2);

  await server.up();
  await phase(a, "live");
  await phase(b, "live");
  const wanted = async () => {
    const [left, right] = [await texts(a), await texts(b)];
    return left.length === 3 && left.join() === right.join() && left;
  };
  const shown = await until("both windows show the same", wanted);
  assert.equal(await a.locator("li.pending").count(), 0);
  await a.locator("li.done", { hasText: "Before" }).waitFor();
  const query = "SELECT text, completed FROM todos WHERE deleted_at IS NULL ORDER BY position, id";
  const stored = await until("SQLite agrees", () => {
    const rooms = server.sqlite("todos", query);
    return rooms.find((rows) => rows.length === 3 && rows.some((row) => row.text === "Before"));
  });
  assert.deepEqual(stored.map((row) => row.text), shown);
  assert.deepEqual(stored.filter((row) => row.completed).map((row) => row.text), ["Before"]);
  assert.deepEqual([...a.problems, ...b.problems], []);
});

test("it can be used with the keyboard, and every control has a name", async () => {
  const page = await open("keyboard");
  await page.getByLabel("What needs to be done?").focus();
  await page.keyboard.type("Typed");
  await page.keyboard.press("Enter");
  await shows(page, ["Typed"]);
  await page.getByRole("checkbox", { name: "Typed" }).focus();
  await page.keyboard.press("Space");
  await page.locator("li.done").waitFor();
  await page.getByRole("button", { name: "Typed", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.getByLabel("Text", { exact: true }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Delete Typed" }).focus();
  await page.keyboard.press("Enter");
  await shows(page, []);
  const nameless = await page.locator("button, input").evaluateAll(
    (all) => all.filter((e) => !e.ariaLabel && !e.textContent.trim()).map((e) => e.outerHTML),
  );
  assert.deepEqual(nameless, []);
});

test("it fits a phone, and its pictures are taken", async () => {
  const folder = join(root, process.env.SCREENSHOTS ?? "target/screenshots");
  mkdirSync(folder, { recursive: true });
  const page = await open("default", { viewport: { width: 720, height: 520 }, deviceScaleFactor: 2 });
  for (const text of ["Ship it", "Write on_action", "Derive an Action", "Derive a Record"]) await add(page, text);
  for (const text of ["Derive a Record", "Derive an Action"]) await item(page, text).getByRole("checkbox").check();
  await until("two are done", async () => (await page.locator("li.done:not(.pending)").count()) === 2);
  await phase(page, "live");
  await page.mouse.move(0, 0);
  await page.screenshot({ path: join(folder, "todo.png") });

  const phone = await open("default", { viewport: { width: 360, height: 640 }, colorScheme: "dark" });
  await until("the rows are there", async () => (await phone.locator(".todos li").count()) === 4);
  assert.equal(await phone.evaluate(() => document.documentElement.scrollWidth), 360);
  await phone.screenshot({ path: join(folder, "todo-phone-dark.png") });
});
