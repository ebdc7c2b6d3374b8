// The published conformance suite, whole, against the server at BASE.

import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({ baseUrl: process.env.BASE, subscriptions: true });
