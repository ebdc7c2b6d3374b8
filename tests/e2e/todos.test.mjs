// The todo app as an app: long lists, its states, the keyboard, undo, several lists, and what it does
// without a network. Times are measured by `cargo xtask bench client`; here is what they come from.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";
import { Front } from "./front.mjs";
import { Client, Server, until } from "./harness.mjs";
import { add, allTexts, item, launch, nothingPending, offline, openPage, phase, profile, shows, texts } from "./page.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

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

/** A window of its own on a room. */
async function open(room, options = {}) {
  const context = await browser.newContext({ viewport: { width: 800, height: 640 }, ...options });
  const page = await openPage(context, server, room);
  await phase(page, "live");
  return page;
}

/** Somebody else puts so many todos into a list, of which each tenth is done. */
async function fill(room, count) {
  const client = await Client.join(`${server.ws}/parties/todos/${room}`);
  for (let from = 0; from < count; from += 200) {
    const actions = Array.from({ length: Math.min(200, count - from) }, (_, n) => {
      const id = `000000000000-${String(from + n).padStart(5, "0")}`;
      const payload = { id, text: `Todo ${from + n}`, completed: (from + n) % 10 === 0 };
      return { seq: ++client.seq, channel: "todos", action: { type: "create", payload } };
    });
    client.send({ type: "push", actions });
    await client.next("an answer", (f) => f.acks?.some((ack) => ack.seq === client.seq && !ack.code));
  }
  await client.close();
}

/** Notes what changes in the page's document from now on; gives what tells of it. */
async function watch(page) {
  await page.evaluate(() => {
    window.mutations = [];
    window.items = new Set(document.querySelectorAll(".todos li"));
    const observer = new MutationObserver((records) => window.mutations.push(...records));
    observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  });
  return () =>
    page.evaluate(() => {
      const of = ({ target }) => (target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement);
      const texts = window.mutations.map((record) => of(record)?.closest("li")?.querySelector(".text")?.textContent);
      return {
        count: window.mutations.length,
        items: [...new Set(texts.filter(Boolean))],
        gone: [...window.items].filter((item) => !item.isConnected).length,
        come: [...document.querySelectorAll(".todos li")].filter((item) => !window.items.has(item)).length,
      };
    });
}

/** Timers of this length ring when the test says so: `window.ring()` tells how many have. */
const holdTimers = (context, length) =>
  context.addInitScript((length) => {
    const { setTimeout, clearTimeout } = window;
    const timers = new Map();
    let last = 0;
    window.setTimeout = (ring, ms, ...values) => {
      if (ms !== length) return setTimeout(ring, ms, ...values);
      timers.set((last -= 1), ring);
      return last;
    };
    window.clearTimeout = (timer) => timers.delete(timer) || clearTimeout(timer);
    window.ring = () => [...timers.values()].map((ring) => ring()).length;
  }, length);

const mounted = (page) => page.locator(".todos li").count();
const focused = (page) => page.evaluate(() => document.activeElement.ariaLabel ?? document.activeElement.textContent);
const focusIs = (page, wanted) => until(`the focus is on ${wanted}`, async () => (await focused(page)) === wanted);
const state = (page, name) => page.locator(`.empty[data-state="${name}"]`);

/** What toggling a todo and typing change in a page, with this many todos in its list. */
async function work(room, count) {
  await fill(room, count);
  const page = await open(room);
  await until("the first are there", async () => (await mounted(page)) >= 100);
  const session = await page.context().newCDPSession(page);
  await session.send("Emulation.setCPUThrottlingRate", { rate: 4 });
  const [name, number] = [`Todo ${count - 2}`, (count * 9) / 10];
  assert.equal(await page.locator(".count").textContent(), `${number} left`);

  let changes = await watch(page);
  await page.getByRole("checkbox", { name, exact: true }).click();
  await page.locator("li.done:not(.pending)", { hasText: name }).waitFor();
  await page.locator(".count", { hasText: `${number - 1} left` }).waitFor();
  await phase(page, "live");
  const toggled = await changes();

  changes = await watch(page);
  await page.getByLabel("What needs to be done?").pressSequentially("Something");
  const typed = await changes();
  assert.equal(await page.getByLabel("What needs to be done?").inputValue(), "Something");
  assert.deepEqual(page.problems, []);
  return { page, name, toggled, typed };
}

