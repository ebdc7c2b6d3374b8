//! Random queries over random changes: actions that wait, are answered, rejected or done again,
//! rows of others, clients that begin anew, rooms that are set back.

use crate::oracle::Oracle;
use futures::Stream;
use partysync::query::plan::{Comparison, Filter, Join, Order, Plan, Related, Scalar, Shape};
use partysync::query::{Node, Query, Totals, plan};
use partysync::sql::Value;
use partysync::{Action, Draft, Error, Record, Reduce, Result, Room, Schema, SyncServer};
use partysync_client::query::{Difference, Live, LiveChanges, LiveTotals};
use partysync_client::testing::{ClientId, World};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "users")]
pub struct User {
    #[record(key)]
    pub id: i64,
    pub name: String,
    pub admin: bool,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "issues")]
pub struct Issue {
    #[record(key)]
    pub id: String,
    pub author: Option<i64>,
    pub title: String,
    pub open: bool,
    pub rank: Option<f64>,
    pub points: i64,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "comments")]
pub struct Comment {
    #[record(key)]
    pub id: String,
    pub issue: String,
    pub by: Option<i64>,
    pub note: Option<String>,
}

#[derive(Action, Clone, Debug)]
#[action(record = User)]
pub enum UserAction {
    #[action(upsert)]
    Put { id: i64, name: String, admin: bool },
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, Debug)]
#[action(record = Issue)]
pub enum IssueAction {
    #[action(upsert)]
    Put {
        id: String,
        author: Option<i64>,
        title: String,
        open: bool,
        rank: Option<f64>,
        points: i64,
    },
    #[action(update)]
    Edit { id: String, open: Option<bool>, points: Option<i64> },
    #[action(delete)]
    Delete { id: String },
    /// Closes all that are open, and gives each a point.
    #[action(custom)]
    Close,
}

impl Reduce for IssueAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Issue>) -> Result<()> {
        for issue in draft.rows()?.into_iter().filter(|issue| issue.open) {
            draft.update(issue.id, |issue| {
                (issue.open, issue.points) = (false, issue.points + 1);
            })?;
        }
        Ok(())
    }
}

#[derive(Action, Clone, Debug)]
#[action(record = Comment)]
pub enum CommentAction {
    #[action(upsert)]
    Put { id: String, issue: String, by: Option<i64>, note: Option<String> },
    #[action(delete)]
    Delete { id: String },
}

#[derive(Action, Clone, Debug)]
#[action(channels)]
pub enum AnyAction {
    User(UserAction),
    Issue(IssueAction),
    Comment(CommentAction),
}

pub struct Tracker;

impl SyncServer for Tracker {
    type Action = AnyAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: AnyAction) -> Result<()> {
        match &action {
            // What the server makes of it is not what the client has made of it.
            AnyAction::Comment(CommentAction::Put { note: Some(note), .. }) if note == "no" => {
                return Err(Error::reject("no"));
            }
            AnyAction::User(UserAction::Put { id, name, .. }) if name == "b" => {
                room.sql().exec("DELETE FROM comments WHERE by = ?", &partysync::params![*id])?;
            }
            AnyAction::Issue(IssueAction::Close) => {
                let close = "UPDATE issues SET open = 0, points = points + 1 WHERE open";
                return room.sql().exec(close, &[]);
            }
            _ => {}
        }
        action.apply(room.sql())
    }
}

pub const SCHEMAS: &[&Schema] = &[User::SCHEMA, Issue::SCHEMA, Comment::SCHEMA];

struct Random(fastrand::Rng);

