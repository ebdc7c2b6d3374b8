//! Who sees what: rows and keys that a client may see, and no others, whatever happens to them and to
//! its rights.

use partysync::room::{Event, Machine, Opening};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::wire::v2::{ClientFrame, Hello, ServerFrame, Subscription};
use partysync::{
    Action, Code, Draft, Error, Handle, Identity, Limits, Protocol, Record, Reduce, Result, Room,
    SyncServer, Timestamp, Visible, params,
};
use serde_json::{Value as Json, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    #[record(scope)]
    owner: String,
    #[record(scope)]
    board: Option<i64>,
    text: String,
    #[record(updated_at)]
    updated_at: Timestamp,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

/// Deleted for good, and seen by its key.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "users")]
struct User {
    #[record(key, scope)]
    name: String,
    #[record(default = 0)]
    visits: i64,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "grants")]
struct Grant {
    #[record(key)]
    id: i64,
    who: String,
    board: i64,
}

/// Actions that are SQL.
macro_rules! by_sql {
    ($name:ident, $record:ty) => {
        #[derive(Action, Clone, PartialEq, Debug)]
        #[action(record = $record)]
        enum $name {
            #[action(custom)]
            Run {
                #[action(json)]
                sql: Vec<String>,
            },
        }

        impl Reduce for $name {
            fn reduce_custom(&self, _: &mut Draft<'_, $record>) -> Result<()> {
                Ok(())
            }
        }
    };
}

mod moves;
mod refusals;
mod rights;

by_sql!(NoteAction, Note);
by_sql!(UserAction, User);
by_sql!(GrantAction, Grant);

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum Any {
    Note(NoteAction),
    User(UserAction),
    Grant(GrantAction),
}

