// The tables of `cargo xtask bench queries`.

import { writeBetween } from "./report.mjs";

const VIEWS = {
  newest: "the 50 newest that are open",
  author: "with their authors",
  count: "with their number of comments",
  comments: "with their 3 newest comments",
  one: "one issue with its comments",
  page: "the second 50",
};

const micros = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en-US"));

export function queriesTable(systems) {
  const lines = [
    "| µs | ours, native | ours, wasm | Rindle | TanStack DB | wasm against Rindle | against TanStack |",
    "|---|---:|---:|---:|---:|---|---|",
  ];
  for (const what of ["first", "hydrate", "pair"]) {
    for (const [view, text] of Object.entries(VIEWS)) {
      const of = (system) => systems[system][view][what];
      const times = (system) => `**${(of(system) / of("wasm")).toFixed(1)}**`;
      const row = [`${what}: ${text}`, ...["native", "wasm", "rindle", "tanstack"].map((system) => micros(of(system))), times("rindle"), times("tanstack")];
      lines.push(`| ${row.join(" | ")} |`);
    }
  }
  return lines.join("\n");
}

const STEPS = {
  send: "an action that changes a row",
  answer: "the frame that answers it",
  foreign: "a frame with a row that another client has changed",
  conflict: "the same, of a row that a pending action has changed",
  custom: "a custom action that updates ten rows by their keys",
  custom_answer: "the frame that answers it",
  clear: "a custom action of `delete_where`, ten rows fit",
  clear_foreign: "a frame while that is pending",
  clear_answer: "the frame that answers it",
};

export function manyTable({ native, wasm, chromium, ...size }) {
  const pending = size.pending.toLocaleString("en-US");
  const lines = [
    `| µs | native | Node | Chromium | native, ${pending} pending | Node, ${pending} pending | Chromium, ${pending} pending |`,
    "|---|---:|---:|---:|---:|---:|---:|",
  ];
  for (const [step, text] of Object.entries(STEPS)) {
    const figures = [native.alone, wasm.alone, chromium.alone, native.crowded, wasm.crowded, chromium.crowded].map((of) => of[step]);
    lines.push(`| ${[text, ...figures.map((value) => (value == null ? "" : micros(value)))].join(" | ")} |`);
  }
  const bytes = (value) => `${Math.round(value)} bytes`;
  lines.push("", `A row of ${bytes(native.row_json_bytes)} as JSON takes ${bytes(native.row_bytes)} natively, and ${bytes(native.index_bytes)} in the indexes of the three queries.`);
  return lines.join("\n");
}

export function writeQueriesDocs(systems, many) {
  writeBetween("<!-- queries:begin -->", "<!-- queries:end -->", queriesTable(systems));
  writeBetween("<!-- many:begin -->", "<!-- many:end -->", manyTable(many));
}
