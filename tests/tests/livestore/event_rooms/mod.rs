//! Event-sourced rooms that follow a store: what they are made of, and a world of them.

mod calls;
mod random;
mod rows;

use crate::harness::{Plain, STORE, Store, pull, request};
use partysync::livestore::{EventInput, EventOutput, EventRoom, EventServer, Identity, Input};
use partysync::livestore::{Transport, msgpack};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::{Action, Error, Event, Record, Result, Room, SyncServer, Visible, params};
use serde_json::{Value as Json, json};
use std::collections::VecDeque;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "items")]
pub struct Item {
    #[record(key)]
    id: String,
    text: String,
    /// Taken over by whoever asks for it last.
    #[record(unique)]
    place: Option<i64>,
}

#[derive(Action, Clone, Debug)]
#[action(record = Item)]
pub enum ItemAction {
    #[action(insert)]
    Create { id: String, text: String },
    #[action(custom)]
    Do { name: String, args: String },
}

impl partysync::Reduce for ItemAction {
    fn reduce_custom(&self, _: &mut partysync::Draft<'_, Item>) -> Result<()> {
        Ok(())
    }
}

#[derive(Event, Clone, Debug, PartialEq)]
#[event(rename_all = "camelCase")]
pub enum ItemEvent {
    #[event(name = "v1.Created")]
    Created { id: String, text: String },
    #[event(name = "v1.Placed")]
    Placed { id: String, place: i64 },
    #[event(name = "v1.Renamed")]
    Renamed { id: String, text: String },
    #[event(name = "v1.Moved")]
    Moved { id: String, to: String },
    #[event(name = "v1.Swapped")]
    Swapped { id: String, with: String },
    #[event(name = "v1.Deleted")]
    Deleted { id: String },
    #[event(name = "v1.Copied")]
    Copied {
        from: String,
        new_id: String,
        #[event(optional)]
        text: Option<String>,
    },
    #[event(name = "v1.Refused")]
    Refused { half: String },
    #[event(name = "v1.Anything")]
    Anything { any: Json },
    #[event(name = "v1.Cleared")]
    Cleared,
}

#[derive(Default, Clone)]
struct Items {
    version: u32,
    reset: &'static str,
    poll_ms: Option<u32>,
    /// Whether nobody sees any row.
    hides: bool,
}

impl SyncServer for Items {
    type Action = ItemAction;

    fn visible(&self, _: &Room<'_, Self>, _: &str) -> Result<Visible> {
        Ok(if self.hides { Visible::nothing() } else { Visible::all() })
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: ItemAction) -> Result<()> {
        match action {
            ItemAction::Create { id, text } => self.commit(room, ItemEvent::Created { id, text }),
            ItemAction::Do { name, args } => {
                let event = ItemEvent::from_parts(&name, Some(&args))?;
                self.commit(room, event.ok_or_else(|| Error::reject("no such event"))?)
            }
        }
    }
}

impl EventServer for Items {
    type Event = ItemEvent;

    fn materialize(&self, sql: &dyn Sql, event: &ItemEvent) -> Result<()> {
        match event {
            ItemEvent::Created { id, text } => {
                let text = if self.version > 0 { &format!("{text}!") } else { text };
                let sql_text = "INSERT OR IGNORE INTO items (id, text) VALUES (?, ?)";
                sql.exec(sql_text, &params![id, text])
            }
            // Whoever has the place is removed.
            ItemEvent::Placed { id, place } => {
                sql.exec("UPDATE OR REPLACE items SET place = ? WHERE id = ?", &params![place, id])
            }
            ItemEvent::Renamed { id, text } => {
                sql.exec("UPDATE items SET text = ? WHERE id = ?", &params![text, id])
            }
            ItemEvent::Moved { id, to } => {
                sql.exec("UPDATE OR REPLACE items SET id = ? WHERE id = ?", &params![to, id])
            }
            // Two rows change something unique between them.
            ItemEvent::Swapped { id, with } => {
                let place = "SELECT place FROM items WHERE id = ?";
                let place = |of: &String| {
                    let place = sql.query_opt(place, params![of], |row| row.get::<Option<i64>>(0));
                    place.map(Option::flatten)
                };
                let (one, two) = (place(id)?, place(with)?);
                let set = "UPDATE items SET place = ? WHERE id = ?";
                sql.exec(set, &params![None::<i64>, id])?;
                sql.exec(set, &params![one, with])?;
                sql.exec(set, &params![two, id])
            }
            ItemEvent::Deleted { id } => sql.exec("DELETE FROM items WHERE id = ?", &params![id]),
            ItemEvent::Copied { from, new_id, text } => sql.exec(
                "INSERT OR REPLACE INTO items (id, text) \
                 SELECT ?, coalesce(?, text) FROM items WHERE id = ?",
                &params![new_id, text, from],
            ),
            ItemEvent::Refused { half } => {
                sql.exec("INSERT OR REPLACE INTO items (id, text) VALUES (?, '')", &params![half])?;
                Err(Error::reject("it is refused half way"))
            }
            ItemEvent::Anything { .. } => Ok(()),
            ItemEvent::Cleared => sql.exec("DELETE FROM items", &[]),
        }
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn reset_persistence(&self) -> &str {
        self.reset
    }

    fn poll_ms(&self) -> Option<u32> {
        self.poll_ms
    }

    fn store_id(&self, _: &str) -> String {
        STORE.to_owned()
    }
}

/// A room, and what is under way between it and the store.
struct Node {
    room: TestRoom<EventRoom<Items>>,
    name: String,
    calls: VecDeque<(u64, String)>,
    answers: VecDeque<EventInput>,
    logs: Vec<String>,
    again: bool,
}

impl Node {
    fn new(name: &str) -> Self {
        Self::with(name, Items::default(), Sqlite::in_memory().unwrap())
    }

