// Runs the conformance suite on every store: five in workerd, two natively.
// `node run.mjs [STORE ...]` runs some of them.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../harness.mjs";
import { stores, startStore } from "../streams.mjs";

const TESTS = 338;
const folder = join(root, "tests/e2e/conformance");

/** Most of the suite's time is waiting: two may wait together. */
const AT_ONCE = 2;

async function suite(store) {
  const server = await startStore(store);
  const results = mkdtempSync(join(tmpdir(), "conformance-"));
  const file = join(results, "results.json");
  try {
    const args = ["run", "--root", folder, "--testTimeout=30000", "--reporter=json", `--outputFile=${file}`];
    const vitest = spawn(join(root, "node_modules/.bin/vitest"), args, {
      env: { ...process.env, BASE: server.url },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [vitest.stdout, vitest.stderr]) stream.on("data", (chunk) => (output += chunk));
    await once(vitest, "exit");
    let report;
    try {
      report = JSON.parse(readFileSync(file, "utf8"));
    } catch {
      throw new Error(`the suite did not run on ${store}:\n${output}`);
    }
    const all = report.testResults.flatMap((result) => result.assertionResults);
    const passed = all.filter((test) => test.status === "passed").length;
    for (const test of all.filter((test) => test.status !== "passed")) {
      console.log(`✖ ${store}: ${test.fullName} (${test.status})`);
      console.log(test.failureMessages.join("\n").slice(0, 2_000));
    }
    console.log(`${store}: ${passed} of ${all.length} passed`);
    // One that is skipped, or missing, is not passed.
    return passed === TESTS && all.length === TESTS;
  } finally {
    await server.stop();
    rmSync(results, { recursive: true, force: true });
  }
}

const wanted = process.argv.length > 2 ? process.argv.slice(2) : stores;
const waiting = [...wanted];
let failed = 0;
async function worker() {
  for (let store = waiting.shift(); store; store = waiting.shift()) {
    const good = await suite(store).catch((error) => console.log(`✖ ${store}: ${error.message}`));
    if (!good) failed += 1;
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, worker));
console.log(`${wanted.length - failed} of ${wanted.length} stores passed all ${TESTS} tests`);
process.exit(failed ? 1 : 0);
