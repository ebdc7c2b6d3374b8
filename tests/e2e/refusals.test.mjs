// What a browser's user sees of a server that refuses, fails or is not who it says it is, and that
// nothing is lost by it.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { Front } from "./front.mjs";
import { Server, until } from "./harness.mjs";
import { add, launch, nothingPending, onServer, openPage, phase, shows, storedAll, texts, unsaved } from "./page.mjs";

let server, front, browser;
before(async () => {
  server = await Server.start("fixtures/todo-sync");
  front = await Front.start(server);
  browser = await launch();
});
beforeEach(() => (front.answer = "pass"));
after(async () => {
  await browser?.close();
  await front?.stop();
  await server?.stop();
});

const pill = (page) => page.locator(".pill");
const says = (page, words) =>
  until(`the page says ${words}`, async () => `${await pill(page).textContent()} ${await pill(page).getAttribute("title")}`.includes(words));

/** A page that was live, whose next sockets are answered so. */
async function begun(room, answer) {
  const context = await browser.newContext();
  const page = await openPage(context, front, room);
  await phase(page, "live");
  front.answer = answer;
  return { context, page };
}

async function addThree(page, room) {
  for (const text of ["One", "Two", "Three"]) await add(page, text);
  await storedAll(page, room, 3);
}

/** All is as if nothing had been: each action was done, once. */
async function isWhole(context, page) {
  await phase(page, "live");
  await nothingPending(page);
  await shows(page, ["One", "Two", "Three"]);
  const rows = await onServer(server, "Three");
  assert.deepEqual(rows.map((row) => row.text), ["One", "Two", "Three"]);
  assert.equal(rows[0].version, 3);
  assert.equal(await page.locator(".toasts p").count(), 0);
  assert.deepEqual(page.problems, []);
  await context.close();
}

test("a server that fails at each push costs nothing, and nothing is given up", async () => {
  const { context, page } = await begun("fails", "fails");
  const before = front.pushes;
  await addThree(page, "fails");
  await until("it was pushed eight times", () => front.pushes - before >= 8, 120_000);
  await phase(page, "offline");
  await unsaved(page, 3);
  assert.equal(await page.locator(".toasts p").count(), 0);
  front.answer = "pass";
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
  await isWhole(context, page);
});

// A browser tells a page nothing of an upgrade that was refused.
const refusals = [
  ["401", 401, "offline", "the connection broke"],
  ["403", 403, "offline", "the connection broke"],
  ["404", 404, "offline", "the connection broke"],
  ["4401", { code: 4401, reason: "log in again" }, "refused", "log in again"],
  ["4403", { code: 4403, reason: "not yours" }, "refused", "not yours"],
  ["4404", { code: 4404, reason: "no such list" }, "offline", "no such list"],
  ["4409", { code: 4409, reason: "schema_mismatch" }, "refused", "reload"],
];
for (const [name, answer, where, words] of refusals) {
  test(`a server that answers ${name}: the page says why, and keeps what was not sent`, async () => {
    const room = `refused-${name}`;
    const { context, page } = await begun(room, answer);
    front.sockets.clients.forEach((socket) => socket.terminate());
    await phase(page, where);
    await says(page, words);
    await addThree(page, room);
    assert.deepEqual(await texts(page), ["One", "Two", "Three"]);
    front.answer = "pass";
    // Who was refused looks again when the page is loaded again.
    if (where === "refused") await page.reload();
    await isWhole(context, page);
  });
}

test("credentials that have ended are renewed before the second attempt", async () => {
  const context = await browser.newContext();
  await context.addCookies([{ name: "token", value: "first", url: front.url }]);
  let valid = "first";
  const refused = [];
  front.answer = (request) => {
    const token = /token=(\w+)/.exec(request.headers.cookie ?? "")?.[1];
    if (token === valid) return "pass";
    refused.push(token);
    return { code: 4401, reason: "this token has ended", cookie: `token=${valid}; Path=/` };
  };
  const page = await openPage(context, front, "renewed");
  await phase(page, "live");
  valid = "second";
  front.sockets.clients.forEach((socket) => socket.terminate());
  for (const text of ["One", "Two", "Three"]) await add(page, text);
  await isWhole(context, page);
  assert.deepEqual(refused, ["first"]);
});

test("a server with a wrong certificate is not talked to, and one that is trusted is", async () => {
  const secure = await Server.start("fixtures/todo-sync", { https: true });
  try {
    for (const [trusted, where] of [[true, "live"], [false, "offline"]]) {
      const context = await browser.newContext({ ignoreHTTPSErrors: trusted });
      // The page itself comes from elsewhere then: a browser shows none of such a server.
      if (!trusted) {
        await context.route(`${secure.url}/**`, async (route) => {
          const answer = await fetch(server.url + new URL(route.request().url()).pathname);
          const contentType = answer.headers.get("content-type") ?? undefined;
          await route.fulfill({ status: answer.status, contentType, body: Buffer.from(await answer.arrayBuffer()) });
        });
      }
      const page = await openPage(context, secure, "certificate");
      await phase(page, where);
      if (!trusted) await says(page, "the connection broke");
      await context.close();
    }
  } finally {
    await secure.stop();
  }
});

test("a tab that is refused and stays open lets the others send what a closed one left behind", async () => {
  const context = await browser.newContext();
  front.answer = { code: 4409, reason: "schema_mismatch" };
  const refused = await openPage(context, front, "behind");
  await phase(refused, "refused");
  front.answer = 503;
  const page = await openPage(context, front, "behind");
  await phase(page, "offline");
  await addThree(page, "behind");
  await page.close();
  // It shows them, and does not count them as its own.
  await shows(refused, ["One", "Two", "Three"]);
  assert.doesNotMatch(await pill(refused).textContent(), /not saved/);
  front.answer = "pass";
  const next = await openPage(context, front, "behind");
  await isWhole(context, next);
});
