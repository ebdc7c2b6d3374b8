// LiveStore's own backend, with rooms in Rust under `/parties/entries/{store}` that take part in its
// stores.

import Rooms, { Entries } from "../../../fixtures/livestore-sync/worker/build/index.js";
import Backend, { SyncBackend as Store } from "../reference/worker.mjs";
import { restartable } from "../restartable.mjs";

export { Entries };

export class SyncBackend extends restartable(Store) {}

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname.startsWith("/restart/")) {
      const id = env.SYNC_BACKEND.idFromName(pathname.slice("/restart/".length));
      await env.SYNC_BACKEND.get(id).restart().catch(() => {});
      return new Response("restarted");
    }
    if (pathname.startsWith("/parties/")) return new Rooms(ctx, env).fetch(request);
    return Backend.fetch(request, env, ctx);
  },
};