impl Random {
    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.0.usize(..all.len())].clone()
    }

    fn id(&mut self) -> String {
        format!("i{}", self.0.usize(..12))
    }

    fn user(&mut self) -> i64 {
        self.0.i64(0..5)
    }

    fn rank(&mut self) -> Option<f64> {
        self.of(&[None, Some(0.0), Some(-1.5), Some(2.5), Some(-0.0)])
    }

    fn text(&mut self) -> String {
        self.of(&["", "a", "b", "ab", "ba", "é"]).to_owned()
    }

    fn action(&mut self) -> AnyAction {
        let optional = |random: &mut Self| random.0.bool().then(|| random.user());
        match self.0.usize(..12) {
            0 => AnyAction::User(UserAction::Put {
                id: self.user(),
                name: self.text(),
                admin: self.0.bool(),
            }),
            1 => AnyAction::User(UserAction::Delete { id: self.user() }),
            2..5 => AnyAction::Issue(IssueAction::Put {
                id: self.id(),
                author: optional(self),
                title: self.text(),
                open: self.0.bool(),
                rank: self.rank(),
                points: self.0.i64(-2..5),
            }),
            5..7 => AnyAction::Issue(IssueAction::Edit {
                id: self.id(),
                open: self.0.bool().then(|| self.0.bool()),
                points: self.0.bool().then(|| self.0.i64(-2..5)),
            }),
            7 => AnyAction::Issue(IssueAction::Delete { id: self.id() }),
            8 if self.0.u8(..4) == 0 => AnyAction::Issue(IssueAction::Close),
            8..11 => AnyAction::Comment(CommentAction::Put {
                id: format!("c{}", self.0.usize(..25)),
                issue: self.id(),
                by: optional(self),
                note: self.of(&[None, Some("a"), Some("ab"), Some("no")]).map(str::to_owned),
            }),
            _ => {
                AnyAction::Comment(CommentAction::Delete { id: format!("c{}", self.0.usize(..25)) })
            }
        }
    }

    /// A value for a column, as it may be there.
    fn value(&mut self, table: &str, column: &str) -> Value {
        match (table, column) {
            (_, "admin" | "open") => Value::Integer(self.0.i64(0..2)),
            ("users", "id") => Value::Integer(self.user()),
            (_, "author" | "by") => {
                if self.0.bool() {
                    Value::Integer(self.user())
                } else {
                    Value::Null
                }
            }
            (_, "points") => Value::Integer(self.0.i64(-2..5)),
            (_, "rank") => self.rank().map_or(Value::Null, Value::Real),
            ("issues", "id") | (_, "issue") => Value::Text(self.id()),
            ("comments", "id") => Value::Text(format!("c{}", self.0.usize(..25))),
            _ if self.0.u8(..5) == 0 => Value::Null,
            _ => Value::Text(self.text()),
        }
    }

    fn column(&mut self, table: &str) -> String {
        let schema = SCHEMAS.iter().find(|schema| schema.table == table).unwrap();
        self.of(schema.columns.iter().map(|column| column.name).collect::<Vec<_>>().as_slice())
            .to_owned()
    }

    /// A table that belongs to this one, and how.
    fn join(&mut self, table: &str) -> (Join, &'static str) {
        let all: &[(&str, &str, &'static str)] = match table {
            "users" => &[("id", "author", "issues"), ("id", "by", "comments")],
            "issues" => &[
                ("id", "issue", "comments"),
                ("author", "id", "users"),
                ("author", "author", "issues"),
            ],
            _ => &[("issue", "id", "issues"), ("by", "id", "users"), ("by", "by", "comments")],
        };
        let (here, there, other) = self.of(all);
        (Join { here: here.to_owned(), there: there.to_owned() }, other)
    }

    fn filter(&mut self, table: &str, depth: usize) -> Filter {
        let more = if depth > 2 { 4 } else { 9 };
        match self.0.usize(..more) {
            0..3 => {
                let column = self.column(table);
                let how = [
                    Comparison::Eq,
                    Comparison::Eq,
                    Comparison::Ne,
                    Comparison::Lt,
                    Comparison::Le,
                    Comparison::Gt,
                    Comparison::Ge,
                ];
                let (how, value) = (self.of(&how), self.value(table, &column));
                Filter::Compare(column, how, Scalar::from(value))
            }
            3 => match self.0.usize(..3) {
                0 => {
                    let column = self.column(table);
                    let values = (0..self.0.usize(..3)).map(|_| self.value(table, &column).into());
                    Filter::In(column.clone(), values.collect())
                }
                1 if table != "users" => {
                    Filter::StartsWith("id".to_owned(), self.of(&["i1", "c", ""]).to_owned())
                }
                _ if table == "issues" => Filter::Contains("title".to_owned(), self.text()),
                _ => Filter::default(),
            },
            4 => {
                Filter::All((0..self.0.usize(..3)).map(|_| self.filter(table, depth + 1)).collect())
            }
            5 => {
                Filter::Any((0..self.0.usize(..3)).map(|_| self.filter(table, depth + 1)).collect())
            }
            6 => Filter::Not(Box::new(self.filter(table, depth + 1))),
            _ => {
                let (join, other) = self.join(table);
                let filter = self.filter(other, depth + 1);
                let plan = Plan { table: other.to_owned(), filter, ..Plan::default() };
                Filter::Exists(join, Box::new(plan))
            }
        }
    }

    fn plan(&mut self, table: &str, depth: usize) -> Plan {
        let filter =
            if self.0.u8(..4) == 0 { Filter::default() } else { self.filter(table, depth) };
        let order: Vec<_> = (0..self.0.usize(..3))
            .map(|_| Order { column: self.column(table), descending: self.0.bool() })
            .collect();
        let after = (self.0.u8(..4) == 0).then(|| {
            let columns = order.iter().map(|order| order.column.clone()).chain(["id".to_owned()]);
            columns.map(|column| self.value(table, &column).into()).collect()
        });
        let limit = self.0.bool().then(|| self.of(&[0, 1, 2, 3, 5, 8]));
        let related = if depth > 1 { 0 } else { self.0.usize(..3) };
        let related = (0..related).map(|_| {
            let (join, other) = self.join(table);
            let shape = self.of(&[Shape::Many, Shape::Many, Shape::One, Shape::Count]);
            let mut plan = self.plan(other, depth + 1);
            plan.after = None;
            Related { join, shape, plan }
        });
        let related = related.collect();
        Plan { table: table.to_owned(), filter, order, after, limit, related }
    }
}

