//! What a room forgets, and when: old deletions, superseded entries of its log, clients. Nothing
//! keeps it from the rest of it, and it does no more than so much at a time.

use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Event, Opening};
use partysync::sql::Sqlite;
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Draft, Limits, Protocol, Record, Reduce, Result, Room, SyncServer, Timestamp,
    params,
};

const DAY: i64 = 24 * 60 * 60 * 1000;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    text: String,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "posts")]
struct Post {
    #[record(key)]
    id: i64,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    /// Changes so many rows.
    #[action(custom)]
    Touch { count: i64, text: String },
    #[action(custom)]
    Clear,
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Note>) -> Result<()> {
        Ok(())
    }
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Post)]
enum PostAction {
    #[action(insert)]
    Put { id: i64 },
    #[action(delete)]
    Drop { id: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum Any {
    Notes(NoteAction),
    Posts(PostAction),
}

struct Blog(Limits);

impl SyncServer for Blog {
    type Action = Any;

    fn limits(&self) -> Limits {
        self.0
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let comments = "CREATE TABLE IF NOT EXISTS comments (post INTEGER REFERENCES posts (id))";
        room.sql().execute(comments, params![]).map(drop)
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: Any) -> Result<()> {
        const TOUCH: &str = "WITH RECURSIVE n(i) AS \
            (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) \
            INSERT INTO notes (id, text) SELECT printf('note-%05d', i), ? FROM n WHERE TRUE \
            ON CONFLICT (id) DO UPDATE SET text = excluded.text";
        match action {
            Any::Notes(NoteAction::Touch { count, text }) => {
                room.sql().execute(TOUCH, params![count, text]).map(drop)
            }
            Any::Notes(NoteAction::Clear) => {
                room.sql().execute("DELETE FROM notes", params![]).map(drop)
            }
            other => other.apply(room.sql()),
        }
    }
}

fn room(limits: Limits) -> TestRoom<Blog> {
    TestRoom::new(Blog(Limits { actions_burst: 10_000_000, ..limits })).unwrap()
}

fn touch(room: &mut TestRoom<Blog>, count: i64) {
    let text = room.version().to_string();
    room.act(Any::Notes(NoteAction::Touch { count, text })).unwrap();
}

fn one(room: &TestRoom<Blog>, sql: &str) -> i64 {
    room.sql().query_one(sql, [], |row| row.get(0)).unwrap()
}

fn log(room: &TestRoom<Blog>) -> i64 {
    one(room, "SELECT count(*) FROM _partysync_change")
}

/// Lets the alarm ring as long as it is due; how often that was.
fn ring(room: &mut TestRoom<Blog>) -> usize {
    for n in 0..5_000 {
        if room.next_alarm().is_none_or(|at| at > room.now()) {
            return n;
        }
        room.alarm().unwrap();
    }
    panic!("it rings for ever")
}

/// Lets time pass, and the alarm ring whenever it is due; how often that was.
fn pass(room: &mut TestRoom<Blog>, millis: i64) -> usize {
    let (end, mut rings) = (room.now().plus_millis(millis), ring(room));
    while let Some(at) = room.next_alarm().filter(|at| *at <= end) {
        room.advance_millis(at.as_millis() - room.now().as_millis());
        rings += ring(room);
    }
    room.advance_millis(end.as_millis() - room.now().as_millis());
    rings
}

#[test]
fn rows_that_change_in_rotation_keep_the_log_bounded_whatever_a_turn_may_do() {
    for log_entries in [100, 500_000] {
        let mut room = room(Limits { log_entries, ..Limits::default() });
        for _ in 0..20 {
            touch(&mut room, 400);
            pass(&mut room, 61_000);
            assert!(log(&room) < 3 * 1_000, "{} with {log_entries}", log(&room));
        }
        touch(&mut room, 1_000);
        touch(&mut room, 1_000);
        let size = usize::try_from(log(&room)).unwrap();
        assert!(room.next_alarm().is_some());
        room.advance_millis(61_000);
        let turns = ring(&mut room);
        let most = size.div_ceil(log_entries as usize);
        assert!(turns >= most.min(2) && turns <= 2 * most + 1, "{turns} turns for {size} entries");
        assert_eq!(log(&room), 1_000);
    }
}

#[test]
fn a_row_that_may_not_be_removed_keeps_nothing_else_from_being_forgotten() {
    let month = Limits { client_retention_ms: 30 * DAY, ..Limits::default() };
    let mut room = room(month);
    for id in 0..10 {
        room.act(Any::Posts(PostAction::Put { id })).unwrap();
    }
    room.sql().execute("INSERT INTO comments VALUES (3), (7)", params![]).unwrap();
    for id in 0..10 {
        room.act(Any::Posts(PostAction::Drop { id })).unwrap();
    }
    touch(&mut room, 50);
    room.act(Any::Notes(NoteAction::Clear)).unwrap();
    pass(&mut room, 8 * DAY);
    let left = "SELECT group_concat(id) FROM posts";
    let left: String = room.sql().query_one(left, [], |row| row.get(0)).unwrap();
    assert_eq!(left, "3,7");
    let logged = room.take_logged();
    let told = |line: &String| line.contains("rows that were softly deleted long ago are kept");
    assert!(logged.iter().any(told), "{logged:?}");
    assert!(one(&room, "SELECT trimmed_to FROM _partysync_meta") > 60);
    for _ in 0..40 {
        touch(&mut room, 50);
    }
    pass(&mut room, 61_000);
    assert!(log(&room) < 60, "{}", log(&room));
    assert_eq!(one(&room, "SELECT count(*) FROM _partysync_client"), 1);
    pass(&mut room, 40 * DAY);
    assert_eq!(one(&room, "SELECT count(*) FROM _partysync_client"), 0);
    // When it may, it is removed as well.
    room.sql().execute("DELETE FROM comments", params![]).unwrap();
    pass(&mut room, 8 * DAY);
    assert_eq!(one(&room, "SELECT count(*) FROM posts"), 0);
}

#[test]
fn what_is_removed_for_good_is_no_change_to_anybody() {
    let mut room = room(Limits::default());
    for id in 0..3 {
        room.act(Any::Posts(PostAction::Put { id })).unwrap();
        room.act(Any::Posts(PostAction::Drop { id })).unwrap();
    }
    room.connect("v1", Protocol::V1).unwrap();
    let version = room.version();
    pass(&mut room, 8 * DAY);
    assert_eq!(one(&room, "SELECT count(*) FROM posts"), 0);
    assert_eq!((room.version(), log(&room)), (version, 1));
    assert!(room.take_sent().is_empty());
}

#[test]
fn rows_are_removed_that_were_deleted_shortly_before_the_log_was_looked_at() {
    let mut room = room(Limits { client_retention_ms: DAY, ..Limits::default() });
    room.act(Any::Posts(PostAction::Put { id: 1 })).unwrap();
    pass(&mut room, 6 * DAY);
    room.act(Any::Posts(PostAction::Drop { id: 1 })).unwrap();
    pass(&mut room, 20 * DAY);
    assert_eq!(one(&room, "SELECT count(*) FROM posts"), 0);
    // And then there is nothing left to do.
    assert_eq!(room.next_alarm(), None);
}

#[test]
fn an_idle_room_rings_seldom_whatever_its_limits_say() {
    for (retention_ms, most) in [(0, 61), (1_000, 61), (7 * DAY, 1)] {
        let mut room = room(Limits { retention_ms, ..Limits::default() });
        touch(&mut room, 3);
        pass(&mut room, 61_000);
        let rings = pass(&mut room, 60 * 60_000);
        assert!(rings <= most, "{rings} in an hour with {retention_ms}");
    }
    // A client is remembered for 90 days: until then nothing is looked at each week.
    let mut room = room(Limits::default());
    touch(&mut room, 3);
    assert!(pass(&mut room, 89 * DAY) <= 2);
    pass(&mut room, 3 * DAY);
    assert_eq!(one(&room, "SELECT count(*) FROM _partysync_client"), 0);
    assert_eq!(room.next_alarm(), None);
}

#[test]
fn a_room_whose_storage_is_full_forgets_and_works_again() {
    let mut room = room(Limits::default());
    for id in 0..1_500 {
        room.act(Any::Posts(PostAction::Put { id })).unwrap();
        room.act(Any::Posts(PostAction::Drop { id })).unwrap();
    }
    let pages = one(&room, "PRAGMA page_count");
    room.sql().exec(&format!("PRAGMA max_page_count = {pages}"), &[]).unwrap();
    let full =
        (0..100_000).find_map(|n| room.act(Any::Posts(PostAction::Put { id: 10_000 + n })).err());
    assert_eq!(full.unwrap().code(), Code::Storage);
    pass(&mut room, 8 * DAY);
    let deleted = "SELECT count(*) FROM posts WHERE deleted_at IS NOT NULL";
    assert_eq!(one(&room, deleted), 0);
    let insert = "INSERT INTO posts (id) VALUES (1)";
    room.run(|room| room.sql().execute(insert, params![])).unwrap();
}

#[test]
fn a_v1_client_pays_for_the_log_that_it_has_read() {
    let mut room = TestRoom::new(Blog(Limits::default())).unwrap();
    room.act(Any::Posts(PostAction::Put { id: 1 })).unwrap();
    room.advance_millis(10);
    room.act(Any::Notes(NoteAction::Touch { count: 100_000, text: String::new() })).unwrap();
    room.act(Any::Posts(PostAction::Put { id: 2 })).unwrap();
    room.connect("v1", Protocol::V1).unwrap();
    let from = room.now().as_millis() - 5;
    let sync = format!(r#"{{"channel":"posts","sync":true,"from":{from}}}"#);
    let closed = (1..2_000).find(|_| {
        let sent = room.frame("v1", &sync).unwrap();
        sent.iter().any(|(_, text)| text.starts_with("close 4429"))
    });
    let closed = closed.expect("it reads the log for nothing");
    assert!((20..100).contains(&closed), "after {closed}");
}

/// A life of a room whose history ends with `published`: what it publishes, and what it ends with.
fn life(
    db: &Sqlite,
    now: Timestamp,
    published: Option<u64>,
    sql: &str,
) -> (Option<u64>, Vec<String>) {
    let mut local = Local::new(Blog(Limits::default()));
    let (mut messages, mut last) = (Vec::new(), published);
    let opening = || Opening {
        name: Some("room".into()),
        fresh_epoch: "epoch".into(),
        sockets: Vec::new(),
        published,
    };
    let mut take = |turn: Turn<Blog>| {
        for effect in turn.effects {
            if let Effect::Publish { to, messages: more } = effect {
                last = Some(to);
                messages.extend(more);
            }
        }
    };
    for statement in sql.split(';') {
        let statement = statement.to_owned();
        let execute =
            move |_: &Blog, room: &mut Room<'_, Blog>| room.sql().execute(&statement, params![]);
        let (turn, executed) = local.run(db, now, opening, None, execute).unwrap();
        executed.unwrap();
        take(turn);
    }
    take(local.turn(db, now, opening, [Event::Alarm]).unwrap());
    (last, messages)
}

#[test]
fn followers_of_a_history_that_lacks_forgotten_deletions_start_over() {
    let db = Sqlite::in_memory().unwrap();
    let at = |days: i64| Timestamp::from_millis(1_000 + days * DAY);
    let insert = "INSERT INTO notes (id, text) VALUES ('a', ''); \
                  INSERT INTO notes (id, text) VALUES ('b', '')";
    let (published, messages) = life(&db, at(0), Some(0), insert);
    assert_eq!((published, messages.len()), (Some(2), 2));
    // Without a history for a while.
    life(&db, at(1), None, "DELETE FROM notes WHERE id = 'a'; UPDATE notes SET text = 'x'");
    life(&db, at(9), None, "UPDATE notes SET text = 'y'");
    let (to, messages) = life(&db, at(9), published, "UPDATE notes SET text = 'z'");
    assert_eq!(messages[0], r#"{"headers":{"control":"reset"}}"#);
    assert!(messages[1..].iter().all(|message| message.contains(r#""key":"b""#)), "{messages:?}");
    assert!(messages.last().unwrap().contains(r#""text":"z""#));
    // Once.
    let (_, messages) = life(&db, at(9), to, "UPDATE notes SET text = 'end'");
    assert_eq!(messages.len(), 1, "{messages:?}");
}
