// The team's boards in Chromium: two users and a visitor, cards that are moved, rights that are taken away
// while somebody types, pictures, what was done without a network, and random use by six windows.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Server, until } from "./harness.mjs";
import { launch } from "./page.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const passwords = { ada: "lovelace", bob: "kahn", grace: "hopper" };

let server, browser;
before(async () => {
  server = await Server.start("fixtures/board");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const opened = new Set();

/** A window of its own, with what the page did not handle. */
async function open(path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  await page.goto(`${server.url}/${path}`);
  opened.add(context);
  return Object.assign(page, { problems });
}

/** A window of a user who has logged in. */
async function user(team, name, options) {
  const page = await open(`?team=${team}`, options);
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(passwords[name]);
  await page.getByRole("button", { name: "Log in" }).click();
  await live(page);
  return page;
}

const phase = (page, wanted) =>
  until(`the page is ${wanted}`, async () => (await page.locator(".pill").getAttribute("data-phase")) === wanted, 60_000);
const live = (page) => until("the page is live", async () => (await page.locator(".pill").textContent()) === "Live", 60_000);

async function add(page, label, text) {
  const field = page.getByLabel(label, { exact: true });
  await field.fill(text);
  await field.press("Enter");
}

/** What a window shows: lists with their cards. */
const shown = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll("[data-list]")].map((list) => [
      list.getAttribute("aria-label"),
      [...list.querySelectorAll(".open")].map((card) => card.textContent),
    ]),
  );
const shows = (page, wanted) =>
  until(`the window shows ${JSON.stringify(wanted)}`, async () => JSON.stringify(await shown(page)) === JSON.stringify(wanted)).catch(
    async (error) => {
      throw new Error(`${error.message}, but ${JSON.stringify(await shown(page))}`);
    },
  );

/** A board with two lists and a few cards, and whoever is on it beside its owner. */
async function board(team, title, others = []) {
  const ada = await user(team, "ada");
  await add(ada, "A new board's title", title);
  await until("the board is shown", async () => (await ada.getByLabel("The board's title").inputValue()) === title);
  for (const list of ["Todo", "Done"]) await add(ada, "A new list's title", list);
  for (const card of ["One", "Two", "Three"]) await add(ada, "A new card in Todo", card);
  await shows(ada, [["Todo", ["One", "Two", "Three"]], ["Done", []]]);
  const windows = [ada];
  for (const name of others) {
    const page = await user(team, name);
    await ada.getByRole("button", { name: "Share" }).click();
    await ada.getByRole("button", { name: `Add ${name}` }).click();
    await ada.getByRole("button", { name: "Close" }).click();
    await shows(page, await shown(ada));
    windows.push(page);
  }
  return windows;
}

/** What axe finds wrong with a window. */
async function wrong(page) {
  await page.addScriptTag({ path: axe });
  const violations = await page.evaluate(async () => (await window.axe.run()).violations);
  return violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
}

async function closeAll() {
  for (const context of opened) {
    for (const page of context.pages()) assert.deepEqual(page.problems ?? [], []);
    await context.close();
  }
  opened.clear();
}

const dialog = (page) => page.getByRole("dialog");
const openCard = (page, title) => page.getByRole("button", { name: title, exact: true }).click();
const closeDialog = (page) => dialog(page).getByRole("button", { name: "Close" }).click();

