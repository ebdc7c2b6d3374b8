// A client of many rows with three views of them: what actions and frames cost, natively, and as
// wasm in Node and in Chromium, with few and with many actions pending.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { launch } from "../../e2e/page.mjs";
import { median } from "../report.mjs";

/** The rounds, and how many of each. */
const rounds = ({ rounds, clears }) => [["update", rounds], ["conflict", rounds], ["custom", rounds], ["clear", clears]];

/** How long each step of these rounds takes, in µs. It runs in a page, too. */
function measure(bench, list) {
  const times = {};
  for (const [round, count] of list) {
    for (let n = 0; n < count; n += 1) {
      for (let steps = bench.prepare(round, n); steps > 0; steps -= 1) {
        const name = bench.name();
        const begun = performance.now();
        bench.step();
        (times[name] ??= []).push(1_000 * (performance.now() - begun));
      }
    }
  }
  delete times[""];
  return times;
}

const medians = (times) => Object.fromEntries(Object.entries(times).map(([name, list]) => [name, median(list)]));

/** With few actions pending, and with many; and what is shown in the end. It runs in a page, too. */
function measureBoth(measure, module, { rows, pending }, alone, crowded) {
  const bench = new module.ManyBench(rows);
  const few = measure(bench, alone);
  bench.fill(pending);
  return { alone: few, crowded: measure(bench, crowded), result: bench.result() };
}

const types = { ".js": "text/javascript", ".wasm": "application/wasm" };

/** The same in Chromium, from a page whose clock is as fine as it gets. */
async function inChromium(folder, size, alone, crowded) {
  const files = { "/": "<!doctype html>" };
  for (const name of ["/app.js", "/app_bg.wasm"]) files[name] = readFileSync(join(folder, name));
  const server = createServer(({ url }, response) => {
    response.statusCode = url in files ? 200 : 404;
    response.setHeader("content-type", types[url.slice(url.lastIndexOf("."))] ?? "text/html");
    response.setHeader("cross-origin-opener-policy", "same-origin");
    response.setHeader("cross-origin-embedder-policy", "require-corp");
    response.end(files[url]);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const script = `(async () => {
      const module = await import("/app.js");
      await module.default();
      return (${measureBoth})(${measure}, module, ...${JSON.stringify([size, alone, crowded])});
    })()`;
    return await page.evaluate(script);
  } finally {
    await browser.close();
    server.close();
  }
}

/** What a program, a wasm module and a page measure; all have to show the same in the end. */
export async function measureMany(program, module, folder, smoke) {
  const size = smoke ? { rows: 2_000, pending: 50, rounds: 10, clears: 2 } : { rows: 100_000, pending: 1_000, rounds: 400, clears: 5 };
  const native = JSON.parse(execFileSync(program, Object.values(size).map(String), { maxBuffer: 1 << 26 }));
  const [alone, crowded] = [rounds(size), rounds(size).slice(0, 3)];
  const wasm = measureBoth(measure, module, size, alone, crowded);
  const chromium = await inChromium(folder, size, alone, crowded);
  for (const [name, { result }] of Object.entries({ wasm, chromium })) {
    if (result !== JSON.stringify(native.result)) throw new Error(`many rows: native and ${name} show different rows`);
  }
  const of = (side) => ({ alone: medians(side.alone), crowded: medians(side.crowded) });
  return { ...size, native, wasm: of(wasm), chromium: of(chromium) };
}
