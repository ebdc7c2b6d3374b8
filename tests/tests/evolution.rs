//! The application changes: what becomes of the database, of clients that were built before, and
//! of what they have stored.

use partysync::sql::Sqlite;
use partysync::testing::TestRoom;
use partysync::{Action, Code, Protocol, Record, Result, Room, SyncServer, Timestamp};
use partysync_client::store::MemoryStore;
use partysync_client::{Cause, Input, Now, Output, Peer, Phase, Timing};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// As it was first.
mod first {
    use super::*;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    pub struct Note {
        #[record(key)]
        pub id: String,
        pub text: String,
        pub size: Option<i64>,
        #[record(created_at)]
        pub created_at: Timestamp,
        #[record(deleted_at)]
        pub deleted_at: Option<Timestamp>,
    }

    #[derive(Action, Clone, PartialEq, Debug)]
    #[action(record = Note)]
    pub enum NoteAction {
        #[action(insert)]
        Add { id: String, text: String, size: Option<i64> },
        #[action(delete)]
        Drop { id: String },
    }

    #[derive(Default)]
    pub struct Notes;

    impl SyncServer for Notes {
        type Action = NoteAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
            action.apply(room.sql())
        }
    }
}

/// Two columns more, in the middle, and one with another name that takes no null any more.
mod second {
    use super::*;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    pub struct Note {
        #[record(key)]
        pub id: String,
        #[record(default = "white")]
        pub color: String,
        pub size: Option<i64>,
        #[record(renamed_from = "text")]
        pub title: String,
        #[record(created_at)]
        pub created_at: Timestamp,
        pub owner: Option<String>,
        #[record(deleted_at)]
        pub deleted_at: Option<Timestamp>,
    }

    #[derive(Action, Clone, PartialEq, Debug)]
    #[action(record = Note)]
    pub enum NoteAction {
        #[action(custom)]
        Add { id: String, text: String, size: Option<i64>, color: Option<String> },
        #[action(update)]
        Paint { id: String, color: Option<String> },
        #[action(delete)]
        Drop { id: String },
    }

    impl partysync::Reduce for NoteAction {
        fn reduce_custom(&self, draft: &mut partysync::Draft<'_, Note>) -> Result<()> {
            let Self::Add { id, text, size, color } = self else { return Ok(()) };
            draft.put(&Note {
                id: id.clone(),
                color: color.clone().unwrap_or("white".into()),
                size: *size,
                title: text.clone(),
                created_at: draft.now(),
                owner: None,
                deleted_at: None,
            })
        }
    }

    #[derive(Default)]
    pub struct Notes;

    impl SyncServer for Notes {
        type Action = NoteAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
            let NoteAction::Add { id, text, size, color } = action else {
                return action.apply(room.sql());
            };
            let statement = "INSERT INTO notes (id, title, size, color) VALUES (?, ?, ?, ?)";
            let color = color.unwrap_or("white".into());
            room.sql().execute(statement, partysync::params![id, text, size, color])?;
            Ok(())
        }
    }
}

/// A column that the first has is gone.
mod third {
    use super::*;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    pub struct Note {
        #[record(key)]
        pub id: String,
        #[record(renamed_from = "text")]
        pub title: String,
        #[record(created_at)]
        pub created_at: Timestamp,
        #[record(deleted_at)]
        pub deleted_at: Option<Timestamp>,
    }

    #[derive(Action, Clone, PartialEq, Debug)]
    #[action(record = Note)]
    pub enum NoteAction {
        #[action(insert)]
        Write { id: String, title: String },
        #[action(delete)]
        Drop { id: String },
    }

    #[derive(Default)]
    pub struct Notes;

    impl SyncServer for Notes {
        type Action = NoteAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
            action.apply(room.sql())
        }
    }
}

const NOW: Now = Now { monotonic: 1_000, wall: Timestamp::from_millis(1_000) };

fn room<S: SyncServer + Default>(path: &Path) -> TestRoom<S> {
    TestRoom::with(S::default(), Sqlite::open(path).unwrap()).unwrap()
}

/// A client of any age with a store, on a socket to a room of any age.
struct Client<A> {
    peer: Peer<A>,
    store: MemoryStore,
    socket: String,
    errors: Vec<Code>,
}

impl<A: Action> Client<A> {
    fn new<S: SyncServer>(store: &MemoryStore, room: &mut TestRoom<S>, socket: &str) -> Self {
        static LIVES: AtomicU64 = AtomicU64::new(1);
        let store = store.clone();
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        let peer = Peer::new([life, 7], Timing::default(), NOW);
        let mut client = Self { peer, store, socket: socket.to_owned(), errors: Vec::new() };
        client.connect(room, socket);
        client
    }

    fn connect<S: SyncServer>(&mut self, room: &mut TestRoom<S>, socket: &str) {
        self.run(room);
        room.connect(socket, Protocol::V2).unwrap();
        socket.clone_into(&mut self.socket);
        self.peer.handle(Input::Connected, NOW);
        self.run(room);
    }

