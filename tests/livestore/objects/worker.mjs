// The backend in Rust, and objects in JavaScript that are clients of it: LiveStore's own, by Durable
// Object RPC. `POST /FOLLOWER/{object}/{method}` with a list of arguments calls one.

import { DurableObject } from "cloudflare:workers";
import { handleSyncUpdateRpc, makeDoRpcSync } from "@livestore/sync-cf/client";
import { Cause, Effect, Exit, Fiber, KeyValueStore, Option, Scope, Stream } from "@livestore/utils/effect";
import Backend, { SyncBackend as Store } from "../../../fixtures/livestore-sync/worker/build/index.js";
import { restartable } from "../restartable.mjs";

export class SyncBackend extends restartable(Store) {}

const run = async (effect) => {
  const exit = await Effect.runPromiseExit(effect.pipe(Effect.provide(KeyValueStore.layerMemory)));
  if (Exit.isSuccess(exit)) return exit.value;
  throw new Error(JSON.stringify(Cause.squash(exit.cause)));
};
const cursor = (after) => (after === undefined ? Option.none() : Option.some({ eventSequenceNumber: after, metadata: Option.none() }));

export class Follower extends DurableObject {
  instance = crypto.randomUUID();
  seqs = [];
  ended = null;
  failing = false;

  stub(storeId) {
    return this.env.SYNC_BACKEND.get(this.env.SYNC_BACKEND.idFromName(storeId));
  }

  async client(storeId) {
    if (this.backend) return;
    this.scope = await run(Scope.make());
    const durableObjectContext = { bindingName: "FOLLOWER", durableObjectId: this.ctx.id.toString() };
    // A stub does not outlive the object that it has led to.
    const syncBackendStub = { rpc: (messages) => this.stub(storeId).rpc(messages) };
    const make = makeDoRpcSync({ syncBackendStub, durableObjectContext });
    this.backend = await run(make({ storeId, clientId: "object", payload: { authToken: "ok" } }).pipe(Scope.extend(this.scope)));
  }

  async ping(storeId) {
    await this.client(storeId);
    await run(this.backend.ping);
  }

  async pull(storeId, after) {
    await this.client(storeId);
    const pages = await run(Stream.runCollect(this.backend.pull(cursor(after), { live: false })).pipe(Scope.extend(this.scope)));
    return [...pages].map(({ batch, pageInfo }) => ({ events: batch.map(({ eventEncoded }) => eventEncoded), pageInfo }));
  }

  async follow(storeId, after) {
    await this.client(storeId);
    const each = ({ batch }) => Effect.sync(() => this.seqs.push(...batch.map(({ eventEncoded }) => eventEncoded.seqNum)));
    const stream = this.backend.pull(cursor(after), { live: true });
    const fiber = Effect.runFork(Stream.runForEach(stream, each).pipe(Scope.extend(this.scope), Effect.provide(KeyValueStore.layerMemory)));
    fiber.addObserver((exit) => (this.ended = Exit.isSuccess(exit) ? "success" : String(Cause.squash(exit.cause))));
    this.stop = () => Effect.runPromise(Fiber.interrupt(fiber));
  }

  async push(storeId, events) {
    await this.client(storeId);
    await run(this.backend.push(events).pipe(Scope.extend(this.scope)));
  }

  /** What has come. Whether calls fail from now on is for this test only. */
  async state(failing) {
    if (failing !== undefined) this.failing = failing;
    return { seqs: this.seqs, ended: this.ended, instance: this.instance };
  }

  /** Bytes as they are. */
  async raw(storeId, bytes) {
    const answer = await this.stub(storeId).rpc(new Uint8Array(bytes));
    const whole = answer instanceof ReadableStream ? new Uint8Array(await new Response(answer).arrayBuffer()) : new Uint8Array(answer);
    return [...whole];
  }

  async restart() {
    this.ctx.abort("restart");
  }

  async restartBackend(storeId) {
    await this.stub(storeId).restart().catch(() => {});
  }

  async syncUpdateRpc(payload) {
    if (this.failing) throw new Error("this object fails");
    return handleSyncUpdateRpc(payload);
  }
}

export default {
  async fetch(request, env, ctx) {
    const [, binding, name, method] = new URL(request.url).pathname.split("/");
    if (binding !== "FOLLOWER") return new Backend(ctx, env).fetch(request);
    const stub = env.FOLLOWER.get(env.FOLLOWER.idFromName(name));
    try {
      return Response.json({ value: (await stub[method](...(await request.json()))) ?? null });
    } catch (error) {
      return Response.json({ error: String(error) });
    }
  },
};
