//! Rows that only some may see: notes, and the grants by which others than their owners see them.

use super::AppAction;
use partysync::sql::Sql;
use partysync::{Action, Draft, Error, Record, Reduce, Result, Room, Timestamp, Visible, params};
use serde::{Deserialize, Serialize};

/// A note, which its owner sees, and who was granted its board.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
pub struct Note {
    /// One of a few.
    #[record(key)]
    pub id: String,
    /// Whose it is.
    #[record(scope)]
    pub owner: String,
    /// Where it is.
    #[record(scope)]
    pub board: i64,
    /// The token of the action that wrote it last.
    pub token: i64,
    /// Set by the framework.
    #[record(updated_at)]
    pub updated_at: Timestamp,
    /// Soft deletes.
    #[record(deleted_at)]
    pub deleted_at: Option<Timestamp>,
}

/// Somebody sees a board; whoever it is for sees that.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "grants")]
pub struct Grant {
    /// Who and the board.
    #[record(key)]
    pub id: String,
    /// Who.
    #[record(scope)]
    pub who: String,
    /// Which board; [`ALL`] is all of them.
    pub board: i64,
}

/// The board whose grant shows all notes.
pub const ALL: i64 = 3;

/// One step of a program over notes and grants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum NoteOp {
    /// Writes a note, for this owner and on this board.
    Put(String, String, i64),
    /// Gives it to another.
    Own(String, String),
    /// Puts it on another board.
    Move(String, i64),
    /// Writes what nobody's view depends on.
    Touch(String),
    /// Deletes it softly.
    Remove(String),
    /// Deletes it for good.
    Destroy(String),
    /// Gives it another key.
    Rekey(String, String),
    /// Grants a board.
    Give(String, i64),
    /// Takes that back.
    Take(String, i64),
}

impl NoteOp {
    fn random(random: &mut fastrand::Rng) -> Self {
        let id = |random: &mut fastrand::Rng| {
            ["m", "n", "o", "p", "q", "r"][random.usize(..6)].to_owned()
        };
        let who = |random: &mut fastrand::Rng| format!("u{}", random.u8(..3));
        match random.u8(..18) {
            0..=3 => Self::Put(id(random), who(random), random.i64(0..4)),
            4..=6 => Self::Own(id(random), who(random)),
            7..=9 => Self::Move(id(random), random.i64(0..4)),
            10 | 11 => Self::Touch(id(random)),
            12 => Self::Remove(id(random)),
            13 => Self::Destroy(id(random)),
            14 => Self::Rekey(id(random), id(random)),
            15 | 16 => Self::Give(who(random), random.i64(0..=ALL)),
            _ => Self::Take(who(random), random.i64(0..=ALL)),
        }
    }

    fn perform(&self, sql: &dyn Sql, now: Timestamp, token: i64) -> Result<()> {
        match self {
            Self::Put(id, owner, board) => sql.exec(
                "INSERT INTO notes (id, owner, board, token) VALUES (?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, board = excluded.board,
                 token = excluded.token, deleted_at = NULL",
                &params![id, owner, *board, token],
            ),
            Self::Own(id, owner) => {
                sql.exec("UPDATE notes SET owner = ? WHERE id = ?", &params![owner, id])
            }
            Self::Move(id, board) => {
                sql.exec("UPDATE notes SET board = ? WHERE id = ?", &params![*board, id])
            }
            Self::Touch(id) => {
                sql.exec("UPDATE notes SET token = ? WHERE id = ?", &params![token, id])
            }
            Self::Remove(id) => sql.exec(
                "UPDATE notes SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL",
                &params![now, id],
            ),
            Self::Destroy(id) => sql.exec("DELETE FROM notes WHERE id = ?", &params![id]),
            Self::Rekey(from, to) => {
                sql.exec("UPDATE OR REPLACE notes SET id = ? WHERE id = ?", &params![to, from])
            }
            Self::Give(who, board) => sql.exec(
                "INSERT OR REPLACE INTO grants (id, who, board) VALUES (?, ?, ?)",
                &params![format!("{who}/{board}"), who, *board],
            ),
            Self::Take(who, board) => {
                sql.exec("DELETE FROM grants WHERE id = ?", &params![format!("{who}/{board}")])
            }
        }
    }
}

/// What may be done to notes: a program over both tables.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
pub enum NoteAction {
    /// Its steps.
    #[action(custom)]
    Program {
        /// One after the other.
        #[action(json)]
        ops: Vec<NoteOp>,
        /// The action's token.
        token: i64,
    },
}

