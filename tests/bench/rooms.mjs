// How fast rooms are: the todo worker against the baseline, a worker in JavaScript, under the same
// wrangler, pair by pair. `cargo xtask bench rooms` runs it; docs/performance.md tells about it.

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { chosen, repeats, stop } from "./arguments.mjs";
import { cases, fill, isRate, once, scales } from "./cases.mjs";
import { chart } from "./chart.mjs";
import { profile } from "./profile.mjs";
import { median, modes, table, writeDocs } from "./report.mjs";
import { Side, knowsCpu, temporaryFolder, uploadSize } from "./servers.mjs";

const { values: options } = parseArgs({
  options: {
    pairs: { type: "string", default: "5" },
    cases: { type: "string" },
    json: { type: "string" },
    svg: { type: "string" },
    tracing: { type: "boolean" },
    "no-tracing": { type: "boolean" },
    profile: { type: "boolean" },
    smoke: { type: "boolean" },
    "write-docs": { type: "boolean" },
  },
});
const pairs = repeats("pairs", options);
if (options.tracing && options["no-tracing"]) stop("--tracing and --no-tracing exclude each other");
const names = chosen(cases, options);
if (options["write-docs"] && (options.cases || options.smoke || options.tracing || options["no-tracing"])) {
  stop("--write-docs wants all cases in both modes");
}
const scale = options.smoke ? scales.small : scales.full;

/** Where each side's rooms are; tables that are filled once serve both modes. */
const data = { ours: temporaryFolder(), baseline: temporaryFolder() };

async function withSides(tracing, body) {
  const started = [];
  try {
    for (const name of ["ours", "baseline"]) started.push(await Side.start(name, data[name], { tracing }));
    return await body(Object.fromEntries(started.map((side) => [side.name, side])));
  } finally {
    await Promise.all(started.map((side) => side.stop()));
  }
}

/** Fills the tables that cases read, without tracing: it would take many minutes. */
async function fillTables() {
  const wanted = new Set(names.map((name) => cases[name].filled).filter(Boolean));
  if (wanted.size === 0) return;
  await withSides(false, (sides) =>
    Promise.all(
      Object.values(sides).map(async (side) => {
        for (const name of wanted) await fill(side, name, scale.rows[name]);
      }),
    ),
  );
}

/** One case on one side; what goes wrong is a result as well. */
async function attempt(name, side, round) {
  try {
    return await once(name, side, scale, round);
  } catch (error) {
    const died = await side.revive();
    return { failed: `${error.message}${died ? "; the server had to be started anew" : ""}` };
  }
}

/** All pairs of all cases in one mode. */
async function run(mode, pairs) {
  const found = Object.fromEntries(names.map((name) => [name, { ours: [], baseline: [] }]));
  await withSides(mode === "tracing", async (sides) => {
    for (let pair = 0; pair < pairs; pair += 1) {
      for (const name of names) {
        // Who goes first changes, so that neither always has the warmer machine.
        const order = pair % 2 ? ["baseline", "ours"] : ["ours", "baseline"];
        for (const which of order) found[name][which].push(await attempt(name, sides[which], `${mode}-${pair}`));
        const said = ["ours", "baseline"].map((which) => {
          const { value, failed } = found[name][which][pair];
          return `${which} ${failed ?? value.toFixed(1)}`;
        });
        console.error(`${mode} ${pair + 1}/${pairs} ${name}: ${said.join(", ")} (${cases[name].unit})`);
      }
    }
  });
  return names.map((name) => figure(name, mode, found[name]));
}

/** What is said of a case: medians, and the spread of the pairs' ratios. */
function figure(name, mode, { ours, baseline }) {
  const { unit, per } = cases[name];
  const of = (list, key) => {
    const known = list.map((one) => one[key]).filter((value) => value != null);
    return known.length ? median(known) : null;
  };
  const ratios = ours.flatMap((one, pair) => (one.failed || baseline[pair].failed ? [] : [one.value / baseline[pair].value]));
  const result = {
    case: name,
    mode,
    unit,
    better: isRate(unit) ? "higher" : "lower",
    baseline: of(baseline, "value"),
    ours: of(ours, "value"),
    ratio: ratios.length ? median(ratios) : null,
    ratio_min: ratios.length ? Math.min(...ratios) : null,
    ratio_max: ratios.length ? Math.max(...ratios) : null,
    pairs: ours.length,
  };
  if (per && knowsCpu) {
    Object.assign(result, { cpu_per: per, cpu_baseline_us: of(baseline, "cpu"), cpu_ours_us: of(ours, "cpu") });
  }
  for (const key of ["bytes", "snapshotBytes", "receivers", "reconnects"]) {
    if (ours.some((one) => one[key] != null)) {
      Object.assign(result, { [`${key}_baseline`]: of(baseline, key), [`${key}_ours`]: of(ours, key) });
    }
  }
  const failed = { ours: ours.filter((one) => one.failed), baseline: baseline.filter((one) => one.failed) };
  for (const [which, list] of Object.entries(failed)) {
    if (list.length) Object.assign(result, { [`failed_${which}`]: `${list.length} of ${ours.length}: ${list[0].failed}` });
  }
  return result;
}

/** The size of what is deployed: the same in every pair. */
function workerSizes() {
  const [ours, baseline] = [uploadSize("ours"), uploadSize("baseline")];
  const ratio = ours / baseline;
  const unit = "bytes, gzipped";
  return { case: "sizes_worker", mode: "plain", unit, better: "lower", baseline, ours, ratio, ratio_min: ratio, ratio_max: ratio, pairs: 1 };
}

/** Ends the process if a figure is missing: each case fails by itself if an action or a change is. */
function check(figures) {
  for (const one of figures) {
    const missing = ["baseline", "ours", "ratio"].filter((key) => !(one[key] > 0));
    if (knowsCpu && one.cpu_per && !(one.cpu_ours_us >= 0 && one.cpu_baseline_us >= 0)) missing.push("cpu");
    if (missing.length || one.failed_ours || one.failed_baseline) {
      stop(`${one.mode} ${one.case} lacks something (${missing.join(", ")}): ${JSON.stringify(one)}`);
    }
  }
}

if (options.profile) {
  const name = options.cases ? names[0] : "frames_of_32";
  console.log(await profile(name, temporaryFolder(), scale));
  process.exit(0);
}

const begun = Date.now();
await fillTables();
const figures = [];
// The second table says how many statements there are: three pairs do.
const tracedPairs = options.tracing ? pairs : Math.min(pairs, 3);
if (!options.tracing) figures.push(...(await run("plain", pairs)));
if (names.includes("sizes")) figures.push(workerSizes());
if (!options["no-tracing"] && !options.smoke) figures.push(...(await run("tracing", tracedPairs)));
figures.sort((a, b) => modes.indexOf(a.mode) - modes.indexOf(b.mode));

for (const mode of modes) {
  const those = figures.filter((one) => one.mode === mode);
  if (those.length) console.log(`\n${table(mode, those)}`);
}
console.log(`\n${((Date.now() - begun) / 60_000).toFixed(1)} minutes`);
if (options.json) writeFileSync(options.json, `${JSON.stringify(figures, null, 2)}\n`);
if (options.svg) writeFileSync(options.svg, chart(figures));
if (options["write-docs"]) writeDocs(figures);
if (options.smoke) {
  check(figures);
  console.log("smoke: all figures are there");
}
