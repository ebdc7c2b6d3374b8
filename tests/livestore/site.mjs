// The app's page, built by vite and served, with a backend behind the same address: what a browser
// talks to. The way to the backend can be cut.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { freePort, onExit, root } from "../e2e/harness.mjs";

const app = join(root, "tests/livestore/app");
const built = join(root, "target/livestore-page");
const types = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };

/** Builds the page, unless it is there and nothing that it is made of has changed. */
async function page() {
  const inputs = [...readdirSync(app).map((name) => join(app, name)), join(app, "../package-lock.json"), fileURLToPath(import.meta.url)];
  const hash = createHash("sha256");
  for (const path of inputs.sort()) hash.update(`${path}\0`).update(readFileSync(path));
  const [stamp, wanted] = [join(built, "stamp"), hash.digest("hex")];
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  rmSync(stamp, { force: true });
  await build({
    root: app,
    configFile: false,
    logLevel: "error",
    worker: { format: "es" },
    optimizeDeps: { exclude: ["@livestore/wa-sqlite"] },
    build: { outDir: built, emptyOutDir: true, target: "esnext", minify: false, reportCompressedSize: false },
  });
  writeFileSync(stamp, wanted);
}

/** The page and the way to a backend: `sockets` are open, `attempts` were made. */
export class Site {
  static async start(backend) {
    await page();
    const site = Object.assign(new Site(), { backend, port: await freePort(), sockets: new Set(), attempts: 0, cut: false });
    site.http = createServer((request, response) => site.file(request, response));
    site.http.on("upgrade", (...upgrade) => site.upgrade(...upgrade));
    site.http.listen(site.port, "127.0.0.1");
    await once(site.http, "listening");
    site.forget = onExit(() => site.http.close());
    return site;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  file(request, response) {
    const { pathname } = new URL(request.url, this.url);
    const path = join(built, pathname === "/" ? "index.html" : pathname);
    if (!existsSync(path)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": types[extname(path)] ?? "text/plain" }).end(readFileSync(path));
  }

  /** Passes every byte on, the refusal of an upgrade too. */
  upgrade(request, down, head) {
    this.attempts += 1;
    if (this.cut) return down.destroy();
    const up = connect(this.backend.port, "127.0.0.1", () => {
      const headers = request.rawHeaders.map((text, n) => (n % 2 ? `${text}\r\n` : `${text}: `)).join("");
      up.write(`GET ${request.url} HTTP/1.1\r\n${headers}\r\n`);
      up.write(head);
      up.pipe(down).pipe(up);
    });
    this.sockets.add(down);
    const end = () => {
      this.sockets.delete(down);
      up.destroy();
      down.destroy();
    };
    for (const socket of [up, down]) socket.on("close", end).on("error", end);
  }

  /** Nothing comes through any more, and what was open breaks. */
  away() {
    this.cut = true;
    this.sockets.forEach((socket) => socket.destroy());
  }

  back() {
    this.cut = false;
  }

  async stop() {
    this.away();
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, "close");
    this.forget();
  }
}
