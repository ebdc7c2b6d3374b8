// The developers' panel in a page of Leptos: `?partysync` shows what its client is doing.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Server, root, until } from "./harness.mjs";
import { launch } from "./page.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const pictures = join(root, process.env.SCREENSHOTS ?? "target/screenshots");

let server, browser;
before(async () => {
  server = await Server.start("tests/rendered");
  browser = await launch();
  mkdirSync(pictures, { recursive: true });
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A page that is live, with what was said in its console. */
async function open(query, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const said = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  await page.goto(server.url + query);
  await page.waitForSelector("main[data-live=true]");
  return Object.assign(page, { said });
}

const panel = (page) => page.getByRole("complementary", { name: "partysync" });
const says = (page, text) => panel(page).getByText(text, { exact: true }).first().waitFor();
/** What a fact of the panel is. */
const fact = (page, name) => panel(page).locator("dl > div", { has: page.locator("dt", { hasText: name }) }).locator("dd").textContent();
const frames = (page) => panel(page).locator("details", { hasText: "Frames" }).locator("tbody tr").allInnerTexts();

test("it shows frames, versions, what is pending, queries and how long answers take", async () => {
  const page = await open("/?partysync");
  await says(page, "notes/default");
  await says(page, "Live");
  assert.match(await fact(page, "notes"), /^version 0, 0 rows$/);
  assert.match(await fact(page, "Epoch"), /^[0-9a-f]{32}$/);
  const kinds = async () => (await frames(page)).map((row) => row.split("\t").slice(1, 3).join(" ").trim()).reverse();
  await until("the catch-up is there", async () => (await kinds()).join() === "connect,open,out hello,in welcome,in catch_up");

  await page.click("button");
  await until("the version rises", async () => (await fact(page, "notes")) === "version 1, 1 rows");
  await until("the push is there", async () => (await kinds()).includes("out push") && (await kinds()).includes("in patch"));
  await until("a ping was answered", async () => / ms$/.test(await fact(page, "Round trip")));
  await until("a push was answered", async () => / ms$/.test(await fact(page, "Last answer")));
  const [time, way, kind, bytes] = (await frames(page)).find((row) => row.includes("push")).split("\t");
  assert.match(`${time} ${way} ${kind}`, /^\d\d:\d\d:\d\d\.\d{3} out push$/);
  assert.ok(Number(bytes) > 50);
  const queries = panel(page).locator("details", { hasText: "Queries" });
  assert.deepEqual((await queries.locator("tbody tr").allInnerTexts()).map((row) => row.trim()), ["notes\t1", "notes\t1\ttotals"]);

  await server.down("SIGKILL");
  await page.waitForSelector("main[data-live=false]");
  await page.click("main button");
  const pending = panel(page).locator("details", { hasText: "Pending" });
  await until("it is pending", async () => (await pending.locator("tbody tr").count()) === 1);
  assert.match(await pending.locator("tbody tr").innerText(), /\tput\tnotes\tthis one$/);
  await until("why it is offline", async () => /^Offline: /.test(await fact(page, "Status")));
  await server.up();
  await page.waitForSelector("main[data-live=true]");
  await until("nothing is pending", async () => (await pending.locator("tbody tr").count()) === 0);
  await page.context().close();
});

test("without the address asking for it, it is not there", async () => {
  const page = await open("/?partysyncs&x=partysync");
  assert.equal(await page.locator("partysync-panel").count(), 0);
  await page.context().close();
});

test("it is closed by the keyboard, and what is folded stays so", async () => {
  const page = await open("/?a=b&partysync");
  await says(page, "Live");
  const summary = panel(page).locator("summary", { hasText: "Queries" });
  const queries = panel(page).locator("details", { hasText: "Queries" });
  await summary.focus();
  await page.keyboard.press("Enter");
  assert.equal(await queries.getAttribute("open"), null);
  const before = (await frames(page)).length;
  await page.click("main button");
  await until("it has changed", async () => (await frames(page)).length > before);
  assert.equal(await queries.getAttribute("open"), null);

  await summary.focus();
  await page.keyboard.press("Escape");
  await until("it is gone", async () => (await page.locator("partysync-panel").count()) === 0);
  await page.click("main button");
  await page.waitForSelector("li:not(.pending)");
  assert.deepEqual(page.said, []);
  await page.context().close();

  const again = await open("/?partysync");
  await again.getByRole("button", { name: "Close the partysync panel" }).focus();
  await again.keyboard.press("Space");
  await until("it is gone", async () => (await again.locator("partysync-panel").count()) === 0);
  await again.context().close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const width of [320, 1000]) {
    test(`axe finds nothing wrong with it, ${colorScheme}, ${width} pixels wide`, async () => {
      const page = await open("/?partysync", { colorScheme, viewport: { width, height: 640 } });
      await until("its frames are there", async () => (await frames(page)).length >= 5);
      await page.addScriptTag({ path: axe });
      const violations = await page.evaluate(async () => (await window.axe.run("partysync-panel")).violations);
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      await page.screenshot({ path: join(pictures, `panel-${colorScheme}-${width}.png`) });
      await page.context().close();
    });
  }
}
