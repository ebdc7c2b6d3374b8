// What stands between a browser and its server: a proxy that refuses connections, or breaks them.

import { once } from "node:events";
import { createServer } from "node:http";
import WebSocket, { WebSocketServer } from "ws";
import { freePort, onExit } from "./harness.mjs";

/** Passes everything on to a server, but sockets as `answer` says: `"pass"`; a number, the HTTP
 * status of the refused upgrade; `{ code, reason, cookie }`, with which an open socket is closed (and a
 * cookie set by its upgrade); or `"fails"`: each push closes its socket with 1011. May be a function of the request. */
export class Front {
  static async start(server) {
    const front = new Front();
    Object.assign(front, { server, answer: "pass", attempts: 0, pushes: 0, port: await freePort() });
    front.http = createServer((request, response) => front.pass(request, response));
    front.sockets = new WebSocketServer({ noServer: true, handleProtocols: ([first]) => first });
    front.sockets.on("headers", (headers, request) => request.cookie && headers.push(`Set-Cookie: ${request.cookie}`));
    front.http.on("upgrade", (...upgrade) => front.upgrade(...upgrade));
    front.http.listen(front.port, "127.0.0.1");
    await once(front.http, "listening");
    front.forget = onExit(() => front.http.close());
    return front;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async pass(request, response) {
    const answer = await fetch(this.server.url + request.url).catch(() => null);
    const type = answer?.headers.get("content-type");
    response.writeHead(answer?.status ?? 502, type ? { "content-type": type } : {});
    response.end(answer && Buffer.from(await answer.arrayBuffer()));
  }

  upgrade(request, socket, head) {
    this.attempts += 1;
    const answer = typeof this.answer === "function" ? this.answer(request) : this.answer;
    if (typeof answer === "number") {
      socket.end(`HTTP/1.1 ${answer} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      return;
    }
    request.cookie = answer.cookie;
    this.sockets.handleUpgrade(request, socket, head, (down) => {
      if (answer !== "pass" && answer !== "fails") return down.close(answer.code, answer.reason);
      const up = new WebSocket(this.server.url.replace("http", "ws") + request.url, down.protocol, {
        origin: this.server.url,
      });
      const early = [];
      up.on("open", () => early.splice(0).forEach((text) => up.send(text)));
      up.on("message", (data) => down.send(String(data)));
      up.on("close", () => down.terminate());
      up.on("error", () => down.terminate());
      down.on("close", () => up.terminate());
      down.on("message", (data) => {
        const text = String(data);
        if (text.includes('"type":"push"')) {
          this.pushes += 1;
          if (this.answer === "fails") return down.close(1011, "internal");
        }
        if (up.readyState === WebSocket.OPEN) up.send(text);
        else early.push(text);
      });
    });
  }

  async stop() {
    this.sockets.clients.forEach((socket) => socket.terminate());
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, "close");
    this.forget();
  }
}
