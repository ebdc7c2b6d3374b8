// The table of `cargo xtask bench queries`.

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

export const writeQueriesDocs = (systems) => writeBetween("<!-- queries:begin -->", "<!-- queries:end -->", queriesTable(systems));
