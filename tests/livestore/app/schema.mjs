// The app that LiveStore's full clients run, in Node and in a page: a list that says in which order
// its events were applied. An event that is lost, doubled or moved shows in it.

import { Events, makeSchema, Schema, State } from "@livestore/livestore";

const { integer, table, text } = State.SQLite;

export const entries = table({
  name: "entries",
  columns: {
    // Not the id: an event that is applied twice is to be seen twice. The next one is behind the last,
    // also after some were taken back: materializers have to do the same in each place that they run.
    place: integer({ primaryKey: true }),
    id: text(),
    text: text(),
  },
});

export const events = {
  added: Events.synced({ name: "v1.Added", schema: Schema.Struct({ id: Schema.String, text: Schema.String }) }),
};

const materializers = State.SQLite.materializers(events, {
  // In SQL: the builder of queries wants a place too.
  "v1.Added": ({ id, text }) => ({
    sql: "INSERT INTO entries (id, text) VALUES ($id, $text)",
    bindValues: { id, text },
    writeTables: new Set(["entries"]),
  }),
});

export const schema = makeSchema({ events, state: State.SQLite.makeState({ tables: { entries }, materializers }) });

/** The ids of a store's entries, in the order in which they came. */
export const ids = (store) => store.query(entries.orderBy("place", "asc")).map(({ id }) => id);

export const count = (store) => store.query(entries.count());

export const add = (store, ...names) => store.commit(...names.map((id) => events.added({ id, text: "x" })));
