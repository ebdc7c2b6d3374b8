//! What outside readings found in the client's machine and its drivers.

use partysync::{Action, Record, Timestamp};
use partysync_client::store::*;
use partysync_client::*;
use std::collections::BTreeMap;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "notes")]
struct Row {
    #[record(key)]
    id: String,
    text: String,
}
#[derive(Action, Clone, Debug)]
#[action(record = Row)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String, text: String },
    #[action(custom)]
    Append { id: String, text: String },
}
std::thread_local! {
    /// How often a custom reducer was run.
    static REDUCED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}
impl partysync::Reduce for NoteAction {
    fn reduce_custom(&self, draft: &mut partysync::Draft<'_, Row>) -> partysync::Result<()> {
        REDUCED.set(REDUCED.get() + 1);
        let NoteAction::Append { id, text } = self else { return Ok(()) };
        let old = draft.get(id.as_str())?.map(|n: Row| n.text).unwrap_or_default();
        draft.put(&Row { id: id.clone(), text: old + text })
    }
}
fn now(m: u64) -> Now {
    Now { monotonic: m, wall: Timestamp::from_millis(1_000_000 + m as i64) }
}
fn put(id: &str, t: &str) -> NoteAction {
    NoteAction::Put { id: id.into(), text: t.into() }
}
fn outs(p: &mut Peer<NoteAction>) -> Vec<Output> {
    std::iter::from_fn(|| p.poll_output()).collect()
}
fn stored_all(p: &mut Peer<NoteAction>, t: u64) -> Vec<Output> {
    let mut all = Vec::new();
    loop {
        let o = outs(p);
        if o.is_empty() {
            return all;
        }
        let w = o.iter().any(|o| matches!(o, Output::Store(_)));
        all.extend(o);
        if w {
            p.handle(Input::Stored(Ok(())), now(t));
        }
    }
}
fn texts(p: &Peer<NoteAction>) -> Vec<String> {
    p.replica().rows::<Row>().unwrap().into_iter().map(|n| format!("{}={}", n.id, n.text)).collect()
}
fn fresh(t: u64) -> Peer<NoteAction> {
    let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(t));
    outs(&mut p);
    p.handle(Input::Opened(Ok(Saved::default())), now(t));
    p
}
fn live(p: &mut Peer<NoteAction>, from: &str, rows: &str, to: u64, t: u64) {
    p.handle(Input::Connected, now(t));
    p.handle(
        Input::Frame(r#"{"type":"welcome","epoch":"e","version":0,"connection":"c","now":0}"#),
        now(t),
    );
    let n = if rows == "[]" { 0 } else { 1 };
    p.handle(Input::Frame(&format!(r#"{{"type":"catch_up","channel":"notes","from":{from},"to":{to},"rows":{rows},"gone":[],"sent":{n},"total":{n},"more":false}}"#)), now(t));
}
fn saved_action(a: NoteAction) -> SavedAction {
    SavedAction {
        channel: "notes".into(),
        action: a.to_json().unwrap(),
        made_at: Timestamp::from_millis(5),
        suspicion: Default::default(),
    }
}

#[test]
fn a_store_that_opens_and_cannot_write_is_not_asked_without_a_wait() {
    let mut p = fresh(0);
    outs(&mut p);
    p.act(put("a", "x"), now(1)).unwrap();
    let (mut opens, mut stores) = (0, 0);
    // Time stands still; the driver carries out what is due at once.
    for _ in 0..10_000 {
        let o = outs(&mut p);
        let mut did = false;
        for o in o {
            match o {
                Output::OpenStore(_) => {
                    opens += 1;
                    did = true;
                    p.handle(Input::Opened(Ok(Saved::default())), now(1));
                }
                Output::Store(_) => {
                    stores += 1;
                    did = true;
                    p.handle(
                        Input::Stored(Err(partysync::Error::new(partysync::Code::Store, "full"))),
                        now(1),
                    );
                }
                _ => {}
            }
        }
        if !did {
            if p.timeout().is_some_and(|at| at <= 1) {
                p.handle(Input::Time, now(1));
            } else {
                break;
            }
        }
    }
    assert!(opens < 10, "opened {opens} times, wrote all {stores} times, within 0 ms");
}

#[test]
fn what_is_settled_is_shown_until_its_rows_are_here() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    let a = saved_action(put("a", "x"));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq: 1, action: a })),
        now(1),
    );
    p.handle(Input::Disconnected(Cause::gone()), now(1)); // this tab is offline
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: Some(("e".into(), 4)),
        })),
        now(2),
    );
    assert_eq!(texts(&p), ["a=x"]);
    p.handle(
        Input::Store(StoreEvent::Note(Note::Settled { client: "A".into(), before: 2, last: None })),
        now(3),
    );
    assert_eq!(texts(&p), ["a=x"], "gone before its row came");
}

