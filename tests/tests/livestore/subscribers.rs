//! Objects that follow the log over Durable Object RPC.

use crate::harness::{Plain, STORE, Store, exit, push, request, seqs};
use partysync::livestore::{Input, Limits, LiveStoreServer, Transport};
use partysync::{Code, Error};
use serde_json::{Value as Json, json};

/// A live pull of an object.
fn follow(object: &str, id: &str) -> String {
    let context = json!({"bindingName": "FOLLOWER", "durableObjectId": object});
    let payload = json!({"storeId": STORE, "cursor": {"_tag": "None"},
        "rpcContext": {"callerContext": context}});
    request(id, "Pull", payload)
}

impl<S: LiveStoreServer> Store<S> {
    fn follows(&mut self, object: &str, id: &str) -> Vec<u64> {
        let frames = self.call_by(Transport::Rpc, &follow(object, id));
        assert_eq!(exit(&frames, id).unwrap()["_tag"], "Success", "{frames:?}");
        assert!(frames[..frames.len() - 1].iter().all(|f| f["values"][0]["rpcRequestId"] == id));
        seqs(&frames, id)
    }

    fn pushes(&mut self, events: std::ops::RangeInclusive<u64>) {
        let frames = self.call(&push("p", events));
        assert_eq!(exit(&frames, "p").unwrap()["_tag"], "Success", "{frames:?}");
    }

    /// What is under way to an object; each call goes well, until there are no more.
    fn told(&mut self, object: &str) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some(at) = self.calls.iter().position(|(_, whom, _)| whom.object == object) {
            let (number, whom, frame) = self.calls.remove(at);
            let Json::String(id) = serde_json::to_value(&whom.request).unwrap() else { panic!() };
            assert!(frame["values"][0].get("rpcRequestId").is_none());
            all.extend(seqs(&[frame], &id));
            self.turn(Input::Called(number, Ok(())));
        }
        all
    }

    fn fails(&mut self, error: &Error) {
        for (number, ..) in std::mem::take(&mut self.calls) {
            self.turn(Input::Called(number, Err(error.clone())));
        }
    }
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

#[test]
fn an_object_is_called_with_what_is_new_and_not_before_it_is_ready() {
    let mut store = Store::new(Plain);
    store.pushes(1..=3);
    assert_eq!(store.follows("a", "7"), [1, 2, 3]);
    store.pushes(4..=4);
    assert!(store.calls.is_empty(), "its client may not have handled the end of its pull");
    store.ring();
    assert_eq!(store.told("a"), [4]);
    store.pushes(5..=6);
    // One call at a time.
    store.pushes(7..=7);
    assert_eq!(store.calls.len(), 1);
    assert_eq!(store.told("a"), [5, 6, 7]);
    assert!(store.calls.is_empty());
}

#[test]
fn objects_are_called_also_by_a_store_that_was_rebuilt() {
    let mut store = Store::new(Plain);
    for object in ["a", "b"] {
        assert_eq!(store.follows(object, "0"), [0; 0]);
    }
    store.pushes(1..=2);
    store.ring();
    assert_eq!(store.told("a"), [1, 2]);
    // `b` was being called: nobody knows what came of it, and it is called again.
    store.kill();
    store.pushes(3..=3);
    assert_eq!(store.told("b"), [1, 2, 3]);
    assert_eq!(store.told("a"), [3]);
    store.kill();
    store.pushes(4..=4);
    for object in ["a", "b"] {
        assert_eq!(store.told(object), [4]);
    }
}

#[test]
fn a_call_that_was_under_way_when_the_process_was_killed_is_made_again_by_the_alarm() {
    let mut store = Store::new(Plain);
    store.follows("a", "0");
    store.pushes(1..=1);
    store.ring();
    assert_eq!(store.calls.len(), 1);
    store.kill();
    store.ring();
    assert_eq!(store.told("a"), [1]);
}

#[test]
fn an_object_that_fails_is_called_again_later_each_time_and_then_with_everything() {
    let mut store = Store::new(Plain);
    store.follows("a", "0");
    store.pushes(1..=1);
    store.ring();
    let mut waits = Vec::new();
    for _ in 0..12 {
        store.fails(&Error::retry("it fails"));
        let (from, seq) = (store.now, store.log().len() as u64 + 1);
        store.pushes(seq..=seq);
        assert!(store.calls.is_empty(), "not before its time");
        while store.calls.is_empty() {
            store.ring();
        }
        waits.push(store.now.as_millis() - from.as_millis());
    }
    assert_eq!(waits[..3], [1_000, 2_000, 4_000]);
    assert_eq!(waits.last(), Some(&300_000));
    assert_eq!(store.told("a"), range(1, 13));
    // And the next failure is the first one again.
    store.pushes(14..=14);
    store.fails(&Error::retry("it fails"));
    store.ring();
    assert_eq!(store.told("a"), [14]);
}

