// Clients that count: of the wire v1 and of v2, as docs/protocol.md asks of them. Both have the
// same methods, so that a case is written once.

import WebSocket from "ws";
import { hashes } from "../e2e/harness.mjs";

/** The wait that is a failure: far more than any case takes. */
const DEADLINE = 240_000;
const READ_BYTES = 256 * 1024;
const UPDATED_AT = 5;
/** How many rows a frame has that fills a table. */
const FILL_FRAME = 256;
const COLUMNS = [
  "id:TEXT:key",
  "text:TEXT",
  "completed:INTEGER",
  "position?:TEXT",
  "created_at:INTEGER:created_at",
  "updated_at:INTEGER:updated_at",
  "deleted_at?:INTEGER:deleted_at",
];

/** What both have: a socket, counts, and conditions that are looked at after each frame. */
class Counting {
  /** Rows and deletions that arrived as changes, one for each. */
  changes = 0;
  /** The keys of those rows: what comes twice does not make up for what is lost. */
  changed = new Set();
  /** Rows that the catch-ups had. */
  caughtUp = 0;
  acknowledged = 0;
  reconnects = 0;
  /** Whether it only does actions, and follows nothing. */
  pushesOnly = false;
  sent = 0;
  received = 0;
  #waiting = [];

  constructor(url) {
    this.url = url;
  }

  /** Opens a socket; its frames go to `take`. */
  async open(protocols) {
    // The workers are measured, not zlib: without compression.
    const ws = new WebSocket(this.url, protocols, { perMessageDeflate: false });
    this.ws = ws;
    this.wanted = true;
    this.broken = null;
    this.closed = new Promise((resolve) => ws.once("close", resolve));
    ws.on("message", (data) => {
      this.received += data.length;
      try {
        this.take(JSON.parse(data), data.length);
      } catch (error) {
        this.fail(error);
      }
      this.look();
    });
    await new Promise((resolve, reject) => {
      ws.once("open", resolve);
      ws.once("error", reject);
    });
    ws.on("error", () => {});
    ws.on("close", (code, reason) => this.wanted && this.lost(code, String(reason)));
  }

  send(frame) {
    const text = JSON.stringify(frame);
    this.sent += Buffer.byteLength(text);
    this.ws.send(text);
  }

  count(rows, gone = []) {
    this.changes += rows.length + gone.length;
    for (const [key] of rows) this.changed.add(key);
    for (const key of gone) this.changed.add(key);
  }

  fail(error) {
    this.broken ??= error;
    this.look();
  }

  lost(code, reason) {
    this.fail(new Error(`the server closed the connection: ${code} ${reason}`));
  }

  look() {
    for (const one of [...this.#waiting]) one();
  }

  until(what, condition) {
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(timer);
        this.#waiting = this.#waiting.filter((other) => other !== one);
        settle(value);
      };
      const one = () => {
        try {
          if (this.broken) throw new Error(`${this.broken.message} (waiting: ${what})`);
          if (condition()) end(resolve);
        } catch (error) {
          end(reject, error);
        }
      };
      const timer = setTimeout(() => end(reject, new Error(`did not happen: ${what}`)), DEADLINE);
      this.#waiting.push(one);
      one();
    });
  }

  /** Waits for this many changes since the client was made; its own are among them. */
  hasChanges(count) {
    return this.until(`${count} changes`, () => {
      if (this.changes > count) throw new Error(`${this.changes} changes, not ${count}`);
      return this.changes === count;
    });
  }

  /** As a network that breaks: no word of goodbye. */
  async drop() {
    this.wanted = false;
    this.ws.terminate();
    await this.closed;
  }

  async close() {
    if (!this.ws || this.ws.readyState === WebSocket.CLOSED) return;
    this.wanted = false;
    // Without a code `partyserver` leaves the goodbye unanswered.
    this.ws.close(1000);
    await this.closed;
  }
}

/** What TypeScript `partysync` 2.x does. */
export class V1 extends Counting {
  #calls = 0;
  #latest = null;

