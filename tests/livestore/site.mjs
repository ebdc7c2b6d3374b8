// The fixture's page, as it was built, with a backend behind the same address: what a browser talks
// to. The way to the backend can be cut.

import { once } from "node:events";
import { createServer } from "node:http";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { extname, join } from "node:path";
import { freePort, onExit, root } from "../e2e/harness.mjs";

const built = join(root, "fixtures/livestore-sync/web/dist");
const types = { ".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };

/** The page and the way to a backend: `sockets` are open, `attempts` were made. */
export class Site {
  static async start(backend) {
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