#[test]
fn what_a_client_that_is_gone_had_answered_is_shown_until_its_rows_are_here() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    let a = saved_action(put("a", "x"));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq: 1, action: a })),
        now(1),
    );
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: Some(("e".into(), 4)),
        })),
        now(2),
    );
    p.handle(Input::Store(StoreEvent::Orphan(Outbox::new("A"))), now(3));
    assert_eq!(texts(&p), ["a=x"], "gone before its row came");
}

#[test]
fn what_is_told_while_a_store_is_read_is_newer_than_what_it_held() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    stored_all(&mut p, 0);
    p.handle(
        Input::Store(StoreEvent::Broke(partysync::Error::new(partysync::Code::Store, "x"))),
        now(1),
    );
    p.handle(Input::Time, now(1));
    assert!(outs(&mut p).iter().any(|o| matches!(o, Output::OpenStore(_))));
    // The store has read A's outbox, and reads rows now; meanwhile A hears its answer, and its store is told.
    let mut other = Outbox::new("A");
    other.pending.insert(1, saved_action(put("a", "old")));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: Some(("e".into(), 4)),
        })),
        now(2),
    );
    p.handle(
        Input::Store(StoreEvent::Note(Note::Settled { client: "A".into(), before: 2, last: None })),
        now(2),
    );
    p.handle(Input::Opened(Ok(Saved { others: vec![other], ..Saved::default() })), now(3));
    stored_all(&mut p, 3);
    p.handle(Input::Frame(r#"{"type":"patch","from":3,"to":4,"changes":[{"channel":"notes","rows":[["a","old"]],"gone":[]}]}"#), now(4));
    p.handle(Input::Frame(r#"{"type":"patch","from":4,"to":5,"changes":[{"channel":"notes","rows":[["a","new"]],"gone":[]}]}"#), now(5));
    assert_eq!(texts(&p), ["a=new"], "pending elsewhere: {}", p.replica().pending_elsewhere());
}

#[test]
fn what_is_told_while_a_store_opens_slowly_stays_in_order() {
    let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
    outs(&mut p);
    let a = saved_action(put("a", "old"));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq: 1, action: a })),
        now(1),
    );
    p.handle(Input::Time, now(10_000)); // "the store takes long to open"
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: None,
        })),
        now(10_001),
    );
    p.handle(
        Input::Store(StoreEvent::Note(Note::Settled { client: "A".into(), before: 2, last: None })),
        now(10_002),
    );
    p.handle(Input::Opened(Ok(Saved::default())), now(10_003));
    assert_eq!(p.replica().pending_elsewhere(), 0, "{:?}", texts(&p));
}

#[test]
fn what_is_done_again_while_the_store_fails_does_not_come_back() {
    let ab = Abandoned {
        channel: "notes".into(),
        action: put("a", "x").to_json().unwrap(),
        made_at: Timestamp::from_millis(1),
        code: "abandoned".into(),
        message: "m".into(),
    };
    let saved = || Saved {
        abandoned: BTreeMap::from([("A-1".to_owned(), ab.clone())]),
        ..Saved::default()
    };
    let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
    outs(&mut p);
    p.handle(Input::Opened(Ok(saved())), now(0));
    p.handle(
        Input::Store(StoreEvent::Broke(partysync::Error::new(partysync::Code::Store, "x"))),
        now(1),
    );
    p.retry("A-1", now(1)).unwrap();
    assert!(p.abandoned().is_empty());
    p.handle(Input::Time, now(1));
    outs(&mut p);
    p.handle(Input::Opened(Ok(saved())), now(2)); // as it is in the store
    let w = stored_all(&mut p, 2);
    let discards = w
        .iter()
        .any(|o| matches!(o, Output::Store(w) if w.iter().any(|w| matches!(w, Write::Discard(_)))));
    assert!(
        p.abandoned().is_empty() && discards,
        "it is back, and can be done a second time; discard written: {discards}"
    );
}

