//! What the room does with such keys beside: what it forgets, older protocols and columns, histories.

use super::*;
use partysync::Protocol;
use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Opening};
use partysync::sql::Sqlite;
use partysync::testing::TestRoom;
use serde_json::{Value as Json, json};

fn one(room: &TestRoom<Server>, sql: &str) -> i64 {
    room.sql().query_one(sql, [], |row| row.get(0)).unwrap()
}

fn drop_square(x: i64, y: i64) -> Any {
    SquareAction::Drop { x, y, layer: "[\"".into() }.into()
}

#[test]
fn each_row_is_sent_once_in_the_order_of_keys_also_to_who_sees_some_only() {
    let mut room = TestRoom::new(Server::default()).unwrap();
    for team in TEXTS {
        for user in TEXTS {
            // The last one takes a page for itself.
            let role = if user == "\"]" { "x".repeat(900) } else { "editor".to_owned() };
            room.act(put(team, user, &role)).unwrap();
        }
    }
    let whole = room.rows::<Member>().unwrap();
    let channel = json!({"channel": "members", "schema": Member::SCHEMA.hash()});
    let hello = json!({"type": "hello", "protocol": 2, "client": "c", "channels": [channel]});
    room.connect_with("some", Protocol::V2, &by("nobody")).unwrap();
    room.connect("all", Protocol::V2).unwrap();
    for id in ["all", "some"] {
        let mut sent = room.frame(id, &hello.to_string()).unwrap();
        // It reads what it is sent.
        let mut next = sent.clone();
        while !next.is_empty() {
            let bytes: usize = next.iter().map(|(_, text)| text.len()).sum();
            let read = json!({"type": "read", "bytes": bytes}).to_string();
            next = room.frame(id, &read).unwrap();
            sent.extend(next.clone());
        }
        let frames = sent.iter().filter_map(|(_, text)| serde_json::from_str::<Json>(text).ok());
        let pages: Vec<_> = frames.filter(|frame| frame["channel"] == "members").collect();
        assert!(pages.len() > 3, "{id}: {}", pages.len());
        let rows: Vec<_> = pages.iter().flat_map(|page| page["rows"].as_array().unwrap()).collect();
        let sent: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
        let all = whole.iter().filter(|member| id == "all" || member.role == "editor");
        let all: Vec<_> = all.map(|member| (Some(&*member.team), Some(&*member.user))).collect();
        assert_eq!(sent, all, "{id}");
    }
}

#[test]
fn what_is_deleted_softly_goes_for_good_in_time_and_nothing_else() {
    let mut room = TestRoom::new(Server::default()).unwrap();
    for (x, y) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        room.act(square(x, y, "[\"", 0)).unwrap();
    }
    room.act(drop_square(1, 2)).unwrap();
    room.act(drop_square(2, 1)).unwrap();
    // It is there again, as a new one.
    room.act(square(2, 1, "[\"", 5)).unwrap();
    room.act(put("a", "x", "guest")).unwrap();
    room.act(leave("a", "x")).unwrap();
    assert_eq!(one(&room, "SELECT count(*) FROM squares"), 4);
    room.run_for(200_000).unwrap();
    let left = room.rows::<Square>().unwrap();
    let left: Vec<_> = left.iter().map(|square| (square.x, square.y, square.n)).collect();
    assert_eq!(left, [(1, 1, 0), (2, 1, 5), (2, 2, 0)]);
    let gone = "SELECT count(*) FROM _partysync_change WHERE key = '[\"a\",\"x\"]' AND version < \
                (SELECT max(version) FROM _partysync_change)";
    assert_eq!(one(&room, gone), 0);
}

