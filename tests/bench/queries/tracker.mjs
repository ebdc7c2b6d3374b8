// An issue tracker, the same each time: 1,000 users, 10,000 issues, 50,000 comments. The six views
// of it, and rows that come and go in them.

/** Numbers that look random, and are the same each time. */
function* numbers(seed) {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

export function tracker(scale = 1) {
  const random = numbers(7);
  const below = (n) => Math.floor(random.next().value * n);
  const [users, issues, comments] = [1_000, 10_000, 50_000].map((n) => Math.round(n * scale));
  const text = "It happens when the list is long, and somebody scrolls";
  return {
    users: Array.from({ length: users }, (_, id) => ({ id, name: `User ${id}` })),
    issues: Array.from({ length: issues }, (_, id) => ({ id, author: below(users), title: `Issue ${id}: ${text}`, open: below(2) === 0, created: 10 * id })),
    comments: Array.from({ length: comments }, (_, id) => ({ id, issue: below(issues), author: below(users), created: 10 * id, text })),
  };
}

/** The issue that is shown with its comments. */
export const one = (data) => Math.floor(data.issues.length * 0.9);

/** For each view, rows that flow through it when they come and go: [table, row]. */
export function pairs(data, count) {
  const newest = data.issues.filter((issue) => issue.open).sort((a, b) => b.created - a.created);
  const issue = (n, created) => ["issues", { id: 1_000_000 + n, author: n % data.users.length, title: `New ${n}`, open: true, created }];
  const comment = (n, issue) => ["comments", { id: 1_000_000 + n, issue, author: 1, created: 10_000_000 + n, text: "New" }];
  const each = (row) => Array.from({ length: count }, (_, n) => row(n));
  const shown = (n) => newest[n % 50].id;
  return {
    newest: each((n) => issue(n, 10_000_000 + n)),
    author: each((n) => issue(n, 10_000_000 + n)),
    count: each((n) => comment(n, shown(n))),
    comments: each((n) => comment(n, shown(n))),
    one: each((n) => comment(n, one(data))),
    // Behind the fiftieth, among those of the second page.
    page: each((n) => issue(n, newest[60 + (n % 30)].created + 1)),
  };
}