    /// Everything that is under way arrives.
    fn run<S: SyncServer>(&mut self, room: &mut TestRoom<S>) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::OpenStore(client) => {
                    let opened = self.store.open_now(&client);
                    self.peer.handle(Input::Opened(opened), NOW);
                }
                Output::Store(writes) => {
                    let stored = self.store.write_now(writes);
                    self.peer.handle(Input::Stored(stored), NOW);
                }
                Output::Error(error) => self.errors.push(error.code()),
                Output::Send(text) => {
                    for (to, text) in room.frame(&self.socket, &text).unwrap() {
                        if to == self.socket {
                            self.hear(&text);
                            heard.push(text);
                        }
                    }
                }
                _ => {}
            }
        }
        heard
    }

    fn hear(&mut self, text: &str) {
        let input = match text.strip_prefix("close ") {
            None => Input::Frame(text),
            Some(close) => {
                let (code, reason) = (close[..4].parse().unwrap(), String::new());
                Input::Disconnected(Cause::Code { code, reason })
            }
        };
        self.peer.handle(input, NOW);
    }

    fn act<S: SyncServer>(&mut self, room: &mut TestRoom<S>, action: A) -> Vec<String> {
        self.peer.act(action, NOW).unwrap();
        self.run(room)
    }

    fn is_live(&self) -> bool {
        self.peer.status().phase == Phase::Live && self.peer.replica().pending() == 0
    }
}

fn add(id: &str, text: &str) -> first::NoteAction {
    first::NoteAction::Add { id: id.into(), text: text.into(), size: Some(3) }
}

