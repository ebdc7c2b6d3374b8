// A process in which stores of LiveStore's full client live; it does what `../stores.mjs` asks for.

import { makeAdapter } from "@livestore/adapter-node";
import * as livestore from "@livestore/livestore";
import { createStorePromise, makeShutdownDeferred } from "@livestore/livestore";
import { makeWsSync } from "@livestore/sync-cf/client";
import { Deferred, Effect, LogLevel } from "@livestore/utils/effect";
import { define } from "../../../fixtures/livestore-sync/web/schema.mjs";

const { add, count, ids, schema } = define(livestore);

const stores = [];

const calls = {
  async open({ url, storeId, clientId, folder }) {
    const shutdownDeferred = await Effect.runPromise(makeShutdownDeferred);
    const store = await createStorePromise({
      schema,
      storeId,
      adapter: makeAdapter({
        storage: folder ? { type: "fs", baseDirectory: folder } : { type: "in-memory" },
        clientId,
        sync: { backend: makeWsSync({ url }) },
      }),
      syncPayload: { authToken: "ok" },
      disableDevtools: true,
      shutdownDeferred,
      logLevel: LogLevel.None,
    });
    const ended = Effect.runPromise(Deferred.await(shutdownDeferred)).then((cause) => cause.reason, String);
    return stores.push({ store, ended }) - 1;
  },
  add: ({ at, names }) => add(stores[at].store, ...names),
  count: ({ at }) => count(stores[at].store),
  ids: ({ at }) => ids(stores[at].store),
  /** How a store has shut down, once it has. */
  ended: ({ at }) => stores[at].ended,
};

process.on("message", async ({ call, name, ...options }) => {
  try {
    process.send({ call, value: await calls[name](options) });
  } catch (error) {
    process.send({ call, error: String(error) });
  }
});
