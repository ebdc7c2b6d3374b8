// A client of many rows with three views of them: what actions and frames cost, natively and as
// wasm, with few and with many actions pending.

import { execFileSync } from "node:child_process";
import { median } from "../report.mjs";

/** The rounds, and how many of each. */
const rounds = ({ rounds, clears }) => [["update", rounds], ["conflict", rounds], ["custom", rounds], ["clear", clears]];

/** The medians of what rounds measure, in µs. */
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
  return Object.fromEntries(Object.entries(times).map(([name, list]) => [name, median(list)]));
}

/** What a program and a wasm module measure; both have to show the same in the end. */
export function measureMany(program, module, smoke) {
  const size = smoke ? { rows: 2_000, pending: 50, rounds: 10, clears: 2 } : { rows: 100_000, pending: 1_000, rounds: 400, clears: 5 };
  const native = JSON.parse(execFileSync(program, Object.values(size).map(String), { maxBuffer: 1 << 26 }));
  const bench = new module.ManyBench(size.rows);
  const alone = measure(bench, rounds(size));
  bench.fill(size.pending);
  const crowded = measure(bench, rounds(size).slice(0, 3));
  const result = bench.result();
  if (result !== JSON.stringify(native.result)) throw new Error("many rows: native and wasm show different rows");
  return { ...size, native, wasm: { alone, crowded } };
}
