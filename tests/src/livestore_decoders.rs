//! What reads bytes of LiveStore's clients and backends, for the fuzz targets.

use partysync::Timestamp;
use partysync::livestore::{
    Caller, Effect, EventInput, EventOutput, EventRoom, Input, LiveStoreServer, Open, Transport,
    msgpack,
};
use partysync::room::{Incoming, Slot};
use partysync::sql::{Sql, Sqlite, Turns};
use partysync::testing::TestRoom;
use partysync_simulation::livestore::made::{Made, MadeAction, Makes};
use serde_json::Value as Json;
use std::rc::Rc;

const STORE: &str = "store";
const LIMIT: usize = 1 << 16;

/// MessagePack of msgpackr's dialect: what was read can be written and read again.
pub fn msgpack(data: &[u8]) {
    if let Ok((messages, read)) = msgpack::decode_begun(data, LIMIT) {
        assert!(read <= data.len());
        let _ = messages;
    }
    let Ok(messages) = msgpack::decode(data, LIMIT) else { return };
    for message in &messages {
        serde_json::from_str::<Json>(message).expect("JSON");
    }
    if let Ok(bytes) = msgpack::encode(messages.iter().map(String::as_str)) {
        let again = msgpack::decode(&bytes, usize::MAX).expect("what was written can be read");
        assert_eq!(again.len(), messages.len());
    }
}

struct Plain;

impl LiveStoreServer for Plain {}

/// A conversation with a store, one event a line: `1...` and `2...` are frames on two sockets, `c...`
/// is a call of another object, `h` puts the store to sleep, `a` lets a minute pass and rings its
/// alarm. Whatever happens, the log is in order, and an honest client pulls all of it.
pub fn livestore(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let db = Sqlite::in_memory().expect("SQLite");
    let server = Rc::new(Plain);
    let (mut open, mut now) = (None, Timestamp::from_millis(1_000));
    let mut sockets: Vec<Option<String>> = Vec::new();
    let mut again = false;
    let mut turn = |open: &mut Option<Open>, now, sockets: &mut Vec<Option<String>>, input| {
        db.begin().expect("a transaction");
        let mut store = open.take().unwrap_or_else(|| {
            Open::new(&Plain, &db, STORE, "backend", now, sockets.clone()).expect("it opens")
        });
        let inputs: Option<Input<'_>> = input;
        let turn = store.turn(&server, &db, now, inputs);
        assert!(turn.aborted.is_none(), "{turn:?}");
        db.commit().expect("it is kept");
        *open = Some(store);
        let mut sent = Vec::new();
        for effect in turn.effects {
            match effect {
                Effect::Accept(slot, _) => {
                    let place = slot.0 as usize;
                    sockets.resize(sockets.len().max(place + 1), None);
                }
                Effect::StoreAttachment(slot, text) => {
                    if let Some(kept) = sockets.get_mut(slot.0 as usize) {
                        *kept = Some(text);
                    }
                }
                Effect::Send(_, frame) => sent.push(frame),
                Effect::Again => again = true,
                _ => {}
            }
        }
        sent
    };
    let caller = |transport| Caller {
        store_id: STORE.to_owned(),
        payload: None,
        headers: Vec::new(),
        transport,
    };
    for _ in 0..2 {
        turn(&mut open, now, &mut sockets, Some(Input::Connect(caller(Transport::WebSocket))));
    }
    for line in text.lines().take(64) {
        let Some((what, rest)) = line.split_at_checked(1) else { continue };
        let input = match what {
            "1" => Some(Input::Frame(Slot(0), Incoming::Text(rest))),
            "2" => Some(Input::Frame(Slot(1), Incoming::Text(rest))),
            "c" => Some(Input::Call(caller(Transport::Rpc), rest)),
            "h" => {
                open = None;
                None
            }
            "a" => {
                now = now.plus_millis(60_000);
                Some(Input::Alarm)
            }
            _ => continue,
        };
        turn(&mut open, now, &mut sockets, input);
    }
    let sql: &dyn Sql = &db;
    let all = "SELECT seqNum, parentSeqNum FROM eventlog_7_store ORDER BY seqNum";
    let log = sql.query_map(all, [], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)));
    let mut before = 0;
    for (seq, parent) in log.expect("a log") {
        assert_eq!((seq, parent), (before + 1, before));
        before = seq;
    }
    let pull = r#"{"_tag":"Request","id":"0","tag":"SyncHttpRpc.Pull","payload":{"storeId":"store","cursor":{"_tag":"None"}}}"#;
    let sent = turn(&mut open, now, &mut sockets, Some(Input::Call(caller(Transport::Http), pull)));
    let events: usize = sent.iter().map(|frame| frame.matches("\"eventEncoded\"").count()).sum();
    assert_eq!(events.min(100), usize::try_from(before).unwrap_or(0).min(100), "{sent:?}");
}

/// What a backend says to an event-sourced room, one event a line: `m...` is a message of the answer
/// to the call under way, `u...` an update, `e` and `f` end the call well and badly, `+` commits an
/// event, `h` puts the room to sleep, `a` lets a minute pass and rings its alarm. Whatever is said,
/// its rows are what its log says.
pub fn events(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut room = TestRoom::new(EventRoom::of_test(Makes)).expect("a new room opens");
    let (mut call, mut again, mut made) = (0, false, 1_000);
    for line in text.lines().take(64) {
        let Some((what, rest)) = line.split_at_checked(1) else { continue };
        let failed = || Err(partysync::Error::retry("it broke"));
        let input = match what {
            "m" => EventInput::Message(call, rest.to_owned()),
            "u" => EventInput::Update(rest.to_owned()),
            "e" => EventInput::Ended(call, Ok(())),
            "f" => EventInput::Ended(call, failed()),
            "+" => {
                made += 1;
                let _ = room.act(MadeAction::Make { id: made });
                EventInput::Go
            }
            "h" => {
                room.hibernate().expect("it wakes");
                EventInput::Go
            }
            "a" => {
                room.advance_millis(60_000);
                room.alarm().expect("it rings");
                EventInput::Go
            }
            _ => continue,
        };
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in room.input(input).expect("outputs") {
                match output {
                    EventOutput::Call(number, _) => call = number,
                    EventOutput::Again => again = true,
                    EventOutput::Log(..) => {}
                }
            }
            if std::mem::take(&mut again) {
                inputs.push(EventInput::Go);
            }
        }
    }
    let rows: Vec<_> = room.rows::<Made>().expect("rows").into_iter().map(|made| made.id).collect();
    let log = "SELECT args FROM _partysync_event WHERE failed IS NULL ORDER BY seq";
    let log = room.sql().query_map(log, [], |row| row.get::<Option<String>>(0)).expect("a log");
    let id = |args: Option<String>| {
        let args: Json = serde_json::from_str(&args?).ok()?;
        args.get("id")?.as_i64()
    };
    assert_eq!(rows, log.into_iter().filter_map(id).collect::<Vec<_>>());
}
