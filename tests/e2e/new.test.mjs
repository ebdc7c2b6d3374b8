// An application of one's own, from the template: made in an empty folder, tested, developed, and built
// for its deployment. What is compiled is shared with the repository, as its versions are.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { root, Server } from "./harness.mjs";
import { launch } from "./page.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const env = { ...process.env, CARGO_TARGET_DIR: join(root, "target"), WRANGLER_SEND_METRICS: "false" };

/** Runs a program to its end; gives what it printed. */
async function run(cwd, program, ...args) {
  const { stdout, stderr } = await promisify(execFile)(program, args, { cwd, env, maxBuffer: 1 << 26 });
  return stdout + stderr;
}

/** Does it, and says how long it took. */
async function timed(context, what, body) {
  const start = Date.now();
  const result = await body();
  context.diagnostic(`${what}: ${((Date.now() - start) / 1000).toFixed(1)} s`);
  return result;
}

let folder, app, browser, server;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), "partysync-new-"));
  app = join(folder, "my-notes");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
});

function edit(file, from, to) {
  const path = join(app, file);
  const text = readFileSync(path, "utf8");
  assert.ok(text.includes(from), `${file} has no ${from}`);
  writeFileSync(path, text.replace(from, to));
}

test("a name that no worker can have, and a folder that is not empty, are refused", async () => {
  await assert.rejects(run(root, "cargo", "xtask", "new", "My Notes", "--at", app), /cannot be the name of a worker/);
  await assert.rejects(run(root, "cargo", "xtask", "new", "my-notes", "--at", root), /is not empty/);
  await assert.rejects(run(root, "cargo", "xtask", "new", "my-notes"), /where is it to be/);
});

test("an application is made, installed, and its tests pass", async (t) => {
  await run(root, "cargo", "xtask", "new", "my-notes", "--at", app);
  await timed(t, "setup", () => run(app, "cargo", "xtask", "setup"));
  const said = await timed(t, "cargo test", () => run(app, "cargo", "test"));
  assert.match(said, /3 passed/);
  await run(app, "cargo", "fmt", "--all", "--check");
});

test("what is edited is in the page, and so is what does not compile", async (t) => {
  server = await timed(t, "wrangler dev, first", () =>
    Server.start(app, { args: ["--live-reload"], env: { ...env, PARTYSYNC_PROFILE: "" }, patience: 900_000 }),
  );
  const page = await browser.newPage();
  await page.goto(server.url);
  const heading = (text) => page.getByRole("heading", { name: text, exact: true }).waitFor({ timeout: 300_000 });
  await heading("Notes");
  await page.getByLabel("A new note").fill("Buy milk");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByText("Saved", { exact: true }).waitFor();

  await timed(t, "an edit of the page", async () => {
    edit("web/src/lib.rs", `<h1>"Notes"</h1>`, `<h1>"My notes"</h1>`);
    await heading("My notes");
  });
  await timed(t, "an error", async () => {
    edit("web/src/lib.rs", `<h1>"My notes"</h1>`, `<h1>{notse}</h1>`);
    await heading("It does not compile");
  });
  await page.getByText("cannot find value `notse`").waitFor();
  await timed(t, "its repair", async () => {
    edit("web/src/lib.rs", `<h1>{notse}</h1>`, `<h1>"Our notes"</h1>`);
    await heading("Our notes");
  });
  await timed(t, "an edit of the worker and of the types", async () => {
    edit("worker/src/lib.rs", "text.trim().is_empty()", `text.contains("milk")`);
    edit("worker/src/lib.rs", "A note needs some text", "No milk today");
    edit("shared/src/lib.rs", "MAX_TEXT: usize = 1_000", "MAX_TEXT: usize = 40");
    await page.locator(`input[maxlength="40"]`).first().waitFor({ timeout: 300_000 });
  });
  // What was written before is there, and the new worker answers.
  const note = page.getByLabel("Note", { exact: true });
  assert.equal(await note.inputValue(), "Buy milk");
  await note.fill("Buy oat milk");
  await note.press("Enter");
  await page.getByRole("alert").getByText("No milk today").waitFor();
  assert.equal(await note.inputValue(), "Buy milk");
  // What is refused is no error of the worker's.
  assert.doesNotMatch(server.output, /wasm-bindgen/);
});

test("a change that the server does not know is kept, tried again, and discarded", async () => {
  const context = await browser.newContext();
  let known = false;
  await context.routeWebSocket(/parties/, (ws) => {
    const up = ws.connectToServer();
    ws.onMessage((text) => up.send(known ? text : text.replaceAll('"type":"add"', '"type":"was_renamed"')));
  });
  const page = await context.newPage();
  await page.goto(server.url);
  const add = async (text) => {
    await page.getByLabel("A new note").fill(text);
    await page.getByRole("button", { name: "Add" }).click();
    await page.getByRole("status").getByText("1 change could not be saved").waitFor();
    await page.getByRole("listitem").getByText(text, { exact: true }).waitFor();
  };
  const none = () => page.locator(".given-up li").waitFor({ state: "detached" });
  await add("Buy bread");
  await page.addScriptTag({ path: axe });
  const violations = await page.evaluate(async () => (await window.axe.run()).violations);
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
  known = true;
  await page.getByRole("button", { name: "Try again: Buy bread" }).click();
  await none();
  await page.getByRole("button", { name: "Remove Buy bread" }).waitFor();
  await page.getByText("Saved", { exact: true }).waitFor();
  known = false;
  await add("Buy jam");
  await page.getByRole("button", { name: "Discard: Buy jam" }).click();
  await none();
  await context.close();
});

test("what is deployed is built to be small", async (t) => {
  await server.stop();
  server = null;
  const dry = ["wrangler", "deploy", "--dry-run", "--outdir", join(folder, "dry-run")];
  const said = await timed(t, "deploy --dry-run", () => run(app, "npx", ...dry));
  assert.match(said, /env\.NOTES \(Notes\)/);
  assert.ok(statSync(join(app, "web/dist/app_bg.wasm")).size < 1_200_000);
  assert.ok(statSync(join(app, "worker/build/index_bg.wasm")).size < 850_000);
});
