// Servers of Durable Streams over each store, for tests.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, freePort, onExit, root, until } from "./harness.mjs";

/** In workerd, and natively. */
export const workerStores = ["memory", "sqlite", "d1", "kv", "r2"];
export const stores = [...workerStores, "native-memory", "native-sqlite"];

/** The native server, built by `cargo xtask test`. */
class Native {
  static async start(sqlite) {
    const server = new Native();
    server.data = mkdtempSync(join(tmpdir(), "partysync-"));
    server.port = await freePort();
    server.args = ["--port", String(server.port), "--local-webhooks"];
    if (sqlite) server.args.push("--file", join(server.data, "streams.db"));
    await server.up();
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async up() {
    const profile = process.env.STREAMS_PROFILE ?? "debug";
    this.child = spawn(join(root, "target", profile, "examples/streams"), this.args, { stdio: ["ignore", "ignore", "inherit"] });
    this.forget = onExit(() => this.child?.kill("SIGKILL"));
    await until("the server answers", async () => {
      if (this.child.exitCode !== null) throw new Error("the server ended");
      return fetch(`${this.url}/`).then(() => true, () => false);
    });
  }

  async down(signal = "SIGTERM") {
    const ended = once(this.child, "exit");
    this.child.kill(signal);
    await ended;
    this.forget();
    this.child = null;
  }

  async stop() {
    await this.down();
    rmSync(this.data, { recursive: true, force: true });
  }
}

/** A server whose streams are kept in this store. */
export function startStore(store) {
  if (store.startsWith("native-")) return Native.start(store === "native-sqlite");
  return Server.start("fixtures/streams", { vars: { STORE: store, LOCAL_WEBHOOKS: "yes" } });
}
