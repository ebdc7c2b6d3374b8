//! What it costs to come back: rows that changed, not versions that passed and not the table.

use partysync::testing::TestRoom;
use partysync::wire::v2::ServerFrame;
use partysync::{Action, Limits, Protocol, Record, Result, Room, SyncServer, Timestamp};
use partysync_client::store::Saved;
use partysync_client::{Cause, Input, Now, Output, Peer, Phase, Timing};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: i64,
    text: String,
    #[record(updated_at)]
    updated_at: Timestamp,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: i64, text: String },
    #[action(delete)]
    Drop { id: i64 },
}

/// With so many entries of the log that are compacted in one turn.
struct Notes {
    compacted: u32,
}

impl Default for Notes {
    fn default() -> Self {
        Self { compacted: Limits::default().log_entries }
    }
}

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        let log_entries = self.compacted;
        let limits = Limits { log_entries, ..Limits::default() };
        Limits { retention_ms: 1_000, actions_burst: 1_000_000, ..limits }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }
}

/// What a client was sent on one connection.
#[derive(Debug, Default)]
struct Sent {
    bytes: usize,
    rows: usize,
    gone: usize,
    resets: usize,
}

const NOW: Now = Now { monotonic: 1_000, wall: Timestamp::from_millis(1_000) };

fn peer() -> Peer<NoteAction> {
    let mut peer = Peer::new([1, 7], Timing::default(), NOW);
    peer.handle(Input::Opened(Ok(Saved::default())), NOW);
    peer
}

/// Connects, and counts what comes until the client is live.
fn come_back(room: &mut TestRoom<Notes>, peer: &mut Peer<NoteAction>, socket: &str) -> Sent {
    let mut sent = Sent::default();
    room.connect(socket, Protocol::V2).unwrap();
    peer.handle(Input::Connected, NOW);
    while let Some(output) = peer.poll_output() {
        if let Output::Store(_) = output {
            peer.handle(Input::Stored(Ok(())), NOW);
        }
        let Output::Send(text) = output else { continue };
        for (to, text) in room.frame(socket, &text).unwrap() {
            assert_eq!(to, socket);
            sent.bytes += text.len();
            match ServerFrame::parse(&text).unwrap() {
                Some(ServerFrame::CatchUp(page)) => {
                    sent.rows += page.rows.len();
                    sent.gone += page.gone.len();
                }
                Some(ServerFrame::Reset(_)) => sent.resets += 1,
                _ => {}
            }
            peer.handle(Input::Frame(&text), NOW);
        }
    }
    assert_eq!(peer.status().phase, Phase::Live);
    room.disconnect(socket).unwrap();
    peer.handle(Input::Disconnected(Cause::gone()), NOW);
    peer.reconnect(NOW);
    sent
}

fn put(id: i64, text: &str) -> NoteAction {
    NoteAction::Put { id, text: text.into() }
}

#[test]
fn ten_thousand_versions_behind_with_twelve_rows_changed_costs_twelve_rows() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    for id in 0..5_000 {
        room.act(put(id, "as it was in the beginning")).unwrap();
    }
    let mut peer = peer();
    let whole = come_back(&mut room, &mut peer, "first");
    assert_eq!((whole.rows, whole.resets), (5_000, 0));

    for n in 0..9_988 {
        room.act(put(n % 10, &n.to_string())).unwrap();
    }
    for id in 10..22 {
        // Two that are deleted, and ten that come and go: they were never here.
        let action = if id < 12 { NoteAction::Drop { id } } else { put(id + 10_000, "short") };
        room.act(action).unwrap();
    }
    for id in 12..22 {
        room.act(NoteAction::Drop { id: id + 10_000 }).unwrap();
    }
    assert_eq!(room.version(), 5_000 + 9_988 + 12 + 10);
    let delta = come_back(&mut room, &mut peer, "second");
    println!("snapshot of 5,000 rows: {whole:?}; 10,010 versions behind: {delta:?}");
    assert_eq!((delta.rows, delta.gone, delta.resets), (10, 12, 0));
    assert!(delta.bytes < 1_500, "{delta:?}");
    assert!(peer.replica().rows::<Note>().unwrap() == room.rows::<Note>().unwrap());

    // And exactly twelve rows.
    for n in 0..10_000 {
        room.act(put(100 + n % 12, &n.to_string())).unwrap();
    }
    let twelve = come_back(&mut room, &mut peer, "third");
    println!("10,000 versions behind, 12 rows changed: {twelve:?}");
    assert_eq!((twelve.rows, twelve.gone, twelve.resets), (12, 0, 0));
    assert!(peer.replica().rows::<Note>().unwrap() == room.rows::<Note>().unwrap());
    // Nothing changed: nothing but the frame.
    let nothing = come_back(&mut room, &mut peer, "fourth");
    println!("nothing changed: {nothing:?}");
    assert_eq!((nothing.rows, nothing.gone, nothing.resets), (0, 0, 0));
}

