//! What bad input gets: a failure or a close with a code, and nothing half-written.

use crate::harness::{Plain, STORE, Store, ack, caller, event, exit, pull, push, request};
use partysync::Timestamp;
use partysync::livestore::{Effect, Input, Open, Transport};
use partysync::room::{Incoming, Slot};
use partysync::sql::Sqlite;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::rc::Rc;

fn unknown<'f>(frames: &'f [Json], id: &str) -> &'f str {
    let error = &exit(frames, id).unwrap()["cause"]["error"];
    assert_eq!(error["_tag"], "UnknownError", "{frames:?}");
    error["cause"]["message"].as_str().unwrap()
}

#[test]
fn what_is_no_message_is_a_defect_and_the_socket_stays() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    for text in [
        "not json",
        "",
        "[]",
        "7",
        r#"{"_tag":"Request"}"#,
        r#"{"_tag":"Nope"}"#,
        r#"[{"_tag":"Ping"}]"#,
        &request("1", "Nope", json!({})),
        &request("1", "Pull", json!({})).replace("SyncWsRpc.", ""),
        &request("1", "Pull", json!({})).replace(r#""id":"1""#, r#""id":{"a":1}"#),
        r#"{"_tag":"Ack"}"#,
        r#"{"_tag":"Interrupt","requestId":null}"#,
    ] {
        let frames = store.frame(socket, text);
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!(frames[0]["_tag"], "Defect", "{text}");
        let call = store.call(text);
        assert_eq!(call[0]["_tag"], "Defect", "{text}");
    }
    assert!(exit(&store.frame(socket, &push("2", 1..=1)), "2").is_some());
    assert_eq!(store.closed(socket), None);
}

#[test]
fn a_payload_that_does_not_fit_ends_its_request() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    for (tag, payload) in [
        ("Pull", json!({})),
        ("Pull", json!({"storeId": STORE, "cursor": 7})),
        ("Pull", json!({"storeId": STORE, "cursor": {"_tag": "Some"}})),
        ("Pull", json!({"storeId": STORE, "live": "yes", "cursor": {"_tag": "None"}})),
        ("Push", json!({"storeId": STORE, "batch": 7, "backendId": {"_tag": "None"}})),
        ("Push", json!({"storeId": STORE, "batch": [{}], "backendId": {"_tag": "None"}})),
        ("Push", json!({"storeId": STORE, "batch": [event(1)]})),
    ] {
        let frames = store.frame(socket, &request("1", tag, payload.clone()));
        assert_eq!(exit(&frames, "1").unwrap()["cause"]["_tag"], "Die", "{payload}");
    }
    assert_eq!(store.log(), [0; 0]);
}

#[test]
fn events_out_of_order_or_twice_in_a_batch_leave_nothing() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    store.frame(socket, &push("0", 1..=1));
    let batches = [vec![2, 3, 3], vec![2, 2], vec![2, 4], vec![2, 1]];
    for batch in batches {
        let frames = store.frame(socket, &push("1", batch.clone()));
        assert!(unknown(&frames, "1").contains("follow each other"), "{batch:?}");
    }
    let mut jump = event(5);
    jump["parentSeqNum"] = json!(1);
    let batch = json!({"storeId": STORE, "batch": [jump], "backendId": {"_tag": "None"}});
    unknown(&store.frame(socket, &request("1", "Push", batch)), "1");
    assert_eq!(store.log(), [1]);
    assert!(exit(&store.frame(socket, &push("2", 2..=2)), "2").unwrap()["_tag"] == "Success");
}

