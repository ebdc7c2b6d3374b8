//! The engine under plain `cargo test`: what end-to-end tests cannot reach, such as time.

use partysync::room::refusal;
use partysync::sql::{Row, Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Handle, Limits, Protocol, Record, Result, Room, SyncServer, Timestamp, params,
};
use partysync_client::store::Saved;
use partysync_client::{Input, Now, Output, Peer, Phase, Timing};
use std::collections::VecDeque;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    text: String,
    #[record(unique)]
    slug: Option<String>,
    #[record(created_at)]
    created_at: Timestamp,
    #[record(updated_at)]
    updated_at: Timestamp,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String, text: String },
    #[action(delete)]
    Delete { id: String },
}

/// A server that admits so many connections; a few, by default.
#[derive(Default)]
struct Notes(Option<usize>);

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        Limits {
            retention_ms: 1_000,
            client_retention_ms: 5_000,
            connections: self.0.unwrap_or(4),
            actions_per_second: 10,
            actions_burst: 20,
            pending_bytes: 0,
            ..Limits::default()
        }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }

    /// Runs SQL, and answers with how many rows it has changed.
    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| {
            let sql = String::from_utf8_lossy(request.body()).into_owned();
            let changed = room.sql().execute(&sql, params![])?;
            Ok(http::Response::new(changed.to_string().into_bytes()))
        })
        .await
    }
}

fn put(id: &str) -> NoteAction {
    NoteAction::Put { id: id.into(), text: id.into() }
}

fn delete(id: &str) -> NoteAction {
    NoteAction::Delete { id: id.into() }
}

fn hello(room: &mut TestRoom<Notes>, since: Option<u64>) -> Vec<String> {
    let id = format!("{since:?}");
    room.connect(&id, Protocol::V2).unwrap();
    let (hash, since) = (Note::SCHEMA.hash(), since.map_or("null".into(), |v| v.to_string()));
    let frame = format!(
        r#"{{"type":"hello","client":"c{since}","epoch":"epoch","channels":[{{"channel":"notes","since":{since},"schema":"{hash}"}}]}}"#
    );
    room.frame(&id, &frame).unwrap().into_iter().map(|(_, text)| text).collect()
}

