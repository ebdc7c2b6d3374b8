//! A store on a database in memory, and raw clients of it.

use partysync::Timestamp;
use partysync::livestore::{Caller, Effect, Input, LiveStoreServer, Open, Subscriber, Transport};
use partysync::room::{Incoming, Slot};
use partysync::sql::{Sql, Sqlite, Turns};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A backend that takes what it is given.
#[derive(Default)]
pub struct Plain;

impl LiveStoreServer for Plain {}

/// What came of a socket.
#[derive(Default)]
pub struct Socket {
    pub frames: Vec<Json>,
    pub closed: Option<(u16, &'static str)>,
    attachment: Option<String>,
    pub serial: u64,
}

pub struct Store<S> {
    server: Rc<S>,
    pub db: Sqlite,
    open: Option<Open>,
    pub sockets: BTreeMap<Slot, Socket>,
    pub now: Timestamp,
    pub alarm: Option<Timestamp>,
    pub refused: Option<(u16, String)>,
    pub hooks: Vec<futures::future::LocalBoxFuture<'static, partysync::livestore::HookDone>>,
    pub again: bool,
    /// Subscribers that are being called.
    pub calls: Vec<(u64, Subscriber, Json)>,
    /// The most bytes that a turn has sent.
    pub most: usize,
    lives: u32,
}

pub const STORE: &str = "store-1";

pub fn caller(transport: Transport) -> Caller {
    Caller { store_id: STORE.to_owned(), payload: None, headers: Vec::new(), transport }
}

pub fn event(seq: u64) -> Json {
    json!({"name": "v1.Added", "args": {"id": seq.to_string(), "text": "héllo \"q\""}, "seqNum": seq,
        "parentSeqNum": seq - 1, "clientId": "c", "sessionId": "s"})
}

pub fn request(id: &str, tag: &str, payload: Json) -> String {
    json!({"_tag": "Request", "id": id, "tag": format!("SyncWsRpc.{tag}"), "payload": payload,
        "traceId": "t", "spanId": "s", "sampled": true, "headers": []})
    .to_string()
}

pub fn push(id: &str, events: impl IntoIterator<Item = u64>) -> String {
    let batch: Vec<_> = events.into_iter().map(event).collect();
    request(id, "Push", json!({"storeId": STORE, "batch": batch, "backendId": {"_tag": "None"}}))
}

pub fn pull(id: &str, live: bool, cursor: Option<(&str, u64)>) -> String {
    let cursor = match cursor {
        None => json!({"_tag": "None"}),
        Some((backend, seq)) => {
            json!({"_tag": "Some", "value": {"backendId": backend, "eventSequenceNumber": seq}})
        }
    };
    request(id, "Pull", json!({"storeId": STORE, "live": live, "cursor": cursor}))
}

pub fn ack(id: &str) -> String {
    json!({"_tag": "Ack", "requestId": id}).to_string()
}

impl<S: LiveStoreServer> Store<S> {
    pub fn new(server: S) -> Self {
        Self {
            server: Rc::new(server),
            db: Sqlite::in_memory().unwrap(),
            open: None,
            sockets: BTreeMap::new(),
            now: Timestamp::from_millis(1_764_000_000_000),
            alarm: None,
            refused: None,
            hooks: Vec::new(),
            again: false,
            calls: Vec::new(),
            most: 0,
            lives: 0,
        }
    }

    /// A store whose backend has another id.
    pub fn another(server: S) -> Self {
        Self { lives: 1_000, ..Self::new(server) }
    }

    /// Goes through a turn in a transaction of its own; the slot of what was accepted in it.
    pub fn turn(&mut self, input: Input<'_>) -> Option<Slot> {
        let accepted = self.run([input]);
        while std::mem::take(&mut self.again) {
            self.run([]);
        }
        accepted
    }

