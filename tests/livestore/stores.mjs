// Stores of LiveStore's full client, in processes: twenty are too much for one, and a store without a
// connection does not end when it is told to.

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { onExit } from "../e2e/harness.mjs";

const program = fileURLToPath(new URL("./app/process.mjs", import.meta.url));

export class Process {
  /** A process that ends with its test. */
  constructor(t) {
    this.calls = [];
    // As apps run: outside of production LiveStore does more for each event.
    this.child = fork(program, { execArgv: [], env: { ...process.env, NODE_ENV: "production" } });
    this.child.on("message", ({ call, value, error }) => {
      const [resolve, reject] = this.calls[call];
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    });
    const ended = once(this.child, "exit").then(([code]) => {
      for (const [, reject] of this.calls) reject(new Error(`its process ended with ${code}`));
    });
    const forget = onExit(() => this.child.kill("SIGKILL"));
    t.after(async () => {
      this.child.kill("SIGKILL");
      await ended;
      forget();
    });
  }

  ask(name, options) {
    return new Promise((resolve, reject) => {
      const call = this.calls.push([resolve, reject]) - 1;
      this.child.send({ call, name, ...options }, (error) => error && reject(error));
    });
  }

  /** A store that syncs with a server; in memory without a folder. */
  async open(server, storeId, clientId, folder) {
    const at = await this.ask("open", { url: server.ws, storeId, clientId, folder });
    return {
      add: (...names) => this.ask("add", { at, names }),
      count: () => this.ask("count", { at }),
      ids: () => this.ask("ids", { at }),
      ended: () => this.ask("ended", { at }),
    };
  }
}
