// What is measured. Each case does the same work on either server and gives one value, with what
// proves that the work was done: every action acknowledged, every change received by everybody.

import { performance } from "node:perf_hooks";

/** How much each case does; `small` is for a smoke test. */
export const scales = {
  full: {
    one: 800,
    single: 3_200,
    frames32: 6_400,
    frames128: 7_680,
    readers: { clients_100: [100, 1_280], clients_500: [500, 320] },
    writers: [50, 32],
    rows: { snapshot_1k: 1_000, snapshot_50k: 50_000, snapshot_200k: 200_000 },
    storm: [500, 1_000],
    script: [256, 256, 64],
  },
  small: {
    one: 10,
    single: 64,
    frames32: 64,
    frames128: 256,
    readers: { clients_100: [5, 64], clients_500: [10, 64] },
    writers: [5, 16],
    rows: { snapshot_1k: 100, snapshot_50k: 3_000, snapshot_200k: 4_000 },
    storm: [10, 100],
    script: [64, 64, 32],
  },
};

const DELTA = 10;
/** Writers of `every_client_writes` push, or have under way, so many actions. */
const FRAME = 8;
/** A connection may do 10,000 actions at once: those that fill a table do fewer each. */
const FILL = 8_000;
/** How many clients connect at a time where that is not what is measured. */
const AT_ONCE = 25;

let ids = 0;
const create = () => ({
  type: "create",
  payload: { id: `todo-${String(ids++).padStart(20, "0")}`, text: "Two litres of oat milk, and bread", completed: 0 },
});
const creates = (count) => Array.from({ length: count }, create);

const seconds = async (body) => {
  const start = performance.now();
  await body();
  return (performance.now() - start) / 1_000;
};

const each = async (list, body) => {
  for (let at = 0; at < list.length; at += AT_ONCE) await Promise.all(list.slice(at, at + AT_ONCE).map(body));
};

/** Gives connected clients to `body` and closes them, whatever happens. */
async function withClients(clients, body) {
  try {
    await each(clients, (client) => client.connect());
    return await body(clients);
  } finally {
    await each(clients, (client) => client.close().catch(() => {}));
  }
}

/** Fails unless it is as it should be. */
function expect(what, found, wanted) {
  if (found !== wanted) throw new Error(`${what}: ${found}, not ${wanted}`);
}

/** One client does `count` actions. The baseline has as many frames under way as ours has actions in one. */
const writing = (count, frame, options) => ({
  unit: "actions/s",
  per: "action",
  async run(side, { scale, room, measure }) {
    const total = scale[count];
    return withClients([side.client(room, options)], async ([client]) => {
      await client.act(creates(Math.min(total, 2 * frame + 32)), frame);
      const before = client.changes;
      const actions = creates(total);
      const taken = await measure(total, () => client.act(actions, frame));
      expect("changes", client.changes - before, total);
      expect("rows that changed", client.changed.size, client.changes);
      return { value: total / taken, reconnects: client.reconnects };
    });
  },
});

/** One client of many writes, and all others have to have its changes. */
const reading = (name) => ({
  unit: "actions/s",
  per: "action",
  async run(side, { scale, room, measure }) {
    const [count, total] = scale.readers[name];
    return withClients(Array.from({ length: count }, () => side.client(room)), async (clients) => {
      const [writer] = clients;
      await writer.act(creates(1), 1);
      await Promise.all(clients.map((client) => client.hasChanges(1)));
      const actions = creates(total);
      const taken = await measure(total, () =>
        Promise.all([writer.act(actions, 32), ...clients.map((client) => client.hasChanges(1 + total))]),
      );
      for (const client of clients) expect("rows that changed", client.changed.size, 1 + total);
      return { value: total / taken, receivers: count, reconnects: clients.reduce((sum, c) => sum + c.reconnects, 0) };
    });
  },
});

/** All write at the same time, and all have to have everything. */
const everyClientWrites = {
  unit: "actions/s",
  per: "action",
  async run(side, { scale, room, measure }) {
    const [count, own] = scale.writers;
    const total = count * own;
    return withClients(Array.from({ length: count }, () => side.client(room)), async (clients) => {
      const work = clients.map((client) => [client, creates(own)]);
      const taken = await measure(total, () =>
        Promise.all(work.flatMap(([client, actions]) => [client.act(actions, FRAME), client.hasChanges(total)])),
      );
      for (const client of clients) expect("rows that changed", client.changed.size, total);
      return { value: total / taken, receivers: count, reconnects: clients.reduce((sum, c) => sum + c.reconnects, 0) };
    });
  },
};

/** A client without rows, from connecting until it has parsed all. */
const snapshot = (name) => ({
  unit: "ms",
  per: "row",
  filled: name,
  async run(side, { scale, filled, measure }) {
    const rows = scale.rows[name];
    // The object is awake: what starting one takes is not what is measured.
    await withClients([side.client(filled)], async ([first]) => expect("rows", first.caughtUp, rows));
    const client = side.client(filled);
    try {
      const taken = await measure(rows, () => client.connect());
      expect("rows", client.caughtUp, rows);
      return { value: taken * 1_000, bytes: client.received };
    } finally {
      await client.close();
    }
  },
});

