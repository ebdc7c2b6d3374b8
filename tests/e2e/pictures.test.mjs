// README's picture of the board, taken of it as it is. With `SCREENSHOTS=docs/images` it is put there;
// otherwise into `target/screenshots`.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { root, Server, until } from "./harness.mjs";
import { launch } from "./page.mjs";

const folder = resolve(root, process.env.SCREENSHOTS ?? "target/screenshots");

let browser;
before(async () => {
  mkdirSync(folder, { recursive: true });
  browser = await launch();
});
after(() => browser?.close());

const enter = async (page, label, text) => {
  const field = page.getByLabel(label, { exact: true });
  await field.fill(text);
  await field.press("Enter");
};
const live = (page) => until("the page is live", async () => (await page.locator(".pill").textContent()) === "Live");

/** Takes a picture at twice the size, for sharp screens. */
async function take(page, name, of = page) {
  await page.evaluate(() => document.activeElement?.blur());
  const picture = await of.screenshot({ path: join(folder, `${name}.png`), animations: "disabled" });
  assert.ok(picture.length > 20_000, "there is something in it");
}

test("the board, with three who look at it", async (t) => {
  const server = await Server.start("fixtures/board");
  t.after(() => server.stop());
  const user = async (name, password) => {
    const context = await browser.newContext({ viewport: { width: 1200, height: 640 }, deviceScaleFactor: 2 });
    t.after(() => context.close());
    const page = await context.newPage();
    await page.goto(server.url);
    await page.getByLabel("Name").fill(name);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Log in" }).click();
    await live(page);
    return page;
  };
  const ada = await user("ada", "lovelace");
  const cards = {
    Ideas: [["A page that works on a plane", ["idea"]], ["Ask five users what they miss", ["question"]], ["Write the announcement", []]],
    Doing: [["Fix the flicker on slow networks", ["bug", "urgent"]], ["Pictures for the press", ["design"]]],
    Done: [["Choose a name", ["done"]], ["Comments on cards", ["done"]]],
  };
  for (const board of ["Launch in May", "The office"]) await enter(ada, "A new board's title", board);
  await ada.getByRole("link", { name: "Launch in May" }).click();
  await until("it is shown", async () => (await ada.getByLabel("The board's title").inputValue()) === "Launch in May");
  for (const list of Object.keys(cards)) await enter(ada, "A new list's title", list);
  for (const [list, all] of Object.entries(cards)) {
    for (const [title, labels] of all) {
      await enter(ada, `A new card in ${list}`, title);
      if (labels.length === 0) continue;
      await ada.getByRole("button", { name: title, exact: true }).click();
      const dialog = ada.getByRole("dialog");
      for (const label of labels) await dialog.getByRole("button", { name: label }).click();
      if (title.startsWith("Fix")) await enter(ada, "A comment", "It is the queue").then(() => dialog.getByRole("button", { name: "Comment", exact: true }).click());
      await dialog.getByRole("button", { name: "Close" }).click();
    }
  }
  const others = [await user("bob", "kahn"), await user("grace", "hopper")];
  await ada.getByRole("button", { name: "Share" }).click();
  for (const name of ["bob", "grace"]) await ada.getByRole("button", { name: `Add ${name}` }).click();
  await ada.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  for (const [page, x, y] of [[others[0], 700, 235], [others[1], 390, 330]]) {
    await until("the board is shown", async () => (await page.locator(".card").count()) === 7);
    await page.mouse.move(x - 5, y);
    await page.mouse.move(x, y);
  }
  await until("Ada sees both", async () => (await ada.locator(".cursor:visible").count()) === 2);
  await until("nothing is pending", async () => (await ada.locator(".pending").count()) === 0);
  await ada.mouse.move(640, 600);
  await take(ada, "board");
});
