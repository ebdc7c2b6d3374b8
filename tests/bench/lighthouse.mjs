// What Lighthouse says of the fixtures' pages, as they are deployed: 95 of 100 is what they are to have.
// `cargo xtask bench lighthouse` runs it; Lighthouse itself comes from npm, into `target/lighthouse`.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { root, Server } from "../e2e/harness.mjs";
import { stop } from "./arguments.mjs";

const VERSION = "13.5.0";
const WANTED = 95;
const folder = join(root, "target/lighthouse", VERSION);
const cli = join(folder, "node_modules/lighthouse/cli/index.js");
if (!existsSync(cli)) {
  mkdirSync(folder, { recursive: true });
  execFileSync("npm", ["install", "--no-fund", "--no-audit", "--prefix", folder, `lighthouse@${VERSION}`], { stdio: "inherit" });
}

const pages = { "todo-sync": "/", board: "/" };
const categories = ["performance", "accessibility", "best-practices"];
let worst = 100;
console.log(`| page | device | ${categories.join(" | ")} |`);
console.log("|---|---|---:|---:|---:|");
for (const [fixture, path] of Object.entries(pages)) {
  const server = await Server.start(`fixtures/${fixture}`);
  for (const device of ["desktop", "mobile"]) {
    const args = [cli, server.url + path, "--quiet", "--output=json", `--only-categories=${categories}`];
    args.push("--chrome-flags=--headless=new --no-sandbox --disable-gpu");
    if (device === "desktop") args.push("--preset=desktop");
    const env = { ...process.env, CHROME_PATH: process.env.CHROMIUM };
    const report = JSON.parse(execFileSync(process.execPath, args, { env, maxBuffer: 1e9 }));
    const scores = categories.map((category) => Math.round(report.categories[category].score * 100));
    worst = Math.min(worst, ...scores);
    console.log(`| ${fixture} | ${device} | ${scores.join(" | ")} |`);
  }
  await server.stop();
}
if (worst < WANTED) stop(`${worst} is less than ${WANTED}`);
