//! What requests are answered with.

use crate::harness::{Plain, Store, ack, event, exit, pull, push, request, seqs};
use partysync::sql::Sql;
use serde_json::json;

#[test]
fn an_empty_pull_is_one_empty_chunk_and_a_push_an_empty_success() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    let frames = store.frame(socket, &pull("0", false, None));
    let page = json!({"batch": [], "pageInfo": {"_tag": "NoMore"}, "backendId": "backend-1"});
    assert_eq!(
        frames,
        [
            json!({"_tag": "Chunk", "requestId": "0", "values": [page]}),
            json!({"_tag": "Exit", "requestId": "0", "exit": {"_tag": "Success"}}),
        ]
    );
    let frames = store.frame(socket, &push("1", 1..=2));
    let success = json!({"_tag": "Success", "value": {}});
    assert_eq!(frames, [json!({"_tag": "Exit", "requestId": "1", "exit": success})]);
    let frames = store.frame(socket, &request("2", "Ping", json!({"storeId": "store-1"})));
    assert_eq!(frames[0]["exit"]["value"]["_tag"], "SyncMessage.Pong");
    let frames = store.frame(socket, r#"{ "_tag": "Ping" }"#);
    assert_eq!(frames, [json!({"_tag": "Pong"})]);
}

#[test]
fn events_come_as_they_were_sent_and_are_stored_as_livestore_stores_them() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    let mut bare = event(2);
    bare.as_object_mut().unwrap().remove("args");
    let mut nothing = event(3);
    nothing["args"] = json!(null);
    let batch = json!({"storeId": "store-1", "batch": [event(1), bare, nothing], "backendId": {"_tag": "None"}});
    let frames = store.frame(socket, &request("0", "Push", batch));
    assert_eq!(exit(&frames, "0").unwrap()["_tag"], "Success", "{frames:?}");
    let frames = store.frame(socket, &pull("1", false, None));
    let batch = frames[0]["values"][0]["batch"].as_array().unwrap().clone();
    assert_eq!(batch[0]["eventEncoded"], event(1));
    assert_eq!(batch[1]["eventEncoded"]["args"], json!(null));
    let metadata = &batch[0]["metadata"];
    assert_eq!(metadata["_tag"], "Some");
    assert_eq!(metadata["value"]["_tag"], "SyncMessage.SyncMetadata");
    assert_eq!(metadata["value"]["createdAt"], "2025-11-24T16:00:00.000Z");
    let sql: &dyn Sql = &store.db;
    let rows = "SELECT seqNum, parentSeqNum, name, args, createdAt, clientId, sessionId \
                FROM eventlog_7_store_1";
    let rows = sql
        .query_map(rows, [], |row| {
            Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<Option<String>>(3)?))
        })
        .unwrap();
    let args = event(1)["args"].to_string();
    assert_eq!(rows, [(1, 0, Some(args)), (2, 1, None), (3, 2, Some("null".to_owned()))]);
    let context = "SELECT storeId, currentHead, backendId FROM context_7";
    let context = sql
        .query_one(context, [], |row| {
            Ok((row.get::<String>(0)?, row.get::<i64>(1)?, row.get::<String>(2)?))
        })
        .unwrap();
    assert_eq!(context, ("store-1".to_owned(), 3, "backend-1".to_owned()));
}

#[test]
fn a_long_log_comes_in_pages_as_they_are_acknowledged() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    for first in (1..=1_001).step_by(77) {
        store.frame(socket, &push("p", first..first + 77));
    }
    let mut frames = store.frame(socket, &pull("1", false, None));
    assert_eq!(frames.len(), 4);
    assert_eq!(frames[0]["values"][0]["pageInfo"], json!({"_tag": "MoreKnown", "remaining": 901}));
    while exit(&frames, "1").is_none() {
        let more = store.frame(socket, &ack("1"));
        assert!(!more.is_empty());
        frames.extend(more);
    }
    assert_eq!(seqs(&frames, "1"), (1..=1_001).collect::<Vec<_>>());
    assert_eq!(exit(&frames, "1").unwrap()["_tag"], "Success");
    let pages: Vec<_> = frames.iter().filter(|f| f["_tag"] == "Chunk").collect();
    assert_eq!(pages.len(), 11);
    assert_eq!(pages[10]["values"][0]["pageInfo"], json!({"_tag": "NoMore"}));
    // From a cursor, and over HTTP.
    let cursor = pull("2", false, Some(("backend-1", 990)));
    assert_eq!(seqs(&store.frame(socket, &cursor), "2"), (991..=1_001).collect::<Vec<_>>());
    let all = store.call(&pull("3", false, None));
    assert_eq!(seqs(&all, "3"), (1..=1_001).collect::<Vec<_>>());
    assert_eq!(exit(&all, "3").unwrap()["_tag"], "Success");
}

