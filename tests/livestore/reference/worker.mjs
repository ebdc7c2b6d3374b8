// LiveStore's own backend, as its documentation has it.

import { handleSyncRequest, makeDurableObject, matchSyncRequest } from "@livestore/sync-cf/cf-worker";

export class SyncBackend extends makeDurableObject({}) {}

const validatePayload = (payload) => {
  if (payload?.authToken !== "ok") throw new Error("the auth token is not valid");
};

export default {
  fetch(request, env, ctx) {
    const searchParams = matchSyncRequest(request);
    if (searchParams === undefined) return new Response("LiveStore's sync backend");
    return handleSyncRequest({ request, searchParams, env, ctx, syncBackendBinding: "SYNC_BACKEND", validatePayload });
  },
};