    fn with(name: &str, server: Items, db: Sqlite) -> Self {
        let identity = Identity {
            binding: "ROOM".to_owned(),
            object: name.to_owned(),
            client: format!("client of {name}"),
        };
        let room = TestRoom::with(EventRoom::new(server, identity), db).unwrap();
        let mut node = Self {
            room,
            name: name.to_owned(),
            calls: VecDeque::new(),
            answers: VecDeque::new(),
            logs: Vec::new(),
            again: false,
        };
        node.input(EventInput::Go);
        node
    }

    fn input(&mut self, input: EventInput) {
        for output in self.room.input(input).unwrap() {
            match output {
                EventOutput::Call(number, message) => self.calls.push_back((number, message)),
                EventOutput::Again => self.again = true,
                EventOutput::Log(_, message) => self.logs.push(message),
            }
        }
    }

    fn act(&mut self, event: &ItemEvent) -> Result<()> {
        let args = event.args()?.unwrap_or(json!({})).to_string();
        self.room.act(ItemAction::Do { name: event.name().to_owned(), args })?;
        self.input(EventInput::Go);
        Ok(())
    }

    fn create(&mut self, id: &str) {
        self.act(&ItemEvent::Created { id: id.into(), text: format!("of {}", self.name) }).unwrap();
    }

    fn rows(&self) -> Vec<Item> {
        self.room.rows().unwrap()
    }

    fn ids(&self) -> Vec<String> {
        self.rows().into_iter().map(|item| item.id).collect()
    }

    /// The process ends, and the room comes again.
    fn restart(&mut self) {
        self.calls.clear();
        self.answers.clear();
        self.room.hibernate().unwrap();
        self.input(EventInput::Go);
    }

    fn ring(&mut self) {
        self.room.alarm().unwrap();
        self.input(EventInput::Go);
    }

