// Servers, sockets and conditions that the end-to-end tests share.

import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import WebSocket from "ws";

export const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

let ports = 0;

/** A port on 127.0.0.1, below those that the system gives out: nobody gets it before its use. */
export async function freePort() {
  for (;;) {
    const port = 10_000 + (process.pid % 200) * 100 + (ports++ % 100);
    const server = createServer().listen(port, "127.0.0.1");
    const free = await new Promise((resolve) => server.once("listening", () => resolve(true)).once("error", () => resolve(false)));
    if (!free) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

/** Asks until `condition` gives something; the deadline is for failing tests only. */
export async function until(what, condition, ms = 30_000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What is answered to GET, with any certificate; null for nothing. */
const status = (url) =>
  new Promise((resolve) => {
    const { get } = url.startsWith("https") ? https : http;
    const request = get(url, { rejectUnauthorized: false }, (response) => resolve(response.resume().statusCode));
    request.on("error", () => resolve(null));
  });

/** What ends the servers that run: none outlives this process, however it ends. What came last goes first. */
const running = new Set();
process.on("exit", () => [...running].reverse().forEach((end) => end()));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** Does this when the process ends; gives what takes that back. */
export function onExit(end) {
  running.add(end);
  return () => running.delete(end);
}

/** A fixture under `wrangler dev`, on a port and a data folder of its own. */
export class Server {
  static async start(fixture, { port, data, vars = {}, env = {}, args = [], patience = 120_000, inspector = 0, https = false } = {}) {
    const server = new Server();
    server.vars = vars;
    server.env = env;
    server.args = args;
    server.patience = patience;
    server.inspector = inspector;
    server.https = https;
    server.folder = resolve(root, fixture);
    server.port = port ?? (await freePort());
    server.ownData = !data;
    server.data = data ?? mkdtempSync(join(tmpdir(), "partysync-"));
    await server.up();
    return server;
  }

  get url() {
    return `${this.https ? "https" : "http"}://127.0.0.1:${this.port}`;
  }

  get ws() {
    return `ws://127.0.0.1:${this.port}`;
  }

  async up() {
    const args = ["dev", "--ip", "127.0.0.1", "--port", String(this.port), "--inspector-port", String(this.inspector)];
    args.push("--persist-to", this.data, "--log-level", "error", "--show-interactive-dev-session=false");
    if (this.https) args.push("--local-protocol", "https");
    args.push(...this.args);
    for (const [name, value] of Object.entries(this.vars)) args.push("--var", `${name}:${value}`);
    const own = join(this.folder, "node_modules");
    const modules = existsSync(join(own, ".bin/wrangler")) ? own : join(root, "node_modules");
    this.child = spawn(join(modules, ".bin/wrangler"), args, {
      cwd: this.folder,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        CLOUDFLARE_CF_FETCH_ENABLED: "false",
        // What is tested is what is deployed.
        PARTYSYNC_PROFILE: "release",
        WRANGLER_SEND_METRICS: "false",
        ...this.env,
      },
    });
    const { pid } = this.child;
    this.forget = onExit(() => {
      try {
        process.kill(-pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    });
    this.output = "";
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.on("data", (chunk) => (this.output += chunk));
    }
    await until("the server answers", async () => {
      if (this.child.exitCode !== null) throw new Error(`wrangler ended:\n${this.output}`);
      return (await status(`${this.url}/`)) === 200;
    }, this.patience).catch((error) => {
      throw new Error(`${error.message}\n${this.output}`);
    });
  }

  /** Ends all its processes; the data stays. */
  async down(signal = "SIGTERM") {
    if (!this.child) return;
    const { pid } = this.child;
    const ended = this.child.exitCode === null ? once(this.child, "exit") : null;
    try {
      process.kill(-pid, signal);
      await ended;
      process.kill(-pid, "SIGKILL");
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
    this.forget();
    this.child = null;
  }

  async stop() {
    await this.down();
    if (this.ownData) rmSync(this.data, { recursive: true, force: true, maxRetries: 10 });
  }

  /** The rows of a query on each SQLite file that has this table: one list for each room, or of D1. */
  sqlite(table, query, { of = "do", write = false } = {}) {
    const folder = join(this.data, "v3", of);
    const files = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".sqlite"));
    return files.flatMap((file) => {
      const db = new DatabaseSync(join(folder, file), { readOnly: !write, timeout: 5_000 });
      try {
        const found = db.prepare("SELECT 1 FROM sqlite_master WHERE name = ?").get(table);
        return found ? [db.prepare(query).all()] : [];
      } finally {
        db.close();
      }
    });
  }
}

/** A socket that keeps what it was sent. */
export class Socket {
  static async open(url, protocols, options) {
    const socket = new this();
    socket.frames = [];
    socket.closed = null;
    socket.ws = new WebSocket(url, protocols, options);
    socket.ws.on("message", (data) => socket.frames.push(String(data)));
    socket.ws.on("close", (code, reason) => (socket.closed = { code, reason: String(reason) }));
    await new Promise((resolve, reject) => {
      socket.ws.on("open", resolve);
      socket.ws.on("error", reject);
    });
    socket.ws.on("error", () => {});
    return socket;
  }

  send(frame) {
    this.ws.send(typeof frame === "string" || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
  }

  get parsed() {
    return this.frames.filter((text) => text !== "pong").map((text) => JSON.parse(text));
  }

  /** The first frame that fits, now or later; it is taken out. */
  next(what, fits = () => true) {
    return until(what, () => {
      const index = this.frames.findIndex((text) => text !== "pong" && fits(JSON.parse(text)));
      if (index >= 0) return JSON.parse(this.frames.splice(index, 1)[0]);
      if (this.closed) throw new Error(`closed with ${this.closed.code} ${this.closed.reason}, waiting: ${what}`);
    });
  }

  close() {
    this.ws.close();
    return until("the socket closes", () => this.closed);
  }
}

/** The hash of a schema, as docs/protocol.md says. Columns: [name, type, nullable, role]. */
export function schemaHash(table, columns) {
  let hash = 0xcbf29ce484222325n;
  const feed = (text) => {
    for (const byte of [...Buffer.from(text), 0]) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    }
  };
  feed(table);
  for (const [name, type, nullable, role] of columns) {
    feed(name);
    feed(type);
    feed(nullable ? "?" : "");
    feed(role);
  }
  return hash.toString(16).padStart(16, "0");
}

export const hashes = {
  todos: schemaHash("todos", [
    ["id", "TEXT", false, "key"],
    ["text", "TEXT", false, "plain"],
    ["completed", "INTEGER", false, "plain"],
    ["position", "TEXT", true, "plain"],
    ["created_at", "INTEGER", false, "created_at"],
    ["updated_at", "INTEGER", false, "updated_at"],
    ["deleted_at", "INTEGER", true, "deleted_at"],
  ]),
  items: schemaHash("items", [
    ["id", "TEXT", false, "key"],
    ["big", "INTEGER", false, "plain"],
    ["ratio", "REAL", false, "plain"],
    ["bytes", "BLOB", true, "plain"],
    ["level", "TEXT", false, "plain"],
    ["tags", "JSON", false, "plain"],
    ["name", "TEXT", true, "plain"],
    ["created_at", "INTEGER", false, "created_at"],
    ["updated_at", "INTEGER", false, "updated_at"],
    ["deleted_at", "INTEGER", true, "deleted_at"],
  ]),
  notes: schemaHash("notes", [
    ["number", "INTEGER", false, "key"],
    ["text", "TEXT", false, "plain"],
  ]),
};

/** A v2 connection that has said hello. */
export class Client extends Socket {
  static async join(url, { client = crypto.randomUUID(), epoch = null, seq = 0, channels = {} } = {}) {
    const socket = await this.open(url, ["partysync.v2"]);
    socket.tellReads();
    socket.client = client;
    socket.seq = seq;
    const subscribed = Object.entries(channels).map(([channel, since]) => ({
      channel,
      since,
      schema: hashes[channel],
    }));
    socket.send({ type: "hello", client, epoch, channels: subscribed });
    socket.welcome = await socket.next("welcome", (f) => f.type === "welcome");
    socket.version = socket.welcome.version;
    return socket;
  }

  /** Says what it has read, as docs/protocol.md asks of a client. */
  tellReads() {
    let unsaid = 0;
    this.ws.on("message", (data) => {
      unsaid += data.length;
      if (unsaid < 256 * 1024) return;
      this.send({ type: "read", bytes: unsaid });
      unsaid = 0;
    });
  }

  /** Pushes one action and gives its answer, with the patch that it came in. */
  async act(channel, type, payload) {
    const seq = ++this.seq;
    this.send({ type: "push", actions: [{ seq, channel, action: { type, payload } }] });
    const patch = await this.next(`an answer to ${type}`, (f) => f.acks?.some((ack) => ack.seq === seq));
    return { patch, ...patch.acks.find((ack) => ack.seq === seq) };
  }
}
