//! The application whose rows are queried: issues of users, with comments.

use partysync::{Action, Draft, Error, Record, Reduce, Result, Room, Schema, SyncServer, params};

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
    /// The server makes so many issues, and twice as many comments.
    #[action(custom)]
    Fill { count: i64 },
}

impl Reduce for IssueAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Issue>) -> Result<()> {
        if matches!(self, Self::Fill { .. }) {
            return Ok(());
        }
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
                room.sql().exec("DELETE FROM comments WHERE by = ?", &params![*id])?;
            }
            // The room is another one, and clients start over.
            AnyAction::User(UserAction::Put { name, .. }) if name == "ba" => room.renew_epoch(),
            AnyAction::Issue(IssueAction::Fill { count }) => {
                let numbers = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n \
                               WHERE n + 1 < ?)";
                let issues = format!(
                    "{numbers} INSERT INTO issues (id, author, title, open, rank, points) \
                     SELECT 'i' || n, n % 7, 't' || (n % 11), n % 2, n % 5 * 0.5, n % 13 FROM n"
                );
                room.sql().exec(&issues, &params![*count])?;
                let comments = format!(
                    "{numbers} INSERT INTO comments (id, issue, by, note) \
                     SELECT 'c' || n, 'i' || (n % 97), n % 6, 'n' || (n % 3) FROM n"
                );
                return room.sql().exec(&comments, &params![2 * *count]);
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
