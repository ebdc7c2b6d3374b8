// What `cargo xtask bench client` found, as tables: on the terminal, and in docs/performance.md
// between its markers.

import { writeBetween } from "./report.mjs";

const BEGIN = "<!-- client:begin -->";
const END = "<!-- client:end -->";

const ms = (value) => `${Math.round(value).toLocaleString("en-US")} ms`;
const kib = (bytes) => `${Math.round(bytes / 1024).toLocaleString("en-US")} KiB`;
const tenths = (value) => `${value.toFixed(1)} ms`;
const micros = (value) => `${value.toFixed(1)} µs`;

const processor = (rate) => (rate === 1 ? "as it is" : `${rate} times slower`);
const source = { network: "the network", stored: "IndexedDB" };

/** The tables, in Markdown. */
export function clientTable({ rows, todos, rounds, native, sizes, loads, todoPage, mounted }) {
  const [count, shown, pending] = [rows, todos, native.pending].map((n) => n.toLocaleString("en-US"));
  const longest = (load) => (load.long === 0 ? "under 50 ms" : `${ms(load.longest)} (${load.long} over 50 ms)`);
  return [
    `${count} rows in a page without a framework, in Chromium; medians of ${rounds}:`,
    "",
    "| processor | rows from | first rows | live | stored | longest task |",
    "|---|---|---:|---:|---:|---|",
    ...loads.map((load) => {
      const cells = [load.first, load.live, load.stored].map(ms).join(" | ");
      return `| ${processor(load.rate)} | ${source[load.from]} | ${cells} | ${longest(load)} |`;
    }),
    "",
    `The todo app with ${shown} todos, from its address to the first hundred of them in the page:`,
    "",
    "| processor | from the network | from IndexedDB |",
    "|---|---:|---:|",
    ...todoPage.map((one) => `| ${processor(one.rate)} | ${ms(one.network)} | ${ms(one.stored)} |`),
    "",
    "and what it works for an input, with all of them in the list, beside a page with as many boxes,",
    "a field, no style and no script:",
    "",
    "| processor | page | toggle to frame | its longest task | key to frame | its longest task |",
    "|---|---|---:|---:|---:|---:|",
    ...todoPage.flatMap(({ rate, bare, ...todo }) =>
      Object.entries({ "the todo app": todo, "boxes and a field": bare }).map(([page, { toggle, key }]) => {
        const cells = [toggle.frame, toggle.longest, key.frame, key.longest].map(tenths).join(" | ");
        return `| ${processor(rate)} | ${page} | ${cells} |`;
      }),
    ),
    "",
    `A todo that is mounted takes ${mounted.wasm.toLocaleString("en-US")} bytes of the wasm's memory and ${mounted.js.toLocaleString("en-US")} of`,
    `the heap of JavaScript (${mounted.count.toLocaleString("en-US")} of them were).`,
    "",
    "Natively:",
    "",
    "| | |",
    "|---|---:|",
    `| \`send\` with 10 actions pending | ${micros(native.send_10_us)} |`,
    `| \`send\` with ${pending} actions pending | ${micros(native.send_many_us)} |`,
    `| ${pending} actions taken over, each on a row of its own | ${ms(native.adopt_ms)} |`,
    `| ${pending} actions taken over, all on one row | ${ms(native.adopt_one_row_ms)} |`,
    `| ${native.rows.toLocaleString("en-US")} rows caught up | ${ms(native.load_ms)} |`,
    `| memory for a row of ${Math.round(native.row_json_bytes)} bytes as JSON | ${Math.round(native.row_bytes)} bytes |`,
    `| wasm and its JavaScript, gzipped: a client alone | ${kib(sizes.page)} |`,
    `| the todo app, with Leptos and queries | ${kib(sizes.todo)} |`,
  ].join("\n");
}

/** Writes the tables of a whole run into docs/performance.md. */
export const writeClientDocs = (figures) => writeBetween(BEGIN, END, clientTable(figures));