test("two users and a visitor look at a board in three windows", async () => {
  const [ada, bob] = await board("meet", "Launch", ["bob"]);
  await ada.getByRole("button", { name: "Share" }).click();
  await ada.getByRole("button", { name: "Make a link" }).click();
  const link = await until("there is a link", () => ada.getByLabel("The link").inputValue().catch(() => ""));
  await closeDialog(ada);
  const visitor = await open(new URL(link).search);
  await live(visitor);
  await shows(visitor, await shown(ada));
  // A visitor looks: nothing can be changed, nobody is told of.
  assert.equal(await visitor.locator(".add, .grip, input.title").count(), 0);
  assert.equal(await visitor.locator(".people li").count(), 0);
  assert.deepEqual(await ada.locator(".people li").allTextContents(), ["Bbob"]);

  // What one does, all see; what is said, the visitor does not.
  await openCard(bob, "Two");
  await dialog(bob).getByRole("button", { name: "urgent" }).click();
  await dialog(bob).getByLabel("A comment").fill("Between us");
  await until("Ada sees that Bob writes", async () => (await ada.locator(".facts .others").textContent().catch(() => "")) === "bob is writing");
  await dialog(bob).getByRole("button", { name: "Comment", exact: true }).click();
  await closeDialog(bob);
  await until("the label is everywhere", async () => (await visitor.locator(".facts [data-label=urgent]").count()) === 1);
  await until("Ada sees the comment", async () => (await ada.locator(".said").textContent().catch(() => "")) === "1 comment");
  assert.equal(await visitor.locator(".said").count(), 0);
  await openCard(visitor, "Two");
  assert.equal(await dialog(visitor).getByText("Between us").count(), 0);
  await closeDialog(visitor);

  // Pointers of those who look at the same board.
  const spot = await bob.locator("[data-card]").first().boundingBox();
  await bob.mouse.move(spot.x + 20, spot.y + 10);
  await until("Ada sees Bob's pointer", async () => ada.locator(".cursor").first().isVisible());
  assert.equal(await visitor.locator(".cursor").count(), 0);

  // The link ends while the visitor looks.
  await ada.getByRole("button", { name: "Share" }).click();
  await ada.getByRole("button", { name: "End it" }).click();
  await closeDialog(ada);
  await until("the visitor is told", async () => (await visitor.getByRole("alert").textContent().catch(() => "")).includes("not good any more"));

  for (const page of [ada, bob]) assert.deepEqual(await wrong(page), []);
  await openCard(ada, "Two");
  assert.deepEqual(await wrong(ada), []);
  await closeAll();
});

test("cards are dragged, moved by keys, and put back", async () => {
  const [ada, bob] = await board("move", "Moves", ["bob"]);
  const box = async (title) => ada.getByRole("button", { name: title, exact: true }).boundingBox();
  const from = await box("One");
  const to = await ada.locator("[data-list]").nth(1).boundingBox();
  await ada.mouse.move(from.x + 10, from.y + 12);
  await ada.mouse.down();
  await ada.mouse.move(to.x + 60, to.y + 60, { steps: 8 });
  await until("a line shows where", () => ada.locator(".drop").isVisible());
  await ada.mouse.up();
  await shows(ada, [["Todo", ["Two", "Three"]], ["Done", ["One"]]]);
  await shows(bob, [["Todo", ["Two", "Three"]], ["Done", ["One"]]]);
  assert.equal(await dialog(ada).count(), 0, "the click at its end opens nothing");

  // Escape leaves it where it was.
  const three = await box("Three");
  await ada.mouse.move(three.x + 10, three.y + 12);
  await ada.mouse.down();
  await ada.mouse.move(to.x + 60, to.y + 60, { steps: 5 });
  await ada.keyboard.press("Escape");
  await ada.mouse.up();
  assert.deepEqual(await shown(ada), [["Todo", ["Two", "Three"]], ["Done", ["One"]]]);

  await ada.getByRole("button", { name: "Move Three" }).focus();
  await ada.keyboard.press("ArrowUp");
  await shows(bob, [["Todo", ["Three", "Two"]], ["Done", ["One"]]]);
  await ada.keyboard.press("ArrowRight");
  await shows(bob, [["Todo", ["Two"]], ["Done", ["Three", "One"]]]);
  assert.equal(await ada.evaluate(() => document.activeElement.getAttribute("aria-label")), "Move Three");
  await ada.keyboard.press("ArrowDown");
  await shows(bob, [["Todo", ["Two"]], ["Done", ["One", "Three"]]]);

  // The last first.
  await ada.keyboard.press("Control+z");
  await shows(bob, [["Todo", ["Two"]], ["Done", ["Three", "One"]]]);
  for (const _ of [1, 2]) await ada.getByRole("button", { name: "Undo" }).click();
  await shows(bob, [["Todo", ["Two", "Three"]], ["Done", ["One"]]]);

  await openCard(ada, "Two");
  await dialog(ada).getByRole("button", { name: "Archive this card" }).click();
  await shows(bob, [["Todo", ["Three"]], ["Done", ["One"]]]);
  await ada.getByRole("button", { name: "Undo" }).click();
  await shows(bob, [["Todo", ["Two", "Three"]], ["Done", ["One"]]]);

  await ada.getByLabel("Find cards").fill("thr");
  assert.deepEqual(await ada.locator(".card:not([hidden]) .open").allTextContents(), ["Three"]);
  await closeAll();
});