  /** Connects and is sent what changed since it was connected before. */
  async connect() {
    await this.open();
    if (this.pushesOnly) return;
    this.synced = false;
    this.send({ channel: "todos", sync: true, from: this.#latest });
    await this.until("the answer to sync", () => this.synced);
  }

  take(frame) {
    if (frame.sync) {
      this.synced = true;
      this.caughtUp += frame.payload.length;
      this.#hold(frame.payload);
    } else if (frame.broadcast) {
      this.count(frame.payload);
      this.#hold(frame.payload);
    } else if (frame.type === "success") {
      this.acknowledged += 1;
      this.count(frame.result);
      this.#hold(frame.result);
    } else {
      throw new Error(JSON.stringify(frame));
    }
  }

  #hold(rows) {
    for (const row of rows) if (row[UPDATED_AT] > this.#latest) this.#latest = row[UPDATED_AT];
  }

  /** Does these actions, so many under way at any time. */
  async act(actions, inFlight) {
    const first = this.acknowledged;
    let next = 0;
    await this.until(`${actions.length} answers`, () => {
      const answered = this.acknowledged - first;
      while (next < actions.length && next - answered < inFlight) {
        this.send({ id: String(++this.#calls), channel: "todos", rpc: true, action: actions[next++] });
      }
      return answered === actions.length;
    });
  }

  /** Adds these rows, by the baseline's own action for that. */
  fill(rows) {
    const frames = [];
    for (let at = 0; at < rows.length; at += FILL_FRAME) frames.push(rows.slice(at, at + FILL_FRAME));
    return this.act(frames.map((payload) => ({ type: "fill", payload })), 4);
  }
}

/** `partysync.v2`. */
export class V2 extends Counting {
  #client = crypto.randomUUID();
  #epoch = null;
  #version = null;
  #seq = 0;
  #answered = 0;
  /** Pushed or to be pushed, and without an answer. */
  #pending = [];
  #frame = 1;
  #underWay = false;
  #unread = 0;
  #inPush = 0;

  async connect() {
    await this.open(["partysync.v2"]);
    this.live = false;
    this.#underWay = false;
    this.#unread = 0;
    const followed = { channel: "todos", since: this.#version, schema: hashes.todos, columns: COLUMNS };
    this.send({
      type: "hello",
      client: this.#client,
      epoch: this.#epoch,
      channels: this.pushesOnly ? [] : [followed],
    });
    await this.until("the end of the catch-up", () => this.live);
  }

  take(frame, bytes) {
    this.#unread += bytes;
    if (this.#unread >= READ_BYTES) {
      this.send({ type: "read", bytes: this.#unread });
      this.#unread = 0;
    }
    switch (frame.type) {
      case "welcome":
        this.#epoch = frame.epoch;
        if (!this.pushesOnly) break;
        this.#version = frame.version;
        this.live = true;
        this.#push();
        break;
      case "reset":
        this.#version = null;
        break;
      case "catch_up":
        this.caughtUp += frame.rows.length + frame.gone.length;
        // After a connection that was lost they are what the patches would have been.
        if (this.resuming) this.count(frame.rows, frame.gone);
        if (frame.more) break;
        this.#version = frame.to;
        this.resuming = false;
        this.live = true;
        this.#push();
        break;
      case "patch":
        this.#patch(frame);
        break;
      case "error":
        throw new Error(`${frame.code}: ${frame.message}`);
    }
  }

  #patch({ from, to, changes, acks, more }) {
    if (from !== this.#version && to > this.#version) {
      throw new Error(`a patch from ${from} to ${to} at ${this.#version}: a frame was lost`);
    }
    // What comes twice is passed over; its acks count.
    if (to > this.#version) {
      for (const { rows, gone } of changes) this.count(rows, gone);
    }
    if (!more) this.#version = Math.max(to, this.#version);
    for (const { seq, code, message } of acks) {
      if (code) throw new Error(`action ${seq}: ${code}: ${message}`);
      if (this.#pending[0]?.seq !== seq) throw new Error(`an answer to ${seq}, out of turn`);
      this.#pending.shift();
      this.#answered = seq;
      this.acknowledged += 1;
      this.#inPush -= 1;
    }
    if (acks.length && this.#inPush === 0) {
      this.#underWay = false;
      this.#push();
    }
  }

  /** The next frame of actions, if none is under way. */
  #push() {
    if (this.#underWay || !this.live || this.#pending.length === 0) return;
    this.#underWay = true;
    const actions = this.#pending.slice(0, this.#frame);
    this.#inPush = actions.length;
    this.send({ type: "push", answered: this.#answered, actions });
  }

  /** Connects anew and pushes again what has no answer; not after what says "stop". */
  lost(code, reason) {
    if (code === 4403 || code === 4409 || code === 4429 || this.reconnects >= 3) {
      super.lost(code, reason);
      return;
    }
    this.reconnects += 1;
    this.resuming = true;
    this.connect().catch((error) => this.fail(error));
  }

  /** Does these actions in pushes of `frame`, one push under way at a time. */
  async act(actions, frame) {
    this.#frame = frame;
    const last = this.#seq + actions.length;
    for (const action of actions) this.#pending.push({ seq: ++this.#seq, channel: "todos", action });
    this.#push();
    await this.until(`${actions.length} answers`, () => this.#answered === last);
  }

  /** Adds these rows. */
  fill(rows) {
    return this.act(rows.map((payload) => ({ type: "create", payload })), FILL_FRAME);
  }
}
