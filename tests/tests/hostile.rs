//! Frames that are valid and mean harm, and rows that are as large as they may be: the room goes
//! on, for everybody.

use partysync::testing::TestRoom;
use partysync::wire::v2::ServerFrame;
use partysync::{
    Action, Code, Handle, Limits, Protocol, Record, Result, Room, SyncServer, Timestamp, params,
};
use partysync_client::store::Saved;
use partysync_client::{Input, Now, Output, Peer, Phase, Timing};
use std::collections::VecDeque;

// No floats: these rows are aggregated by SQLite.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    text: String,
    more: Option<String>,
    even_more: Option<String>,
    data: Option<Vec<u8>>,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String, text: String },
    #[action(update)]
    Fill { id: String, more: Option<String>, even_more: Option<String> },
    #[action(custom)]
    Bulk { count: u32, text: String },
    #[action(custom)]
    Fail { message: String },
}

impl partysync::Reduce for NoteAction {
    fn reduce_custom(&self, _: &mut partysync::Draft<'_, Note>) -> Result<()> {
        Ok(())
    }
}

struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        Limits { actions_burst: 100_000, ..Limits::default() }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        match action {
            NoteAction::Bulk { count, text } => {
                let sql =
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                    INSERT INTO notes (id, text) SELECT printf('bulk-%06d', i), ? FROM n WHERE TRUE
                    ON CONFLICT (id) DO UPDATE SET text = excluded.text";
                room.sql().execute(sql, params![count, text]).map(drop)
            }
            NoteAction::Fail { message } => Err(partysync::Error::reject(message)),
            action => action.apply(room.sql()),
        }
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| {
            let sql = "INSERT INTO notes (id, text, data) VALUES ('blob', '', ?)";
            room.sql().execute(sql, params![request.into_body()])?;
            Ok(http::Response::new(Vec::new()))
        })
        .await
    }
}

const NOW: Now = Now { monotonic: 1_000, wall: Timestamp::from_millis(1_000) };

/// A client of the real kind, whose frames are delivered at once.
struct Client {
    id: &'static str,
    peer: Peer<NoteAction>,
    /// The most bytes that one turn has sent it.
    most: usize,
}

impl Client {
    fn connect(room: &mut TestRoom<Notes>, id: &'static str) -> Self {
        room.connect(id, Protocol::V2).unwrap();
        let mut peer = Peer::new([1, 7], Timing::default(), NOW);
        peer.handle(Input::Opened(Ok(Saved::default())), NOW);
        peer.handle(Input::Connected, NOW);
        let mut client = Self { id, peer, most: 0 };
        client.deliver(room, Vec::new());
        client
    }

    fn deliver(&mut self, room: &mut TestRoom<Notes>, sent: Vec<(String, String)>) {
        let mut frames: VecDeque<String> = VecDeque::new();
        let take = |id: &str, most: &mut usize, frames: &mut VecDeque<String>, sent: Vec<_>| {
            let own = sent.into_iter().filter(|(to, _): &(String, String)| to == id);
            let own: Vec<String> = own.map(|(_, text)| text).collect();
            *most = (*most).max(own.iter().map(String::len).sum());
            frames.extend(own);
        };
        take(self.id, &mut self.most, &mut frames, sent);
        loop {
            while let Some(output) = self.peer.poll_output() {
                match output {
                    Output::Send(text) => {
                        let sent = room.frame(self.id, &text).unwrap();
                        take(self.id, &mut self.most, &mut frames, sent);
                    }
                    Output::Store(_) => self.peer.handle(Input::Stored(Ok(())), NOW),
                    _ => {}
                }
            }
            let Some(text) = frames.pop_front() else { return };
            assert!(!text.starts_with("close"), "{text}");
            self.peer.handle(Input::Frame(&text), NOW);
        }
    }

    fn rows(&self) -> Vec<Note> {
        assert_eq!(self.peer.status().phase, Phase::Live);
        self.peer.replica().rows().unwrap()
    }
}