test("whose rights are taken away while typing sees the board no more, and keeps the text", async () => {
  const [ada, bob] = await board("away", "Rights", ["bob"]);
  await openCard(bob, "One");
  await dialog(bob).getByLabel("A comment").fill("This was not sent");
  await until("Ada sees it", async () => (await ada.locator(".facts .others").textContent().catch(() => "")) === "bob is writing");
  await ada.getByRole("button", { name: "Share" }).click();
  await dialog(ada).getByRole("button", { name: "Remove bob" }).click();
  await closeDialog(ada);
  await until("the card is gone from Bob", async () => (await bob.getByText("not there any more").count()) > 0);
  assert.equal(await dialog(bob).getByLabel("A comment").inputValue(), "This was not sent");
  assert.equal(await dialog(bob).getByRole("button", { name: "Comment", exact: true }).isDisabled(), true);
  await closeDialog(bob);
  await until("Bob has no board", async () => (await bob.locator("[data-list]").count()) === 0);
  assert.deepEqual(server.sqlite("comments", "SELECT text FROM comments").flat().filter(({ text }) => text === "This was not sent"), []);
  await until("Ada sees that Bob is gone from the card", async () => (await ada.locator(".facts .others").count()) === 0);
  await closeAll();
});

test("whose rights are taken away while sharing is told so in front of the page", async () => {
  const [ada, bob] = await board("sharing", "Sharing", ["bob"]);
  await ada.getByRole("button", { name: "Share" }).click();
  await dialog(ada).getByLabel("What bob may do").selectOption("owner");
  await bob.getByRole("button", { name: "Share" }).click();
  await dialog(ada).getByLabel("What bob may do").selectOption("editor");
  await until("Bob is an editor", async () => (await dialog(bob).getByLabel("What bob may do").inputValue()) === "editor");
  await dialog(bob).getByRole("button", { name: "Make a link" }).click();
  await until("Bob is told", async () => (await dialog(bob).locator(".messages").allTextContents()).join().includes("Only who owns"));
  assert.equal(await dialog(bob).getByLabel("The link").count(), 0);
  await closeAll();
});

test("what is being written stays when others change the card, and undo leaves what others did", async () => {
  const [ada, bob] = await board("writing", "Writing", ["bob"]);
  await openCard(ada, "One");
  await dialog(ada).getByLabel("Description").pressSequentially("Half a sen");
  await openCard(bob, "One");
  await dialog(bob).getByRole("button", { name: "idea" }).click();
  await until("Ada sees the label", async () => (await dialog(ada).locator("[data-label=idea][aria-pressed=true]").count()) === 1);
  assert.equal(await dialog(ada).getByLabel("Description").inputValue(), "Half a sen");
  await dialog(ada).getByLabel("Description").pressSequentially("tence");
  // A click beside it: what was written is saved, and a comment that was begun is there again.
  await dialog(ada).getByLabel("A comment").fill("Begun");
  await ada.mouse.click(5, 400);
  await until("Bob sees the text", async () => (await dialog(bob).getByLabel("Description").inputValue()) === "Half a sentence");
  await openCard(ada, "One");
  assert.equal(await dialog(ada).getByLabel("A comment").inputValue(), "Begun");
  await closeDialog(ada);

  // Bob writes after Ada: her undo is not of what he wrote.
  await dialog(bob).getByLabel("Description").fill("Bob's");
  await closeDialog(bob);
  await until("SQLite has it", () => server.sqlite("cards", "SELECT text FROM cards").flat().some(({ text }) => text === "Bob's"));
  await until("Ada has it", async () => {
    await openCard(ada, "One");
    const text = await dialog(ada).getByLabel("Description").inputValue();
    await closeDialog(ada);
    return text === "Bob's";
  });
  await ada.getByRole("button", { name: "Undo" }).click();
  await until("Ada is told", async () => (await ada.locator(".messages").textContent()).includes("changed since"));
  assert.ok(server.sqlite("cards", "SELECT text FROM cards").flat().some(({ text }) => text === "Bob's"));

  // A list into which others have put something stays.
  await add(ada, "A new list's title", "Later");
  await until("Bob sees the list", async () => (await bob.locator("[data-list]").count()) === 3);
  await add(bob, "A new card in Later", "Of Bob's");
  await until("Ada sees the card", async () => (await ada.getByRole("button", { name: "Of Bob's", exact: true }).count()) === 1);
  await ada.getByRole("button", { name: "Undo" }).click();
  await until("the list is still there", async () => (await ada.locator(".messages p").count()) >= 2);
  assert.equal(await ada.locator("[data-list]").count(), 3);

  // What was put away is found again.
  await openCard(bob, "Of Bob's");
  await dialog(bob).getByRole("button", { name: "Archive this card" }).click();
  await ada.getByRole("button", { name: "Archive", exact: true }).click();
  await dialog(ada).getByRole("button", { name: "Put back" }).click();
  await until("Bob sees it again", async () => (await bob.getByRole("button", { name: "Of Bob's", exact: true }).count()) === 1);
  await closeAll();
});