#[test]
fn credentials_that_are_refused_after_welcome_are_not_asked_for_without_a_wait() {
    let mut p = fresh(0);
    let mut connects = 0;
    for _ in 0..1000 {
        let c = outs(&mut p).iter().filter(|o| matches!(o, Output::Connect)).count();
        if c == 0 {
            break;
        }
        connects += c;
        let f = if p.replica().version("notes").is_some() { "3" } else { "null" };
        live(&mut p, f, "[]", 3, 0);
        p.handle(Input::Disconnected(Cause::Code { code: 4401, reason: "expired".into() }), now(0));
    }
    assert!(connects <= 3, "{connects} connects within 0 ms; {:?}", p.status().phase);
}

#[test]
fn a_server_that_fails_when_a_client_is_live_is_asked_less_and_less() {
    let mut p = fresh(0);
    let mut t = 0;
    let mut connects = 0;
    while t < 60_000 {
        connects += outs(&mut p).iter().filter(|o| matches!(o, Output::Connect)).count();
        let f = if p.replica().version("notes").is_some() { "3" } else { "null" };
        live(&mut p, f, "[]", 3, t);
        p.handle(Input::Disconnected(Cause::Code { code: 1011, reason: String::new() }), now(t));
        t = p.timeout().unwrap();
        p.handle(Input::Time, now(t));
    }
    assert!(connects < 30, "{connects} connects in a minute");
}

#[test]
fn a_write_that_hangs_does_not_gather_what_comes_after_it() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    outs(&mut p); // Store is on its way, and hangs
    p.handle(Input::Time, now(10_000));
    for v in 3..2003u64 {
        p.handle(Input::Frame(&format!(r#"{{"type":"patch","from":{v},"to":{},"changes":[{{"channel":"notes","rows":[["a","{v}"]],"gone":[]}}]}}"#, v + 1)), now(10_001));
        outs(&mut p);
    }
    p.handle(Input::Stored(Ok(())), now(10_002));
    let n = outs(&mut p)
        .into_iter()
        .filter_map(|o| match o {
            Output::Store(w) => Some(w.len()),
            _ => None,
        })
        .sum::<usize>();
    assert!(n < 100, "{n} writes for one row are kept in memory");
}
#[test]
fn the_answer_to_an_earlier_ping_says_nothing_about_a_push() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    stored_all(&mut p, 0);
    p.handle(Input::Time, now(20_000)); // keep-alive ping
    assert!(outs(&mut p).contains(&Output::Send("ping".into())));
    p.act(put("a", "x"), now(20_001)).unwrap();
    stored_all(&mut p, 20_001);
    p.handle(Input::Frame("pong"), now(20_002)); // of the keep-alive ping, sent before the push
    p.handle(Input::Time, now(30_001)); // no answer
    let w = stored_all(&mut p, 30_001);
    let points: Vec<_> = w
        .iter()
        .filter_map(|o| match o {
            Output::Store(w) => Some(w),
            _ => None,
        })
        .flatten()
        .filter_map(|w| match w {
            Write::Suspect { suspicion, .. } => Some(suspicion.points),
            _ => None,
        })
        .collect();
    assert_eq!(points, [1]);
}

mod handles {
    use super::*;
    use partysync_client::transport::*;
    use std::time::Duration;
    #[derive(Clone)]
    struct Nowhere;
    impl Transport for Nowhere {
        fn open(&self, _: &Address) -> Link {
            let (outgoing, rx) = futures::channel::mpsc::unbounded();
            std::mem::forget(rx);
            let (tx, incoming) = futures::channel::mpsc::unbounded();
            std::mem::forget(tx);
            Link { outgoing, incoming }
        }
        fn sleep(&self, time: Duration) -> Sleep {
            Box::pin(tokio::time::sleep(time))
        }
        fn now(&self) -> Now {
            Now { monotonic: 0, wall: Timestamp::from_millis(1) }
        }
        fn random(&self) -> u64 {
            use std::hash::*;
            std::collections::hash_map::RandomState::new().build_hasher().finish()
        }
    }
    fn kept(store: &MemoryStore) -> usize {
        store.kept().unwrap().outboxes.values().map(|o| o.pending.len()).sum()
    }
    /// A client without a network, its store, and what drives it.
    fn client() -> (MemoryStore, SyncClient<NoteAction>, impl Future<Output = ()>) {
        let store = MemoryStore::new();
        let options = Options::new(store.clone());
        let (client, driver) = SyncClient::make("ws://x".into(), options, Nowhere);
        (store, client, driver)
    }
    fn rt() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn closing_keeps_pending_actions_in_the_store() {
        rt().block_on(async {
            let (store, client, driver) = client();
            let task = tokio::spawn(driver);
            client.loaded().await.unwrap();
            drop(client.send(put("a", "1")));
            drop(client.send(put("b", "2")));
            client.close();
            task.await.unwrap();
            assert_eq!(kept(&store), 2, "`close`: pending actions stay in the store");
        });
    }
    #[test]
    fn closing_before_the_store_is_open_keeps_them_too() {
        rt().block_on(async {
            let (store, client, driver) = client();
            drop(client.send(put("a", "1")));
            client.close();
            tokio::spawn(driver).await.unwrap();
            assert_eq!(kept(&store), 1);
        });
    }
    #[test]
    fn so_does_dropping_the_last_handle() {
        rt().block_on(async {
            let (store, client, driver) = client();
            let task = tokio::spawn(driver);
            client.loaded().await.unwrap();
            drop(client.send(put("a", "1")));
            drop(client);
            task.await.unwrap();
            assert_eq!(kept(&store), 1, "made by a client whose last handle is dropped");
        });
    }
    #[test]
    fn the_function_that_gives_the_address_may_use_the_client() {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            rt().block_on(async move {
                let slot =
                    std::sync::Arc::new(std::sync::OnceLock::<SyncClient<NoteAction>>::new());
                let seen = slot.clone();
                let endpoint = Endpoint::new(move || {
                    // It is asked for by the driver, when the client is there.
                    let _ = seen.get().map(|client| client.status());
                    let _ = tell.send(());
                    async { Ok(Address::new("ws://x")) }
                });
                let (client, driver) =
                    SyncClient::<NoteAction>::make(endpoint, Options::default(), Nowhere);
                let _ = slot.set(client.clone());
                driver.await;
            })
        });
        told.recv_timeout(Duration::from_secs(60))
            .expect("deadlock: the endpoint is asked under the lock");
    }
}