test("in a list of 10,000 as many are mounted as are looked at, and a toggle changes as little as in a short one", async () => {
  const short = await work("short", 200);
  const long = await work("long", 10_000);
  for (const { page, name, toggled, typed } of [short, long]) {
    assert.ok((await mounted(page)) <= 200, `${await mounted(page)} are mounted`);
    assert.deepEqual([toggled.items, toggled.gone, toggled.come], [[name], 0, 0]);
    assert.deepEqual([typed.items, typed.gone, typed.come], [[], 0, 0]);
  }
  assert.ok(long.toggled.count <= short.toggled.count + 2, `${long.toggled.count} changes, ${short.toggled.count} in a short list`);
  assert.ok(long.toggled.count <= 20, `${long.toggled.count} changes`);
  assert.equal(long.typed.count, 0);

  // What was scrolled to stays, and the same nodes show it.
  const { page } = long;
  const session = await page.context().newCDPSession(page);
  await session.send("Emulation.setCPUThrottlingRate", { rate: 1 });
  let before = await mounted(page);
  for (let n = 0; n < 5; n += 1) {
    const changes = await watch(page);
    await page.locator(".todos li").last().scrollIntoViewIfNeeded();
    await until("more are mounted", async () => (await mounted(page)) > before);
    assert.equal((await changes()).gone, 0);
    before = await mounted(page);
  }
  assert.ok(before >= 600 && before <= 1_000, `${before} are mounted`);
  const last = `Todo ${10_000 - 550}`;
  await item(page, last).getByRole("checkbox").click();
  await until("the counts are right", async () => /^\d+ left$/.test(await page.locator(".count").textContent()));
  assert.equal(await mounted(page), before);
  // A new one is on top.
  await page.getByLabel("What needs to be done?").press("Enter");
  await until("it is the first", async () => (await page.locator(".todos .text").first().textContent()) === "Something");
  // Of others there are fewer, and all of them.
  await page.getByRole("button", { name: "Done", exact: true }).click();
  await until("only those that are done are shown", async () => (await page.locator(".todos li:not(.done)").count()) === 0);
  const done = await allTexts(page);
  assert.equal(done[0], "Todo 0");
  assert.ok(Math.abs(done.length - 1_000) <= 2, `${done.length} are done`);
  assert.deepEqual([short.page.problems, page.problems], [[], []]);
});

test("on its way, nothing, nothing here and an error are told apart, also without a network", async () => {
  const { context, page } = await profile(browser, server, "states");
  await state(page, "empty").getByText("Nothing to do yet.").waitFor();
  await page.getByRole("button", { name: "Done", exact: true }).click();
  await state(page, "none").getByText("Nothing here.").waitFor();
  await offline(server, page);
  // What is known is known without a network, too.
  const known = await openPage(context, server, "states");
  await state(known, "empty").waitFor();
  const unknown = await openPage(context, server, "never opened");
  await state(unknown, "unknown").getByText("You are offline").waitFor();
  assert.equal(await unknown.getByText("Nothing").count(), 0);
  assert.equal(await unknown.locator(".count").textContent(), "");
  await add(unknown, "Made all the same");
  await shows(unknown, ["Made all the same"]);
  assert.equal(await unknown.locator(".empty").count(), 0);
  await server.up();
  await unknown.evaluate(() => window.dispatchEvent(new Event("online")));
  await phase(unknown, "live");
  await nothingPending(unknown);
  assert.equal(await unknown.locator(".count").textContent(), "1 left");
  await context.close();

  // A server that answers nothing yet.
  const waiting = await browser.newContext();
  const slow = await waiting.newPage();
  await slow.routeWebSocket(/parties/, () => {});
  await slow.goto(`${server.url}/#slow`);
  await state(slow, "loading").getByText("Loading…").waitFor();
  assert.equal(await slow.getByText("Nothing").count(), 0);
  await waiting.close();

  // One that refuses.
  const refusing = await browser.newContext();
  const refused = await refusing.newPage();
  await refused.routeWebSocket(/parties/, (ws) => ws.close({ code: 4403, reason: "not yours" }));
  await refused.goto(`${server.url}/#refused`);
  await state(refused, "failed").getByText("not yours").waitFor();
  await refusing.close();
});

