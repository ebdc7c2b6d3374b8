// The bar chart of a run: how many times as good as the baseline each case is. Plain SVG that
// takes the reader's light or dark colours.

import { times } from "./report.mjs";

const [WIDTH, LABEL, RIGHT, LINE, TOP] = [760, 190, 90, 26, 62];
const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .faint { fill: #57606a; font-size: 11px; }
  .grid { stroke: #d0d7de; }
  .one { stroke: #57606a; stroke-width: 1.5; }
  .plain { fill: #2f81c7; }
  .tracing { fill: #b9c4d0; }
  .spread { stroke: #24292f; stroke-opacity: .55; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .grid { stroke: #30363d; }
    .one { stroke: #9198a1; }
    .plain { fill: #4c9be0; }
    .tracing { fill: #57636f; }
    .spread { stroke: #e6edf3; }
  }`;

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** The chart of these figures: a line for each case, a bar for each mode. */
export function chart(figures) {
  // A worker's size says nothing of its speed, and would set the scale.
  const known = figures.filter((one) => one.ratio != null && one.case !== "sizes_worker");
  const names = [...new Set(known.map((one) => one.case))];
  const both = new Set(known.map((one) => one.mode)).size > 1;
  const all = known.map(times).flatMap(({ min, max }) => [min, max]);
  // A scale of doublings: twice as good is as far to the right as half as good is to the left.
  const from = Math.floor(Math.log2(Math.min(1, ...all)));
  const to = Math.ceil(Math.log2(Math.max(2, ...all)));
  const x = (value) => LABEL + ((Math.log2(value) - from) / (to - from)) * (WIDTH - LABEL - RIGHT);
  const bottom = TOP + names.length * LINE;
  const parts = [];
  for (let power = from; power <= to; power += 1) {
    const at = x(2 ** power).toFixed(1);
    parts.push(`<line class="${power === 0 ? "one" : "grid"}" x1="${at}" x2="${at}" y1="${TOP - 6}" y2="${bottom}"/>`);
    const label = power < 0 ? `1/${2 ** -power}` : `${2 ** power}`;
    parts.push(`<text class="faint" x="${at}" y="${TOP - 12}" text-anchor="middle">${label}×</text>`);
  }
  names.forEach((name, index) => {
    const y = TOP + index * LINE;
    parts.push(`<text x="${LABEL - 10}" y="${y + 16}" text-anchor="end">${escape(name)}</text>`);
    for (const one of known.filter((one) => one.case === name)) {
      const { middle, min, max } = times(one);
      const plain = one.mode === "plain";
      const [top, height] = plain ? [y + 3, both ? 11 : 18] : [y + 15, 7];
      const [left, right] = [x(1), x(middle)].sort((a, b) => a - b);
      const box = `x="${left.toFixed(1)}" y="${top}" width="${Math.max(1, right - left).toFixed(1)}" height="${height}"`;
      parts.push(`<rect class="${one.mode}" ${box} rx="2"/>`);
      if (!plain) continue;
      const line = top + height / 2;
      parts.push(`<line class="spread" x1="${x(min).toFixed(1)}" x2="${x(max).toFixed(1)}" y1="${line}" y2="${line}"/>`);
      const text = `${middle < 10 ? Number(middle.toPrecision(2)) : middle.toFixed(0)}×`;
      parts.push(`<text x="${(x(Math.max(1, middle, max)) + 6).toFixed(1)}" y="${y + 14}">${text}</text>`);
    }
  });
  const second = both ? "; the thin bar below is with wrangler's tracing" : "";
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${bottom + 12}" width="${WIDTH}" height="${bottom + 12}" role="img">
<title>How many times as good as the baseline</title>
<style>${STYLE}
</style>
<text class="title" x="12" y="22">Times as good as the baseline, partyserver in JavaScript</text>
<text class="faint" x="12" y="38">right of 1× ours is better; lines are the spread of the pairs${second}</text>
${parts.join("\n")}
</svg>
`;
}