fn now<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    match Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

/// A live result, and what somebody has put together who hears of its changes.
struct Watched<R> {
    plan: Plan,
    live: Live<R>,
    changes: LiveChanges<R>,
    told: Vec<R>,
    heard: Vec<String>,
}

trait Watch {
    fn check(&mut self, oracle: &Oracle);
}

impl<R: Record + PartialEq + std::fmt::Debug> Watched<R> {
    fn watch(world: &mut World<Tracker>, client: ClientId, plan: &Plan) -> Box<dyn Watch>
    where
        R: 'static,
    {
        let live = world.query(client, &Query::<R>::from_plan(plan.clone()).unwrap()).unwrap();
        let (changes, told, heard) = (live.changes(), Vec::new(), Vec::new());
        Box::new(Self { plan: plan.clone(), live, changes, told, heard })
    }
}

impl<R: Record + PartialEq + std::fmt::Debug> Watch for Watched<R> {
    fn check(&mut self, oracle: &Oracle) {
        let expected = oracle.nodes(&self.plan);
        let nodes: Vec<Node> = self.live.nodes();
        assert_eq!(nodes, expected, "the view of {:#?}", self.plan);
        assert_eq!(self.live.len(), expected.len());
        while let Some(differences) = now(&mut self.changes) {
            for difference in differences.unwrap() {
                self.heard.push(format!("{difference:?}"));
                let difference: Difference<R> =
                    difference.try_map(|found| Ok::<_, ()>(found.row.clone())).unwrap();
                match &difference {
                    Difference::Inserted(at, _) => {
                        assert!(*at <= self.told.len(), "{difference:?}")
                    }
                    Difference::Moved(from, to, _) => {
                        assert!(*from < self.told.len() && *to < self.told.len(), "{difference:?}");
                    }
                    Difference::Updated(at, _) | Difference::Removed(at) => {
                        assert!(*at < self.told.len(), "{difference:?}");
                    }
                    Difference::Reset(_) => {}
                }
                difference.apply(&mut self.told);
            }
        }
        let rows: Vec<R> = self.live.rows_alone();
        assert_eq!(self.told, rows, "{:#?} {:#?}", self.plan, self.heard);
    }
}