#[test]
fn a_client_from_before_the_trim_point_starts_over_and_ends_equal() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    for id in 0..1_000 {
        room.act(put(id, "here")).unwrap();
    }
    let mut peer = peer();
    come_back(&mut room, &mut peer, "first");
    for id in 0..990 {
        room.act(NoteAction::Drop { id }).unwrap();
    }
    room.advance_millis(10_000);
    room.alarm().unwrap();
    let over = come_back(&mut room, &mut peer, "second");
    println!("behind the trim point, 10 rows left: {over:?}");
    assert_eq!((over.rows, over.gone, over.resets), (10, 0, 1));
    assert!(peer.replica().rows::<Note>().unwrap() == room.rows::<Note>().unwrap());
    // It is in step again.
    room.act(put(0, "again")).unwrap();
    let delta = come_back(&mut room, &mut peer, "third");
    assert_eq!((delta.rows, delta.resets), (1, 0));
}

/// The versions in the change log.
fn log(room: &TestRoom<Notes>) -> Vec<u64> {
    let mut versions = Vec::new();
    let sql = "SELECT version FROM _partysync_change ORDER BY version";
    let read = |row: &partysync::sql::Row<'_>| {
        versions.push(row.get::<i64>(0)?.unsigned_abs());
        Ok(())
    };
    room.sql().run(sql, &[], &mut { read }).unwrap();
    versions
}

/// Lets the alarm ring until nothing is left to do at once; how often it did.
fn compact(room: &mut TestRoom<Notes>) -> usize {
    room.advance_millis(61_000);
    let mut turns = 0;
    while room.next_alarm().is_some_and(|at| at <= room.now()) {
        room.alarm().unwrap();
        turns += 1;
        assert!(turns < 1_000);
    }
    turns
}

#[test]
fn a_log_that_has_doubled_keeps_one_entry_of_each_row() {
    let mut room = TestRoom::new(Notes::default()).unwrap();
    let mut peer = peer();
    room.act(put(0, "at first")).unwrap();
    come_back(&mut room, &mut peer, "first");
    for n in 0..1_000 {
        room.act(put(n % 10, &n.to_string())).unwrap();
    }
    assert_eq!(log(&room).len(), 1_001);
    compact(&mut room);
    assert_eq!(log(&room), (992..=1_001).collect::<Vec<_>>());
    let delta = come_back(&mut room, &mut peer, "second");
    assert_eq!((delta.rows, delta.resets), (10, 0));
    assert!(peer.replica().rows::<Note>().unwrap() == room.rows::<Note>().unwrap());
    // Not before there are as many more.
    for n in 0..900 {
        room.act(put(n % 10, &n.to_string())).unwrap();
    }
    compact(&mut room);
    assert_eq!(log(&room).len(), 910);
}

#[test]
fn a_long_log_is_compacted_in_turns_and_the_room_goes_on_between_them() {
    let mut room = TestRoom::new(Notes { compacted: 100 }).unwrap();
    let mut peer = peer();
    room.act(put(0, "at first")).unwrap();
    come_back(&mut room, &mut peer, "first");
    for n in 0..1_000 {
        room.act(put(n % 60, &n.to_string())).unwrap();
    }
    room.advance_millis(61_000);
    room.alarm().unwrap();
    let left = log(&room).len();
    assert!((500..1_000).contains(&left), "a part of the rows: {left}");
    // It is written to, and dies: the next one goes on.
    room.act(put(1_000, "meanwhile")).unwrap();
    room.hibernate().unwrap();
    assert!(room.next_alarm().is_some_and(|at| at <= room.now()));
    let turns = compact(&mut room);
    assert!((10..15).contains(&turns), "{turns}");
    assert_eq!(log(&room).len(), 61);
    assert_eq!(log(&room).last(), Some(&room.version()));
    let delta = come_back(&mut room, &mut peer, "second");
    assert_eq!(delta.resets, 0);
    assert!(peer.replica().rows::<Note>().unwrap() == room.rows::<Note>().unwrap());
}