#[test]
fn deletions_are_forgotten_after_their_time_and_who_missed_them_starts_over() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    room.act(put("a")).unwrap();
    room.act(put("b")).unwrap();
    room.act(delete("a")).unwrap();
    // Not before its time.
    room.alarm().unwrap();
    let frames = hello(&mut room, Some(2));
    assert!(frames[1].contains(r#""from":2,"to":3,"rows":[],"gone":["a"]"#), "{}", frames[1]);
    room.advance_millis(1_001);
    room.alarm().unwrap();
    let frames = hello(&mut room, Some(1));
    assert_eq!(frames[1], r#"{"type":"reset","reason":"trimmed"}"#);
    assert!(frames[2].contains(r#""from":null,"to":3,"rows":[["b","b","#), "{}", frames[2]);
    // One that is not behind the trimming still gets its delta.
    let frames = hello(&mut room, Some(3));
    assert!(frames[1].contains(r#""from":3,"to":3,"rows":[],"gone":[]"#), "{}", frames[1]);
}

#[test]
fn a_v1_client_behind_the_trimming_is_told_to_drop_all() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    room.act(put("a")).unwrap();
    room.act(put("b")).unwrap();
    room.act(delete("a")).unwrap();
    room.connect("v1", Protocol::V1).unwrap();
    let sync = r#"{"channel":"notes","sync":true,"from":500}"#;
    let texts = |room: &mut TestRoom<Notes>| -> Vec<String> {
        room.frame("v1", sync).unwrap().into_iter().map(|(_, text)| text).collect()
    };
    // The deleted row is gone from the table: its key, nulls and the time are what is left.
    assert_eq!(
        texts(&mut room),
        [
            r#"{"sync":true,"channel":"notes","payload":[["b","b",null,1000,1000,null]]}"#,
            r#"{"broadcast":true,"type":"update","channel":"notes","payload":[["a",null,null,null,null,1000]]}"#,
        ]
    );
    room.advance_millis(2_000);
    room.alarm().unwrap();
    assert_eq!(
        texts(&mut room),
        [
            r#"{"broadcast":true,"type":"delete-all","channel":"notes"}"#,
            r#"{"sync":true,"channel":"notes","payload":[["b","b",null,1000,1000,null]]}"#,
        ]
    );
}

#[test]
fn clients_long_unseen_are_forgotten() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    hello(&mut room, None);
    let known = |room: &TestRoom<Notes>| {
        room.sql()
            .query_one("SELECT count(*) FROM _partysync_client", [], |row| row.get::<i64>(0))
            .unwrap()
    };
    // Who does nothing need not be remembered.
    assert_eq!(known(&room), 0);
    let push = r#"{"type":"push","actions":[{"seq":1,"channel":"notes","action":{"type":"put","payload":{"id":"b","text":"b"}}}]}"#;
    room.frame("None", push).unwrap();
    room.disconnect("None").unwrap();
    room.advance_millis(4_000);
    room.act(put("a")).unwrap();
    assert_eq!(known(&room), 2);
    room.advance_millis(2_000);
    room.alarm().unwrap();
    // The room's own client was seen since.
    assert_eq!(known(&room), 1);
}

#[test]
fn what_an_earlier_life_wrote_without_a_version_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let room = TestRoom::with(Notes::default(), Sqlite::open(&path).unwrap()).unwrap();
    let before = room.version();
    // As if the process had died between a hook's SQL and the new version.
    let sql = "INSERT INTO notes (id, text) VALUES ('a', 'left')";
    room.sql().execute(sql, params![]).unwrap();
    drop(room);
    let mut room = TestRoom::with(Notes::default(), Sqlite::open(&path).unwrap()).unwrap();
    assert_eq!(room.version(), before + 1);
    let frames = hello(&mut room, Some(before));
    assert!(frames[1].contains(r#"["a","left","#), "{}", frames[1]);
}

#[test]
fn time_never_goes_back_and_the_framework_sets_it() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    room.advance_millis(500);
    room.act(put("a")).unwrap();
    room.advance_millis(-10_000);
    room.act(NoteAction::Put { id: "a".into(), text: "again".into() }).unwrap();
    let rows: Vec<Note> = room.rows().unwrap();
    let times = (rows[0].created_at.as_millis(), rows[0].updated_at.as_millis());
    assert_eq!(times, (1_500, 1_500));
}

#[test]
fn every_kind_of_statement_is_noted_in_the_change_log() {
    let db = Sqlite::in_memory().unwrap();
    let room = TestRoom::with(Notes::default(), db).unwrap();
    let sql: &dyn Sql = room.sql();
    let noted = |statement: &str| -> Vec<String> {
        let last = "SELECT coalesce(max(version), 0) FROM _partysync_change";
        let last: i64 = sql.query_one(last, [], |row| row.get(0)).unwrap();
        sql.execute(statement, params![]).unwrap();
        let keys = "SELECT DISTINCT key FROM _partysync_change WHERE version > ? ORDER BY key";
        sql.query_map(keys, params![last], |row| row.get(0)).unwrap()
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(noted("INSERT INTO notes (id, text) VALUES ('a', '1'), ('b', '2')"), ["a", "b"]);
    assert_eq!(noted("DELETE FROM notes WHERE id = 'b'"), ["b"]);
    assert_eq!(noted("INSERT OR IGNORE INTO notes (id, text) VALUES ('a', '9')"), none);
    assert_eq!(noted("INSERT OR IGNORE INTO notes (id, text) VALUES ('b', '9')"), ["b"]);
    assert_eq!(noted("INSERT OR REPLACE INTO notes (id, text) VALUES ('b', '8')"), ["b"]);
    assert_eq!(noted("REPLACE INTO notes (id, text, slug) VALUES ('c', '7', 's')"), ["c"]);
    let upsert =
        "INSERT INTO notes (id, text) VALUES ('c', '6') ON CONFLICT DO UPDATE SET text = '5'";
    assert_eq!(noted(upsert), ["c"]);
    // The new row takes the unique value of another one, which SQLite then removes.
    assert_eq!(noted("REPLACE INTO notes (id, text, slug) VALUES ('d', '4', 's')"), ["c", "d"]);
    assert_eq!(noted("UPDATE OR REPLACE notes SET id = 'b' WHERE id = 'd'"), ["b", "d"]);
    assert_eq!(noted("UPDATE notes SET text = 'x' WHERE id = 'nobody'"), none);
    assert_eq!(noted("UPDATE OR IGNORE notes SET id = 'b' WHERE id = 'a'"), none);
    assert_eq!(noted("DELETE FROM notes"), ["a", "b"]);
}

#[test]
fn a_room_that_is_full_takes_no_more_until_one_leaves() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    // The room's own client is one.
    room.connect("a", Protocol::V2).unwrap();
    room.connect("b", Protocol::V1).unwrap();
    room.connect("d", Protocol::V1).unwrap();
    let error = room.connect("c", Protocol::V2).unwrap_err();
    assert_eq!(error.code(), Code::TooManyConnections);
    assert_eq!(refusal(&error), (4429, "too_many_connections".to_owned()));
    room.disconnect("a").unwrap();
    room.connect("c", Protocol::V2).unwrap();
}

#[test]
fn a_room_admits_no_more_connections_than_a_durable_object_keeps_sockets() {
    let mut room = TestRoom::new(Notes(Some(1_000_000))).unwrap();
    for n in 1..32_768 {
        room.connect(&n.to_string(), Protocol::V2).unwrap();
    }
    let error = room.connect("one more", Protocol::V2).unwrap_err();
    assert_eq!(refusal(&error), (4429, "too_many_connections".to_owned()));
    room.disconnect("1").unwrap();
    room.connect("one more", Protocol::V2).unwrap();
}

#[test]
fn a_connection_that_sends_too_much_is_closed_and_nothing_of_it_is_done() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    room.connect("v1", Protocol::V1).unwrap();
    let call = r#"{"id":"1","channel":"notes","rpc":true,"action":{"type":"put","payload":{"id":"a","text":"b"}}}"#;
    for _ in 0..20 {
        let sent = room.frame("v1", call).unwrap();
        assert!(sent.iter().any(|(to, text)| to == "v1" && text.contains("success")));
    }
    let version = room.version();
    let sent = room.frame("v1", call).unwrap();
    assert!(sent[0].1.contains("exception"), "{}", sent[0].1);
    assert_eq!(sent[1].1, "close 4429 rate_limited");
    assert_eq!(room.version(), version);
    // It is heard no more. Another one has ten a second, after its burst.
    assert_eq!(room.frame("v1", call).unwrap(), []);
    room.disconnect("v1").unwrap();
    room.connect("v1", Protocol::V1).unwrap();
    for _ in 0..20 {
        room.frame("v1", call).unwrap();
    }
    room.advance_millis(1_000);
    let version = room.version();
    for _ in 0..10 {
        room.frame("v1", call).unwrap();
    }
    assert_eq!(room.version(), version + 10);
    assert!(room.frame("v1", call).unwrap()[1].1.starts_with("close 4429"));
    // The others notice nothing, and a push counts as many as it holds.
    room.act(put("b")).unwrap();
    let action = r#"{"seq":2,"channel":"notes","action":{"type":"delete","payload":{"id":"b"}}}"#;
    let push = format!(r#"{{"type":"push","actions":[{}]}}"#, [action; 20].join(","));
    assert_eq!(room.frame("self", &push).unwrap()[1].1, "close 4429 rate_limited");
}

/// A client with its socket, and the frames that it has not read.
struct Reader {
    id: &'static str,
    peer: Peer<NoteAction>,
    frames: VecDeque<String>,
}

const NOW: Now = Now { monotonic: 1_000, wall: Timestamp::from_millis(1_000) };

impl Reader {
    fn new(room: &mut TestRoom<Notes>, id: &'static str) -> Self {
        room.connect(id, Protocol::V2).unwrap();
        let mut peer = Peer::new([1, 7], Timing::default(), NOW);
        peer.handle(Input::Opened(Ok(Saved::default())), NOW);
        peer.handle(Input::Connected, NOW);
        let mut reader = Self { id, peer, frames: VecDeque::new() };
        reader.read(room);
        reader
    }

    fn take(&mut self, sent: &[(String, String)]) {
        let own = sent.iter().filter(|(to, _)| to == self.id);
        self.frames.extend(own.map(|(_, text)| text.clone()));
    }

    fn unread(&self) -> usize {
        self.frames.iter().map(String::len).sum()
    }

    /// Reads all that there is, and answers.
    fn read(&mut self, room: &mut TestRoom<Notes>) {
        loop {
            while let Some(output) = self.peer.poll_output() {
                match output {
                    Output::Send(text) => {
                        let sent = room.frame(self.id, &text).unwrap();
                        self.take(&sent);
                    }
                    Output::Store(_) => self.peer.handle(Input::Stored(Ok(())), NOW),
                    _ => {}
                }
            }
            let Some(text) = self.frames.pop_front() else { return };
            assert!(!text.starts_with("close"), "{text}");
            self.peer.handle(Input::Frame(&text), NOW);
        }
    }

    fn rows(&self) -> Vec<Note> {
        self.peer.replica().rows().unwrap()
    }
}

#[test]
fn a_connection_that_reads_nothing_is_sent_no_more_until_it_reads_and_then_what_it_lacks() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let (mut slow, mut quick) = (Reader::new(&mut room, "slow"), Reader::new(&mut room, "quick"));
    room.connect("v1", Protocol::V1).unwrap();
    for n in 0..32 {
        room.advance_millis(1_000);
        // Sixteen notes, each written twice.
        let (id, text) = (format!("{:02}", n % 16), "x".repeat(100_000));
        let call = format!(
            r#"{{"id":"1","channel":"notes","rpc":true,"action":{{"type":"put","payload":{{"id":"{id}","text":"{text}"}}}}}}"#
        );
        let sent = room.frame("v1", &call).unwrap();
        slow.take(&sent);
        quick.take(&sent);
        quick.read(&mut room);
    }
    assert!((1_000_000..1_300_000).contains(&slow.unread()), "{}", slow.unread());
    let rows: Vec<Note> = room.rows().unwrap();
    assert_eq!(rows.len(), 16);
    assert!(quick.rows() == rows);
    // It reads: of what was written meanwhile it is sent what it is now.
    slow.read(&mut room);
    assert!(slow.rows() == rows);
    assert_eq!(slow.peer.replica().version("notes"), Some(room.version()));
    assert_eq!(slow.peer.status().phase, Phase::Live);
}

#[test]
fn several_statements_in_one_text_do_what_they_do_in_a_durable_object() {
    // `tests/e2e/outlives.test.mjs` asks workerd the same.
    let cases = include_str!("../lab/several.json");
    let cases: Vec<(String, Option<String>)> = serde_json::from_str(cases).unwrap();
    let mut room = TestRoom::new(Notes::default()).unwrap();
    for (text, expected) in cases {
        let answer = room.request(http::Request::new(text.clone().into_bytes())).unwrap();
        let (good, body) = (answer.status().is_success(), answer.into_body());
        let changed = good.then(|| String::from_utf8_lossy(&body).into_owned());
        assert_eq!(changed, expected, "{text}: {:?}", room.take_logged());
    }
    let last = "INSERT INTO several VALUES (1, 0); SELECT n, ? FROM several";
    let row = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
    assert_eq!(room.sql().query_map(last, params![2], row).unwrap(), [(1, 2)]);
}

#[test]
fn a_client_that_is_there_is_not_forgotten_however_long_it_is_silent() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    hello(&mut room, None);
    let push = |room: &mut TestRoom<Notes>, seq: u32| {
        let action = r#"{"type":"put","payload":{"id":"a","text":"b"}}"#;
        let push = format!(
            r#"{{"type":"push","answered":{},"actions":[{{"seq":{seq},"channel":"notes","action":{action}}}]}}"#,
            seq - 1
        );
        let sent = room.frame("None", &push).unwrap();
        sent.into_iter().find(|(to, _)| to == "None").unwrap().1
    };
    let answer = push(&mut room, 1);
    assert!(answer.contains(r#""acks":[{"seq":1}]"#), "{answer}");
    for _ in 0..14 {
        room.advance_millis(7 * 24 * 60 * 60 * 1000);
        room.alarm().unwrap();
    }
    let answer = push(&mut room, 2);
    assert!(answer.contains(r#""acks":[{"seq":2}]"#), "{answer}");
    // One that has gone is, in its time.
    room.disconnect("None").unwrap();
    for _ in 0..14 {
        room.advance_millis(7 * 24 * 60 * 60 * 1000);
        room.alarm().unwrap();
    }
    let clients = "SELECT count(*) FROM _partysync_client";
    let clients = room.sql().query_one(clients, [], |row| row.get::<i64>(0)).unwrap();
    assert_eq!(clients, 0);
}
