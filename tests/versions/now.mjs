// The application as it is now.

import Worker, { BoardNow } from "./worker/build/index.js";

export class Board extends BoardNow {}

export default {
  fetch(request, env, ctx) {
    if (new URL(request.url).pathname === "/version") return new Response("now");
    return new Worker(ctx, env).fetch(request);
  },
};
