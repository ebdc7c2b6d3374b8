// The tracker's views with Rindle, in wasm.

import { boolean, createSchema, createWasmStore, number, string, table } from "@rindle/wasm";
import { one } from "./tracker.mjs";

export const name = "Rindle";

const users = table("users").columns({ id: number(), name: string() }).primaryKey("id");
const issues = table("issues").columns({ id: number(), author: number(), title: string(), open: boolean(), created: number() }).primaryKey("id");
const comments = table("comments").columns({ id: number(), issue: number(), author: number(), created: number(), text: string() }).primaryKey("id");

export async function open(data) {
  const store = await createWasmStore(createSchema({ tables: [users, issues, comments] }));
  for (const [name, rows] of Object.entries(data)) {
    await store.write((tx) => {
      for (const row of rows) tx.add(name, row);
    });
  }
  const newest = () => store.query.issues.where.open(true).orderBy("created", "desc").limit(50);
  const of = { parent: ["id"], child: ["issue"] };
  const fifty = data.issues.filter((issue) => issue.open).sort((a, b) => b.created - a.created)[49];
  const latest = (q) => q.orderBy("created", "desc");
  const views = {
    newest,
    author: () => newest().sub("with", users, { parent: ["author"], child: ["id"] }, (q) => q.one()),
    count: () => newest().countAs("with", comments, of),
    comments: () => newest().sub("with", comments, of, (q) => latest(q).limit(3)),
    one: () => store.query.issues.where.id(one(data)).sub("with", comments, of, (q) => latest(q).limit(50)),
    page: () => newest().start({ created: fifty.created, id: fifty.id }, { exclusive: true }),
  };
  const compared = {
    author: (row) => (Array.isArray(row.with) ? row.with[0] : row.with)?.name,
    count: (row) => row.with,
    comments: (row) => row.with.map((comment) => comment.id),
    one: (row) => row.with.map((comment) => comment.id),
  };
  return {
    hydrate(view) {
      const live = views[view]().materialize();
      live.data;
      return {
        read: () => live.data,
        result: () => live.data.map((row) => [row.id, compared[view]?.(row) ?? null]),
        close: () => live.destroy(),
      };
    },
    add: (name, row) => store.write((tx) => tx.add(name, row)),
    remove: (name, row) => store.write((tx) => tx.remove(name, row)),
  };
}