#[test]
fn clients_of_protocol_1_are_told_that_they_cannot_have_the_channel_and_have_the_others() {
    let mut room = TestRoom::new(Server::default()).unwrap();
    room.connect("v1", Protocol::V1).unwrap();
    let sync = |channel: &str| json!({"channel": channel, "sync": true, "from": null}).to_string();
    let sent = room.frame("v1", &sync("members")).unwrap();
    assert!(sent[0].1.contains("a key of several columns"), "{sent:?}");
    let sent = room.frame("v1", &sync("teams")).unwrap();
    assert!(sent[0].1.contains("\"sync\":true"), "{sent:?}");
    room.act(put("a", "x", "guest")).unwrap();
    room.act(TeamAction::Put { id: "a".into() }.into()).unwrap();
    let sent: Vec<_> = room.take_sent().into_iter().filter(|(to, _)| to == "v1").collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].1.contains("\"teams\""), "{sent:?}");
    // What it does to one that it cannot have is done.
    let action = MemberAction::Put { team: "b".into(), user: "x".into(), role: "guest".into() };
    let action = action.to_json().unwrap();
    let call = json!({"channel": "members", "rpc": true, "id": "1", "action": action});
    let sent = room.frame("v1", &call.to_string()).unwrap();
    assert!(sent[0].1.contains("\"id\":\"1\""), "{sent:?}");
    room.hibernate().unwrap();
    room.act(TeamAction::Put { id: "c".into() }.into()).unwrap();
    assert!(room.take_sent().iter().any(|(to, text)| to == "v1" && text.contains("\"c\"")));
}

#[test]
fn a_client_with_fewer_columns_has_those_of_the_key_or_nothing() {
    let mut room = TestRoom::new(Server::default()).unwrap();
    room.act(put("a", "x", "guest")).unwrap();
    let hello = |columns: &[&str]| {
        let channel = json!({"channel": "members", "schema": "other", "columns": columns});
        json!({"type": "hello", "protocol": 2, "client": "c", "channels": [channel]}).to_string()
    };
    let mut ask = |id: &str, columns: &[&str]| -> Vec<Json> {
        room.connect(id, Protocol::V2).unwrap();
        let sent = room.frame(id, &hello(columns)).unwrap();
        sent.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect()
    };
    let rows = |frames: &[Json]| frames.iter().find_map(|frame| frame.get("rows").cloned());
    let frames = ask("fits", &["team:TEXT:key", "user:TEXT:key", "role:TEXT"]);
    assert_eq!(rows(&frames), Some(json!([["a", "x", "guest"]])), "{frames:?}");
    for (id, columns) in [
        ("order", &["user:TEXT:key", "team:TEXT:key"][..]),
        ("fewer", &["team:TEXT:key", "role:TEXT"]),
        ("other", &["team:TEXT:key", "user:TEXT"]),
        ("none", &["team:TEXT:key"]),
    ] {
        let frames = ask(id, columns);
        assert_eq!(rows(&frames), None, "{id}: {frames:?}");
    }
}

#[test]
fn followers_of_the_history_know_a_row_by_the_json_of_its_key() {
    let (db, mut local) = (Sqlite::in_memory().unwrap(), Local::new(Server::default()));
    let opening = || Opening {
        name: Some("room".into()),
        fresh_epoch: "epoch".into(),
        sockets: Vec::new(),
        published: Some(0),
    };
    let insert = |_: &Server, room: &mut Room<'_, Server>| {
        room.sql().exec("INSERT INTO members (team, user) VALUES ('a', 'x\"')", &[])
    };
    let now = Timestamp::from_millis(1_000);
    let (turn, done) = local.run(&db, now, opening, None, insert).unwrap();
    done.unwrap();
    let Turn { effects, .. } = turn;
    let published = effects.into_iter().find_map(|effect| match effect {
        Effect::Publish { messages, .. } => messages.into_iter().next(),
        _ => None,
    });
    let message: Json = serde_json::from_str(&published.unwrap()).unwrap();
    assert_eq!(message["key"], r#"["a","x\""]"#);
    assert_eq!(message["value"]["user"], "x\"");
}