test("that something is being saved is not seen before it takes a while", async () => {
  const context = await browser.newContext();
  await holdTimers(context, 600);
  const page = await context.newPage();
  let held = null;
  await page.routeWebSocket(/parties/, (ws) => {
    const up = ws.connectToServer();
    up.onMessage((message) => (held ? held.push(() => ws.send(message)) : ws.send(message)));
  });
  await page.goto(`${server.url}/#calm`);
  await phase(page, "live");
  held = [];
  await add(page, "Slow");
  await phase(page, "saving");
  assert.equal(await page.locator(".pill").textContent(), "Live");
  const mark = () =>
    page.locator("li.pending .text").evaluate((text) => {
      const { transitionDelay, visibility } = getComputedStyle(text, "::after");
      return `${transitionDelay} ${visibility}`;
    });
  await until("it is seen after a while", async () => (await mark()) === "0.6s visible");
  assert.equal(await page.evaluate(() => window.ring()), 1);
  await page.locator(".pill", { hasText: "Saving" }).waitFor();
  const opacity = await page.locator("li.pending .text").evaluate((e) => getComputedStyle(e).opacity);
  assert.equal(opacity, "1");
  held.splice(0).forEach((send) => send());
  held = null;
  await page.locator(".pill", { hasText: "Live" }).waitFor();
  await phase(page, "live");
  await nothingPending(page);
  await context.close();
});

test("the focus is never lost: not after an edit, a deletion, or a toggle that takes a todo from view", async () => {
  const page = await open("focus");
  for (const text of ["Three", "Two", "One"]) await add(page, text);
  await shows(page, ["Three", "Two", "One"]);
  for (const key of ["Enter", "Escape"]) {
    await page.getByRole("button", { name: "Two", exact: true }).focus();
    await page.keyboard.press("Enter");
    await focusIs(page, "Text");
    await page.keyboard.press(key);
    await focusIs(page, "Two");
  }
  await page.getByRole("button", { name: "Active" }).click();
  await page.getByRole("checkbox", { name: "Two" }).focus();
  await page.keyboard.press("Space");
  await focusIs(page, "Three");
  await page.getByRole("button", { name: "All" }).click();
  await page.getByRole("checkbox", { name: "Two" }).press("Space");
  await focusIs(page, "Two");
  await page.getByRole("button", { name: "Delete Two" }).focus();
  await page.keyboard.press("Enter");
  await focusIs(page, "Three");
  await page.keyboard.press("Tab");
  await focusIs(page, "Delete Three");
  await page.keyboard.press("Enter");
  await focusIs(page, "One");
  // An edit that leaves nothing deletes.
  await page.keyboard.press("Enter");
  await page.getByLabel("Text", { exact: true }).fill("  ");
  await page.keyboard.press("Enter");
  await focusIs(page, "What needs to be done?");
  await shows(page, []);
  // Without a text there is nothing to add.
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Add" }).click();
  assert.equal(await page.locator(".toasts p[data-kind=error]").count(), 0);
  await state(page, "empty").waitFor();
  assert.deepEqual(page.problems, []);
});

