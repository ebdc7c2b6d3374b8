// The application as it was.

import Worker, { BoardBefore } from "./worker/build/index.js";

export class Board extends BoardBefore {}

export default {
  fetch(request, env, ctx) {
    if (new URL(request.url).pathname === "/version") return new Response("before");
    return new Worker(ctx, env).fetch(request);
  },
};
