// What the server of another version does not understand, and what fails in it: the todo app keeps the
// first, and shows an id of the second.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { Server, until } from "./harness.mjs";
import { add, entries, launch, onServer, openPage, phase, rename, shows } from "./page.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

let server, browser;
before(async () => {
  server = await Server.start("fixtures/todo-sync");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const aside = (page) => page.locator(".aside");
const says = async (page, text) => {
  await aside(page).getByText(text, { exact: true }).waitFor();
};
const gone = (page) => aside(page).waitFor({ state: "hidden" });

/** A page whose updates the server does not know any more, until `newer.is`. */
async function outdated(room, options = {}) {
  const context = await browser.newContext({ viewport: { width: 320, height: 568 }, ...options });
  const newer = { is: false };
  await context.routeWebSocket(/parties/, (ws) => {
    const up = ws.connectToServer();
    ws.onMessage((text) => up.send(newer.is ? text : text.replaceAll('"type":"update"', '"type":"was_renamed"')));
  });
  const page = await openPage(context, server, room);
  await phase(page, "live");
  for (const text of ["One", "Two"]) await add(page, text);
  await shows(page, ["One", "Two"]);
  return { context, page, newer };
}

test("changes that a newer server does not understand are kept, and saved after a reload", async () => {
  const { context, page, newer } = await outdated("newer");
  await rename(page, "One", "First");
  await says(page, "A newer version of this app is there. Reload to save 1 change.");
  await rename(page, "Two", "Second");
  await says(page, "A newer version of this app is there. Reload to save 2 changes.");
  await page.getByRole("status").getByText("Reload to save 2 changes").waitFor();
  // The rows are the server's, and nothing else is said.
  await shows(page, ["One", "Two"]);
  assert.equal(await page.locator(".toasts p").count(), 0);

  newer.is = true;
  await aside(page).getByRole("button", { name: "Reload" }).click();
  await says(page, "2 changes could not be saved.");
  await phase(page, "live");
  await aside(page).getByRole("button", { name: "Save again" }).focus();
  await page.keyboard.press("Enter");
  await shows(page, ["First", "Second"]);
  await gone(page);
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "INPUT");
  const rows = await onServer(server, "Second");
  assert.deepEqual(rows.map((row) => row.text), ["First", "Second"]);
  assert.deepEqual(page.problems, []);
  await context.close();
});

test("they are told to be of an older version as often as they are tried there, and can be discarded", async () => {
  const { context, page } = await outdated("older");
  await rename(page, "One", "First");
  await says(page, "A newer version of this app is there. Reload to save 1 change.");
  await page.reload();
  await says(page, "1 change could not be saved.");
  await phase(page, "live");
  await aside(page).getByRole("button", { name: "Save again" }).click();
  await says(page, "A newer version of this app is there. Reload to save 1 change.");
  await page.reload();
  await says(page, "1 change could not be saved.");
  await aside(page).getByRole("button", { name: "Discard" }).click();
  await gone(page);
  await until("the store has let go of it", async () => (await entries(page, "abandoned", "older")) === 0);
  await page.reload();
  await phase(page, "live");
  await shows(page, ["One", "Two"]);
  await gone(page);
  await context.close();
});

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing wrong with the line, ${colorScheme}, on a small phone`, async () => {
    const { context, page } = await outdated(`axe-${colorScheme}`, { colorScheme });
    await page.addScriptTag({ path: axe });
    await rename(page, "One", "First");
    await says(page, "A newer version of this app is there. Reload to save 1 change.");
    const violations = await page.evaluate(async () => (await window.axe.run()).violations);
    assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
    await context.close();
  });
}

test("what fails in the server is a toast with an id, under which its log says why", async () => {
  const context = await browser.newContext();
  const page = await openPage(context, server, "fails");
  await phase(page, "live");
  await add(page, "Before it broke");
  await onServer(server, "Before it broke");
  await server.down();
  const trigger = "CREATE TRIGGER broken BEFORE INSERT ON todos BEGIN INSERT INTO not_there VALUES (1); END";
  server.sqlite("todos", trigger, { write: true });
  await server.up();
  await phase(page, "live");
  await add(page, "Lost");
  const toast = page.locator(".toasts p");
  await toast.waitFor();
  const [, id] = /Something went wrong at the server \(error ([0-9a-f]{8}-1)\)/.exec(await toast.textContent());
  await until("the log says why", () => server.output.includes(`room \`fails\`: action create of todos failed (error ${id}): sql: no such table: main.not_there`));
  await shows(page, ["Before it broke"]);
  await context.close();
});
