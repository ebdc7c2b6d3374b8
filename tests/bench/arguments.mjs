// What the benchmarks' command lines have in common.

/** Ends with an error. */
export function stop(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}

/** How often something is measured: what the option of this name says, or once for `--smoke`. */
export function repeats(name, options) {
  const count = options.smoke ? 1 : Number(options[name]);
  if (!Number.isInteger(count) || count < 1) stop(`--${name} wants a number from 1`);
  return count;
}

/** The names of the cases that are wanted, or of all. */
export function chosen(cases, { cases: wanted }) {
  const names = wanted?.split(",") ?? Object.keys(cases);
  for (const name of names) if (!cases[name]) stop(`there is no case \`${name}\`: ${Object.keys(cases).join(", ")}`);
  return names;
}
