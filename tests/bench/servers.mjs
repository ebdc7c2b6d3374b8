// The two workers under the same wrangler: starting them, what CPU they use, how large they are.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Server, onExit, root, until } from "../e2e/harness.mjs";
import { V1, V2 } from "./clients.mjs";

export const fixtures = { ours: "fixtures/todo-sync", baseline: "tests/bench/baseline" };

/** CPU times of processes are in /proc: systems other than Linux go without. */
export const knowsCpu = process.platform === "linux";
const TICK_US = knowsCpu ? 1_000_000 / Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" })) : 0;

/** A folder that goes when this process ends. */
export function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), "partysync-"));
  onExit(() => rmSync(folder, { recursive: true, force: true, maxRetries: 10 }));
  return folder;
}

/** One of the two, served. */
export class Side {
  #pid = null;

  /** `name` is ours or baseline; `tracing` leaves wrangler's local observability on. */
  static async start(name, data, { tracing, inspector }) {
    const side = new Side();
    side.name = name;
    side.data = data;
    const env = tracing ? {} : { X_LOCAL_OBSERVABILITY: "false" };
    side.server = await Server.start(fixtures[name], { data, env, inspector });
    return side;
  }

  /** A client of a room that is not connected yet: v2 where the server has it, unless told not to. */
  client(room, { v1 = false } = {}) {
    const Wire = this.name === "ours" && !v1 ? V2 : V1;
    return new Wire(`${this.server.ws}/parties/todos/${room}`);
  }

  stop() {
    return this.server.stop();
  }

  /** The workerd that runs the worker: of those that wrangler started the one with the rooms open. */
  #worker() {
    const folder = join(this.data, "v3/do");
    const open = (pid) => {
      try {
        if (readFileSync(`/proc/${pid}/comm`, "utf8").trim() !== "workerd") return false;
        const files = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
        return files.some((file) => file.startsWith(folder));
      } catch {
        // It has ended meanwhile, or is another user's.
        return false;
      }
    };
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).find(open);
  }

  /** CPU time that the worker's process has used until now, in microseconds; null where unknown. */
  cpu() {
    if (!knowsCpu) return null;
    this.#pid ??= this.#worker();
    if (!this.#pid) return null;
    // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
    const fields = readFileSync(`/proc/${this.#pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ");
    return (Number(fields[11]) + Number(fields[12])) * TICK_US;
  }

  /** Waits until it has done what is left from before. */
  async quiet() {
    if (!knowsCpu) return;
    let before = this.cpu();
    let since = Date.now();
    await until("the server is quiet", () => {
      if (Date.now() - since < 100) return false;
      const now = this.cpu();
      const calm = now - before <= TICK_US;
      [before, since] = [now, Date.now()];
      return calm;
    }, 120_000);
  }

  /** Starts it again if it no longer answers. */
  async revive() {
    const answers = await fetch(`${this.server.url}/`, { signal: AbortSignal.timeout(10_000) }).catch(() => null);
    if (answers?.status === 200) return false;
    this.#pid = null;
    await this.server.down();
    await this.server.up();
    return true;
  }
}

/** The gzipped size in bytes of what `wrangler deploy` would upload. */
export function uploadSize(name) {
  const folder = mkdtempSync(join(tmpdir(), "partysync-"));
  try {
    execFileSync(join(root, "node_modules/.bin/wrangler"), ["deploy", "--dry-run", "--outdir", folder], {
      cwd: join(root, fixtures[name]),
      env: { ...process.env, WRANGLER_SEND_METRICS: "false" },
      stdio: ["ignore", "ignore", "inherit"],
    });
    const files = readdirSync(folder).filter((file) => /\.(js|mjs|wasm)$/.test(file));
    return files.reduce((sum, file) => sum + gzipSync(readFileSync(join(folder, file)), { level: 9 }).length, 0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
