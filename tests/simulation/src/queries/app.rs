//! The application whose rows are queried: issues of users, with comments.

use partysync::{Action, Draft, Error, Record, Reduce, Result, Room, Schema, SyncServer};

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
            // The room is another one, and clients start over.
            AnyAction::User(UserAction::Put { name, .. }) if name == "ba" => room.renew_epoch(),
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