/** Ten rows change while a client with 50,000 is away. */
const delta = {
  unit: "ms",
  filled: "snapshot_50k",
  async run(side, { scale, filled, measure }) {
    const [away, writer] = [side.client(filled), side.client(filled)];
    try {
      await away.connect();
      expect("rows", away.caughtUp, scale.rows.snapshot_50k);
      const snapshotBytes = away.received;
      await away.drop();
      await writer.connect();
      await writer.act(updates(DELTA), DELTA);
      [away.caughtUp, away.received] = [0, 0];
      const taken = await measure(1, () => away.connect());
      expect("rows", away.caughtUp, DELTA);
      return { value: taken * 1_000, bytes: away.received, snapshotBytes };
    } finally {
      await Promise.all([away.close(), writer.close()]);
    }
  },
};

/** The first rows of a table that `fill` filled. */
const updates = (count) =>
  Array.from({ length: count }, (_, n) => ({ type: "update", payload: { id: filledId(n), text: "Three litres" } }));
const filledId = (n) => `row-${String(n).padStart(21, "0")}`;

/** Puts that many rows into a room, over the wire. */
export async function fill(side, room, count) {
  const rows = Array.from({ length: count }, (_, n) => ({ ...create().payload, id: filledId(n) }));
  for (let at = 0; at < count; at += FILL) {
    const client = side.client(room);
    client.pushesOnly = true;
    await withClients([client], () => client.fill(rows.slice(at, at + FILL)));
  }
}

/** Everybody's connection breaks, something changes, and all come back at once. */
const storm = {
  unit: "ms",
  per: "client",
  async run(side, { scale, room, measure }) {
    const [count, rows] = scale.storm;
    await fill(side, room, rows);
    const clients = Array.from({ length: count }, () => side.client(room));
    return withClients(clients, async () => {
      for (const client of clients) expect("rows", client.caughtUp, rows);
      await Promise.all(clients.map((client) => client.drop()));
      await withClients([side.client(room)], ([writer]) => writer.act(updates(DELTA), DELTA));
      await side.quiet();
      for (const client of clients) [client.caughtUp, client.received] = [0, 0];
      const taken = await measure(count, () => Promise.all(clients.map((client) => client.connect())));
      for (const client of clients) expect("rows", client.caughtUp, DELTA);
      return { value: taken * 1_000, bytes: clients[0].received };
    });
  },
};

/** Bytes of text to and from one writer and one reader, for a script of actions. */
const sizes = {
  unit: "bytes",
  async run(side, { scale, room }) {
    const [made, changed, gone] = scale.script;
    return withClients([side.client(room), side.client(room)], async ([writer, reader]) => {
      const actions = creates(made);
      const id = (n) => actions[n].payload.id;
      for (let n = 0; n < changed; n += 1) actions.push({ type: "update", payload: { id: id(n), completed: 1 } });
      for (let n = 0; n < gone; n += 1) actions.push({ type: "delete", payload: { id: id(n) } });
      for (let at = 0; at < actions.length; at += 32) {
        await writer.act(actions.slice(at, at + 32), 32);
        await reader.hasChanges(Math.min(at + 32, actions.length));
      }
      for (const client of [writer, reader]) expect("rows that changed", client.changed.size, made);
      return { value: writer.sent + writer.received + reader.sent + reader.received };
    });
  },
};

/** In the order in which they run. */
export const cases = {
  one_in_flight: writing("one", 1, { v1: true }),
  one_in_flight_v2: writing("one", 1),
  v1_32_in_flight: writing("single", 32, { v1: true }),
  frames_of_32: writing("frames32", 32),
  frames_of_128: writing("frames128", 128),
  clients_100: reading("clients_100"),
  clients_500: reading("clients_500"),
  every_client_writes: everyClientWrites,
  snapshot_1k: snapshot("snapshot_1k"),
  snapshot_50k: snapshot("snapshot_50k"),
  snapshot_200k: snapshot("snapshot_200k"),
  delta_10_in_50k: delta,
  reconnect_storm_500: storm,
  sizes,
};

/** Whether a larger value is a better one. */
export const isRate = (unit) => unit.endsWith("/s");

/** Does a case once on one side: its value, and the server's CPU for each operation. */
export async function once(name, side, scale, round) {
  const one = cases[name];
  const room = `${name}-${round}`;
  let cpu = null;
  const measure = async (operations, body) => {
    await side.quiet();
    const before = side.cpu();
    const taken = await seconds(body);
    const after = side.cpu();
    if (before !== null && one.per) cpu = (after - before) / operations;
    return taken;
  };
  return { ...(await one.run(side, { scale, room, filled: one.filled, measure })), cpu };
}
