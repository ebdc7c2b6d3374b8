//! Random actions and random queries.

use super::app::{AnyAction, CommentAction, IssueAction, SCHEMAS, UserAction};
use partysync::query::plan::{Comparison, Filter, Join, Order, Plan, Related, Scalar, Shape};
use partysync::sql::Value;

pub(super) struct Random {
    pub(super) rng: fastrand::Rng,
    /// How many issues there are about, and twice as many comments.
    pub(super) issues: usize,
}

impl Random {
    pub(super) fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.rng.usize(..all.len())].clone()
    }

    fn id(&mut self) -> String {
        format!("i{}", self.rng.usize(..self.issues))
    }

    fn limit(&mut self) -> u32 {
        let large = self.issues > 100;
        self.of(if large { &[1, 30, 60, 100, 150, 300] } else { &[0, 1, 2, 3, 5, 8] })
    }

    fn comment(&mut self) -> String {
        format!("c{}", self.rng.usize(..2 * self.issues))
    }

    fn user(&mut self) -> i64 {
        self.rng.i64(0..5)
    }

    fn rank(&mut self) -> Option<f64> {
        self.of(&[None, Some(0.0), Some(-1.5), Some(2.5), Some(-0.0)])
    }

    fn text(&mut self) -> String {
        self.of(&["", "a", "b", "ab", "ba", "é"]).to_owned()
    }

    pub(super) fn action(&mut self) -> AnyAction {
        let optional = |random: &mut Self| random.rng.bool().then(|| random.user());
        match self.rng.usize(..12) {
            0 => AnyAction::User(UserAction::Put {
                id: self.user(),
                name: self.text(),
                admin: self.rng.bool(),
            }),
            1 => AnyAction::User(UserAction::Delete { id: self.user() }),
            2..5 => AnyAction::Issue(IssueAction::Put {
                id: self.id(),
                author: optional(self),
                title: self.text(),
                open: self.rng.bool(),
                rank: self.rank(),
                points: self.rng.i64(-2..5),
            }),
            5..7 => AnyAction::Issue(IssueAction::Edit {
                id: self.id(),
                open: self.rng.bool().then(|| self.rng.bool()),
                points: self.rng.bool().then(|| self.rng.i64(-2..5)),
            }),
            7 => AnyAction::Issue(IssueAction::Delete { id: self.id() }),
            8 if self.rng.u8(..4) == 0 => AnyAction::Issue(IssueAction::Close),
            8..11 => AnyAction::Comment(CommentAction::Put {
                id: self.comment(),
                issue: self.id(),
                by: optional(self),
                note: self.of(&[None, Some("a"), Some("ab"), Some("no")]).map(str::to_owned),
            }),
            _ => AnyAction::Comment(CommentAction::Delete { id: self.comment() }),
        }
    }

    /// A value for a column, as it may be there.
    fn value(&mut self, table: &str, column: &str) -> Value {
        match (table, column) {
            (_, "admin" | "open") => Value::Integer(self.rng.i64(0..2)),
            ("users", "id") => Value::Integer(self.user()),
            (_, "author" | "by") => {
                if self.rng.bool() {
                    Value::Integer(self.user())
                } else {
                    Value::Null
                }
            }
            (_, "points") => Value::Integer(self.rng.i64(-2..5)),
            (_, "rank") => self.rank().map_or(Value::Null, Value::Real),
            ("issues", "id") | (_, "issue") => Value::Text(self.id()),
            ("comments", "id") => Value::Text(self.comment()),
            _ if self.rng.u8(..5) == 0 => Value::Null,
            _ => Value::Text(self.text()),
        }
    }

    pub(super) fn column(&mut self, table: &str) -> String {
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

    pub(super) fn filter(&mut self, table: &str, depth: usize) -> Filter {
        let more = if depth > 2 { 4 } else { 9 };
        match self.rng.usize(..more) {
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
            3 => match self.rng.usize(..3) {
                0 => {
                    let column = self.column(table);
                    let values =
                        (0..self.rng.usize(..3)).map(|_| self.value(table, &column).into());
                    Filter::In(column.clone(), values.collect())
                }
                1 if table != "users" => {
                    Filter::StartsWith("id".to_owned(), self.of(&["i1", "c", ""]).to_owned())
                }
                _ if table == "issues" => Filter::Contains("title".to_owned(), self.text()),
                _ => Filter::default(),
            },
            4 => Filter::All(
                (0..self.rng.usize(..3)).map(|_| self.filter(table, depth + 1)).collect(),
            ),
            5 => Filter::Any(
                (0..self.rng.usize(..3)).map(|_| self.filter(table, depth + 1)).collect(),
            ),
            6 => Filter::Not(Box::new(self.filter(table, depth + 1))),
            _ => {
                let (join, other) = self.join(table);
                let filter = self.filter(other, depth + 1);
                let plan = Plan { table: other.to_owned(), filter, ..Plan::default() };
                Filter::Exists(join, Box::new(plan))
            }
        }
    }

    pub(super) fn plan(&mut self, table: &str, depth: usize) -> Plan {
        let filter =
            if self.rng.u8(..4) == 0 { Filter::default() } else { self.filter(table, depth) };
        let order: Vec<_> = (0..self.rng.usize(..3))
            .map(|_| Order { column: self.column(table), descending: self.rng.bool() })
            .collect();
        let after = (self.rng.u8(..4) == 0).then(|| {
            let columns = order.iter().map(|order| order.column.clone()).chain(["id".to_owned()]);
            columns.map(|column| self.value(table, &column).into()).collect()
        });
        let limit = self.rng.bool().then(|| self.limit());
        let related = if depth > 1 { 0 } else { self.rng.usize(..3) };
        let related = (0..related).map(|_| {
            let (join, other) = self.join(table);
            let shape = self.of(&[Shape::Many, Shape::Many, Shape::One, Shape::Count]);
            let mut plan = self.plan(other, depth + 1);
            plan.after = None;
            if shape == Shape::Count {
                // All that the filter finds are counted.
                plan = Plan { table: plan.table, filter: plan.filter, ..Plan::default() };
            }
            Related { join, shape, plan }
        });
        let related = related.collect();
        Plan { table: table.to_owned(), filter, order, after, limit, related }
    }
}