    /// Goes through one turn with all of these.
    pub fn run<'i>(&mut self, inputs: impl IntoIterator<Item = Input<'i>>) -> Option<Slot> {
        self.db.begin().unwrap();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                self.lives += 1;
                let slots = self.sockets.keys().next_back().map_or(0, |last| last.0 + 1);
                let kept = |slot| self.sockets.get(&Slot(slot)).and_then(|s| s.attachment.clone());
                let sockets = (0..slots).map(kept).collect();
                let fresh = format!("backend-{}", self.lives);
                Open::new(&*self.server, &self.db, STORE, &fresh, self.now, sockets).unwrap()
            }
        };
        let turn = open.turn(&self.server, &self.db, self.now, inputs);
        self.open = Some(open);
        assert!(turn.aborted.is_none(), "{turn:?}");
        self.db.commit().unwrap();
        self.hooks.extend(turn.hooks);
        turn.after.into_iter().for_each(|hook| drop(futures::executor::block_on(hook)));
        let sends = turn.effects.iter().map(|effect| match effect {
            Effect::Send(_, frame) => frame.len(),
            _ => 0,
        });
        self.most = self.most.max(sends.sum());
        let mut accepted = None;
        for effect in turn.effects {
            match effect {
                Effect::Accept(slot, serial) => {
                    self.sockets.insert(slot, Socket { serial, ..Socket::default() });
                    accepted = Some(slot);
                }
                Effect::Refuse(status, why) => self.refused = Some((status, why)),
                Effect::Send(slot, frame) => {
                    let frame = serde_json::from_str(&frame).expect(&frame);
                    self.sockets.get_mut(&slot).expect("a socket").frames.push(frame);
                }
                Effect::Finish(slot) => {
                    self.sockets.get_mut(&slot).expect("a call").closed = Some((0, "finished"));
                }
                Effect::Close(slot, code, reason) => {
                    if let Some(socket) = self.sockets.get_mut(&slot) {
                        socket.closed = Some((code, reason));
                    }
                }
                Effect::StoreAttachment(slot, text) => {
                    self.sockets.get_mut(&slot).expect("a socket").attachment = Some(text);
                }
                Effect::Again => self.again = true,
                Effect::SetAlarm(at) => self.alarm = at,
                Effect::Call(number, whom, frame) => {
                    let frame = serde_json::from_str(&frame).expect(&frame);
                    self.calls.push((number, (*whom).clone(), frame));
                }
                Effect::Log(..) => {}
                other => panic!("{other:?}"),
            }
        }
        accepted
    }

    pub fn connect(&mut self) -> Slot {
        self.turn(Input::Connect(caller(Transport::WebSocket))).expect("a socket")
    }

    /// Sends a frame; what came of it at this socket.
    pub fn frame(&mut self, slot: Slot, text: &str) -> Vec<Json> {
        self.turn(Input::Frame(slot, Incoming::Text(text)));
        self.take(slot)
    }

    /// One call over HTTP, to its end.
    pub fn call(&mut self, body: &str) -> Vec<Json> {
        self.call_by(Transport::Http, body)
    }

    /// One call, to its end.
    pub fn call_by(&mut self, transport: Transport, body: &str) -> Vec<Json> {
        let slot = self.turn(Input::Call(caller(transport), body)).expect("a call");
        let mut all = self.take(slot);
        while self.sockets[&slot].closed.is_none() {
            let serial = self.sockets[&slot].serial;
            self.turn(Input::Taken(slot, serial));
            let more = self.take(slot);
            assert!(!more.is_empty(), "it hangs");
            all.extend(more);
        }
        self.sockets.remove(&slot);
        all
    }

    /// What has come at a socket.
    pub fn take(&mut self, slot: Slot) -> Vec<Json> {
        self.sockets
            .get_mut(&slot)
            .map(|socket| std::mem::take(&mut socket.frames))
            .unwrap_or_default()
    }

    pub fn closed(&self, slot: Slot) -> Option<u16> {
        self.sockets.get(&slot)?.closed.map(|(code, _)| code)
    }

    /// The socket is gone.
    pub fn disconnect(&mut self, slot: Slot) {
        self.sockets.remove(&slot);
        self.turn(Input::Closed(slot));
    }

    /// The object is rebuilt with its sockets open.
    pub fn hibernate(&mut self) {
        self.open = None;
    }

    /// The process is killed: sockets break.
    pub fn kill(&mut self) {
        self.open = None;
        self.calls.clear();
        self.hooks.clear();
        self.sockets.clear();
    }

    /// Time goes on to the alarm, which rings.
    pub fn ring(&mut self) {
        let at = self.alarm.take().expect("an alarm");
        self.now = self.now.max(at);
        self.turn(Input::Alarm);
    }

    pub fn log(&self) -> Vec<u64> {
        let sql: &dyn Sql = &self.db;
        let seqs = "SELECT seqNum FROM \"eventlog_7_store_1\" ORDER BY seqNum";
        sql.query_map(seqs, [], |row| Ok(row.get::<i64>(0)?.unsigned_abs())).unwrap()
    }
}

/// The numbers of the events in these frames' chunks for a request.
pub fn seqs(frames: &[Json], id: &str) -> Vec<u64> {
    let chunks = frames.iter().filter(|f| f["_tag"] == "Chunk" && f["requestId"] == id);
    let events = chunks.flat_map(|chunk| chunk["values"][0]["batch"].as_array().unwrap());
    events.map(|event| event["eventEncoded"]["seqNum"].as_u64().unwrap()).collect()
}

/// Whether a request has ended well; `None` if it has not ended.
pub fn exit<'f>(frames: &'f [Json], id: &str) -> Option<&'f Json> {
    frames.iter().find(|f| f["_tag"] == "Exit" && f["requestId"] == id).map(|f| &f["exit"])
}