test("a screen reader hears that the network is gone and back, and errors, and nothing of what is saved", async () => {
  const page = await open("heard");
  await page.evaluate(() => {
    window.heard = [];
    for (const region of document.querySelectorAll("[role=status], [role=alert], [aria-live]")) {
      const note = () => window.heard.push(region.textContent);
      new MutationObserver(note).observe(region, { subtree: true, childList: true, characterData: true });
    }
  });
  await add(page, "Quiet");
  await item(page, "Quiet").getByRole("checkbox", { name: "Quiet", exact: true }).check();
  await nothingPending(page);
  await phase(page, "live");
  await offline(server, page);
  await add(page, "Quiet, too");
  await server.up();
  await phase(page, "live");
  await nothingPending(page);
  const heard = () => page.evaluate(() => window.heard.filter((text, n, all) => text !== all[n - 1]));
  assert.deepEqual(await heard(), ["Offline", "Back online"]);
});

test("what is deleted can be taken back, and is where it was", async () => {
  const [a, b] = [await open("undo"), await open("undo")];
  for (const text of ["One", "Milk", "Three"]) await add(a, text);
  await item(a, "Milk").getByRole("checkbox").check();
  await shows(b, ["One", "Milk", "Three"]);
  const rows = () => server.sqlite("todos", "SELECT id, text, completed FROM todos WHERE deleted_at IS NULL ORDER BY id");
  const before = await until("SQLite has them", () => rows().find((room) => room.some((row) => row.text === "Milk" && row.completed)));

  await item(a, "Milk").hover();
  await a.getByRole("button", { name: "Delete Milk" }).click();
  await shows(b, ["One", "Three"]);
  const toast = a.locator(".toasts p");
  assert.match(await toast.textContent(), /^Deleted “Milk”\.\s*Undo/);
  await toast.getByRole("button", { name: "Undo" }).click();
  for (const page of [a, b]) await shows(page, ["One", "Milk", "Three"]);
  await b.locator("li.done", { hasText: "Milk" }).waitFor();
  assert.equal(await toast.count(), 0);
  assert.deepEqual(rows().find((room) => room.some((row) => row.text === "Milk")), before);

  // All that were done, by keys.
  await item(a, "One").getByRole("checkbox").check();
  await a.getByRole("button", { name: "Clear done" }).click();
  await shows(b, ["Three"]);
  await toast.getByText("Deleted 2 todos.").waitFor();
  await a.keyboard.press("Control+z");
  for (const page of [a, b]) await shows(page, ["One", "Milk", "Three"]);
  // In a field with a text it is the browser's.
  await a.getByRole("button", { name: "Delete Three" }).click();
  await a.getByLabel("What needs to be done?").fill("typing");
  await a.keyboard.press("Control+z");
  await shows(b, ["One", "Milk"]);
  await a.getByLabel("What needs to be done?").fill("");
  await a.keyboard.press("Meta+z");
  await shows(b, ["One", "Milk", "Three"]);
  for (const page of [a, b]) await nothingPending(page);
  assert.deepEqual([...a.problems, ...b.problems], []);
});

/** It is shown that what is dragged would be put there. */
const dropAt = (page, y) =>
  until("the line is there", async () => {
    const line = await page.locator(".drop:not([hidden])").boundingBox();
    return line && Math.abs(line.y + line.height / 2 - y) < 4;
  });
const nothingLifted = (page) =>
  until("nothing is lifted", async () => (await page.locator(".dragged, .drop:not([hidden])").count()) === 0);
const order = async (page) => (await texts(page)).reverse().join(" ");

