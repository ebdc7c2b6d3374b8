// The page: it shows the list and whether it is connected, or why it has no store. Store and token
// stand in its address.

import { makePersistedAdapter } from "@livestore/adapter-web";
import LiveStoreSharedWorker from "@livestore/adapter-web/shared-worker?sharedworker";
import { createStorePromise } from "@livestore/livestore";
import { Effect, Stream } from "@livestore/utils/effect";
import { add, entries, ids, schema } from "./schema.mjs";
import LiveStoreWorker from "./worker.mjs?worker";

const { storeId, authToken } = Object.fromEntries(new URLSearchParams(location.search));
const store = await createStorePromise({
  schema,
  storeId,
  adapter: makePersistedAdapter({ storage: { type: "opfs" }, worker: LiveStoreWorker, sharedWorker: LiveStoreSharedWorker }),
  syncPayload: { authToken },
  disableDevtools: true,
}).catch((error) => {
  document.querySelector("#connection").textContent = window.failed = String(error);
  throw error;
});

store.subscribe(entries.orderBy("place", "asc"), (rows) =>
  document.querySelector("#entries").replaceChildren(
    ...rows.map(({ id }) => Object.assign(document.createElement("li"), { textContent: id })),
  ),
);
const show = ({ isConnected }) =>
  Effect.sync(() => (document.querySelector("#connection").textContent = isConnected ? "connected" : "not connected"));
Effect.runFork(Effect.flatMap(store.networkStatus.get, show));
Effect.runFork(Stream.runForEach(store.networkStatus.changes, show));

window.app = { store, add: (...names) => add(store, ...names), ids: () => ids(store) };