    /// The events that the backend does not have, and the last that it has.
    fn pending(&self) -> (i64, u64) {
        let sql = self.room.sql();
        let count = "SELECT count(*), (SELECT head FROM _partysync_events) FROM _partysync_event \
                     WHERE seq > (SELECT head FROM _partysync_events)";
        let read =
            |row: &partysync::sql::Row<'_>| Ok((row.get(0)?, row.get::<i64>(1)?.unsigned_abs()));
        sql.query_one(count, [], read).unwrap()
    }
}

struct World {
    store: Store<Plain>,
    nodes: Vec<Node>,
}

impl World {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|n| Node::new(&format!("n{n}"))).collect();
        Self { store: Store::new(Plain), nodes }
    }

    /// One room, whose database is this file.
    fn in_file() -> (Self, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let node = Node::with("n0", Items::default(), Sqlite::open(file.path()).unwrap());
        (Self { store: Store::new(Plain), nodes: vec![node] }, file)
    }

    /// The store handles a call of a room; `heard` of its answer's messages arrive.
    fn serve(&mut self, node: usize, heard: usize) {
        let Some((number, message)) = self.nodes[node].calls.pop_front() else { return };
        // As it travels.
        let bytes = msgpack::encode([message.as_str()]).unwrap();
        let [message]: [String; 1] = msgpack::decode(&bytes, 1 << 24).unwrap().try_into().unwrap();
        let answer = self.store.call_by(Transport::Rpc, &message);
        let answers = &mut self.nodes[node].answers;
        let all = answer.len();
        for message in answer.into_iter().take(heard) {
            answers.push_back(EventInput::Message(number, message.to_string()));
        }
        let end = if heard < all { Err(Error::retry("the connection broke")) } else { Ok(()) };
        answers.push_back(EventInput::Ended(number, end));
    }

    fn hear(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(answer) = node.answers.pop_front() {
            node.input(answer);
        }
        if std::mem::take(&mut node.again) {
            node.input(EventInput::Go);
        }
    }

    /// The store calls a room, which hears it or not; the store is told of that or not.
    fn update(&mut self, heard: bool, told: bool) {
        if self.store.calls.is_empty() {
            return;
        }
        let (number, whom, frame) = self.store.calls.remove(0);
        if heard {
            let node = self.nodes.iter_mut().find(|node| node.name == whom.object);
            node.expect("a room").input(EventInput::Update(frame.to_string()));
        }
        let result = if heard && told { Ok(()) } else { Err(Error::retry("it broke")) };
        self.store.turn(Input::Called(number, result));
    }

    fn advance(&mut self, millis: i64) {
        self.store.now = self.store.now.plus_millis(millis);
        self.nodes.iter_mut().for_each(|node| node.room.advance_millis(millis));
    }

    /// Alarms that are due.
    fn alarms(&mut self) {
        if self.store.alarm.is_some_and(|at| at <= self.store.now) {
            self.store.alarm = None;
            self.store.turn(Input::Alarm);
        }
        for node in &mut self.nodes {
            if node.room.next_alarm().is_some_and(|at| at <= node.room.now()) {
                node.ring();
            }
        }
    }

    /// All goes well from here on, until nothing is left to be done.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            let mut quiet = self.store.calls.is_empty();
            self.update(true, true);
            for node in 0..self.nodes.len() {
                let own = &self.nodes[node];
                quiet &= own.calls.is_empty() && own.answers.is_empty() && !own.again;
                self.serve(node, usize::MAX);
                self.hear(node);
            }
            if quiet {
                self.advance(5_000);
                self.alarms();
                let busy = |node: &Node| !node.calls.is_empty() || node.pending().0 > 0;
                if !self.nodes.iter().any(busy) && self.store.calls.is_empty() {
                    let head = self.store.log().len() as u64;
                    if self.nodes.iter().all(|node| node.pending().1 == head) {
                        return;
                    }
                }
            }
        }
        for node in &self.nodes {
            eprintln!(
                "calls {:?} answers {:?} again {} now {:?} alarm {:?} store {:?} {:?}",
                node.calls,
                node.answers,
                node.again,
                node.room.now(),
                node.room.next_alarm(),
                self.store.calls.len(),
                self.store.alarm
            );
            eprintln!(
                "{}: {:?} {:?} {:?}",
                node.name,
                node.pending(),
                node.room.server(),
                node.logs
            );
        }
        panic!("it never ends: the log has {} events", self.store.log().len());
    }

    /// The store's events: name, arguments, client.
    fn log(&self) -> Vec<(String, Json, String)> {
        let sql: &dyn Sql = &self.store.db;
        let all = "SELECT name, args, clientId FROM eventlog_7_store_1 ORDER BY seqNum";
        sql.query_map(all, [], |row| {
            let args: Option<String> = row.get(1)?;
            let args = args.map_or(Json::Null, |args| serde_json::from_str(&args).unwrap());
            Ok((row.get(0)?, args, row.get(2)?))
        })
        .unwrap()
    }

    /// What a room makes of the log that sees it as it is now.
    fn replayed(&mut self) -> Vec<Item> {
        let mut fresh = Node::new("fresh");
        while let Some((number, message)) = fresh.calls.pop_front() {
            for message in self.store.call_by(Transport::Rpc, &message) {
                fresh.input(EventInput::Message(number, message.to_string()));
            }
            fresh.input(EventInput::Ended(number, Ok(())));
        }
        fresh.rows()
    }

    /// Every room shows what the log says.
    fn check(&mut self) {
        let rows = self.replayed();
        for node in &self.nodes {
            assert_eq!(node.rows(), rows, "{}", node.name);
            let undo = "SELECT count(*) FROM _partysync_undo_items";
            let left: i64 = node.room.sql().query_one(undo, [], |row| row.get(0)).unwrap();
            assert_eq!(left, 0, "nothing is left to be undone");
        }
    }

    /// Another client's events, at the head.
    fn foreign(&mut self, events: &[ItemEvent]) {
        // It is opened by whoever comes first.
        self.store.call(&pull("", false, None));
        let head = self.store.log().len() as u64;
        let batch = events.iter().zip(head + 1..).map(|(event, seq)| {
            json!({"name": event.name(), "args": event.args().unwrap(), "seqNum": seq,
                "parentSeqNum": seq - 1, "clientId": "js", "sessionId": "s"})
        });
        let batch: Vec<_> = batch.collect();
        let payload = json!({"storeId": STORE, "batch": batch, "backendId": {"_tag": "None"}});
        let answer = self.store.call(&request("f", "Push", payload));
        assert_eq!(answer[0]["exit"]["_tag"], "Success", "{answer:?}");
    }
}

fn created(id: &str) -> ItemEvent {
    ItemEvent::Created { id: id.into(), text: "foreign".into() }
}
