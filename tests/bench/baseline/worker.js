// The baseline: a list of todos on npm's `partyserver`, which does on the wire what TypeScript
// `partysync` 2.x does (docs/protocol.md, version 1). One action a frame, one statement an action.

import { Server, routePartykitRequest } from "partyserver";

export class Todos extends Server {
  static options = { hibernate: true };

  onStart() {
    this.ctx.storage.sql.exec(`CREATE TABLE IF NOT EXISTS todos (
      id TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL, completed INTEGER NOT NULL,
      created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, deleted_at INTEGER)`);
  }

  #rows(sql, ...parameters) {
    return this.ctx.storage.sql.exec(sql, ...parameters).raw().toArray();
  }

  /** What the application does for an action; the rows that it changed. */
  async onAction({ type, payload }) {
    const now = Date.now();
    switch (type) {
      case "create":
        if (!payload.text.trim()) throw new Error("A todo needs some text");
        return this.#rows(
          "INSERT INTO todos VALUES (?, ?, ?, ?, ?, NULL) RETURNING *",
          payload.id, payload.text, payload.completed, now, now,
        );
      case "update":
        return this.#rows(
          "UPDATE todos SET text = coalesce(?, text), completed = coalesce(?, completed), updated_at = ? WHERE id = ? RETURNING *",
          payload.text ?? null, payload.completed ?? null, now, payload.id,
        );
      case "delete":
        return this.#rows("UPDATE todos SET deleted_at = ? WHERE id = ? RETURNING *", now, payload.id);
      // Not of the app: fills a table in few transactions, for cases that read it.
      case "fill":
        for (const { id, text, completed } of payload) {
          this.ctx.storage.sql.exec("INSERT INTO todos VALUES (?, ?, ?, ?, ?, NULL)", id, text, completed, now, now);
        }
        return [];
      default:
        throw new Error(`there is no action ${type}`);
    }
  }

  #changedSince(from) {
    const live = "SELECT * FROM todos WHERE deleted_at IS NULL";
    return from ? this.#rows(`${live} AND updated_at > ?`, from) : this.#rows(live);
  }

  async onMessage(connection, text) {
    const answer = (frame) => connection.send(JSON.stringify(frame));
    let frame;
    try {
      frame = JSON.parse(text);
    } catch (error) {
      answer({ type: "exception", rpc: true, exception: [`Failed to parse message: ${error.message}`] });
      return;
    }
    const { channel, id, action } = frame;
    if (frame.sync) {
      answer({ sync: true, channel, payload: this.#changedSince(frame.from) });
      return;
    }
    try {
      const rows = await this.onAction(action);
      answer({ type: "success", rpc: true, channel, id, result: rows });
      const change = { broadcast: true, type: "update", channel, payload: rows };
      this.broadcast(JSON.stringify(change), [connection.id]);
    } catch (error) {
      answer({ type: "error", rpc: true, channel, id, error: [error.message] });
    }
  }
}

export default {
  async fetch(request, env) {
    return (await routePartykitRequest(request, env)) ?? new Response("Not found", { status: 404 });
  },
};
