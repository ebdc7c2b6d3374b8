// The worker that keeps a window's log and syncs it with the server that the page came from.

import { makeWorker } from "@livestore/adapter-web/worker";
import { makeWsSync } from "@livestore/sync-cf/client";
import { schema } from "./schema.mjs";

makeWorker({ schema, sync: { backend: makeWsSync({ url: `${self.location.origin}/sync` }) } });
