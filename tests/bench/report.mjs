// What a run found, as tables: on the terminal, and in docs/performance.md between its markers.

import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { root } from "../e2e/harness.mjs";
import { chart } from "./chart.mjs";

export const modes = ["plain", "tracing"];

/** What the machine was busy with before we began: more than a little of it spoils the figures. */
const [load] = loadavg();

export const median = (list) => {
  const sorted = list.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

const BEGIN = "<!-- bench:begin -->";
const END = "<!-- bench:end -->";
const titles = {
  plain: "Without wrangler's tracing",
  tracing: "With wrangler's defaults",
};

const number = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
const format = (value) => (value == null ? "–" : number.format(value));

/** How many times as fast as the baseline, or as small: above 1 ours is better. */
export function times({ better, ratio, ratio_min: min, ratio_max: max }) {
  if (ratio == null) return null;
  return better === "higher" ? { middle: ratio, min, max } : { middle: 1 / ratio, min: 1 / max, max: 1 / min };
}

const fixed = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0));

function row(one) {
  const found = times(one);
  const better = found ? `**${fixed(found.middle)}** (${fixed(found.min)} to ${fixed(found.max)})` : "–";
  const cpu = one.cpu_per ? `${format(one.cpu_baseline_us)} / ${format(one.cpu_ours_us)} µs ${/^[aeiou]/.test(one.cpu_per) ? "an" : "a"} ${one.cpu_per}` : "";
  return `| \`${one.case}\` | ${format(one.baseline)} | ${format(one.ours)} | ${one.unit} | ${better} | ${cpu} |`;
}

/** What is beside the table: what failed, and what the bytes are. */
function notes(figures) {
  const lines = [];
  for (const one of figures) {
    for (const which of ["ours", "baseline"]) {
      const failed = one[`failed_${which}`];
      if (failed) lines.push(`- \`${one.case}\`, ${which}, fails: ${failed.replaceAll("|", "\\|")}`);
    }
    if (one.reconnects_ours) lines.push(`- \`${one.case}\`: ${one.reconnects_ours} connections of ours were lost and made anew.`);
    if (one.snapshotBytes_ours) {
      const [ours, baseline] = [one.bytes_ours, one.bytes_baseline].map(format);
      const [whole, wholeBaseline] = [one.snapshotBytes_ours, one.snapshotBytes_baseline].map(format);
      lines.push(
        `- \`${one.case}\`: ours is sent ${ours} bytes instead of the snapshot's ${whole}, the baseline ${baseline} instead of ${wholeBaseline}.`,
      );
    }
  }
  return lines;
}

/** The table of one mode, in Markdown. */
export function table(mode, figures) {
  const pairs = Math.max(...figures.map((one) => one.pairs));
  const head = [
    `### ${titles[mode]}`,
    "",
    `Medians of ${pairs} ${pairs === 1 ? "pair" : "pairs"}; the smallest and the largest ratio of a pair in parentheses.`,
    "",
    "| case | baseline | ours | unit | times as good | server CPU, baseline / ours |",
    "|---|---:|---:|---|---|---|",
  ];
  const below = notes(figures);
  return [...head, ...figures.map(row), ...(below.length ? ["", ...below] : [])].join("\n");
}

const version = (name) => JSON.parse(readFileSync(join(root, "node_modules", name, "package.json"), "utf8")).version;

/** Writes a text between two markers of docs/performance.md. */
export function writeBetween(begin, end, written) {
  const page = join(root, "docs/performance.md");
  const text = readFileSync(page, "utf8");
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`docs/performance.md lacks its markers ${begin} and ${end}`);
  writeFileSync(page, `${text.slice(0, from)}${begin}\n\n${written}\n\n${text.slice(to)}`);
}

/** Ours against LiveStore's own backend, in Markdown. */
export function livestoreTable(figures, pairs) {
  const head = [
    `Medians of ${pairs} ${pairs === 1 ? "pair" : "pairs"}; the smallest and the largest ratio of a pair in parentheses.`,
    "",
    "| case | LiveStore's | ours | unit | times as good |",
    "|---|---:|---:|---|---|",
  ];
  const line = (one) => {
    const { middle, min, max } = times(one);
    return `| \`${one.case}\` | ${format(one.baseline)} | ${format(one.ours)} | ${one.unit} | **${fixed(middle)}** (${fixed(min)} to ${fixed(max)}) |`;
  };
  return [...head, ...figures.map(line)].join("\n");
}

export const writeLivestoreDocs = (figures, pairs) =>
  writeBetween("<!-- livestore:begin -->", "<!-- livestore:end -->", livestoreTable(figures, pairs));

/** Writes the tables and the chart of a whole run into docs/. */
export function writeDocs(figures) {
  const names = ["wrangler", "workerd", "partyserver"];
  const on =
    `Measured with ${names.map((name) => `${name} ${version(name)}`).join(", ")} and Node ${process.versions.node}, ` +
    `on ${process.platform} with ${availableParallelism()} processors that the server shares with the clients; ` +
    `the machine's load average when the run began was ${load.toFixed(1)}.`;
  const tables = modes.map((mode) => table(mode, figures.filter((one) => one.mode === mode)));
  writeBetween(BEGIN, END, [on, ...tables].join("\n\n"));
  writeFileSync(join(root, "docs/images/performance.svg"), chart(figures));
}