/// What may be done to grants; most is done by programs.
#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Grant)]
pub enum GrantAction {
    /// Takes all of somebody's back.
    #[action(custom)]
    Banish {
        /// Whose.
        who: String,
        /// The action's token.
        token: i64,
    },
}

impl Reduce for NoteAction {
    // What comes of it the server says.
    fn reduce_custom(&self, _: &mut Draft<'_, Note>) -> Result<()> {
        Ok(())
    }
}

impl Reduce for GrantAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Grant>) -> Result<()> {
        Ok(())
    }
}

impl AppAction {
    /// A random action over notes and grants.
    pub fn random_note(random: &mut fastrand::Rng, token: i64) -> Self {
        if random.u8(..12) == 0 {
            let who = format!("u{}", random.u8(..3));
            return GrantAction::Banish { who, token }.into();
        }
        let ops = (0..random.usize(1..5)).map(|_| NoteOp::random(random)).collect();
        NoteAction::Program { ops, token }.into()
    }
}

pub(super) fn perform(sql: &dyn Sql, now: Timestamp, action: &NoteAction) -> Result<()> {
    let NoteAction::Program { ops, token } = action;
    ops.iter().try_for_each(|op| op.perform(sql, now, *token))
}

pub(super) fn banish(sql: &dyn Sql, action: &GrantAction) -> Result<()> {
    let GrantAction::Banish { who, .. } = action;
    sql.exec("DELETE FROM grants WHERE who = ?", &params![who])
}

/// Who might ever have seen the note of a key, also in the middle of an action; and all states of
/// notes.
const MIGHT: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS might (who TEXT, id TEXT, PRIMARY KEY (who, id))",
    "CREATE TABLE IF NOT EXISTS states (id TEXT, board INTEGER, PRIMARY KEY (id, board))",
    "CREATE TRIGGER IF NOT EXISTS might_insert AFTER INSERT ON notes BEGIN
        INSERT INTO states SELECT NEW.id, NEW.board WHERE TRUE ON CONFLICT DO NOTHING;
        INSERT INTO might SELECT NEW.owner, NEW.id WHERE TRUE ON CONFLICT DO NOTHING;
        INSERT INTO might SELECT who, NEW.id FROM grants WHERE board IN (NEW.board, 3)
        ON CONFLICT DO NOTHING; END",
    "CREATE TRIGGER IF NOT EXISTS might_update AFTER UPDATE ON notes BEGIN
        INSERT INTO states SELECT NEW.id, NEW.board WHERE TRUE ON CONFLICT DO NOTHING;
        INSERT INTO might SELECT NEW.owner, NEW.id WHERE TRUE ON CONFLICT DO NOTHING;
        INSERT INTO might SELECT who, NEW.id FROM grants WHERE board IN (NEW.board, 3)
        ON CONFLICT DO NOTHING; END",
    "CREATE TRIGGER IF NOT EXISTS might_grant AFTER INSERT ON grants BEGIN
        INSERT INTO might SELECT NEW.who, id FROM notes WHERE NEW.board IN (board, 3)
        ON CONFLICT DO NOTHING; END",
];

pub(super) fn start(sql: &dyn Sql) -> Result<()> {
    MIGHT.iter().try_for_each(|statement| sql.exec(statement, &[]))
}

/// What somebody may see.
pub(super) fn visible<S>(room: &Room<'_, S>, channel: &str) -> Result<Visible> {
    if !["notes", "grants"].contains(&channel) {
        return Ok(Visible::all());
    }
    let Some(who) = room.identity::<String>()? else { return Ok(Visible::nothing()) };
    if channel == "grants" {
        return Ok(Visible::rows("who = ?", params![who]));
    }
    let granted = "SELECT board FROM grants WHERE who = ? ORDER BY board";
    let boards = room.sql().query_map(granted, params![&who], |row| row.get::<i64>(0))?;
    if boards.contains(&ALL) {
        return Ok(Visible::all());
    }
    let boards =
        serde_json::to_string(&boards).map_err(|e| Error::reject(format!("no boards: {e}")))?;
    let seen = "owner = ? OR board IN (SELECT value FROM json_each(?))";
    Ok(Visible::rows(seen, params![who, boards]))
}

/// Whether somebody sees a note.
pub(crate) fn sees(who: &str, note: &Note, grants: &[Grant]) -> bool {
    let granted = |grant: &Grant| grant.who == who && [note.board, ALL].contains(&grant.board);
    note.owner == who || grants.iter().any(granted)
}
