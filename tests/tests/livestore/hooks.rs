//! Hooks that refuse, and hooks that take their time.

use crate::harness::{STORE, Store, event, exit, pull, push, request, seqs};
use futures::channel::oneshot::{Receiver, Sender, channel};
use futures::executor::block_on;
use partysync::livestore::{Caller, Input, LiveStoreServer, Pull, Push, Sent, Span};
use partysync::{Error, Result};
use serde_json::json;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Asks somebody about each push, and refuses some pulls.
#[derive(Default, Clone)]
struct Asks {
    waits: Rc<RefCell<VecDeque<Receiver<Result<()>>>>>,
    pushed: Rc<RefCell<Vec<u64>>>,
}

impl Asks {
    /// The next push waits for this.
    fn next(&self) -> Sender<Result<()>> {
        let (answer, waits) = channel();
        self.waits.borrow_mut().push_back(waits);
        answer
    }
}

impl LiveStoreServer for Asks {
    async fn on_push(&self, _: &Push, _: &Caller) -> Result<()> {
        let waits = self.waits.borrow_mut().pop_front();
        match waits {
            Some(waits) => waits.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }

    async fn on_push_res(&self, push: &Push, _: &Caller) {
        self.pushed.borrow_mut().extend(push.events.iter().map(|event| event.seq_num));
    }

    async fn on_pull(&self, pull: &Pull, caller: &Caller) -> Result<()> {
        assert_eq!(caller.store_id, STORE);
        if pull.live { Ok(()) } else { Err(Error::reject("only live pulls")) }
    }
}

fn message(frames: &[serde_json::Value], id: &str) -> String {
    exit(frames, id).unwrap()["cause"]["error"]["cause"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_push_that_is_refused_is_told_why_and_leaves_nothing() {
    let asks = Asks::default();
    let mut store = Store::new(asks.clone());
    let socket = store.connect();
    asks.next().send(Err(Error::reject("this token may only read"))).unwrap();
    let frames = store.frame(socket, &push("1", 1..=1));
    assert_eq!(message(&frames, "1"), "this token may only read");
    assert_eq!(message(&store.frame(socket, &pull("2", false, None)), "2"), "only live pulls");
    assert_eq!(store.log(), [0; 0]);
    let frames = store.frame(socket, &push("3", 1..=2));
    assert_eq!(exit(&frames, "3").unwrap()["_tag"], "Success");
    assert_eq!(*asks.pushed.borrow(), [1, 2]);
}

#[test]
fn pushes_wait_for_each_other_and_pulls_for_none() {
    let asks = Asks::default();
    let mut store = Store::new(asks.clone());
    let (a, b) = (store.connect(), store.connect());
    let first = asks.next();
    assert!(store.frame(a, &push("1", 1..=2)).is_empty());
    // One that goes on behind it, one that is too late, and one that asks for nothing.
    assert!(store.frame(b, &push("2", 3..=3)).is_empty());
    assert!(store.frame(b, &push("3", 1..=1)).is_empty());
    let empty = json!({"storeId": STORE, "batch": [], "backendId": {"_tag": "None"}});
    assert!(store.frame(a, &request("4", "Push", empty)).is_empty());
    assert_eq!(seqs(&store.frame(b, &pull("5", true, None)), "5"), [0; 0]);
    first.send(Ok(())).unwrap();
    let hook = store.hooks.remove(0);
    store.turn(Input::HookDone(block_on(hook)));
    let (of_a, of_b) = (store.take(a), store.take(b));
    assert_eq!(exit(&of_a, "1").unwrap()["_tag"], "Success");
    assert_eq!(exit(&of_a, "4").unwrap()["_tag"], "Success");
    assert_eq!(exit(&of_b, "2").unwrap()["_tag"], "Success");
    let late = &exit(&of_b, "3").unwrap()["cause"]["error"];
    assert_eq!(
        (&late["_tag"], &late["minimumExpectedNum"]),
        (&json!("ServerAheadError"), &json!(3))
    );
    assert_eq!(seqs(&of_b, "5"), [1, 2, 3]);
    assert_eq!(store.log(), [1, 2, 3]);
}

#[test]
fn a_push_whose_client_has_gone_is_done_all_the_same_and_answered_to_nobody_else() {
    let asks = Asks::default();
    let mut store = Store::new(asks.clone());
    let (a, b) = (store.connect(), store.connect());
    store.frame(b, &pull("0", true, None));
    let first = asks.next();
    store.frame(a, &push("1", 1..=1));
    store.disconnect(a);
    // Another one gets its slot, and uses its id.
    let c = store.connect();
    assert_eq!(c, a);
    let second = asks.next();
    assert!(store.frame(c, &push("1", 2..=2)).is_empty());
    first.send(Ok(())).unwrap();
    let hook = store.hooks.remove(0);
    store.turn(Input::HookDone(block_on(hook)));
    assert!(store.take(c).is_empty());
    assert_eq!(seqs(&store.take(b), "0"), [1]);
    second.send(Err(Error::reject("no"))).unwrap();
    let hook = store.hooks.remove(0);
    store.turn(Input::HookDone(block_on(hook)));
    assert_eq!(message(&store.take(c), "1"), "no");
    assert_eq!(store.log(), [1]);
}

#[test]
fn a_call_hears_what_became_of_its_push() {
    let asks = Asks::default();
    let mut store = Store::new(asks.clone());
    let answer = store.call(&push("1", 1..=1));
    assert_eq!(exit(&answer, "1").unwrap()["_tag"], "Success");
    let batch = json!({"storeId": STORE, "batch": [event(7)], "backendId": {"_tag": "None"}});
    let answer = store.call(&request("2", "Push", batch));
    assert_eq!(exit(&answer, "2").unwrap()["cause"]["error"]["_tag"], "ServerAheadError");
}

#[test]
fn an_object_that_sleeps_while_a_hook_waits_has_its_client_come_again() {
    let asks = Asks::default();
    let mut store = Store::new(asks.clone());
    let (a, b) = (store.connect(), store.connect());
    let _waits = asks.next();
    store.frame(a, &push("1", 1..=1));
    store.hooks.clear();
    store.hibernate();
    // The push is gone with its hook: its client hears that its socket is.
    let frames = store.frame(b, &pull("2", true, None));
    assert_eq!(seqs(&frames, "2"), [0; 0]);
    assert_eq!((store.closed(a), store.closed(b)), (Some(1012), None));
    let frames = store.frame(b, &push("3", 1..=1));
    assert_eq!(exit(&frames, "3").unwrap()["_tag"], "Success");
}

#[test]
fn a_hook_that_does_not_come_back_holds_up_its_own_push_only() {
    let asks = Asks::default();
    let mut store = Store::new(asks.clone());
    let (a, b) = (store.connect(), store.connect());
    // What pulls nothing is closed meanwhile.
    for socket in [a, b] {
        assert_eq!(store.frame(socket, &pull("0", true, None)).len(), 1);
    }
    let never = asks.next();
    assert!(store.frame(a, &push("1", 1..=1)).is_empty());
    assert!(store.frame(b, &push("2", 1..=2)).is_empty());
    let before = store.now;
    while store.take(b).is_empty() {
        assert!(store.take(a).is_empty());
        store.ring();
    }
    assert_eq!(store.now.as_millis() - before.as_millis(), 30_000);
    assert_eq!(message(&store.take(a), "1"), "the server was too slow");
    assert_eq!(store.log(), [1, 2]);
    // It comes back after all: its push is over.
    never.send(Ok(())).unwrap();
    let hook = store.hooks.remove(0);
    store.turn(Input::HookDone(block_on(hook)));
    assert_eq!(store.log(), [1, 2]);
    assert!(store.take(a).is_empty());
}

#[test]
fn pushes_that_wait_have_a_bound() {
    let asks = Asks::default();
    let mut store = Store::new(asks.clone());
    let answer = asks.next();
    let mut sockets = Vec::new();
    let large = |seq: u64| {
        let mut event = event(seq);
        event["args"] = json!("x".repeat(800_000));
        let batch = json!({"storeId": STORE, "batch": [event], "backendId": {"_tag": "None"}});
        request("1", "Push", batch)
    };
    for seq in 1..=40 {
        let socket = store.connect();
        store.frame(socket, &large(seq));
        sockets.push(socket);
    }
    let closed: Vec<_> = sockets.iter().map(|socket| store.closed(*socket)).collect();
    assert_eq!(closed.iter().filter(|code| code.is_none()).count(), 16 * 1024 * 1024 / 800_000);
    assert!(closed.iter().all(|code| code.is_none_or(|code| code == 1013)), "{closed:?}");
    answer.send(Ok(())).unwrap();
    let hook = store.hooks.remove(0);
    store.turn(Input::HookDone(block_on(hook)));
    assert_eq!(store.log().len(), 16 * 1024 * 1024 / 800_000);
    // Whoever was turned away comes again.
    let socket = store.connect();
    let frames = store.frame(socket, &large(store.log().len() as u64 + 1));
    assert_eq!(exit(&frames, "1").unwrap()["_tag"], "Success");
}

#[test]
fn the_server_is_told_what_was_sent() {
    #[derive(Default, Clone)]
    struct Told(Rc<RefCell<Vec<(usize, u64, bool)>>>);
    impl LiveStoreServer for Told {
        async fn on_pull_res(&self, sent: &Sent, caller: Option<&Caller>) {
            let events: Vec<serde_json::Value> =
                serde_json::from_str(&format!("[{}]", sent.events)).unwrap();
            self.0.borrow_mut().push((events.len(), sent.remaining, caller.is_some()));
        }
    }
    let told = Told::default();
    let mut store = Store::new(told.clone());
    let socket = store.connect();
    store.frame(socket, &push("1", 1..=130));
    assert!(told.0.borrow().is_empty(), "nobody follows");
    store.frame(socket, &pull("2", true, None));
    store.frame(socket, &push("3", 131..=132));
    assert_eq!(*told.0.borrow(), [(100, 30, true), (30, 0, true), (2, 0, false)]);
}

/// Tells of what is traced.
#[derive(Default, Clone)]
struct Traces(Rc<RefCell<Vec<Span>>>);

impl LiveStoreServer for Traces {
    fn traces(&self) -> bool {
        true
    }

    fn on_span(&self, span: Span) {
        self.0.borrow_mut().push(span);
    }
}

#[test]
fn requests_that_are_traced_are_told_of() {
    let traces = Traces::default();
    let mut store = Store::new(traces.clone());
    let socket = store.connect();
    let told = || -> Vec<_> {
        let spans = traces.0.take().into_iter();
        spans.map(|span| (span.name, span.trace_id, span.parent_id, span.error)).collect()
    };
    let well = |name| (name, "t".to_owned(), "s".to_owned(), None);
    store.frame(socket, &push("1", 1..=2));
    store.frame(socket, &pull("2", true, None));
    assert_eq!(told(), [well("livestore.push"), well("livestore.pull")]);
    // What goes to a live pull later is no part of it.
    store.frame(socket, &push("3", 3..=3));
    assert_eq!(told(), [well("livestore.push")]);
    store.frame(socket, &push("4", 9..=9));
    let error = told().remove(0).3.unwrap();
    assert!(error.contains("ServerAhead"), "{error}");
    // Who does not trace, or not as it should.
    for odd in [json!(null), json!(7), json!("x".repeat(65))] {
        let mut untraced: serde_json::Value = serde_json::from_str(&push("5", 4..=4)).unwrap();
        untraced["traceId"] = odd;
        untraced["id"] = json!("6");
        store.frame(socket, &untraced.to_string());
    }
    let text = push("7", 5..=5).replace("\"sampled\":true", "\"sampled\":false");
    store.frame(socket, &text);
    assert_eq!(told(), []);
}

#[test]
fn a_request_whose_connection_is_gone_is_told_of_too() {
    #[derive(Clone)]
    struct Slow(Traces, Asks);
    impl LiveStoreServer for Slow {
        fn traces(&self) -> bool {
            true
        }
        fn on_span(&self, span: Span) {
            self.0.on_span(span);
        }
        async fn on_push(&self, push: &Push, caller: &Caller) -> Result<()> {
            self.1.on_push(push, caller).await
        }
    }
    let slow = Slow(Traces::default(), Asks::default());
    let mut store = Store::new(slow.clone());
    let socket = store.connect();
    let _waits = slow.1.next();
    store.frame(socket, &push("1", 1..=1));
    assert_eq!(slow.0.0.borrow().len(), 0);
    store.disconnect(socket);
    let error = slow.0.0.borrow()[0].error.clone();
    assert_eq!(error.as_deref(), Some("the connection was closed"));
}

#[test]
fn a_pull_whose_hook_does_not_come_back_has_its_client_come_again() {
    struct Never;
    impl LiveStoreServer for Never {
        async fn on_pull(&self, pull: &Pull, _: &Caller) -> Result<()> {
            if pull.live { std::future::pending().await } else { Ok(()) }
        }
    }
    let mut store = Store::new(Never);
    let (slow, other) = (store.connect(), store.connect());
    assert!(store.frame(slow, &pull("1", true, None)).is_empty());
    assert!(exit(&store.frame(other, &pull("1", false, None)), "1").is_some());
    let before = store.now;
    while store.closed(slow).is_none() {
        store.ring();
    }
    assert_eq!(store.closed(slow), Some(1011));
    assert_eq!(store.now.as_millis() - before.as_millis(), 30_000);
}
