//! What outside readings found in the client's machine and its drivers.

mod begin;
mod handles;
mod reading;
mod refusals;
mod room;
mod tabs;
mod the_end;

use futures::StreamExt;
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
    while let Some(update) = updates.try_recv() {
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
fn a_slow_line_is_given_more_time_and_smaller_pushes() {
    let mut p = fresh(0);
    for n in 0..300 {
        p.act(put(&format!("{n}"), "x"), now(0)).unwrap();
    }
    stored_all(&mut p, 0);
    let mut t = 0;
    for patience in [10_000, 20_000] {
        // The socket does not open in time.
        let due = p.timeout().unwrap();
        assert_eq!(due - t, patience);
        p.handle(Input::Time, now(due));
        assert!(stored_all(&mut p, due).contains(&Output::Disconnect));
        t = p.timeout().unwrap();
        p.handle(Input::Time, now(t));
        assert!(outs(&mut p).contains(&Output::Connect));
    }
    live(&mut p, "null", "[]", 3, t);
    let pushed = |p: &mut Peer<NoteAction>| -> usize {
        let push = |output| match output {
            Output::Send(text) if text.contains(r#""type":"push""#) => Some(text),
            _ => None,
        };
        let text = stored_all(p, t).into_iter().find_map(push);
        text.map_or(0, |text| text.matches(r#""seq":"#).count())
    };
    assert_eq!(pushed(&mut p), 64, "a quarter of a push");
    p.handle(Input::Frame(&acks(1..=64)), now(t));
    assert_eq!(pushed(&mut p), 128, "it was quick: half of a push");
    p.handle(Input::Frame(&acks(65..=192)), now(t + 6_000));
    assert_eq!(pushed(&mut p), 108, "it was not quick");
}

fn acks(seqs: std::ops::RangeInclusive<u64>) -> String {
    let acks: Vec<_> = seqs.map(|seq| format!(r#"{{"seq":{seq}}}"#)).collect();
    let acks = acks.join(",");
    format!(r#"{{"type":"patch","from":3,"to":3,"changes":[],"acks":[{acks}]}}"#)
}

/// Pushes of many actions take so long, ms for each; the connection is live from the first ms on.
/// How many attempts it takes until all have their answers.
fn on_a_slow_uplink(actions: u64, each: u64, text: &str) -> u32 {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    for n in 0..actions {
        p.act(put(&format!("{n}"), text), now(0)).unwrap();
    }
    let (mut t, mut attempts, mut answer) = (0, 0, None);
    while p.status().pending > 0 {
        for output in stored_all(&mut p, t) {
            match output {
                Output::Send(text) if text.contains(r#""type":"push""#) => {
                    attempts += 1;
                    let push: serde_json::Value = serde_json::from_str(&text).unwrap();
                    let seqs = push["actions"].as_array().unwrap();
                    let seq = |action: &serde_json::Value| action["seq"].as_u64().unwrap();
                    let (first, last) = (seq(&seqs[0]), seq(seqs.last().unwrap()));
                    answer = Some((t + each * seqs.len() as u64, acks(first..=last)));
                }
                Output::Disconnect => answer = None,
                Output::Connect => live(&mut p, "null", "[]", 3, t),
                _ => {}
            }
        }
        let due = p.timeout().unwrap_or(u64::MAX);
        match answer.take_if(|(at, _)| *at <= due) {
            Some((at, acks)) => {
                t = at;
                p.handle(Input::Frame(&acks), now(t));
            }
            None => {
                t = due;
                p.handle(Input::Time, now(t));
            }
        }
        assert!(attempts < 200, "it never ends: {:?}", p.status());
    }
    attempts
}

#[test]
fn what_takes_longer_than_an_answer_may_take_arrives_at_last() {
    // A push of 256 takes 77 s; one row takes a minute, behind which nothing is answered sooner.
    let attempts = on_a_slow_uplink(1_000, 300, "x");
    assert!(attempts < 40, "{attempts}");
    assert_eq!(on_a_slow_uplink(1, 60_000, "x"), 4);
}

#[test]
fn a_room_is_told_of_a_client_that_reads_slowly() {
    let mut p = fresh(0);
    p.handle(Input::Connected, now(0));
    let welcome = r#"{"type":"welcome","epoch":"e","version":0,"connection":"c","now":0}"#;
    p.handle(Input::Frame(welcome), now(100));
    outs(&mut p);
    let page = r#"{"type":"catch_up","channel":"notes","from":null,"to":3,"rows":[["a","x"]],"gone":[],"sent":1,"total":9,"more":true}"#;
    p.handle(Input::Frame(page), now(4_000));
    let mut told = Vec::new();
    for _ in 0..2 {
        let due = p.timeout().unwrap();
        p.handle(Input::Time, now(due));
        let read = |output| match output {
            Output::Send(text) if text.contains(r#""type":"read""#) => Some((due, text)),
            _ => None,
        };
        told.extend(outs(&mut p).into_iter().filter_map(read));
    }
    let bytes = welcome.len() + page.len();
    assert_eq!(
        told,
        [
            (5_100, format!(r#"{{"type":"read","bytes":{bytes}}}"#)),
            (10_100, r#"{"type":"read","bytes":0}"#.to_owned()),
        ]
    );
    // It does not wait for ever.
    p.handle(Input::Time, now(p.timeout().unwrap()));
    assert!(matches!(p.status().phase, Phase::Offline { .. }), "{:?}", p.status().phase);
}