test("todos are put in order by dragging them and by keys, and everybody sees it", async () => {
  const [a, b] = [await open("order"), await open("order")];
  for (const text of ["Four", "Three", "Two", "One"]) await add(a, text);
  const both = (wanted) => Promise.all([a, b].map((page) => until(wanted, async () => (await order(page)) === wanted)));
  await both("One Two Three Four");
  const handle = (text) => a.getByRole("button", { name: `Move ${text}`, exact: true });
  /** Takes a todo by its handle to the upper or the lower half of another; Escape gives up. */
  const drag = async (text, to, part, end = () => a.mouse.up()) => {
    await item(a, text).hover();
    const from = await handle(text).boundingBox();
    await a.mouse.move(from.x + from.width / 2, from.y + from.height / 2);
    await a.mouse.down();
    const at = await item(a, to).boundingBox();
    await a.mouse.move(at.x + 100, at.y + at.height * part, { steps: 4 });
    await dropAt(a, part < 0.5 ? at.y : at.y + at.height);
    await end();
    await nothingLifted(a);
  };
  await drag("One", "Three", 0.8);
  await both("Two Three One Four");
  await drag("Four", "Two", 0.2);
  await both("Four Two Three One");
  await drag("Two", "Four", 0.2, async () => {
    await a.keyboard.press("Escape");
    await a.mouse.up();
  });
  // By keys, and the focus goes along; at an end there is nowhere to go.
  await handle("One").focus();
  for (const wanted of ["Four Two One Three", "Four One Two Three", "One Four Two Three", "One Four Two Three"]) {
    await a.keyboard.press("ArrowUp");
    await both(wanted);
    await focusIs(a, "Move One");
  }
  assert.equal(await a.locator(".heard").textContent(), "Moved “One” above “Four”");
  await a.keyboard.press("ArrowDown");
  await both("Four One Two Three");

  // Among those that are shown; a new one is on top, and what is deleted comes back where it was.
  await item(a, "One").getByRole("checkbox").check();
  await a.getByRole("button", { name: "Active" }).click();
  await until("only those", async () => (await order(a)) === "Four Two Three");
  await handle("Three").focus();
  await a.keyboard.press("ArrowUp");
  await until("above Two", async () => (await order(a)) === "Four Three Two");
  await a.getByRole("button", { name: "All" }).click();
  await add(a, "Zero");
  await a.getByRole("button", { name: "Delete Three" }).click();
  await a.getByRole("button", { name: "Undo" }).click();
  const all = await until("it is back", async () => (await texts(a)).length === 5 && order(a));
  assert.match(all, /^Zero Four.* Three.* Two$/);
  await both(all);
  for (const page of [a, b]) await nothingPending(page);

  // Two that cannot hear of each other move the same todo: both see the same in the end.
  await server.down("SIGKILL");
  for (const page of [a, b]) await phase(page, "offline");
  await handle("Two").focus();
  await a.keyboard.press("ArrowUp");
  await b.getByRole("button", { name: "Move Zero" }).focus();
  await b.keyboard.press("ArrowDown");
  await server.up();
  for (const page of [a, b]) await page.evaluate(() => window.dispatchEvent(new Event("online")));
  for (const page of [a, b]) await nothingPending(page);
  const last = await order(a);
  await both(last);
  const above = all.split(" ")[all.split(" ").indexOf("Two") - 1];
  assert.ok(last.indexOf("Two") < last.indexOf(above) && last.indexOf("Four") < last.indexOf("Zero"), last);
  assert.deepEqual([...a.problems, ...b.problems], []);
});