#[test]
fn what_could_not_be_pulled_or_stored_is_refused() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    let with = |change: &dyn Fn(&mut Json)| {
        let mut event = event(1);
        change(&mut event);
        request(
            "1",
            "Push",
            json!({"storeId": STORE, "batch": [event], "backendId": {"_tag": "None"}}),
        )
    };
    let large = with(&|event| event["args"] = json!("x".repeat(1_000_000)));
    assert!(unknown(&store.frame(socket, &large), "1").contains("900000"));
    let nul = with(&|event| event["name"] = json!("a\0b"));
    assert!(unknown(&store.frame(socket, &nul), "1").contains("NUL"));
    let long = with(&|event| event["clientId"] = json!("x".repeat(2_000)));
    assert!(unknown(&store.frame(socket, &long), "1").contains("clientId"));
    let many = store.frame(socket, &push("1", 1..=1_001));
    assert!(unknown(&many, "1").contains("1000 is the limit"));
    assert_eq!(store.log(), [0; 0]);
    // Three megabytes are not read.
    store.turn(Input::Frame(
        socket,
        Incoming::Text(&with(&|event| event["args"] = json!("x".repeat(3_000_000)))),
    ));
    assert_eq!(store.closed(socket), Some(1009));
    let mut store = Store::new(Plain);
    let socket = store.connect();
    store.turn(Input::Frame(socket, Incoming::Binary(3)));
    assert_eq!(store.closed(socket), Some(1003));
}

#[test]
fn another_store_is_refused_in_address_and_request() {
    let mut store = Store::new(Plain);
    let mut other = caller(Transport::WebSocket);
    other.store_id = "another".to_owned();
    assert_eq!(store.turn(Input::Connect(other)), None);
    assert_eq!(store.refused.take().unwrap().0, 400);
    let socket = store.connect();
    let frames = store.frame(socket, &pull("1", true, None).replace(STORE, "another"));
    assert!(unknown(&frames, "1").contains("another"));
    let frames = store.frame(socket, &push("2", 1..=1).replace(STORE, "another"));
    assert!(unknown(&frames, "2").contains("another"));
}

