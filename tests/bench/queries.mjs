// What live queries cost: six views of an issue tracker, asked for from scratch, and kept through
// pairs of a row that comes and goes. Ours natively and as wasm, beside TanStack DB and Rindle, in
// this Node and run; a row counts when all show the same. Then a client of many rows with three
// views, ours alone. `cargo xtask bench queries` runs it; docs/performance.md tells about it.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { stop } from "./arguments.mjs";
import { manyTable, queriesTable, writeQueriesDocs } from "./queries-report.mjs";
import { measureMany } from "./queries/many.mjs";
import { pairs, tracker } from "./queries/tracker.mjs";

const { values: options } = parseArgs({
  options: { smoke: { type: "boolean" }, "write-docs": { type: "boolean" } },
});
const { BENCH_NATIVE: native, BENCH_MANY: nativeMany, BENCH_PAGE: page } = process.env;
if (!native || !nativeMany || !page) stop("cargo xtask bench queries builds what this measures, and runs it");
if (options["write-docs"] && options.smoke) stop("--write-docs wants the whole tracker");

const data = tracker(options.smoke ? 0.05 : 1);
const [hydrations, count] = options.smoke ? [3, 10] : [15, 200];
const work = pairs(data, count);
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
const cells = (rows) => rows.map(Object.values);
const positional = { users: cells(data.users), issues: cells(data.issues), comments: cells(data.comments) };

const module = await import(pathToFileURL(join(page, "app.js")));
module.initSync({ module: readFileSync(join(page, "app_bg.wasm")) });

/** Ours as wasm, as a page has it. */
function wasm() {
  const bench = new module.Bench(JSON.stringify(positional));
  return {
    hydrate(view) {
      bench.hydrate(view);
      return {
        prepare: (rows) => bench.prepare(JSON.stringify(rows.map(([table, row]) => ({ table, row: Object.values(row) })))),
        result: () => JSON.parse(bench.result()),
        close: () => bench.forget(),
      };
    },
    add: () => bench.step(),
    remove: () => bench.step(),
  };
}

/** The medians of a system's times for each view, in µs, and what it shows. */
async function measure(system) {
  const figures = {};
  for (const view of Object.keys(work)) {
    let live;
    const hydrate = [];
    for (let n = 0; n <= hydrations; n += 1) {
      live?.close();
      const begun = performance.now();
      live = system.hydrate(view);
      hydrate.push(1_000 * (performance.now() - begun));
    }
    // Indexes are made, which the others find.
    const first = hydrate.shift();
    const result = JSON.stringify(live.result());
    live.prepare?.(work[view]);
    const pair = [];
    for (const [table, row] of work[view]) {
      const begun = performance.now();
      await system.add(table, row);
      live.read?.();
      await system.remove(table, row);
      live.read?.();
      pair.push(1_000 * (performance.now() - begun));
    }
    if (JSON.stringify(live.result()) !== result) throw new Error(`${view} is another after pairs of add and remove`);
    live.close();
    figures[view] = { first, hydrate: median(hydrate), pair: median(pair), result };
  }
  return figures;
}

const rows = Object.entries(work).map(([view, list]) => [view, list.map(([table, row]) => ({ table, row: Object.values(row) }))]);
const input = JSON.stringify({ rows: positional, views: rows, hydrations });
const natively = JSON.parse(execFileSync(native, { input, maxBuffer: 1 << 28 }));
for (const figures of Object.values(natively)) figures.result = JSON.stringify(figures.result);
const systems = { native: natively };
systems.wasm = await measure(wasm());
for (const file of ["tanstack", "rindle"]) {
  const { open } = await import(`./queries/${file}.mjs`);
  systems[file] = await measure(await open(data));
}
for (const view of Object.keys(work)) {
  const [first, ...others] = Object.values(systems).map((figures) => figures[view].result);
  if (others.some((other) => other !== first)) throw new Error(`${view} is not the same in all of them`);
}
const many = await measureMany(nativeMany, module, page, options.smoke);
console.log(`${queriesTable(systems)}\n\n${manyTable(many)}`);
if (options["write-docs"]) writeQueriesDocs(systems, many);