test("whoever drags, types or holds a key is not disturbed by others who put the list in order", async () => {
  const [a, b] = [await open("busy"), await open("busy")];
  for (const text of ["Five", "Four", "Three", "Two", "One"]) await add(a, text);
  const both = (wanted) => Promise.all([a, b].map((page) => until(wanted, async () => (await order(page)) === wanted)));
  await both("One Two Three Four Five");
  const handle = (page, text) => page.getByRole("button", { name: `Move ${text}`, exact: true });
  const move = async (text, key, wanted) => {
    await handle(b, text).focus();
    await b.keyboard.press(key);
    await until(wanted, async () => (await order(a)) === wanted);
  };
  const grab = async (text) => {
    await item(a, text).hover();
    const from = await handle(a, text).boundingBox();
    await a.mouse.move(from.x + from.width / 2, from.y + from.height / 2);
    await a.mouse.down();
  };
  const over = async (text, part) => {
    const at = await item(a, text).boundingBox();
    await a.mouse.move(at.x + 100, at.y + at.height * part, { steps: 3 });
    await dropAt(a, part < 0.5 ? at.y : at.y + at.height);
  };
  // What is dragged is moved by somebody else, and the pointer is beside the list in the end.
  await grab("Four");
  await over("Two", 0.2);
  await move("Four", "ArrowDown", "One Two Three Five Four");
  const list = await a.locator(".todos").boundingBox();
  await a.mouse.move(list.x - 60, list.y + 2, { steps: 3 });
  await dropAt(a, list.y);
  await a.mouse.up();
  await nothingLifted(a);
  await both("Four One Two Three Five");
  await item(a, "Four").getByRole("checkbox").check();
  await item(a, "Four").getByRole("checkbox").uncheck();

  // What is dragged is deleted.
  await grab("Five");
  await over("One", 0.8);
  await b.getByRole("button", { name: "Delete Five" }).click();
  await until("it is gone", async () => (await texts(a)).length === 4);
  await nothingLifted(a);
  await a.mouse.up();
  await both("Four One Two Three");
  assert.equal(await a.locator(".toasts p").count(), 0);

  // A second pointer takes nothing, and ends nothing.
  await grab("Three");
  const touch = (type, on) =>
    handle(a, on).evaluate((handle, type) => {
      const init = { pointerId: 77, pointerType: "touch", button: 0, bubbles: true, clientX: 9, clientY: 9 };
      handle.dispatchEvent(new PointerEvent(type, init));
    }, type);
  for (const type of ["pointerdown", "pointermove", "pointerup"]) await touch(type, "One");
  assert.deepEqual(await a.locator(".dragged .text").allTextContents(), ["Three"]);
  await over("Four", 0.2);
  await a.mouse.up();
  await both("Three Four One Two");

  // Somebody who types goes on typing, and nothing of it is saved before the end.
  await item(a, "Two").locator(".text").click();
  await a.keyboard.press("End");
  await a.keyboard.type(" and");
  for (const [key, wanted] of [["ArrowUp", "Three Four One"], ["ArrowUp", "Three Four One"]]) {
    await handle(b, "Two").focus();
    await b.keyboard.press(key);
    assert.equal(await order(a), wanted);
  }
  await until("it has moved", async () => (await a.locator(".todos li").nth(1).locator(".edit").count()) === 1);
  await a.keyboard.type(" more");
  assert.equal(await order(b), "Three Two Four One");
  await a.keyboard.press("Enter");
  await both("Three Two and more Four One");
  // And leaving still saves.
  await item(a, "One").locator(".text").click();
  await a.getByLabel("Text", { exact: true }).fill("Uno");
  await a.getByLabel("What needs to be done?").click();
  await both("Three Two and more Four Uno");

  // A key that is held moves it as often as it comes, and nothing else.
  await handle(a, "Uno").focus();
  await a.evaluate(() => {
    window.pressed = [];
    addEventListener("keydown", (event) => window.pressed.push(event.target.ariaLabel));
  });
  for (let n = 0; n < 3; n += 1) a.keyboard.press("ArrowUp");
  await both("Uno Three Two and more Four");
  assert.deepEqual(await a.evaluate(() => window.pressed), Array(3).fill("Move Uno"));
  for (const page of [a, b]) await nothingPending(page);
  assert.deepEqual([...a.problems, ...b.problems], []);
});

test("todos without a position, or with the same, are put in order like others", async () => {
  const page = await open("ties");
  const client = await Client.join(`${server.ws}/parties/todos/ties`, { channels: { todos: null } });
  const create = (id, text, position) => client.act("todos", "create", { id, text, completed: false, position });
  for (const [id, text] of [["1", "D"], ["2", "C"], ["3", "B"]]) assert.equal((await create(id, text, "a5")).code, undefined);
  await create("4", "A", "a9");
  const is = (wanted) => until(wanted, async () => (await order(page)) === wanted);
  await is("A B C D");
  const handle = (text) => page.getByRole("button", { name: `Move ${text}`, exact: true });
  for (const wanted of ["B A C D", "B C A D", "B C D A"]) {
    await handle("A").focus();
    await page.keyboard.press("ArrowDown");
    await is(wanted);
    await nothingPending(page);
  }
  await handle("D").focus();
  await page.keyboard.press("ArrowUp");
  await is("B D C A");
  const stored = () => server.sqlite("todos", "SELECT text, position FROM todos ORDER BY position DESC").find((rows) => rows.some((row) => row.text === "D"));
  await until("SQLite has it", () => stored()?.map((row) => row.text).join(" ") === "B D C A");
  assert.equal(new Set(stored().map((row) => row.position)).size, 4);
  await client.close();
  assert.deepEqual(page.problems, []);
});

