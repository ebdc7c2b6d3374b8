// LiveStore's own backend with its log in D1, as its documentation has it.

import { handleSyncRequest, makeDurableObject, matchSyncRequest } from "@livestore/sync-cf/cf-worker";

export class LabStoreD1 extends makeDurableObject({ storage: { _tag: "d1", binding: "DB" } }) {}

export default {
  fetch(request, env, ctx) {
    const searchParams = matchSyncRequest(request);
    if (searchParams === undefined) return new Response("lab");
    return handleSyncRequest({ request, searchParams, env, ctx, syncBackendBinding: "LAB_STORE" });
  },
};
