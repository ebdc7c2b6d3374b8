// A page that its Worker renders with the room's rows, hydrated in Chromium: nothing is built anew,
// nothing is in the browser's console, and it goes on as any page does.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch } from "./page.mjs";
import { Server, root } from "./harness.mjs";

let server, browser;
before(async () => {
  server = await Server.start("tests/rendered");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** The page, whose nodes as the server has rendered them are marked before it is hydrated. */
async function open() {
  const page = await browser.newPage();
  const said = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  await page.addInitScript(() => {
    addEventListener("DOMContentLoaded", () => {
      for (const node of document.querySelectorAll("main, h1, li, button, p")) node.rendered = node.textContent;
    });
  });
  await page.goto(server.url);
  const kept = () => page.evaluate(() => [...document.querySelectorAll("main, h1, li, button, p")].map((node) => [node.localName, node.rendered ?? null]));
  const live = () => page.waitForSelector("main[data-live=true]");
  return { page, said, kept, live };
}
const html = async () => (await (await fetch(server.url)).text()).replace(/<!--.*?-->|<!>/g, "");

test("a page without rows is hydrated, and rows of its own are shown", async () => {
  assert.match(await html(), /<h1>0 notes<\/h1>.*No notes yet/s);
  const { page, said, kept, live } = await open();
  await live();
  assert.deepEqual(await kept(), [["main", "0 notesNo notes yetAdd"], ["h1", "0 notes"], ["p", "No notes yet"], ["button", "Add"]]);
  await page.click("button");
  await page.waitForSelector("li:not(.pending)");
  assert.equal(await page.textContent("h1"), "1 notes");
  assert.deepEqual(said, []);
  await page.close();
});

test("rows are in the page before any script runs, and what is hydrated are these", async () => {
  // As axum sends it: tests/tests/rendered.rs.
  const sent = await (await fetch(server.url)).text();
  assert.equal(sent.replace(/"epoch":"[^"]*"/, '"epoch":"EPOCH"'), readFileSync(join(root, "tests/rendered/page.html"), "utf8"));
  const { page, said, kept, live } = await open();
  await live();
  assert.deepEqual((await kept()).slice(1), [["h1", "1 notes"], ["li", "Note 1"], ["button", "Add"]]);
  await page.click("button");
  await page.waitForFunction(() => document.querySelectorAll("li:not(.pending)").length === 2);
  assert.deepEqual((await kept()).slice(1), [["h1", "1 notes"], ["li", "Note 1"], ["li", null], ["button", "Add"]]);
  assert.deepEqual(said, []);
  await page.close();
});