trait RowsAlone<R> {
    fn rows_alone(&self) -> Vec<R>;
}

impl<R: Record> RowsAlone<R> for Live<R> {
    fn rows_alone(&self) -> Vec<R> {
        self.rows().unwrap().into_iter().map(|found| found.row).collect()
    }
}

struct Summed {
    plan: plan::Totals,
    live: LiveTotals<Issue>,
}

fn run(seed: u64) {
    let mut random = Random(fastrand::Rng::with_seed(seed));
    let mut world = World::new(Tracker).unwrap();
    let clients = [world.client(), world.client()];
    world.deliver().unwrap();
    let watched = clients[0];
    let oracle = Oracle::new(SCHEMAS);
    let mut views: Vec<Box<dyn Watch>> = Vec::new();
    let mut sums: Vec<Summed> = Vec::new();
    for _ in 0..60 {
        match random.0.usize(..30) {
            0..12 => drop(world.act(watched, random.action())),
            12..18 => drop(world.act(clients[1], random.action())),
            18..22 => world.deliver().unwrap(),
            22 => world.cut(random.of(&clients)).unwrap(),
            23 => world.advance(random.0.u64(..20_000)).unwrap(),
            24 if random.0.u8(..4) == 0 => {
                // What it had is gone with it: it is asked again.
                world.restart(watched).unwrap();
                views.clear();
                sums.clear();
            }
            25 if !views.is_empty() => {
                let gone = random.0.usize(..views.len());
                drop(views.swap_remove(gone));
            }
            _ if views.len() + sums.len() < 8 => {
                let table = random.of(&["users", "issues", "comments"]);
                if random.0.u8(..5) == 0 {
                    let plan = plan::Totals {
                        table: "issues".to_owned(),
                        filter: random.filter("issues", 0),
                        group: random.0.bool().then(|| random.column("issues")),
                        sum: random.0.bool().then(|| "points".to_owned()),
                    };
                    let totals = Totals::from_plan(plan.clone()).unwrap();
                    sums.push(Summed { plan, live: world.totals(watched, &totals).unwrap() });
                } else {
                    let plan = random.plan(table, 0);
                    let json = serde_json::to_string(&plan).unwrap();
                    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan, "{json}");
                    views.push(match table {
                        "users" => Watched::<User>::watch(&mut world, watched, &plan),
                        "issues" => Watched::<Issue>::watch(&mut world, watched, &plan),
                        _ => Watched::<Comment>::watch(&mut world, watched, &plan),
                    });
                }
            }
            _ => {}
        }
        oracle.fill(&world.rows::<User>(watched).unwrap());
        oracle.fill(&world.rows::<Issue>(watched).unwrap());
        oracle.fill(&world.rows::<Comment>(watched).unwrap());
        views.iter_mut().for_each(|view| view.check(&oracle));
        for Summed { plan, live } in &sums {
            let totals = live.untyped().into_iter();
            let totals: Vec<_> = totals.map(|t| (t.group, t.count as i64, t.sum as i64)).collect();
            assert_eq!(totals, oracle.totals(plan), "{plan:#?}");
        }
    }
}

#[test]
fn a_result_is_what_sqlite_finds_whatever_happens() {
    let runs = std::env::var("PARTYSYNC_QUERIES").map_or(300, |runs| runs.parse().unwrap());
    for seed in 0..runs {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