test("a toast stays while it is read, and can be closed", async () => {
  const context = await browser.newContext();
  await holdTimers(context, 8_000);
  const page = await openPage(context, server, "toasts");
  await phase(page, "live");
  for (const text of ["One", "Two", "Three"]) await add(page, text);
  await nothingPending(page);
  const toasts = page.locator(".toasts p");
  const remove = async (text) => {
    await page.getByRole("button", { name: `Delete ${text}` }).click();
    await toasts.getByText(text).waitFor();
  };
  await remove("One");
  const ring = (count) => until(`${count} timers ring`, async () => (await page.evaluate(() => window.ring())) === count);
  await toasts.hover();
  await ring(0);
  await toasts.getByRole("button", { name: "Undo" }).focus();
  await page.mouse.move(0, 0);
  await ring(0);
  assert.equal(await toasts.count(), 1);
  await page.getByLabel("What needs to be done?").focus();
  await ring(1);
  await until("it is gone", async () => (await toasts.count()) === 0);
  await remove("Two");
  await toasts.getByRole("button", { name: "Dismiss" }).press("Enter");
  await until("it is closed", async () => (await toasts.count()) === 0);
  await focusIs(page, "What needs to be done?");
  await context.close();
});

test("there are several lists: the address names one, and the page has those that were seen", async () => {
  const page = await open("Einkauf%20heute");
  await page.getByRole("heading", { name: "Einkauf heute" }).waitFor();
  assert.equal(await page.title(), "Einkauf heute");
  await add(page, "Brot");
  await nothingPending(page);
  // Whoever comes by the name itself comes to the same list.
  const same = await openPage(await browser.newContext(), server, "Einkauf heute");
  await shows(same, ["Brot"]);

  await page.locator("summary").click();
  await page.getByLabel("Name of the new list").fill("Büro/100 %");
  await page.getByRole("button", { name: "New list" }).click();
  await page.getByRole("heading", { name: "Büro/100 %" }).waitFor();
  await shows(page, []);
  await add(page, "Papier");
  await nothingPending(page);
  await page.locator("summary").click();
  await page.getByRole("navigation", { name: "Lists" }).getByRole("link", { name: "Einkauf heute" }).click();
  await shows(page, ["Brot"]);
  await page.goBack();
  await shows(page, ["Papier"]);
  await page.locator("summary").click();
  assert.deepEqual(await page.locator(".panel a").allTextContents(), ["Büro/100 %", "Einkauf heute"]);
  await page.keyboard.press("Escape");
  await until("it is closed", async () => (await page.locator(".lists[open]").count()) === 0);
  assert.equal(await focused(page), "Lists");
  assert.deepEqual([...page.problems, ...same.problems], []);
});

