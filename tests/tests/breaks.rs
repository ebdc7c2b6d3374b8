//! What a client does when something around it ends or breaks: its place is deleted, its store
//! hangs, a reducer panics, a server repeats or misnumbers its frames. Nobody waits for ever.

use futures::{FutureExt, StreamExt};
use partysync::{Action, Code, Draft, Record, Reduce, Result, Timestamp};
use partysync_client::store::{MemoryStore, Outbox, Saved, SavedAction, Store, Stored, Write};
use partysync_client::transport::{Event, Link, Sleep, Transport};
use partysync_client::{
    Address, Cause, Input, Now, Options, Output, Peer, Phase, SyncClient, Timing,
};
use std::future::{Future, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    text: String,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "tags")]
struct Tag {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String, text: String },
    #[action(custom)]
    Shout { id: String },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Tag)]
enum TagAction {
    #[action(upsert)]
    Put { id: String },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum AnyAction {
    Notes(NoteAction),
    Tags(TagAction),
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Note>) -> Result<()> {
        let Self::Shout { id } = self else { return Ok(()) };
        let mut note = draft.get(id.as_str())?.expect("it was there when this was made");
        note.text.push('!');
        draft.put(&note)
    }
}

fn put(id: &str) -> NoteAction {
    NoteAction::Put { id: id.into(), text: "x".into() }
}

fn shout(id: &str) -> NoteAction {
    NoteAction::Shout { id: id.into() }
}

fn at(millis: u64) -> Now {
    Now { monotonic: millis, wall: Timestamp::from_millis(1_000_000) }
}

const WELCOME: &str = r#"{"type":"welcome","epoch":"e","version":1,"connection":"c","now":0}"#;

/// A whole snapshot of a channel.
fn snapshot(channel: &str, to: u64, rows: &str) -> String {
    let count = usize::from(rows != "[]");
    format!(
        r#"{{"type":"catch_up","channel":"{channel}","from":null,"to":{to},"rows":{rows},"gone":[],"sent":{count},"total":{count},"more":false}}"#
    )
}

/// A client that has said hello and was welcomed.
fn greeted<A: Action>() -> Peer<A> {
    let mut peer = Peer::new([1, 2], Timing::default(), at(0));
    peer.handle(Input::Opened(Ok(Saved::default())), at(0));
    peer.handle(Input::Connected, at(0));
    peer.handle(Input::Frame(WELCOME), at(1));
    peer
}

/// A store that takes nothing, and never says so.
struct Hangs;

impl Store for Hangs {
    fn open<'a>(&'a self, _: &'a str) -> Stored<'a, Saved> {
        ready(Ok(Saved::default())).boxed()
    }

    fn write(&self, _: Vec<Write>) -> Stored<'_, ()> {
        pending().boxed()
    }

    fn delete(&self) -> Stored<'_, ()> {
        ready(Ok(())).boxed()
    }
}

/// A network whose other end is the test.
#[derive(Clone)]
struct Wire {
    began: Instant,
    opened: Arc<Mutex<Vec<futures::channel::mpsc::UnboundedSender<Event>>>>,
}

impl Wire {
    fn new() -> Self {
        Self { began: Instant::now(), opened: Arc::default() }
    }

    fn say(&self, event: Event) {
        self.opened.lock().unwrap().last().unwrap().unbounded_send(event).unwrap();
    }
}

impl Transport for Wire {
    fn open(&self, _: &Address) -> Link {
        let (outgoing, to_send) = futures::channel::mpsc::unbounded();
        let (say, incoming) = futures::channel::mpsc::unbounded();
        // A socket that takes everything.
        std::mem::forget(to_send);
        self.opened.lock().unwrap().push(say);
        Link { outgoing, incoming }
    }

    fn sleep(&self, time: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(time))
    }

    fn now(&self) -> Now {
        at(u64::try_from(self.began.elapsed().as_millis()).unwrap())
    }

    fn random(&self) -> u64 {
        7
    }
}

type Client = SyncClient<NoteAction>;

fn client(options: Options) -> (Client, Wire, impl Future<Output = ()> + Send + 'static) {
    let wire = Wire::new();
    let (client, driver) = Client::make("ws://x".into(), options, wire.clone());
    (client, wire, driver)
}

/// The deadline is for failing tests only.
async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(20), work).await;
    done.unwrap_or_else(|_| panic!("it never comes: {what}"))
}