#[test]
fn what_another_tab_makes_in_turn_costs_what_it_touches() {
    const N: u64 = 200;
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    let append = || saved_action(NoteAction::Append { id: "a".into(), text: "x".into() });
    for seq in 1..=N {
        let note = Note::Acted { client: "A".into(), seq, action: append() };
        p.handle(Input::Store(StoreEvent::Note(note)), now(1));
    }
    assert_eq!(texts(&p), [format!("a={}", "x".repeat(200))]);
    assert!(u64::from(REDUCED.get()) <= N + 1, "{} runs for {N} actions", REDUCED.get());
    // Half of them are answered, in two frames of the other tab.
    REDUCED.set(0);
    let patch = |from: u64, to: u64, xs: usize| {
        let row = format!(r#"[["a","{}"]]"#, "x".repeat(xs));
        format!(
            r#"{{"type":"patch","from":{from},"to":{to},"changes":[{{"channel":"notes","rows":{row},"gone":[]}}]}}"#
        )
    };
    p.handle(Input::Frame(&patch(3, 4, 50)), now(2));
    p.handle(Input::Frame(&patch(4, 5, 100)), now(2));
    for (seqs, version) in [((1..=50).collect(), 4), ((51..=100).collect(), 5)] {
        let held_by = Some(("e".into(), version));
        let note = Note::Answered { client: "A".into(), seqs, held_by };
        p.handle(Input::Store(StoreEvent::Note(note)), now(3));
    }
    assert_eq!(texts(&p), [format!("a={}", "x".repeat(200))]);
    assert!(u64::from(REDUCED.get()) <= 4 * N, "{} runs", REDUCED.get());
}

/// A transport whose sockets are channels; `at_now` is done when the time is asked for next.
#[derive(Clone, Default)]
struct Channels {
    links: Shared<Vec<futures::channel::mpsc::UnboundedSender<transport::Event>>>,
    at_now: Shared<Option<Box<dyn FnOnce() + Send>>>,
}
type Shared<T> = std::sync::Arc<std::sync::Mutex<T>>;

impl transport::Transport for Channels {
    fn open(&self, _: &Address) -> transport::Link {
        let (outgoing, sent) = futures::channel::mpsc::unbounded();
        std::mem::forget(sent);
        let (tell, incoming) = futures::channel::mpsc::unbounded();
        self.links.lock().unwrap().push(tell);
        transport::Link { outgoing, incoming }
    }
    fn sleep(&self, time: std::time::Duration) -> transport::Sleep {
        Box::pin(tokio::time::sleep(time))
    }
    fn now(&self) -> Now {
        let act = self.at_now.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        Now { monotonic: 0, wall: Timestamp::from_millis(1) }
    }
    fn random(&self) -> u64 {
        7
    }
}

#[tokio::test]
async fn what_an_old_socket_tells_is_not_told_of_the_new_one() {
    let transport = Channels::default();
    let (client, driver) =
        SyncClient::<NoteAction>::make("ws://x".into(), Options::default(), transport.clone());
    let mut updates = client.updates();
    let driver = tokio::spawn(driver);
    let opened = |n| {
        let (links, client) = (transport.links.clone(), client.clone());
        async move {
            let waits = || client.status().phase == Phase::Connecting;
            while links.lock().unwrap().len() < n && (n == 1 || waits()) {
                tokio::task::yield_now().await;
            }
        }
    };
    opened(1).await;
    // Another thread asks for a new socket when the driver has just heard that the old one closed.
    let again = client.clone();
    *transport.at_now.lock().unwrap() = Some(Box::new(move || again.reconnect()));
    let closed = transport::Event::Closed(Cause::gone());
    transport.links.lock().unwrap()[0].unbounded_send(closed).unwrap();
    opened(2).await;
    client.close();
    driver.await.unwrap();
    while let Ok(update) = updates.try_recv() {
        assert!(!matches!(update.status.phase, Phase::Offline { .. }), "{:?}", update.status);
    }
}

#[test]
fn a_clock_that_is_set_gives_nothing_up() {
    let mut p = fresh(0);
    let mut wall = 0i64;
    let at = |m: u64, w: i64| Now { monotonic: m, wall: Timestamp::from_millis(w) };
    p.act(put("a", "x"), at(0, wall)).unwrap();
    let mut t = 0u64;
    for round in 0..14 {
        if round == 1 {
            wall = 1_790_000_000_000;
        } // the clock is set, as after booting
        let f = if p.replica().version("notes").is_some() { "3" } else { "null" };
        p.handle(Input::Connected, at(t, wall));
        p.handle(
            Input::Frame(r#"{"type":"welcome","epoch":"e","version":0,"connection":"c","now":0}"#),
            at(t, wall),
        );
        p.handle(Input::Frame(&format!(r#"{{"type":"catch_up","channel":"notes","from":{f},"to":3,"rows":[],"gone":[],"sent":0,"total":0,"more":false}}"#)), at(t, wall));
        let o = stored_all(&mut p, t);
        let gave_up =
            o.iter().any(|o| matches!(o, Output::Send(s) if s.contains(r#""action":null"#)));
        assert!(!gave_up, "given up after {} s", t / 1000);
        // By the room's clock, which stands still here, no time has passed.
        let again =
            o.iter().any(|o| matches!(o, Output::Send(s) if s.contains(r#""pushed_at":0,"#)));
        assert_eq!(again, round > 0);
        p.handle(Input::Disconnected(Cause::gone()), at(t, wall));
        stored_all(&mut p, t);
        let due = p.timeout().unwrap();
        wall += (due - t) as i64;
        t = due;
        p.handle(Input::Time, at(t, wall));
        stored_all(&mut p, t);
    }
}

mod room {
    use super::*;
    use partysync::{Limits, Protocol, Room, SyncServer};
    use partysync_client::testing::World;
    struct Notes(i64);
    impl SyncServer for Notes {
        type Action = NoteAction;
        fn limits(&self) -> Limits {
            Limits { client_retention_ms: self.0, ..Default::default() }
        }
        fn on_action(
            &self,
            room: &mut Room<'_, Self>,
            action: NoteAction,
        ) -> partysync::Result<()> {
            action.apply(room.sql())
        }
    }
    #[test]
    fn a_connection_pushes_for_so_many_unknown_clients_and_no_more() {
        let mut w = World::new(Notes(1_000_000_000)).unwrap();
        let room = w.room();
        room.connect("mallory", Protocol::V2).unwrap();
        let hello = r#"{"type":"hello","client":"m","epoch":null,"channels":[]}"#;
        room.frame("mallory", hello).unwrap();
        let mut push = |id: u32| {
            let push = format!(
                r#"{{"type":"push","client":"x{id}","actions":[{{"seq":1,"channel":"nope","action":{{}}}}]}}"#
            );
            let sent = room.frame("mallory", &push).unwrap();
            room.frame("mallory", r#"{"type":"read","bytes":100000}"#).unwrap();
            sent.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert!((0..256).all(|id| push(id)[0].contains("unknown_channel")));
        assert_eq!(push(256)[1], "close 4429 rate_limited");
    }

    /// A room that lets nobody in but the test's own client.
    struct Closed;
    impl SyncServer for Closed {
        type Action = NoteAction;
        fn on_connect(
            &self,
            _: &mut Room<'_, Self>,
            connection: &mut partysync::Connection,
            _: &http::Request<()>,
        ) -> partysync::Result<()> {
            match connection.id().starts_with("socket") {
                true => Err(partysync::Error::new(partysync::Code::Unauthorized, "who are you?")),
                false => Ok(()),
            }
        }
        fn on_action(&self, _: &mut Room<'_, Self>, _: NoteAction) -> partysync::Result<()> {
            Ok(())
        }
    }
    #[test]
    fn a_client_that_a_room_lets_not_in_is_refused_in_tests_too() {
        let mut w = World::new(Closed).unwrap();
        let ada = w.client();
        w.deliver().unwrap();
        let phase = w.status(ada).unwrap().phase;
        let Phase::Refused(error) = phase else { panic!("{phase:?}") };
        assert_eq!(error.message(), "who are you?");
        w.reconnect(ada);
        assert_eq!(w.status(ada).unwrap().phase, Phase::Connecting);
    }

    #[test]
    fn a_room_that_forgets_at_once_takes_new_actions() {
        for ms in [0, 1] {
            let mut w = World::new(Notes(ms)).unwrap();
            let ada = w.client();
            w.deliver().unwrap();
            let seq = w.act(ada, put("a", "x")).unwrap();
            w.deliver().unwrap();
            assert_eq!(w.answer(ada, seq), Some(&Ok(())), "client_retention_ms: {ms}");
        }
    }
}

#[test]
fn a_store_that_was_emptied_is_given_what_was_adopted_too() {
    let mut p = fresh(0);
    let mut o = Outbox::new("A");
    o.pending.insert(1, saved_action(put("a", "x")));
    p.handle(Input::Store(StoreEvent::Orphan(o)), now(1));
    stored_all(&mut p, 1);
    p.handle(
        Input::Store(StoreEvent::Broke(partysync::Error::new(partysync::Code::Store, "evicted"))),
        now(1),
    );
    p.handle(Input::Time, now(1));
    outs(&mut p);
    p.handle(Input::Opened(Ok(Saved::default())), now(2)); // made anew, empty
    let w = stored_all(&mut p, 2);
    let mut kept = Kept::default();
    for o in w {
        if let Output::Store(w) = o {
            w.into_iter().for_each(|w| kept.apply(w));
        }
    }
    assert_eq!(p.replica().pending(), 1);
    assert!(p.status().warning.is_none());
    assert_eq!(kept.outboxes.len(), 1, "no warning, and the adopted action is in no store");
}

#[tokio::test]
async fn a_function_that_gives_the_address_and_panics_has_failed() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = asked.clone();
    let endpoint = Endpoint::new(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { panic!("its own fault") }
    });
    let client = SyncClient::<NoteAction>::with(endpoint, Options::default()).await.unwrap();
    let again = |_: &_| asked.load(std::sync::atomic::Ordering::Relaxed) > 2;
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), client.until(again));
    waited.await.expect("it is asked again").unwrap();
    drop(client.send(put("a", "1")));
    client.stored().await.unwrap();
}

#[tokio::test]
async fn sockets_end_with_their_client() {
    use tokio::io::AsyncReadExt;
    let within = async |what: &str, future: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        let limit = tokio::time::timeout(std::time::Duration::from_secs(60), future);
        limit.await.unwrap_or_else(|_| panic!("did not happen: {what}"));
    };
    // A server that takes connections and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let client = SyncClient::<NoteAction>::connect(url).await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    client.close();
    within(
        "the socket ends",
        Box::pin(async move {
            let mut bytes = [0; 1024];
            while matches!(socket.read(&mut bytes).await, Ok(n) if n > 0) {}
        }),
    )
    .await;
}

#[test]
fn an_address_that_cannot_be_given_now_is_asked_for_again() {
    for code in [partysync::Code::InvalidValue, partysync::Code::Unauthorized] {
        let mut p = fresh(0);
        for _ in 0..3 {
            outs(&mut p);
            let error = partysync::Error::new(code, "no token yet");
            p.handle(Input::Disconnected(Cause::Provider(error)), now(0));
            assert!(matches!(p.status().phase, Phase::Offline { .. }), "{:?}", p.status().phase);
            let due = p.timeout().unwrap();
            p.handle(Input::Time, now(due));
        }
    }
}

mod reading {
    use super::*;

    /// A client whose store holds three rows, of which it reads two at a time.
    fn begun() -> Peer<NoteAction> {
        let timing = Timing { read_rows: 2, ..Timing::default() };
        let mut p = Peer::<NoteAction>::new([1, 2], timing, now(0));
        outs(&mut p);
        let row = |id: &str| (id.to_owned(), serde_json::json!([id, "kept"]));
        let channel = SavedChannel {
            epoch: "e".into(),
            version: Some(3),
            schema: Row::SCHEMA.hash(),
            rows: [row("a"), row("b"), row("c")].into(),
        };
        let saved = Saved { channels: [("notes".to_owned(), channel)].into(), ..Saved::default() };
        p.handle(Input::Opened(Ok(saved)), now(1));
        assert_eq!((p.status().phase, p.timeout()), (Phase::Loading, Some(0)));
        p
    }

    #[test]
    fn stored_rows_are_read_so_many_at_a_time_and_shown_together() {
        let mut p = begun();
        p.act(put("b", "mine"), now(1)).unwrap();
        assert_eq!(texts(&p), ["b=mine"]);
        let seen = stored_all(&mut p, 1);
        assert!(!seen.iter().any(|o| matches!(o, Output::Connect | Output::Store(_))));
        p.handle(Input::Time, now(1));
        assert_eq!(texts(&p), ["a=kept", "b=mine", "c=kept"]);
        assert_eq!(p.replica().version("notes"), Some(3));
        let seen = stored_all(&mut p, 1);
        assert!(seen.contains(&Output::Connect));
        assert!(seen.iter().any(|o| matches!(o, Output::Store(_))), "the action is stored");
    }

    #[test]
    fn a_store_that_breaks_meanwhile_is_opened_again() {
        let mut p = begun();
        let broke = partysync::Error::new(partysync::Code::Store, "closed");
        p.handle(Input::Store(StoreEvent::Broke(broke)), now(1));
        p.handle(Input::Time, now(1));
        assert_eq!(texts(&p).len(), 3);
        assert!(p.status().warning.is_some());
        p.handle(Input::Time, now(p.timeout().expect("it is opened again")));
        assert!(outs(&mut p).iter().any(|output| matches!(output, Output::OpenStore(_))));
    }

    #[test]
    fn what_is_made_meanwhile_is_stored_though_the_client_is_closed() {
        let mut p = begun();
        p.act(put("d", "mine"), now(1)).unwrap();
        p.close();
        assert!(!p.is_done());
        p.handle(Input::Time, now(p.timeout().expect("it goes on")));
        let stored = |o: &Output| matches!(o, Output::Store(writes) if writes.iter().any(|w| matches!(w, Write::Act { .. })));
        assert!(stored_all(&mut p, 1).iter().any(stored));
        assert!(p.is_done());
    }
}

#[test]
fn a_row_that_goes_while_a_snapshot_is_sent_is_not_kept() {
    let mut p = fresh(0);
    p.handle(Input::Connected, now(0));
    p.handle(
        Input::Frame(r#"{"type":"welcome","epoch":"e","version":0,"connection":"c","now":0}"#),
        now(0),
    );
    let page = |rows: &str, gone: &str, sent: u32, more: bool| {
        format!(
            r#"{{"type":"catch_up","channel":"notes","from":null,"to":3,"rows":{rows},"gone":{gone},"sent":{sent},"total":3,"more":{more}}}"#
        )
    };
    p.handle(Input::Frame(&page(r#"[["a","x"],["b","y"]]"#, "[]", 2, true)), now(1));
    p.handle(Input::Frame(&page("[]", r#"["a"]"#, 3, false)), now(2));
    assert_eq!(texts(&p), ["b=y"]);
    let rows: Vec<_> = stored_all(&mut p, 2)
        .into_iter()
        .filter_map(|output| if let Output::Store(writes) = output { Some(writes) } else { None })
        .flatten()
        .filter_map(|write| if let Write::Rows(write) = write { Some(write.rows) } else { None })
        .flatten()
        .collect();
    assert_eq!(rows, [("b".to_owned(), Some(serde_json::json!(["b", "y"])))]);
}

#[test]
fn what_another_tab_made_before_it_was_heard_of_is_shown_too() {
    let outbox = |seqs: std::ops::RangeInclusive<u64>| {
        let mut outbox = Outbox::new("A");
        let action = |seq| (seq, saved_action(put(&format!("{seq}"), "x")));
        outbox.pending.extend(seqs.map(action));
        outbox
    };
    let acted = |seq: u64| {
        let action = saved_action(put(&format!("{seq}"), "x"));
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq, action }))
    };
    // As it is read, and when it took so long that this client went on without.
    for late in [false, true] {
        let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
        outs(&mut p);
        let t = if late { 10_000 } else { 1 };
        p.handle(Input::Time, now(t));
        p.handle(acted(3), now(t));
        p.handle(
            Input::Opened(Ok(Saved { others: vec![outbox(1..=2)], ..Saved::default() })),
            now(t),
        );
        assert_eq!(texts(&p), ["1=x", "2=x", "3=x"], "late: {late}");
        assert_eq!(p.replica().pending_elsewhere(), 3);
    }
}

#[test]
fn what_was_adopted_is_not_let_go_by_who_does_not_know_of_it() {
    let mut p = fresh(0);
    let mut outbox = Outbox::new("X");
    outbox.pending.insert(3, saved_action(put("c", "x")));
    outbox.pending.insert(4, saved_action(put("d", "x")));
    p.handle(Input::Store(StoreEvent::Orphan(outbox)), now(1));
    // Whoever had the outbox before has emptied it up to 3, and knows of no 4.
    let settled = Note::Settled { client: "X".into(), before: 4, last: Some(3) };
    p.handle(Input::Store(StoreEvent::Note(settled)), now(2));
    assert_eq!(texts(&p), ["d=x"]);
    assert_eq!(p.replica().pending(), 1);
}

#[test]
fn what_was_taken_over_from_a_store_of_ones_own_is_kept_through_a_refusal() {
    let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
    outs(&mut p);
    let mut outbox = Outbox::new("before");
    outbox.pending.insert(1, saved_action(put("a", "x")));
    let saved = Saved { alone: true, outboxes: vec![outbox], ..Saved::default() };
    p.handle(Input::Opened(Ok(saved)), now(0));
    p.handle(Input::Disconnected(Cause::Status(403)), now(1));
    assert!(matches!(p.status().phase, Phase::Refused(_)));
    let told = stored_all(&mut p, 1);
    assert!(!told.iter().any(|output| matches!(output, Output::TakeOver(_))));
    assert_eq!(p.status().pending, 1, "nobody else will send it");
    p.reconnect(now(2));
    live(&mut p, "null", "[]", 3, 2);
    let sent = stored_all(&mut p, 3);
    let pushed =
        |o: &Output| matches!(o, Output::Send(text) if text.contains(r#""client":"before""#));
    assert!(sent.iter().any(pushed), "{sent:?}");
}

mod the_end {
    use super::*;
    use std::path::Path;

    fn store(path: &Path) -> SqliteStore {
        SqliteStore::open(path, &Place::new("notes", "mine", User::new("ada"))).unwrap()
    }

    async fn client(path: &Path) -> SyncClient<NoteAction> {
        // Nobody listens there.
        let options = Options::new(store(path));
        SyncClient::<NoteAction>::with("ws://127.0.0.1:9/parties/notes/mine", options)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_client_that_has_closed_lets_go_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.sqlite");
        for seen in 0..2 {
            let client = client(&path).await;
            assert_eq!(client.rows::<Row>().unwrap().len(), seen);
            drop(client.send(put(&format!("{seen}"), "x")));
            client.close();
            client.closed().await;
            client.closed().await;
        }
    }

    #[tokio::test]
    async fn what_was_forgotten_is_neither_shown_nor_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.sqlite");
        let client = client(&path).await;
        drop(client.send(put("a", "a secret of Ada's")));
        client.stored().await.unwrap();
        let holds = |what: &str| {
            let files = std::fs::read_dir(folder.path()).unwrap();
            files.flatten().any(|file| {
                let bytes = std::fs::read(file.path()).unwrap();
                bytes.windows(what.len()).any(|window| window == what.as_bytes())
            })
        };
        assert!(holds("a secret of Ada's"));
        let mut updates = client.updates();
        client.forget().await.unwrap();
        assert!(!holds("a secret of Ada's"));
        assert_eq!(client.rows::<Row>().unwrap(), []);
        assert_eq!(client.status().pending, 0);
        let mut changed = false;
        while let Ok(update) = updates.try_recv() {
            changed |= update.changes.contains_key("notes");
        }
        assert!(changed, "whoever shows rows hears of it");
        client.closed().await;
        assert_eq!(client.forget().await.unwrap_err().code(), partysync::Code::Closed);
    }
}