test("a page that the network keeps waiting is shown as it is kept, and is never made of two builds", async () => {
  const front = await Front.start(server);
  const [, first] = /app\.js\?(\w+)/.exec(await (await fetch(server.url)).text());
  /** What the network has: a build's files; it does not answer without one. */
  let build = "first";
  const waiters = [];
  const has = (name) => {
    build = name;
    // A browser asks for an address once at a time.
    waiters.splice(0).forEach((response) => response.destroy());
  };
  const pass = front.pass.bind(front);
  front.pass = async (request, response) => {
    if (!build) return waiters.push(response);
    const url = request.url.split("?")[0];
    if (!["/", "/sw.js", "/app.js"].includes(url)) return pass(request, response);
    const answer = await fetch(server.url + url);
    const text = (await answer.text()).replaceAll(first, build);
    response.writeHead(200, { "content-type": answer.headers.get("content-type") });
    response.end(url === "/app.js" ? `${text}\nwindow.build = "${build}";` : text);
  };
  const context = await browser.newContext();
  const builds = (page) => page.evaluate(async () => (await caches.keys()).join());
  /** Which build a page is of: its JavaScript, and what it asked for. */
  const of = async (page) => {
    await page.locator(".pill").waitFor();
    const files = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => name));
    const asked = files.map((name) => /(?:app\.js|app_bg\.wasm|style\.css)\?(\w+)$/.exec(name)?.[1]).filter(Boolean);
    assert.equal(asked.length, 3, files.join());
    return [...new Set([...asked, await page.evaluate(() => window.build)])].join();
  };
  try {
    const page = await openPage(context, front, "builds");
    await phase(page, "live");
    await page.evaluate(() => navigator.serviceWorker.ready);
    await add(page, "Kept");
    await nothingPending(page);
    await until("it is kept", async () => (await builds(page)) === "todos-first");
    has(null);
    const waiting = await openPage(context, front, "builds");
    await shows(waiting, ["Kept"]);
    assert.equal(await of(waiting), "first");
    await waiting.close();

    // A new build is shown at once, and kept as a whole beside the one before.
    has("second");
    const newer = await openPage(context, front, "builds");
    assert.equal(await of(newer), "second");
    await until("it is kept, too", async () => (await builds(page)) === "todos-first,todos-second");
    await until("it has taken over", () => newer.evaluate(async () => {
      const { installing, waiting, active } = await navigator.serviceWorker.getRegistration();
      return !installing && !waiting && active.state === "activated";
    }));
    has(null);
    const again = await openPage(context, front, "builds");
    assert.equal(await of(again), "second");
    has("third");
    const newest = await openPage(context, front, "builds");
    assert.equal(await of(newest), "third");
    await until("the first is forgotten", async () => (await builds(page)) === "todos-second,todos-third");
    for (const one of [page, newer, again, newest]) assert.deepEqual(one.problems, []);
  } finally {
    await context.close();
    await front.stop();
  }
});

test("it can be installed", async () => {
  const page = await open("install");
  await page.evaluate(() => navigator.serviceWorker.ready);
  const session = await page.context().newCDPSession(page);
  const manifest = await session.send("Page.getAppManifest");
  assert.deepEqual([manifest.errors, JSON.parse(manifest.data).name], [[], "Todos"]);
  const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
  // A profile of its own is private for Chromium.
  const errors = installabilityErrors.map(({ errorId }) => errorId).filter((name) => name !== "in-incognito");
  assert.deepEqual(errors, []);
  await page.context().close();
});

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing wrong with it, ${colorScheme}`, async () => {
    const page = await open(`axe-${colorScheme}`, { colorScheme, reducedMotion: "reduce" });
    const check = async (what) => {
      const violations = await page.evaluate(async () => (await window.axe.run()).violations);
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), [], what);
    };
    await page.addScriptTag({ path: axe });
    await state(page, "empty").waitFor();
    await check("empty");
    for (const text of ["One", "Two", "Three"]) await add(page, text);
    await item(page, "Two").getByRole("checkbox").check();
    await nothingPending(page);
    await check("with todos");
    await item(page, "One").locator(".text").click();
    await page.getByLabel("Text", { exact: true }).waitFor();
    await check("editing");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Delete Three" }).click();
    await page.locator(".toasts p").waitFor();
    await check("with a toast");
    await page.locator("summary").click();
    await check("with the lists");
    await page.setViewportSize({ width: 320, height: 568 });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
    await page.keyboard.press("Escape");
    await offline(server, page);
    await add(page, "Offline");
    await check("offline, on a small phone");
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
    await page.context().close();
  });
}