#[tokio::test]
async fn whoever_waits_for_an_answer_hears_when_the_place_is_deleted_elsewhere() {
    let store = MemoryStore::new();
    let (client, _, driver) = client(Options::new(store.clone()));
    let driver = tokio::spawn(driver);
    client.loaded().await.unwrap();
    let answer = client.send(put("a"));
    client.stored().await.unwrap();
    // Another tab logs out.
    store.delete().await.unwrap();
    within("the end of the driver", driver).await.unwrap();
    let error = within("the answer", answer).await.unwrap_err();
    assert_eq!(error.code(), Code::Closed);
    let error = within("what is stored", client.stored()).await.unwrap_err();
    assert_eq!(error.code(), Code::Closed);
}

fn hanging() -> Options {
    let mut options = Options::new(Hangs);
    options.timing.store_ms = 100;
    options
}

#[tokio::test]
async fn whoever_waits_for_a_store_that_hangs_hears_when_the_client_has_ended() {
    let (client, _, driver) = client(hanging());
    let driver = tokio::spawn(driver);
    client.loaded().await.unwrap();
    drop(client.send(put("a")));
    client.close();
    let error = within("what is stored", client.stored()).await.unwrap_err();
    assert_eq!(error.code(), Code::Closed);
    within("the end of the driver", driver).await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_closed_after_its_store_was_found_to_hang_ends() {
    let (client, _, driver) = client(hanging());
    let driver = tokio::spawn(driver);
    client.loaded().await.unwrap();
    drop(client.send(put("a")));
    client.until(|client| client.status().warning.is_some()).await.unwrap();
    client.close();
    within("the end of the driver", driver).await.unwrap();
}

#[tokio::test]
async fn whoever_waits_hears_when_the_driver_is_dropped() {
    let (client, _, driver) = client(Options::default());
    let driver = tokio::spawn(driver);
    client.loaded().await.unwrap();
    let answer = client.send(put("a"));
    let mut changes = client.query(&Note::query()).unwrap().changes();
    driver.abort();
    within("the driver", driver).await.unwrap_err();
    within("the changes", async { while changes.next().await.is_some() {} }).await;
    assert_eq!(within("the answer", answer).await.unwrap_err().code(), Code::Closed);
    assert_eq!(client.status().phase, Phase::Closed);
    assert_eq!(within("forget", client.forget()).await.unwrap_err().code(), Code::Closed);
}

#[tokio::test]
async fn a_reducer_that_panics_when_it_is_done_again_is_a_guess_that_failed() {
    let (client, wire, driver) = client(Options::default());
    let driver = tokio::spawn(driver);
    client.loaded().await.unwrap();
    within("a socket", async {
        while wire.opened.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let text = |text: &str| wire.say(Event::Text(text.to_owned()));
    wire.say(Event::Opened);
    text(WELCOME);
    text(&snapshot("notes", 1, r#"[["a","x"]]"#));
    client.until(|client| client.status().phase == Phase::Live).await.unwrap();
    let answer = client.send(shout("a"));
    assert_eq!(client.get::<Note>("a").unwrap().unwrap().text, "x!");
    // Somebody else deletes the row, and the reducer cannot do without.
    text(
        r#"{"type":"patch","from":1,"to":2,"changes":[{"channel":"notes","rows":[],"gone":["a"]}]}"#,
    );
    text(
        r#"{"type":"patch","from":2,"to":2,"acks":[{"seq":1,"code":"not_found","message":"gone"}]}"#,
    );
    assert_eq!(within("the answer", answer).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.rows::<Note>(), []);
    within("forget", client.forget()).await.unwrap();
    within("the end of the driver", driver).await.unwrap();
}

#[test]
fn what_is_stored_and_panics_does_not_keep_a_client_from_starting() {
    let mut outbox = Outbox::new("gone");
    let saved = |action: NoteAction| SavedAction {
        channel: "notes".into(),
        action: action.to_json().unwrap(),
        made_at: Timestamp::from_millis(1),
        suspicion: Default::default(),
    };
    outbox.pending.insert(1, saved(shout("a")));
    outbox.pending.insert(2, saved(put("b")));
    let saved = Saved { outboxes: vec![outbox], ..Saved::default() };
    let mut peer = Peer::<NoteAction>::new([1, 2], Timing::default(), at(0));
    let start = catch_unwind(AssertUnwindSafe(|| peer.handle(Input::Opened(Ok(saved)), at(0))));
    assert!(start.is_ok(), "it panics at every start");
    assert_eq!(peer.status().pending, 2);
    assert_eq!(peer.replica().rows::<Note>().unwrap(), [Note { id: "b".into(), text: "x".into() }]);
}

#[test]
fn a_page_that_comes_twice_stands_for_no_other_channel() {
    let mut peer = greeted::<AnyAction>();
    let notes = snapshot("notes", 1, "[]");
    for _ in 0..2 {
        peer.handle(Input::Frame(&notes), at(1));
        assert_ne!(peer.status().phase, Phase::Live, "nothing has come of `tags`");
    }
    peer.handle(Input::Frame(&snapshot("tags", 1, "[]")), at(1));
    assert_eq!(peer.status().phase, Phase::Live);
}

#[test]
fn catch_up_that_comes_twice_does_not_set_a_live_client_back() {
    let mut peer = greeted::<NoteAction>();
    let old = snapshot("notes", 1, r#"[["a","old"]]"#);
    peer.handle(Input::Frame(&old), at(1));
    let patch = r#"{"type":"patch","from":1,"to":2,"changes":[{"channel":"notes","rows":[["a","new"]],"gone":[]}]}"#;
    peer.handle(Input::Frame(patch), at(1));
    for frame in [old.as_str(), r#"{"type":"reset","reason":"epoch"}"#] {
        peer.handle(Input::Frame(frame), at(1));
        assert_eq!(peer.status().phase, Phase::Live);
        assert_eq!(peer.replica().version("notes"), Some(2));
        assert_eq!(peer.replica().rows::<Note>().unwrap()[0].text, "new");
    }
}

#[test]
fn a_version_that_no_store_can_hold_is_not_taken() {
    let mut peer = greeted::<NoteAction>();
    peer.handle(Input::Frame(&snapshot("notes", u64::MAX, r#"[["a","x"]]"#)), at(1));
    assert!(matches!(peer.status().phase, Phase::Offline { .. }));
    assert_eq!(peer.replica().version("notes"), None);
    let outputs: Vec<_> = std::iter::from_fn(|| peer.poll_output()).collect();
    let rows = |output: &Output| match output {
        Output::Store(writes) => writes.iter().any(|write| matches!(write, Write::Rows(_))),
        _ => false,
    };
    assert!(!outputs.iter().any(rows), "{outputs:?}");
}

#[test]
fn a_client_that_is_refused_lets_others_send_what_was_left_behind() {
    let store = MemoryStore::new();
    let (gone, refused) = (store.clone(), store.clone());
    let (gone_events, mut events) = (gone.events(), refused.events());
    let open = |random: u64, store: &MemoryStore| {
        let mut peer = Peer::<NoteAction>::new([random, random], Timing::default(), at(0));
        let saved = store.open_now(peer.replica().client());
        peer.handle(Input::Opened(saved), at(0));
        peer
    };
    // A page that was built for other columns stops, and stays open.
    let mut old = open(1, &refused);
    let hear = |peer: &mut Peer<NoteAction>, events: &mut partysync_client::store::Events| {
        while let Some(output) = peer.poll_output() {
            if let Output::TakeOver(others) = output {
                refused.take_over(others);
            }
        }
        while let Some(Some(event)) = futures::StreamExt::next(events).now_or_never() {
            peer.handle(Input::Store(event), at(1));
        }
    };
    let refusal = || Input::Disconnected(Cause::Code { code: 4409, reason: String::new() });
    old.handle(refusal(), at(0));
    hear(&mut old, &mut events);
    // Another one is closed with an action that was not sent.
    let mut new = open(2, &gone);
    new.act(put("a"), at(0)).unwrap();
    while let Some(output) = new.poll_output() {
        if let Output::Store(writes) = output {
            gone.write_now(writes).unwrap();
        }
    }
    drop((new, gone, gone_events));
    hear(&mut old, &mut events);
    assert_eq!(old.status().pending, 0);
    // The next one gets it, and so does the old one if it is let in before that.
    old.reconnect(at(2));
    hear(&mut old, &mut events);
    assert_eq!(old.status().pending, 1);
    old.handle(refusal(), at(3));
    hear(&mut old, &mut events);
    assert_eq!((old.status().pending, old.replica().pending_elsewhere()), (0, 1));
    let next = open(3, &store);
    assert_eq!(next.status().pending, 1, "what was left behind is sent by nobody");
}