#[test]
fn pages_have_a_bound_in_bytes() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    for seq in 1..=6 {
        let mut large = event(seq);
        large["args"] = json!("x".repeat(if seq == 3 { 899_000 } else { 400_000 }));
        let batch = json!({"storeId": "store-1", "batch": [large], "backendId": {"_tag": "None"}});
        store.frame(socket, &request("0", "Push", batch));
    }
    let mut frames = store.frame(socket, &pull("1", false, None));
    while exit(&frames, "1").is_none() {
        frames.extend(store.frame(socket, &ack("1")));
    }
    let pages: Vec<_> = frames
        .iter()
        .filter(|f| f["_tag"] == "Chunk")
        .map(|f| seqs(std::slice::from_ref(f), "1"))
        .collect();
    assert_eq!(pages, [vec![1, 2], vec![3], vec![4, 5], vec![6]]);
}

#[test]
fn a_stale_push_and_a_gap_are_told_the_head() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    store.frame(socket, &push("0", 1..=2));
    for (batch, provided) in [(2..=3, 1), (9..=9, 8)] {
        let frames = store.frame(socket, &push("1", batch));
        let cause = &exit(&frames, "1").unwrap()["cause"];
        let error =
            json!({"minimumExpectedNum": 2, "providedNum": provided, "_tag": "ServerAheadError"});
        assert_eq!(*cause, json!({"_tag": "Fail", "error": error}));
    }
    assert_eq!(store.log(), [1, 2]);
}

#[test]
fn another_backend_is_told_for_pulls_and_pushes() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    let wanted =
        json!({"expected": "backend-1", "received": "other", "_tag": "BackendIdMismatchError"});
    let frames = store.frame(socket, &pull("0", true, Some(("other", 0))));
    assert_eq!(exit(&frames, "0").unwrap()["cause"]["error"], wanted);
    let batch = json!({"storeId": "store-1", "batch": [event(1)], "backendId": {"_tag": "Some", "value": "other"}});
    let frames = store.frame(socket, &request("1", "Push", batch));
    assert_eq!(exit(&frames, "1").unwrap()["cause"]["error"], wanted);
    // The log has lost what the client has.
    let frames = store.frame(socket, &pull("2", true, Some(("backend-1", 7))));
    assert_eq!(exit(&frames, "2").unwrap()["cause"]["error"]["_tag"], "BackendIdMismatchError");
    assert_eq!(store.log(), [0; 0]);
}