#[test]
fn an_older_client_goes_on_when_columns_were_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let store = MemoryStore::new();
    let mut old = room::<first::Notes>(&path);
    let mut client = Client::new(&store, &mut old, "old");
    client.act(&mut old, add("a", "from before"));
    let before = client.peer.replica().rows::<first::Note>().unwrap();
    drop((client, old));

    // The server was deployed anew; the client was not.
    let mut new = room::<second::Notes>(&path);
    let mut client = Client::<first::NoteAction>::new(&store, &mut new, "old");
    assert!(client.is_live(), "{:?}", client.peer.status());
    assert_eq!(client.peer.replica().rows::<first::Note>().unwrap(), before);
    let stored: Vec<second::Note> = new.rows().unwrap();
    assert_eq!((stored[0].title.as_str(), stored[0].color.as_str()), ("from before", "white"));

    // Rows of a patch, a delta and a snapshot have its columns, in its order.
    let frames = client.act(&mut new, add("b", "from the old one"));
    assert!(frames[0].contains(r#""rows":[["b","from the old one",3,1000,null]]"#), "{frames:?}");
    let paint = second::NoteAction::Paint { id: "a".into(), color: Some("red".into()) };
    new.act(paint).unwrap();
    let mut again = Client::<first::NoteAction>::new(&MemoryStore::new(), &mut new, "snapshot");
    assert_eq!(again.peer.replica().rows::<first::Note>().unwrap().len(), 2);
    assert_eq!(again.peer.replica().rows::<first::Note>().unwrap()[0], before[0]);
    drop(client);
    new.act(second::NoteAction::Drop { id: "b".into() }).unwrap();
    let client = Client::<first::NoteAction>::new(&store, &mut new, "delta");
    assert_eq!(client.peer.replica().rows::<first::Note>().unwrap(), before);
    let frames = again.act(&mut new, first::NoteAction::Drop { id: "a".into() });
    assert!(frames[0].contains(r#""gone":["a"]"#), "{frames:?}");
    assert_eq!(
        new.rows::<second::Note>().unwrap().iter().filter(|n| n.deleted_at.is_none()).count(),
        0
    );
}

#[test]
fn old_and_new_clients_share_a_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut new = room::<second::Notes>(&folder.path().join("room.sqlite"));
    let mut old = Client::<first::NoteAction>::new(&MemoryStore::new(), &mut new, "old");
    let mut young = Client::<second::NoteAction>::new(&MemoryStore::new(), &mut new, "young");
    old.act(&mut new, add("a", "hello"));
    let action = second::NoteAction::Add {
        id: "b".into(),
        text: "hi".into(),
        size: None,
        color: Some("red".into()),
    };
    young.peer.act(action, NOW).unwrap();
    // The young one lacks a's patch: it reconnects.
    young.peer.reconnect(NOW);
    young.connect(&mut new, "young again");
    let rows = young.peer.replica().rows::<second::Note>().unwrap();
    assert_eq!(rows.iter().map(|n| n.color.as_str()).collect::<Vec<_>>(), ["white", "red"]);
}

#[test]
fn a_client_whose_columns_are_gone_is_told_to_reload_and_keeps_what_is_pending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let store = MemoryStore::new();
    let mut old = room::<first::Notes>(&path);
    let mut client = Client::new(&store, &mut old, "old");
    client.act(&mut old, add("a", "from before"));
    drop((client, old));

    let mut new = room::<third::Notes>(&path);
    let mut client = Client::<first::NoteAction>::new(&store, &mut new, "old");
    let Phase::Refused(error) = client.peer.status().phase else { panic!("{client:?}") };
    assert_eq!(error.code(), Code::SchemaMismatch);
    client.act(&mut new, add("b", "not understood any more"));
    client.act(&mut new, first::NoteAction::Drop { id: "a".into() });
    assert_eq!(client.peer.status().pending, 2);
    drop(client);

    // The app is reloaded: rows are fetched anew, what is still understood is done, and what is
    // not is answered by the server.
    let mut client = Client::<third::NoteAction>::new(&store, &mut new, "new");
    assert!(client.is_live(), "{:?}", client.peer.status());
    // Told when it was read, and by the server, since whoever made it is gone; it is kept.
    assert_eq!(client.errors, [Code::UnknownAction, Code::Outdated]);
    let kept: Vec<_> = client.peer.abandoned().values().map(|kept| &kept.action["type"]).collect();
    assert_eq!(kept, ["add"]);
    assert!(client.peer.replica().rows::<third::Note>().unwrap().is_empty());
    client.act(&mut new, third::NoteAction::Write { id: "c".into(), title: "new".into() });
    assert_eq!(client.peer.replica().rows::<third::Note>().unwrap().len(), 1);
    drop(client);
    assert!(store.kept().unwrap().outboxes.is_empty());
}

#[test]
fn stored_rows_of_another_age_are_never_misread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let store = MemoryStore::new();
    let mut old = room::<first::Notes>(&path);
    let mut client = Client::new(&store, &mut old, "old");
    client.act(&mut old, add("a", "from before"));
    drop((client, old));
    let mut peer = Peer::<second::NoteAction>::new([9, 9], Timing::default(), NOW);
    peer.handle(Input::Opened(store.clone().open_now("unused")), NOW);
    peer.handle(Input::Connected, NOW);
    assert!(peer.replica().rows::<second::Note>().unwrap().is_empty());
    let outputs: Vec<_> = std::iter::from_fn(|| peer.poll_output()).collect();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Error(_))));
    let Some(Output::Send(hello)) = outputs.last() else { panic!("{outputs:?}") };
    assert!(hello.contains(r#""since":null"#) && hello.contains(r#""color:TEXT""#), "{hello}");

    let mut new = room::<second::Notes>(&path);
    let client = Client::<second::NoteAction>::new(&store, &mut new, "new");
    let rows = client.peer.replica().rows::<second::Note>().unwrap();
    assert_eq!((rows[0].title.as_str(), rows[0].owner.as_deref()), ("from before", None));
    drop(client);
    // And back: the older app finds rows of the newer one.
    let client = Client::<first::NoteAction>::new(&store, &mut new, "old");
    assert_eq!(client.peer.replica().rows::<first::Note>().unwrap()[0].text, "from before");
}

#[test]
fn only_columns_that_hold_the_same_serve_an_older_client() {
    let folder = tempfile::tempdir().unwrap();
    let mut room = room::<second::Notes>(&folder.path().join("room.sqlite"));
    let known = ["id:TEXT:key", "color:TEXT", "deleted_at?:INTEGER:deleted_at"].map(str::to_owned);
    let mut answers = |change: &dyn Fn(&mut Vec<String>)| {
        let mut columns = known.to_vec();
        change(&mut columns);
        room.connect("c", Protocol::V2).unwrap();
        let columns = serde_json::to_string(&columns).unwrap();
        let hello = format!(
            r#"{{"type":"hello","client":"c","epoch":null,"channels":[{{"channel":"notes","since":null,"schema":"0","columns":{columns}}}]}}"#
        );
        let frames = room.frame("c", &hello).unwrap();
        room.disconnect("c").unwrap();
        frames.last().unwrap().1.clone()
    };
    assert!(answers(&|_| {}).contains("catch_up"));
    // A client that takes null is served by a column without.
    assert!(answers(&|columns| columns[1] = "color?:TEXT".into()).contains("catch_up"));
    for wrong in
        ["colour:TEXT", "color:INTEGER", "size:INTEGER", "color:TEXT:key", "", "id:TEXT:key "]
    {
        let answer = answers(&|columns| columns[1] = wrong.into());
        assert_eq!(answer, "close 4409 schema_mismatch", "{wrong}");
    }
    assert_eq!(answers(&|columns| columns.swap(0, 1)), "close 4409 schema_mismatch");
    assert_eq!(answers(&|columns| columns.clear()), "close 4409 schema_mismatch");
}

impl<A> std::fmt::Debug for Client<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("errors", &self.errors).finish_non_exhaustive()
    }
}