test("who has logged in beside another does not send what that one has done", async () => {
  const [ada] = await board("beside", "Two of us");
  await server.down("SIGKILL");
  await phase(ada, "offline");
  await add(ada, "A new card in Done", "Ada's own");
  // In another tab of the same browser, before Ada's is back.
  const context = ada.context();
  await context.setOffline(true);
  await server.up();
  await context.request.post(`${server.url}/login`, { data: { name: "bob", password: passwords.bob }, headers: { origin: server.url } });
  await context.setOffline(false);
  await until("Ada's page asks who she is", async () => (await ada.getByLabel("Password").count()) === 1, 60_000);
  assert.ok(!server.sqlite("cards", "SELECT title FROM cards").flat().some(({ title }) => title === "Ada's own"));
  await ada.getByLabel("Password").fill(passwords.ada);
  await ada.getByRole("button", { name: "Log in" }).click();
  await live(ada);
  await until("SQLite has it", () => server.sqlite("cards", "SELECT title FROM cards").flat().some(({ title }) => title === "Ada's own"));
  assert.deepEqual(server.sqlite("edits", "SELECT DISTINCT by FROM edits JOIN cards ON cards.id = edits.card WHERE title = 'Ada''s own'").flat().map(({ by }) => by), ["ada"]);
  await closeAll();
});

test("a picture is for who may see its card", async () => {
  const folder = mkdtempSync(join(tmpdir(), "partysync-"));
  const file = join(folder, "dot.png");
  const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
  writeFileSync(file, Buffer.from(png, "base64"));
  const [ada, bob] = await board("pictures", "Pictures", ["bob"]);
  const grace = await user("pictures", "grace");
  await openCard(bob, "One");
  await dialog(bob).locator("input[type=file]").setInputFiles(file);
  const image = ada.locator(".card img");
  const source = await until("Ada sees it", () => image.getAttribute("src", { timeout: 100 }).catch(() => null));
  assert.ok(await until("it is loaded", () => image.evaluate((image) => image.complete && image.naturalWidth === 1)));
  const status = (page) => page.evaluate(async (source) => (await fetch(source, { cache: "no-store" })).status, source);
  assert.equal(await status(ada), 200);
  assert.equal(await status(grace), 404);
  const card = await ada.locator(".card").first().getAttribute("data-card");
  const put = (page, type) =>
    page.evaluate(
      async ([card, type]) =>
        (await fetch(`/parties/teams/pictures/images/${card}`, { method: "PUT", headers: { "content-type": type }, body: "x" })).status,
      [card, type],
    );
  assert.equal(await put(grace, "image/png"), 403);
  assert.equal(await put(bob, "image/svg+xml"), 415);
  await dialog(bob).getByRole("button", { name: "Remove the picture" }).click();
  await until("it is gone", async () => (await image.count()) === 0);
  assert.equal(await status(ada), 404);
  rmSync(folder, { recursive: true });
  await closeAll();
});

