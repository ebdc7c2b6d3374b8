// How much a page works for an input: on its own thread, in Chromium's trace of it.

import { median } from "./report.mjs";

const CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline"];
/** How long after an input what it leads to is looked for: the server's answer, and what is stored. */
const AFTER = 1_000;

/** The events of the thread on which the page's scripts run, in the order in which they began. */
function mainThread({ traceEvents }, type) {
  const own = traceEvents.find(({ name, args }) => name === "EventDispatch" && args.data?.type === type);
  if (!own) throw new Error(`no \`${type}\` in the trace`);
  const of = traceEvents.filter(({ pid, tid, dur }) => pid === own.pid && tid === own.tid && dur !== undefined);
  return { input: own, events: of.sort((a, b) => a.ts - b.ts) };
}

/** How much of a task is within this time, as the processor's time: other programs' is not in it. */
const within = ({ ts, dur, tdur = dur }, from, to) =>
  dur === 0 ? 0 : (Math.max(0, Math.min(ts + dur, to) - Math.max(ts, from)) * tdur) / dur;

/**
 * What the page does for an input, in ms: `frame` is what its thread works from the event to the end
 * of the frame that shows what the event changed, script, style, layout and paint, and `longest` its
 * longest task from the event until a second later. Waiting for the next frame is not work.
 */
async function measure(browser, tab, type, act) {
  await browser.startTracing(tab, { categories: CATEGORIES });
  await act();
  await tab.waitForTimeout(AFTER);
  const trace = JSON.parse(await browser.stopTracing());
  const { input, events } = mainThread(trace, type);
  const tasks = events.filter(({ name }) => name === "RunTask");
  const commit = events.find(({ name, ts }) => name === "Commit" && ts > input.ts + input.dur);
  if (!commit) throw new Error("no frame after the input");
  const end = commit.ts + commit.dur;
  const sum = tasks.reduce((sum, task) => sum + within(task, input.ts, end), 0);
  const longest = Math.max(...tasks.map((task) => within(task, input.ts, input.ts + AFTER * 1_000)));
  return { frame: sum / 1_000, longest: longest / 1_000 };
}

/** A page with as many boxes and a field, and nothing else: what is left is the browser's. */
export const barePage = (lines) => {
  const line = (_, n) => `<li><input type="checkbox"><button>Todo ${n}</button></li>`;
  const list = Array.from({ length: lines }, line).join("");
  return `<!doctype html><label>What needs to be done?<input></label><ul class="todos">${list}</ul>`;
};

/** The medians of toggling todos, and of keys in the form. */
export async function inputs(browser, tab, times) {
  const found = { toggle: [], key: [] };
  const boxes = tab.locator(".todos input[type=checkbox]");
  const field = tab.getByLabel("What needs to be done?");
  for (let n = 0; n < times; n += 1) {
    const { x, y } = await boxes.nth(n).boundingBox();
    found.toggle.push(await measure(browser, tab, "click", () => tab.mouse.click(x + 9, y + 9)));
    await field.focus();
    found.key.push(await measure(browser, tab, "keydown", () => tab.keyboard.press("k")));
  }
  const medians = (list) => ({ frame: median(list.map((one) => one.frame)), longest: median(list.map((one) => one.longest)) });
  return { toggle: medians(found.toggle), key: medians(found.key) };
}
