// LiveStore's own clients, as npm publishes them, in promises.

import assert from "node:assert/strict";
import { makeHttpSync, makeWsSync } from "@livestore/sync-cf/client";
import { Cause, Effect, Exit, Fiber, FetchHttpClient, KeyValueStore, Layer, Option, Scope, Stream } from "@livestore/utils/effect";
import { until } from "../e2e/harness.mjs";

const layer = Layer.merge(FetchHttpClient.layer, KeyValueStore.layerMemory);
const run = async (effect) => {
  const exit = await Effect.runPromiseExit(effect.pipe(Effect.provide(layer)));
  if (Exit.isSuccess(exit)) return exit.value;
  throw Object.assign(new Error(Cause.pretty(exit.cause)), { cause: Cause.squash(exit.cause) });
};

const seqs = (items) => items.flatMap(({ batch }) => batch.map(({ eventEncoded }) => eventEncoded.seqNum));

/** A client of a store; `transport` is `ws` or `http`. */
export class Client {
  static async connect(url, storeId, { transport = "ws", payload = { authToken: "ok" }, clientId = "client" } = {}) {
    const client = new Client();
    client.scope = await run(Scope.make());
    const ping = { requestInterval: 10_000, requestTimeout: 10_000 };
    const make = transport === "ws" ? makeWsSync({ url: url.replace("http", "ws"), ping }) : makeHttpSync({ url, ping });
    client.backend = await run(make({ storeId, clientId, payload }).pipe(Scope.extend(client.scope)));
    return client;
  }

  ping() {
    return run(this.backend.ping);
  }

  connect() {
    return run(this.backend.connect.pipe(Scope.extend(this.scope)));
  }

  /** The pages behind a number. */
  async pages(after) {
    const stream = this.backend.pull(cursor(after), { live: false });
    return [...(await run(Stream.runCollect(stream).pipe(Scope.extend(this.scope))))];
  }

  async pull(after) {
    return seqs(await this.pages(after));
  }

  /** Follows the log; `seqs` is what has come, `ended` how it has ended. */
  live(after) {
    const following = { seqs: [], events: [], ended: null };
    const each = (page) =>
      Effect.sync(() => {
        following.seqs.push(...seqs([page]));
        following.events.push(...page.batch.map(({ eventEncoded }) => eventEncoded));
      });
    const stream = this.backend.pull(cursor(after), { live: true });
    const fiber = Effect.runFork(Stream.runForEach(stream, each).pipe(Scope.extend(this.scope), Effect.provide(layer)));
    fiber.addObserver((exit) => (following.ended = Exit.isSuccess(exit) ? "success" : Cause.squash(exit.cause)));
    following.stop = () => Effect.runPromise(Fiber.interrupt(fiber));
    return following;
  }

  push(events) {
    return run(this.backend.push(events).pipe(Scope.extend(this.scope)));
  }

  /** Whether the client believes that it is connected. */
  connected() {
    return run(this.backend.isConnected.get);
  }

  close() {
    return run(Scope.close(this.scope, Exit.void));
  }
}

const cursor = (after) => (after === undefined ? Option.none() : Option.some({ eventSequenceNumber: after, metadata: Option.none() }));

/** Events from a number to another. */
export const events = (from, to, { clientId = "client", text = "x" } = {}) =>
  Array.from({ length: to - from + 1 }, (_, n) => ({
    name: "v1.Added",
    args: { id: String(from + n), text },
    seqNum: from + n,
    parentSeqNum: from + n - 1,
    clientId,
    sessionId: "session",
  }));

export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

/** The ids of the events in a store's log, as a client that knows nothing pulls them. */
export async function log(server, storeId) {
  const client = await Client.connect(server.url, storeId, { transport: "http" });
  try {
    const pages = await client.pages();
    return pages.flatMap(({ batch }) => batch.map(({ eventEncoded }) => eventEncoded.args.id));
  } finally {
    await client.close();
  }
}

/** All of the app's stores have just these events, in the order of the backend's log. */
export async function agree(server, storeId, stores, wanted) {
  for (const [n, store] of stores.entries()) {
    await until(`store ${n} has ${wanted.length} events`, async () => (await store.count()) >= wanted.length, 90_000);
  }
  // What a store has done itself it shows at once: it may be on its way.
  const order = await until("the log has them", async () => {
    const order = await log(server, storeId);
    return order.length >= wanted.length && order;
  }, 60_000);
  assert.deepEqual([...order].sort(), [...wanted].sort());
  for (const [n, store] of stores.entries()) {
    const follows = async () => (await store.ids()).join() === order.join();
    await until("it follows", follows).catch(async () => assert.deepEqual(await store.ids(), order, `store ${n}`));
  }
}

/** Each does something three times, and all hear of it: a store that has stopped to pull does not. */
export async function exchange(server, storeId, stores, before) {
  const wanted = [...before];
  for (const round of range(1, 3)) {
    for (const [n, store] of stores.entries()) {
      wanted.push(`round ${round} of ${n}`);
      await store.add(wanted.at(-1));
      await agree(server, storeId, stores, wanted);
    }
  }
}
