//! The tracker: rows, views, and changes that flow through them.

use crate::view::{Compared, Shown, View, now, open, take_outputs};
use partysync::query::{Found, Query, Tuple};
use partysync::{Action, Record};
use partysync_client::{Input as Happens, Peer};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "users")]
struct User {
    #[record(key)]
    id: i64,
    name: String,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "issues")]
struct Issue {
    #[record(key)]
    id: i64,
    author: i64,
    title: String,
    open: bool,
    created: i64,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "comments")]
struct Comment {
    #[record(key)]
    id: i64,
    issue: i64,
    author: i64,
    created: i64,
    text: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = User)]
enum UserAction {
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, Debug)]
#[action(record = Issue)]
enum IssueAction {
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, Debug)]
#[action(record = Comment)]
enum CommentAction {
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, Debug)]
#[action(channels)]
enum AnyAction {
    User(UserAction),
    Issue(IssueAction),
    Comment(CommentAction),
}

/// Rows as they travel.
#[derive(Debug, Deserialize)]
pub struct Input {
    users: Vec<Json>,
    issues: Vec<Json>,
    comments: Vec<Json>,
}

/// A row that comes, and goes again.
#[derive(Debug, Deserialize)]
pub struct Pair {
    table: String,
    row: Json,
}

/// A client of the tracker's room.
pub struct Tracker {
    peer: Peer<AnyAction>,
    version: u64,
    frames: VecDeque<String>,
    shown: Option<Box<dyn Shown>>,
    /// The issue that is shown with its comments.
    one: i64,
}

impl Compared for (Option<Found<User>>,) {
    fn compared(&self) -> Json {
        json!(self.0.as_ref().map(|user| &user.name))
    }
}

impl Compared for (u64,) {
    fn compared(&self) -> Json {
        json!(self.0)
    }
}

impl Compared for (Vec<Found<Comment>>,) {
    fn compared(&self) -> Json {
        json!(self.0.iter().map(|comment| comment.id).collect::<Vec<_>>())
    }
}

fn newest() -> Query<Issue> {
    Issue::query().filter(Issue::open.eq(true)).order_by(Issue::created.desc()).limit(50)
}

impl Tracker {
    /// Reads the rows.
    pub fn new(input: &Input) -> Self {
        let Input { users, issues, comments } = input;
        let (frames, one) = (VecDeque::new(), issues.len() as i64 * 9 / 10);
        let mut tracker = Self { peer: open(), version: 1, frames, shown: None, one };
        for (table, rows) in [("users", users), ("issues", issues), ("comments", comments)] {
            let (total, mut sent) = (rows.len(), 0);
            for page in rows.chunks(500) {
                sent += page.len();
                let frame = json!({"type": "catch_up", "channel": table, "from": null, "to": 1,
                    "rows": page, "gone": [], "sent": sent, "total": total, "more": sent < total});
                tracker.happens(Happens::Frame(&frame.to_string()));
            }
            assert_eq!(tracker.peer.replica().keys(table).len(), total);
        }
        tracker
    }

    fn happens(&mut self, input: Happens<'_>) {
        self.peer.handle(input, now());
        take_outputs(&mut self.peer);
    }

    fn ask<W: Tuple + Compared + 'static>(&mut self, query: &Query<Issue, W>) {
        self.shown = Some(Box::new(View::new(self.peer.query(query).expect("a query"))));
    }

    /// Asks for a view, and reads it.
    pub fn hydrate(&mut self, view: &str) {
        let comments = |q: Query<Comment>| q.order_by(Comment::created.desc());
        match view {
            "newest" => self.ask(&newest()),
            "author" => self.ask(&newest().with_one::<User, _, _>(Issue::author, |user| user)),
            "count" => self.ask(&newest().with_count(Comment::issue, |q| q)),
            "comments" => self.ask(&newest().with(Comment::issue, |q| comments(q).limit(3))),
            "one" => {
                let one = Issue::query().filter(Issue::id.eq(self.one));
                self.ask(&one.with(Comment::issue, |q| comments(q).limit(50)));
            }
            _ => {
                // Behind the fiftieth, as the first page says it.
                let first = self.peer.query(&newest()).expect("a query").rows();
                let last = first.last().expect("a row");
                self.ask(&newest().start_after(last));
            }
        }
    }

    /// Nobody asks for it any more.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// Makes ready pairs of a row that comes and goes, as a server sends them.
    pub fn prepare(&mut self, pairs: &[Pair]) {
        let mut version = self.version + self.frames.len() as u64;
        let mut patch = |change: Json| {
            let (from, to) = (version, version + 1);
            version = to;
            json!({"type": "patch", "from": from, "to": to, "changes": [change]}).to_string()
        };
        for Pair { table, row } in pairs {
            self.frames.push_back(patch(json!({"channel": table, "rows": [row], "gone": []})));
            let gone = json!({"channel": table, "rows": [], "gone": [row[0]]});
            self.frames.push_back(patch(gone));
        }
    }

    /// The next row comes, or goes, and what that changes is read.
    pub fn step(&mut self) {
        let frame = self.frames.pop_front().expect("a frame");
        self.version += 1;
        self.happens(Happens::Frame(&frame));
        if let Some(shown) = &mut self.shown {
            shown.hear();
        }
    }

    /// What the view shows.
    pub fn result(&self) -> Json {
        self.shown.as_ref().map_or(Json::Null, |shown| shown.result())
    }
}