#[test]
fn a_push_is_answered_before_its_own_chunk_and_each_live_pull_has_it_once() {
    let mut store = Store::new(Plain);
    let (a, b) = (store.connect(), store.connect());
    for id in ["1", "2"] {
        store.frame(a, &pull(id, true, None));
    }
    store.frame(b, &pull("9", true, None));
    let own = store.frame(a, &push("3", 1..=2));
    let order: Vec<_> = own
        .iter()
        .map(|f| (f["_tag"].as_str().unwrap(), f["requestId"].as_str().unwrap()))
        .collect();
    assert_eq!(order, [("Exit", "3"), ("Chunk", "1"), ("Chunk", "2")]);
    assert_eq!(seqs(&own, "1"), [1, 2]);
    assert_eq!(seqs(&store.take(b), "9"), [1, 2]);
    // One that was given up is sent nothing more.
    let ended = store.frame(a, r#"{"_tag":"Interrupt","requestId":"1"}"#);
    assert_eq!(exit(&ended, "1").unwrap()["cause"]["_tag"], "Interrupt");
    let own = store.frame(a, &push("4", 3..=3));
    assert_eq!((seqs(&own, "1"), seqs(&own, "2")), (vec![], vec![3]));
    // The interrupt of a push undoes nothing, and one of nothing is nothing.
    assert!(store.frame(a, r#"{"_tag":"Interrupt","requestId":"4"}"#).is_empty());
    assert!(store.frame(a, &ack("nobody's")).is_empty());
    assert_eq!(store.log(), [1, 2, 3]);
}

#[test]
fn live_pulls_outlive_the_object_and_go_on_where_they_were() {
    let mut store = Store::new(Plain);
    let (a, b) = (store.connect(), store.connect());
    store.frame(a, &push("0", 1..=1_000));
    let mut slow = store.frame(a, &pull("1", true, None));
    store.frame(b, &pull("2", true, Some(("backend-1", 1_000))));
    store.hibernate();
    store.frame(b, &push("3", 1_001..=1_001));
    assert_eq!(seqs(&store.take(a), "1"), [0; 0], "it has not acknowledged what it was sent");
    store.hibernate();
    while seqs(&slow, "1").len() < 1_001 {
        let more = store.frame(a, &ack("1"));
        assert!(!more.is_empty());
        slow.extend(more);
    }
    assert_eq!(seqs(&slow, "1"), (1..=1_001).collect::<Vec<_>>());
    store.hibernate();
    let frames = store.frame(b, &push("4", 1_002..=1_002));
    assert_eq!(seqs(&frames, "2"), [1_002]);
    assert_eq!(seqs(&store.take(a), "1"), [1_002]);
    let ended = store.frame(a, r#"{"_tag":"Interrupt","requestId":"1"}"#);
    assert!(exit(&ended, "1").is_some());
    store.hibernate();
    store.frame(b, &push("5", 1_003..=1_003));
    assert!(store.take(a).is_empty());
}

#[test]
fn a_pull_that_is_not_live_ends_also_when_the_object_sleeps_in_between() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    store.frame(socket, &push("0", 1..=900));
    let mut frames = store.frame(socket, &pull("1", false, None));
    store.hibernate();
    let other = store.connect();
    store.frame(other, &push("2", 901..=901));
    while exit(&frames, "1").is_none() {
        store.hibernate();
        let more = store.frame(socket, &ack("1"));
        assert!(!more.is_empty());
        frames.extend(more);
    }
    assert_eq!(seqs(&frames, "1"), (1..=900).collect::<Vec<_>>());
    assert_eq!(frames[8]["values"][0]["pageInfo"]["_tag"], "NoMore");
    store.frame(other, &push("3", 902..=902));
    assert!(store.take(socket).is_empty());
}

#[test]
fn a_head_that_is_wrong_is_put_right_by_the_log() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    store.frame(socket, &push("0", 1..=3));
    store.kill();
    store.db.exec("UPDATE context_7 SET currentHead = 1", &[]).unwrap();
    let socket = store.connect();
    let frames = store.frame(socket, &push("1", 4..=4));
    assert_eq!(exit(&frames, "1").unwrap()["_tag"], "Success");
    // Without its context it is another backend, with the same events.
    store.kill();
    store.db.exec("DELETE FROM context_7", &[]).unwrap();
    let socket = store.connect();
    let frames = store.frame(socket, &pull("2", false, None));
    assert_eq!(seqs(&frames, "2"), [1, 2, 3, 4]);
    assert_eq!(frames[0]["values"][0]["backendId"], "backend-3");
}

#[test]
fn clients_of_the_next_version_are_answered_in_their_way() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    let text = push("7", 2..=2).replace(r#""id":"7""#, r#""id":7"#);
    let frames = store.frame(socket, &text);
    assert_eq!(frames[0]["requestId"], 7);
    assert_eq!(frames[0]["exit"]["cause"][0]["error"]["_tag"], "ServerAheadError");
    let text = pull("8", true, None).replace(r#""id":"8""#, r#""id":8"#);
    store.frame(socket, &text);
    let frames = store.frame(socket, r#"{"_tag":"Interrupt","requestId":8}"#);
    assert_eq!(frames[0]["exit"]["cause"][0]["_tag"], "Interrupt");
}

#[test]
fn a_socket_that_asks_for_nothing_is_closed_so_that_its_client_pulls_again() {
    let mut store = Store::new(Plain);
    let (quiet, busy) = (store.connect(), store.connect());
    store.frame(busy, &pull("0", true, None));
    // One that has lost its pull may still push.
    store.frame(quiet, &push("0", 1..=1));
    assert_eq!(store.alarm, Some(store.now.plus_millis(30_000)));
    store.hibernate();
    store.now = store.now.plus_millis(30_000);
    store.turn(partysync::livestore::Input::Alarm);
    assert_eq!((store.closed(quiet), store.closed(busy)), (Some(1000), None));
}

#[test]
fn a_pull_that_was_behind_when_the_object_slept_catches_up() {
    let mut store = Store::new(Plain);
    let (reader, writer) = (store.connect(), store.connect());
    let mut frames = store.frame(reader, &pull("1", true, None));
    assert_eq!(frames.len(), 1);
    // It acknowledges nothing for long, and falls behind.
    for seq in 1..=40 {
        store.frame(writer, &push("p", seq..=seq));
        frames.extend(store.take(reader));
    }
    assert!(seqs(&frames, "1").len() < 40);
    // Then it reads, and the object sleeps again and again.
    let mut acks = frames.len();
    while acks > 0 {
        acks -= 1;
        store.hibernate();
        let more = store.frame(reader, &ack("1"));
        acks += more.len();
        frames.extend(more);
    }
    assert_eq!(seqs(&frames, "1"), (1..=40).collect::<Vec<_>>());
}