test("what was done without a network is done when it is back, and all of it is in the activity", async () => {
  const [ada, bob] = await board("offline", "Away", ["bob"]);
  await bob.evaluate(() => navigator.serviceWorker.ready);
  await server.down("SIGKILL");
  await phase(bob, "offline");
  await add(bob, "A new card in Done", "Made without a network");
  await shows(bob, [["Todo", ["One", "Two", "Three"]], ["Done", ["Made without a network"]]]);
  // The page is there without a network, too.
  await bob.reload();
  await shows(bob, [["Todo", ["One", "Two", "Three"]], ["Done", ["Made without a network"]]]);
  await server.up();
  await live(bob);
  await live(ada);
  await shows(ada, await shown(bob));
  await ada.getByRole("button", { name: "Activity" }).click();
  await until("the activity says so", async () => (await dialog(ada).getByText("bob changed the card “Made without a network”").count()) > 0);
  await closeAll();
});

/** Picks one, by numbers that are the same each time. */
function random(seed) {
  let state = seed;
  return (list) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return list[Math.floor((state / 2_147_483_648) * list.length)];
  };
}

test("after random use by six windows, with kills, all show what SQLite has and nobody is left over", async () => {
  const rounds = Number(process.env.BOARD_ROUNDS ?? 120);
  const pick = random(7);
  const windows = await board("random", "Six", ["bob", "grace"]);
  for (const name of ["ada", "bob", "grace"]) windows.push(await user("random", name));
  for (const page of windows) await shows(page, [["Todo", ["One", "Two", "Three"]], ["Done", []]]);
  const steps = {
    async add(page, n) {
      await add(page, `A new card in ${pick(["Todo", "Done"])}`, `Card ${n}`);
    },
    async move(page) {
      const grips = page.locator(".grip");
      const count = await grips.count();
      if (count === 0) return;
      const key = pick(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]);
      // Somebody may have moved it meanwhile.
      const there = await grips.nth(pick([...Array(count).keys()])).focus({ timeout: 1_000 }).then(() => true, () => false);
      if (there) await page.keyboard.press(key);
    },
    async undo(page) {
      await page.evaluate(() => document.activeElement?.blur());
      await page.keyboard.press("Control+z");
    },
    async label(page) {
      const cards = page.locator(".open");
      const count = await cards.count();
      if (count === 0) return;
      const opened = await cards.nth(pick([...Array(count).keys()])).click({ timeout: 1_000 }).then(() => true, () => false);
      if (!opened) return;
      await dialog(page).getByRole("button", { name: pick(["bug", "idea", "design"]) }).click({ timeout: 2_000 }).catch(() => {});
      await page.keyboard.press("Escape");
      await until("it is closed", async () => (await dialog(page).count()) === 0);
    },
    async point(page) {
      await page.mouse.move(pick([300, 500, 700, 900]), pick([200, 300, 400]));
    },
    async reload(page) {
      await page.reload();
      await until("the board is shown", async () => (await page.locator("[data-list]").count()) === 2);
    },
  };
  const often = ["add", "move", "move", "move", "undo", "label", "point", "point", "reload"];
  const kills = [Math.floor(rounds / 3), Math.floor((2 * rounds) / 3)];
  for (let n = 0; n < rounds; n++) {
    if (kills.includes(n)) {
      await server.down("SIGKILL");
      await server.up();
    }
    await steps[pick(often)](pick(windows), n);
  }
  for (const page of windows) {
    await page.mouse.move(1, 1);
    await live(page);
  }
  const rows = () => {
    const cards = `SELECT l.title AS list, c.title FROM cards AS c JOIN lists AS l ON l.id = c.list JOIN boards AS b ON b.id = c.board
      WHERE b.title = 'Six' AND NOT c.archived ORDER BY c.position, c.id`;
    const found = server.sqlite("cards", cards).flat();
    return ["Todo", "Done"].map((list) => [list, found.filter((row) => row.list === list).map((row) => row.title)]);
  };
  for (const page of windows) {
    await until("nothing is pending", async () => (await page.locator(".pending").count()) === 0);
    await shows(page, rows());
    // Each sees the five others, and no more.
    await until("the others are here", async () => (await page.locator(".people li").count()) === 5);
    assert.deepEqual((await page.locator(".people .heard").allTextContents()).length, 5);
  }
  await windows[5].context().close();
  opened.delete(windows[5].context());
  for (const page of windows.slice(0, 5)) await until("one is gone", async () => (await page.locator(".people li").count()) === 4);
  await closeAll();
});