#[test]
fn ids_used_twice_many_pulls_and_many_messages_close_the_socket() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    store.frame(socket, &pull("1", true, None));
    store.frame(socket, &pull("1", true, None));
    assert_eq!(store.closed(socket), Some(1008));
    // It is heard no more.
    assert!(store.frame(socket, &push("2", 1..=1)).is_empty());
    let socket = store.connect();
    (0..16).for_each(|n| drop(store.frame(socket, &pull(&n.to_string(), true, None))));
    assert_eq!(store.closed(socket), None);
    store.frame(socket, &pull("16", true, None));
    assert_eq!(store.closed(socket), Some(1008));
    let socket = store.connect();
    (0..21_000).for_each(|_| drop(store.frame(socket, r#"{"_tag":"Ping"} "#)));
    assert_eq!(store.closed(socket), Some(1008));
    assert_eq!(store.log(), [0; 0]);
}

#[test]
fn a_call_that_asks_for_nothing_ends() {
    let mut store = Store::new(Plain);
    for body in [
        r#"{"_tag":"Ping"}"#,
        r#"{"_tag":"Eof"}"#,
        r#"{"_tag":"Ack","requestId":"1"}"#,
        r#"{"_tag":"Interrupt","requestId":"1"}"#,
    ] {
        let slot = store.turn(Input::Call(caller(Transport::Http), body)).unwrap();
        assert!(store.sockets[&slot].closed.is_some(), "{body}");
    }
}

#[test]
fn a_reader_that_goes_away_late_takes_nobody_elses_place() {
    let mut store = Store::new(Plain);
    store.call(&push("0", 1..=3));
    let call = Input::Call(caller(Transport::Http), &pull("1", false, None));
    let slot = store.turn(call).unwrap();
    let serial = store.sockets[&slot].serial;
    assert!(store.sockets[&slot].closed.is_some());
    // Its slot is another's by now.
    let socket = store.connect();
    assert_eq!(socket, slot);
    store.frame(socket, &pull("2", true, None));
    store.turn(Input::Taken(slot, serial));
    store.turn(Input::Gone(slot, serial));
    assert!(exit(&store.frame(socket, &push("3", 4..=4)), "3").is_some());
}

#[test]
fn one_that_reads_nothing_is_not_sent_the_log_again_and_again() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    for seq in 1..=20 {
        let mut large = event(seq);
        large["args"] = json!("x".repeat(800_000));
        let batch = json!({"storeId": STORE, "batch": [large], "backendId": {"_tag": "None"}});
        store.frame(socket, &request("0", "Push", batch));
    }
    let reader = store.connect();
    let mut sent = 0;
    for n in 0..10_000 {
        let frames = store.frame(reader, &pull(&n.to_string(), true, None));
        sent += frames.len() * 800_000;
        store.frame(reader, &format!(r#"{{"_tag":"Interrupt","requestId":"{n}"}}"#));
        if store.closed(reader).is_some() {
            break;
        }
    }
    assert_eq!(store.closed(reader), Some(1008), "{sent} bytes");
    assert!(sent < 400_000_000, "{sent}");
}

#[test]
fn a_turn_holds_a_bound_of_bytes_and_the_rest_follows() {
    let mut store = Store::new(Plain);
    let (readers, writer) = ([(); 16].map(|()| store.connect()), store.connect());
    for reader in readers {
        store.frame(reader, &pull("0", true, None));
    }
    let large = |seq: u64| {
        let mut large = event(seq);
        large["args"] = json!("x".repeat(890_000));
        request(
            "p",
            "Push",
            json!({"storeId": STORE, "batch": [large], "backendId": {"_tag": "None"}}),
        )
    };
    let pushes: Vec<_> = (1..=2).map(large).collect();
    store.run(pushes.iter().map(|push| Input::Frame(writer, Incoming::Text(push))));
    while std::mem::take(&mut store.again) {
        store.run([]);
    }
    assert!(store.most < 12_000_000, "{} bytes in a turn", store.most);
    for reader in readers {
        assert_eq!(crate::harness::seqs(&store.take(reader), "0"), [1, 2]);
    }
}

fn frame(slot: Slot, text: &str) -> Input<'_> {
    Input::Frame(slot, Incoming::Text(text))
}

#[test]
fn what_connections_do_not_read_has_a_bound_and_others_go_on() {
    let mut store = Store::new(Plain);
    let writer = store.connect();
    for seq in 1..=20_u64 {
        let mut large = event(seq);
        large["args"] = json!("x".repeat(800_000));
        let push = json!({"storeId": STORE, "batch": [large], "backendId": {"_tag": "None"}});
        store.frame(writer, &request("p", "Push", push));
    }
    let mut held = 0;
    for _ in 0..30 {
        let dead = store.connect();
        for n in 0..16 {
            let frames = store.frame(dead, &pull(&n.to_string(), n % 2 == 0, None));
            held += frames.iter().map(|frame| frame.to_string().len()).sum::<usize>();
        }
    }
    assert!((32_000_000..70_000_000).contains(&held), "{held} bytes");
    // One that reads has all, on as many pulls.
    let reader = store.connect();
    let mut frames = Vec::new();
    for n in 0..4 {
        frames.extend(store.frame(reader, &pull(&n.to_string(), true, None)));
    }
    let mut read = 0;
    while let Some(frame) = frames.get(read) {
        let id = frame["requestId"].as_str().unwrap().to_owned();
        read += 1;
        frames.extend(store.frame(reader, &ack(&id)));
    }
    for n in 0..4 {
        assert_eq!(crate::harness::seqs(&frames, &n.to_string()), (1..=20).collect::<Vec<_>>());
    }
    // Those that have gone hold nothing.
    let slots: Vec<_> = store.sockets.keys().copied().collect();
    slots.into_iter().filter(|slot| *slot != writer).for_each(|slot| store.disconnect(slot));
    let reader = store.connect();
    assert_eq!(store.frame(reader, &pull("0", true, None)).len(), 4, "the window is open again");
}

/// A log that is elsewhere is asked once for all that a turn has no room to send.
#[test]
fn what_was_pushed_is_not_read_again_for_each_of_many_that_follow() {
    let db = Sqlite::in_memory().unwrap();
    let server = Rc::new(Plain);
    let now = Timestamp::from_millis(1_764_000_000_000);
    let mut open = Open::elsewhere(&*server, &db, STORE, "backend", 0, now, Vec::new()).unwrap();
    let pull = pull("0", true, None);
    for slot in 0..16 {
        let connect = Input::Connect(caller(Transport::WebSocket));
        open.turn(&server, &db, now, [connect, frame(Slot(slot), &pull)]);
    }
    let mut large = event(1);
    large["args"] = json!("x".repeat(890_000));
    let push = json!({"storeId": STORE, "batch": [large.clone()], "backendId": {"_tag": "None"}});
    let push = request("p", "Push", push);
    let turn = open.turn(&server, &db, now, [frame(Slot(0), &push)]);
    assert!(matches!(turn.effects.as_slice(), [Effect::Append(..), ..]), "{turn:?}");
    let (mut sent, mut turns) = (BTreeSet::new(), 0);
    let mut next = vec![Input::Appended(Ok(()))];
    loop {
        let turn = open.turn(&server, &db, now, next);
        turns += 1;
        let mut again = false;
        for effect in turn.effects {
            match effect {
                Effect::Send(slot, text) => {
                    let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                    if frame["_tag"] == "Chunk" {
                        assert_eq!(frame["values"][0]["batch"][0]["eventEncoded"], large);
                        assert!(sent.insert(slot), "{slot:?} twice");
                    }
                }
                Effect::Again => again = true,
                Effect::Read(reading) => panic!("it reads what it has: {reading:?}"),
                _ => {}
            }
        }
        if !again {
            break;
        }
        next = Vec::new();
    }
    assert_eq!((sent.len(), turns), (16, 2));
}

#[test]
fn a_full_database_refuses_pushes_and_serves_pulls() {
    let mut store = Store::new(Plain);
    let (reader, writer) = (store.connect(), store.connect());
    store.frame(writer, &push("0", 1..=3));
    store.frame(reader, &pull("0", true, Some(("backend-1", 3))));
    let sql: &dyn partysync::sql::Sql = &store.db;
    let pages: i64 = sql.query_one("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    sql.query_one(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<i64>(0))
        .unwrap();
    let mut large = event(4);
    large["args"] = json!("x".repeat(100_000));
    let batch = json!({"storeId": STORE, "batch": [large], "backendId": {"_tag": "None"}});
    let frames = store.frame(writer, &request("1", "Push", batch));
    assert!(unknown(&frames, "1").contains("could not be stored"));
    assert_eq!((store.closed(reader), store.closed(writer)), (None, None));
    assert_eq!(crate::harness::seqs(&store.call(&pull("2", false, None)), "2"), [1, 2, 3]);
    let frames = store.frame(writer, &push("3", 4..=4));
    assert_eq!(exit(&frames, "3").unwrap()["_tag"], "Success");
    assert_eq!(crate::harness::seqs(&store.take(reader), "0"), [4]);
}

#[test]
fn an_object_that_holds_a_store_holds_no_other() {
    use partysync::livestore::Log;
    use partysync::sql::{Sql, Sqlite};
    let db = Sqlite::in_memory().unwrap();
    let sql: &dyn Sql = &db;
    Log::open(sql, "a-b", "first").unwrap();
    // Both would have one table.
    let error = Log::open(sql, "a_b", "second").map(drop).unwrap_err();
    assert!(error.message().contains("a-b"), "{error}");
    assert_eq!(Log::open(sql, "a-b", "third").unwrap().1.backend_id, "first");
}

#[test]
fn arguments_that_some_parser_cannot_read_are_refused() {
    let mut store = Store::new(Plain);
    let socket = store.connect();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let text = |args: &str| {
        let template = push("1", 1..=1);
        let frame: Json = serde_json::from_str(&template).unwrap();
        let known = serde_json::to_string(&frame["payload"]["batch"][0]["args"]).unwrap();
        template.replace(&known, args)
    };
    for args in [&*deep(65), "1e999", "[-1.5E+400]", &*format!("{{\"a\":{}}}", deep(64))] {
        let frames = store.frame(socket, &text(args));
        let name = &exit(&frames, "1").unwrap()["cause"]["error"]["cause"]["name"];
        assert_eq!(name, "InvalidEvent", "{args}");
    }
    let fine = format!(r#"[{}, 1e300, "1e999 [[[ \\\" \ud83d", 1e-999]"#, deep(63));
    let frames = store.frame(socket, &text(&fine));
    assert_eq!(exit(&frames, "1").unwrap()["_tag"], "Success", "{frames:?}");
}
