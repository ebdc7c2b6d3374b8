// The todo app's worker, with a count of what its object asks of its storage: statements, and rows
// written as the runtime bills them.

import Worker, { Todos } from "../../../fixtures/todo-sync/worker/build/index.js";

export class Counted {
  constructor(state, env) {
    const { sql } = state.storage;
    const exec = sql.exec;
    this.cursors = [];
    sql.exec = (...args) => {
      const cursor = exec.apply(sql, args);
      this.cursors.push(cursor);
      return cursor;
    };
    this.todos = new Todos(state, env);
  }

  /** `?cost` is what was asked since the last time. */
  fetch(request) {
    if (new URL(request.url).search !== "?cost") return this.todos.fetch(request);
    const cursors = this.cursors.splice(0);
    const rows = cursors.reduce((sum, cursor) => sum + cursor.rowsWritten, 0);
    return Response.json({ statements: cursors.length, rows });
  }

  alarm() {
    return this.todos.alarm();
  }

  webSocketMessage(socket, message) {
    return this.todos.webSocketMessage(socket, message);
  }

  webSocketClose(socket, code, reason, clean) {
    return this.todos.webSocketClose(socket, code, reason, clean);
  }

  webSocketError(socket, error) {
    return this.todos.webSocketError(socket, error);
  }
}

export default class extends Worker {
  fetch(request) {
    if (new URL(request.url).pathname === "/") return new Response("cost");
    return super.fetch(request);
  }
}