/// The last frame that a connection was sent, and whether it was closed.
fn ask(room: &mut TestRoom<Notes>, id: &str, frame: &str) -> Vec<String> {
    room.frame(id, frame).unwrap().into_iter().map(|(_, text)| text).collect()
}

fn put(id: &str, text: String) -> NoteAction {
    NoteAction::Put { id: id.into(), text }
}

#[test]
fn a_snapshot_of_large_rows_comes_in_pages_that_sqlite_can_make() {
    let mut room = TestRoom::new(Notes).unwrap();
    for n in 0..600 {
        room.act(put(&format!("{n:03}"), "\n".repeat(5_000))).unwrap();
    }
    for n in 0..3 {
        room.act(put(&format!("large-{n}"), "x".repeat(900_000))).unwrap();
    }
    let client = Client::connect(&mut room, "c");
    assert!(client.rows() == room.rows::<Note>().unwrap());
}

#[test]
fn a_row_that_nobody_could_be_sent_is_refused_and_the_room_goes_on() {
    let mut room = TestRoom::new(Notes).unwrap();
    let mut client = Client::connect(&mut room, "c");
    let quotes = || "\"".repeat(400_000);
    room.act(put("a", quotes())).unwrap();
    let more = Some(quotes());
    let fill = NoteAction::Fill { id: "a".into(), more, even_more: None };
    assert_eq!(room.act(fill).unwrap_err().code(), Code::TooLarge);
    let blob = http::Request::new(vec![7; 1_200_000]);
    assert_eq!(room.request(blob).unwrap().status(), 413);
    room.act(put("b", "small".into())).unwrap();
    room.hibernate().unwrap();
    let fresh = Client::connect(&mut room, "fresh");
    assert!(fresh.rows() == room.rows::<Note>().unwrap());
    let sent = ask(&mut room, "c", r#"{"type":"read","bytes":1}"#);
    client.deliver(&mut room, sent.into_iter().map(|text| ("c".to_owned(), text)).collect());
}

#[test]
fn a_hello_names_a_channel_and_a_column_once() {
    let mut room = TestRoom::new(Notes).unwrap();
    let schema = Note::SCHEMA.hash();
    let channel = format!(r#"{{"channel":"notes","since":null,"schema":"{schema}"}}"#);
    let columns = r#"{"channel":"notes","since":null,"schema":"x","columns":["id:TEXT:key","text:TEXT","text:TEXT"]}"#;
    for channels in [[channel.as_str(); 2_000].join(","), columns.to_owned()] {
        room.connect("evil", Protocol::V2).unwrap();
        let hello =
            format!(r#"{{"type":"hello","client":"e","epoch":null,"channels":[{channels}]}}"#);
        let answers = ask(&mut room, "evil", &hello);
        assert_eq!(answers.len(), 1, "{}", answers.len());
        assert!(
            answers[0].contains("invalid_frame") && answers[0].contains("twice"),
            "{answers:?}"
        );
        room.disconnect("evil").unwrap();
    }
}

#[test]
fn a_number_that_sqlite_cannot_hold_is_an_invalid_frame_and_nothing_of_it_is_done() {
    let mut room = TestRoom::new(Notes).unwrap();
    let mut other = Client::connect(&mut room, "other");
    room.connect("evil", Protocol::V2).unwrap();
    let hello = r#"{"type":"hello","client":"e","epoch":null,"channels":[]}"#;
    ask(&mut room, "evil", hello);
    let answered = r#"{"type":"push","answered":9223372036854775808,"actions":[]}"#;
    assert!(ask(&mut room, "evil", answered)[0].contains("invalid_frame"));
    let action = r#"{"type":"put","payload":{"id":"a","text":"b"}}"#;
    let push = |second: &str| {
        format!(
            r#"{{"type":"push","actions":[{{"seq":1,"channel":"notes","action":{action}}},{{"seq":{second},"channel":"notes","action":{action}}}]}}"#
        )
    };
    let answers = ask(&mut room, "evil", &push("9223372036854775808"));
    assert!(answers[0].contains("invalid_frame"), "{answers:?}");
    assert_eq!(room.rows::<Note>().unwrap(), []);
    // One that can be held and leaves a gap: what was done before it is sent to all.
    let sent = room.frame("evil", &push("9223372036854775807")).unwrap();
    assert!(sent.iter().any(|(to, text)| to == "evil" && text.contains("sequence_gap")));
    assert!(sent.iter().any(|(to, text)| to == "evil" && text.starts_with("close 4400")));
    other.deliver(&mut room, sent);
    assert_eq!(other.rows().len(), 1);
    // It is heard no more.
    assert_eq!(ask(&mut room, "evil", &push("2")), [""; 0]);
}

#[test]
fn what_is_kept_of_a_refusal_has_a_bound() {
    let mut room = TestRoom::new(Notes).unwrap();
    let error = room.act(NoteAction::Fail { message: "no ".repeat(300_000) }).unwrap_err();
    assert!((1_000..1_100).contains(&error.message().len()), "{}", error.message().len());
    let fill = NoteAction::Fill { id: "k".repeat(500_000), more: None, even_more: None };
    let error = room.act(fill).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().len() < 200, "{}", error.message().len());
    // A client that never says hello again leaves no more than a push's worth of them.
    for _ in 0..3_000 {
        room.act(NoteAction::Fail { message: "no".into() }).unwrap_err();
    }
    let kept = "SELECT count(*) FROM _partysync_reject";
    let kept: i64 = room.sql().query_one(kept, [], |row| row.get(0)).unwrap();
    assert!(kept <= 1_001, "{kept}");
}

#[test]
fn a_bulk_change_is_sent_as_it_is_read_and_what_happens_meanwhile_with_it() {
    let mut room = TestRoom::new(Notes).unwrap();
    let mut client = Client::connect(&mut room, "c");
    room.connect("v1", Protocol::V1).unwrap();
    let call = |action: &NoteAction| {
        let action = action.to_json().unwrap();
        format!(r#"{{"id":"1","channel":"notes","rpc":true,"action":{action}}}"#)
    };
    let bulk = |text: &str| NoteAction::Bulk { count: 50_000, text: text.repeat(20) };
    let own = |sent: &[(String, String)]| -> usize {
        sent.iter().filter(|(to, _)| to == "c").map(|(_, text)| text.len()).sum()
    };
    let mut sent = room.frame("v1", &call(&bulk("first "))).unwrap();
    let first = own(&sent);
    assert!((1_000_000..1_400_000).contains(&first), "{first}");
    // It has read nothing yet: what happens meanwhile waits for it.
    for action in [put("meanwhile", "here".into()), bulk("second")] {
        sent.extend(room.frame("v1", &call(&action)).unwrap());
    }
    assert_eq!(own(&sent), first);
    client.deliver(&mut room, sent);
    assert!(client.rows() == room.rows::<Note>().unwrap());
    // A snapshot comes in windows, too, and a delta that is larger than the table is one.
    for id in ["fresh", "again"] {
        let fresh = Client::connect(&mut room, id);
        assert!(fresh.rows() == room.rows::<Note>().unwrap());
        assert!(fresh.most < 2 * 1024 * 1024, "{} bytes at once", fresh.most);
    }
}

#[test]
fn a_frame_has_a_bound() {
    let mut room = TestRoom::new(Notes).unwrap();
    let sent = room.frame("self", &"x".repeat(1024 * 1024 + 1)).unwrap();
    assert!(sent[0].1.contains("too_large") && sent[1].1.starts_with("close 1009"), "{sent:?}");
    assert_eq!(ServerFrame::parse(&sent[0].1).map(|frame| frame.is_some()), Ok(true));
}