type See = dyn Fn(&Room<'_, Server>, &str) -> Result<Visible>;

struct Server {
    visible: Rc<RefCell<Box<See>>>,
    page_bytes: usize,
    retention_ms: i64,
}

impl SyncServer for Server {
    type Action = Any;

    fn limits(&self) -> Limits {
        let pending_bytes = self.page_bytes as u64;
        Limits {
            page_bytes: self.page_bytes,
            pending_bytes,
            retention_ms: self.retention_ms,
            log_entries: 100,
            ..Limits::default()
        }
    }

    fn visible(&self, room: &Room<'_, Self>, channel: &str) -> Result<Visible> {
        (self.visible.borrow())(room, channel)
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: Any) -> Result<()> {
        let (Any::Note(NoteAction::Run { sql })
        | Any::User(UserAction::Run { sql })
        | Any::Grant(GrantAction::Run { sql })) = action;
        for sql in sql {
            match sql.as_str() {
                "review" => room.review(),
                sql => room.sql().exec(sql, &[])?,
            }
        }
        Ok(())
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        _: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        let snapshot = room.run(|room| room.snapshot(&["notes", "users"])).await?;
        Ok(http::Response::new(serde_json::to_vec(&snapshot).unwrap()))
    }
}

/// Everybody sees own notes, those of boards that were granted, and the own user.
fn own(room: &Room<'_, Server>, channel: &str) -> Result<Visible> {
    let Some(who) = room.identity::<String>()? else { return Ok(Visible::nothing()) };
    if who == "root" {
        return Ok(Visible::all());
    }
    match channel {
        "notes" => {
            let boards = "SELECT board FROM grants WHERE who = ? ORDER BY board";
            let boards = room.sql().query_map(boards, params![&who], |row| row.get::<i64>(0))?;
            let boards = json!(boards).to_string();
            let condition = "owner = ? OR board IN (SELECT value FROM json_each(?))";
            Ok(Visible::rows(condition, params![who, boards]))
        }
        "users" => Ok(Visible::rows("name = ?", params![who])),
        _ => Ok(Visible::nothing()),
    }
}

fn server(visible: impl Fn(&Room<'_, Server>, &str) -> Result<Visible> + 'static) -> Server {
    Server {
        visible: Rc::new(RefCell::new(Box::new(visible))),
        page_bytes: 128 * 1024,
        retention_ms: 600_000,
    }
}

struct World {
    room: TestRoom<Server>,
    visible: Rc<RefCell<Box<See>>>,
    /// What each connection was told, by channel.
    shown: BTreeMap<(String, String), BTreeMap<String, Json>>,
    /// All keys that a connection was ever told.
    told: BTreeMap<String, BTreeSet<String>>,
    /// The version and the views of each, by channel.
    views: BTreeMap<(String, String), Option<String>>,
    versions: BTreeMap<String, u64>,
    closed: BTreeMap<String, String>,
    frames: Vec<(String, Json)>,
}

impl World {
    fn new(server: Server) -> Self {
        let visible = server.visible.clone();
        let room = TestRoom::new(server).unwrap();
        let mut world = Self {
            room,
            visible,
            shown: BTreeMap::new(),
            told: BTreeMap::new(),
            views: BTreeMap::new(),
            versions: BTreeMap::new(),
            closed: BTreeMap::new(),
            frames: Vec::new(),
        };
        // What it does is not what is looked at.
        world.room.disconnect("self").unwrap();
        let mut root = http::Request::new(());
        Identity::new("root").unwrap().put(&mut root);
        world.room.connect_own(&root).unwrap();
        world.room.take_sent();
        world
    }

    fn connect(&mut self, who: &str) {
        self.connect_as(who, Protocol::V2).unwrap();
        let schemas = Any::CHANNELS.iter();
        let known = self.versions.get(who).copied();
        let channels = schemas.map(|schema| Subscription {
            channel: schema.table.to_owned(),
            since: known,
            view: self.views.get(&(who.to_owned(), schema.table.to_owned())).cloned().flatten(),
            schema: schema.hash(),
            record: 1,
            columns: Vec::new(),
        });
        let epoch = known.map(|_| "epoch".to_owned());
        let hello = Hello { client: who.to_owned(), epoch, channels: channels.collect() };
        let sent = self.room.frame(who, &ClientFrame::Hello(hello).to_text()).unwrap();
        self.take(sent);
    }

    fn connect_as(&mut self, who: &str, protocol: Protocol) -> Result<()> {
        self.closed.remove(who);
        let mut request = http::Request::new(());
        Identity::new(who)?.put(&mut request);
        self.room.connect_with(who, protocol, &request)?;
        let sent = self.room.take_sent();
        self.take(sent);
        Ok(())
    }

    fn leave(&mut self, who: &str) {
        self.room.disconnect(who).unwrap();
    }

    /// Runs SQL in one action, by one who sees all.
    fn run(&mut self, sql: &[&str]) {
        self.room.advance_millis(1);
        let sql = sql.iter().map(|sql| (*sql).to_owned()).collect();
        self.room.act(NoteAction::Run { sql }.into()).unwrap();
        let sent = self.room.take_sent();
        self.take(sent);
    }

    /// What was sent arrives, in its order; each reads it, and so is sent more.
    fn take(&mut self, mut sent: Vec<(String, String)>) {
        while !sent.is_empty() {
            let mut read: BTreeMap<String, u64> = BTreeMap::new();
            for (who, text) in std::mem::take(&mut sent) {
                if who == "self" {
                    continue;
                }
                if text.starts_with("close ") {
                    self.closed.insert(who.clone(), text);
                    self.room.disconnect(&who).unwrap();
                    sent.append(&mut self.room.take_sent());
                    continue;
                }
                *read.entry(who.clone()).or_default() += text.len() as u64;
                self.hear(&who, &text);
            }
            for (who, bytes) in read {
                let read = ClientFrame::Read(bytes).to_text();
                sent.append(&mut self.room.frame(&who, &read).unwrap());
            }
        }
    }

    fn hear(&mut self, who: &str, text: &str) {
        self.frames.push((who.to_owned(), serde_json::from_str(text).unwrap()));
        match ServerFrame::parse(text) {
            Ok(Some(ServerFrame::CatchUp(page))) => {
                let channel = (who.to_owned(), page.channel.clone());
                if page.from.is_none() {
                    // The first page of a snapshot counts what it has.
                    if page.sent == (page.rows.len() + page.gone.len()) as u64 {
                        self.shown.remove(&channel);
                    }
                    self.views.insert(channel, page.view.clone());
                }
                self.put(who, &page.channel, &page.rows, &page.gone);
                self.versions.insert(who.to_owned(), page.to);
            }
            Ok(Some(ServerFrame::Patch(patch))) => {
                for change in &patch.changes {
                    self.put(who, &change.channel, &change.rows, &change.gone);
                }
                self.versions.insert(who.to_owned(), patch.to);
            }
            _ => {}
        }
    }

    fn put(&mut self, who: &str, channel: &str, rows: &[Json], gone: &[Json]) {
        let shown = self.shown.entry((who.to_owned(), channel.to_owned())).or_default();
        let told = self.told.entry(who.to_owned()).or_default();
        for row in rows {
            told.insert(row[0].as_str().unwrap_or_default().to_owned());
            shown.insert(row[0].as_str().unwrap_or_default().to_owned(), row.clone());
        }
        for key in gone {
            told.insert(key.as_str().unwrap_or_default().to_owned());
            shown.remove(key.as_str().unwrap_or_default());
        }
    }

    /// The keys of the notes that a connection shows.
    fn notes(&self, who: &str) -> Vec<String> {
        let notes = self.shown.get(&(who.to_owned(), "notes".to_owned()));
        notes.into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    fn told(&self, who: &str) -> Vec<String> {
        self.told.get(who).into_iter().flatten().cloned().collect()
    }

    /// Lets the room forget what is older than its retention.
    fn forget(&mut self) {
        for _ in 0..4 {
            self.room.advance_millis(100_000);
            let sent = self.room.alarm().unwrap();
            self.take(sent);
        }
    }
}

fn put(id: &str, owner: &str) -> String {
    format!("INSERT INTO notes (id, owner, text) VALUES ('{id}', '{owner}', 'hi')")
}