#[test]
fn a_push_from_behind_has_those_called_that_wait() {
    let mut store = Store::new(Plain);
    store.follows("a", "0");
    store.pushes(1..=1);
    store.ring();
    for _ in 0..9 {
        store.fails(&Error::retry("it fails"));
        while store.calls.is_empty() {
            store.ring();
        }
    }
    store.fails(&Error::retry("it fails"));
    let frames = store.call_by(Transport::Rpc, &push("p", [1]));
    assert_eq!(exit(&frames, "p").unwrap()["cause"]["error"]["_tag"], "ServerAheadError");
    assert_eq!(store.told("a"), [1]);
}

#[test]
fn an_object_that_is_not_there_is_forgotten() {
    let mut store = Store::new(Plain);
    store.follows("a", "0");
    store.pushes(1..=1);
    store.ring();
    store.fails(&Error::new(Code::NotFound, "there is no such binding"));
    store.kill();
    store.pushes(2..=2);
    assert!(store.calls.is_empty());
    // So is one that has failed for a day.
    store.follows("b", "0");
    store.pushes(3..=3);
    store.ring();
    let began = store.now;
    while !store.calls.is_empty() {
        store.fails(&Error::retry("it fails"));
        while store.calls.is_empty() && store.alarm.is_some() {
            store.ring();
        }
    }
    assert!(store.now >= began.plus_millis(24 * 60 * 60 * 1_000), "{:?}", store.now);
    store.kill();
    store.pushes(4..=4);
    assert!(store.calls.is_empty());
}

#[test]
fn the_last_four_subscriptions_of_an_object_are_kept() {
    let mut store = Store::new(Plain);
    for id in 0..6 {
        store.follows("a", &id.to_string());
    }
    store.follows("a", "3");
    store.follows("b", "0");
    store.pushes(1..=1);
    store.ring();
    let ids = |store: &Store<Plain>| {
        let ids = store.calls.iter().map(|(_, whom, _)| {
            format!("{}{}", whom.object, serde_json::to_value(&whom.request).unwrap())
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&store), ["a\"2\"", "a\"4\"", "a\"5\"", "a\"3\"", "b\"0\""]);
    store.kill();
    store.pushes(2..=2);
    assert_eq!(ids(&store).len(), 5);
}

#[test]
fn a_store_takes_only_so_many_and_forgets_the_first() {
    struct Few;
    impl LiveStoreServer for Few {
        fn limits(&self) -> Limits {
            Limits { subscribers: 2, ..Limits::default() }
        }
    }
    let mut store = Store::new(Few);
    for object in ["a", "b", "c"] {
        store.follows(object, "0");
    }
    store.kill();
    store.pushes(1..=1);
    store.ring();
    let called: Vec<_> = store.calls.iter().map(|(_, whom, _)| whom.object.as_str()).collect();
    assert_eq!(called, ["b", "c"]);
}

#[test]
fn what_is_far_behind_comes_in_pages_and_large_pushes_do() {
    struct Small;
    impl LiveStoreServer for Small {
        fn limits(&self) -> Limits {
            Limits { page_events: 10, page_bytes: 4_000, ..Limits::default() }
        }
    }
    let mut store = Store::new(Small);
    store.follows("a", "0");
    store.pushes(1..=100);
    store.ring();
    let (_, _, frame) = &store.calls[0];
    assert_eq!(frame["values"][0]["pageInfo"]["_tag"], "MoreKnown");
    assert!(seqs(std::slice::from_ref(frame), "0").len() <= 10);
    assert_eq!(store.told("a"), range(1, 100));
    store.pushes(101..=140);
    assert_eq!(store.told("a"), range(101, 140));
    // What is kept says where it is, also between two pages.
    store.pushes(141..=180);
    let (number, _, frame) = store.calls.remove(0);
    let first = seqs(&[frame], "0");
    store.turn(Input::Called(number, Ok(())));
    store.kill();
    store.pushes(181..=181);
    assert_eq!(store.told("a"), range(first.last().unwrap() + 1, 181));
}

#[test]
fn a_live_pull_by_anything_else_makes_no_subscriber() {
    let mut store = Store::new(Plain);
    let frames = store.call(&follow("a", "0"));
    assert_eq!(exit(&frames, "0").unwrap()["_tag"], "Success");
    store.pushes(1..=1);
    assert!(store.calls.is_empty() && store.alarm.is_none());
}
