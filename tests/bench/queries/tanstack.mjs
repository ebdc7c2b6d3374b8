// The tracker's views with TanStack DB: collections that are synced, live queries over them.

import { BTreeIndex, count, createCollection, createLiveQueryCollection, eq, lt, materialize, toArray } from "@tanstack/db";
import { one } from "./tracker.mjs";

export const name = "TanStack DB";

export async function open(data) {
  const tables = {};
  for (const [id, rows] of Object.entries(data)) {
    let sync;
    const collection = createCollection({
      id,
      getKey: (row) => row.id,
      startSync: true,
      autoIndex: "eager",
      defaultIndexType: BTreeIndex,
      sync: {
        sync: (given) => {
          sync = given;
          given.begin();
          for (const value of rows) given.write({ type: "insert", value });
          given.commit();
          given.markReady();
        },
      },
    });
    await collection.preload();
    tables[id] = { collection, write: (type, value) => (sync.begin(), sync.write({ type, value }), sync.commit()) };
  }
  const { users, issues, comments } = Object.fromEntries(Object.entries(tables).map(([id, table]) => [id, table.collection]));
  const newest = (q) => q.from({ issue: issues }).where(({ issue }) => eq(issue.open, true)).orderBy(({ issue }) => issue.created, "desc");
  const fifty = data.issues.filter((issue) => issue.open).sort((a, b) => b.created - a.created)[49];
  const views = {
    newest: (q) => newest(q).limit(50),
    author: (q) =>
      newest(q).limit(50).select(({ issue }) => ({ ...issue, with: materialize(q.from({ user: users }).where(({ user }) => eq(user.id, issue.author)).select(({ user }) => ({ name: user.name })).findOne()) })),
    count: (q) =>
      newest(q).limit(50).select(({ issue }) => ({ ...issue, with: toArray(q.from({ comment: comments }).where(({ comment }) => eq(comment.issue, issue.id)).select(({ comment }) => ({ n: count(comment.id) }))) })),
    comments: (q) =>
      newest(q).limit(50).select(({ issue }) => ({ ...issue, with: toArray(q.from({ comment: comments }).where(({ comment }) => eq(comment.issue, issue.id)).orderBy(({ comment }) => comment.created, "desc").limit(3)) })),
    one: (q) =>
      q.from({ issue: issues }).where(({ issue }) => eq(issue.id, one(data))).select(({ issue }) => ({ ...issue, with: toArray(q.from({ comment: comments }).where(({ comment }) => eq(comment.issue, issue.id)).orderBy(({ comment }) => comment.created, "desc").limit(50)) })),
    page: (q) => newest(q).where(({ issue }) => lt(issue.created, fifty.created)).limit(50),
  };
  const compared = {
    author: (row) => row.with?.name,
    count: (row) => row.with[0]?.n ?? 0,
    comments: (row) => row.with.map((comment) => comment.id),
    one: (row) => row.with.map((comment) => comment.id),
  };
  return {
    hydrate(view) {
      const live = createLiveQueryCollection({ query: views[view], startSync: true });
      live.toArray;
      return {
        live,
        read: () => live.toArray,
        result: () => live.toArray.map((row) => [row.id, compared[view]?.(row) ?? null]),
        close: () => live.cleanup(),
      };
    },
    add: (table, row) => tables[table].write("insert", row),
    remove: (table, row) => tables[table].write("delete", row),
  };
}
