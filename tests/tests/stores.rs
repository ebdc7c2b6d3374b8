//! Every store keeps what the one in memory keeps, for any writes.

use futures::{FutureExt, StreamExt};
use partysync::{Code, Result, Timestamp};
use partysync_client::store::{
    Abandoned, MemoryStore, Outbox, RowsWrite, SavedAction, SqliteStore, Store, StoreEvent,
    Suspicion, Write,
};
use partysync_client::{Place, User};
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Result<SqliteStore> {
    SqliteStore::open(path, &Place::new("notes", "mine", User::anyone()))
}

fn rows() -> impl Strategy<Value = Write> {
    let key = prop_oneof![Just("1"), Just("2"), Just("'")].prop_map(str::to_owned);
    let row = prop_oneof![Just(None), any::<i64>().prop_map(|n| Some(json!([n, "\"ü\n"])))];
    let rows = proptest::collection::vec((key, row), 0..4);
    let channel = prop_oneof![Just("notes"), Just("others")];
    let view = proptest::option::of("[ef]");
    (channel, "[ab]", "[cd]", view, proptest::option::of(0..5_u64), 0..5_u64, rows).prop_map(
        |(channel, epoch, schema, view, from, to, rows)| {
            // All that there is holds no rows that are gone.
            let rows = rows.into_iter().filter(|(_, row)| from.is_some() || row.is_some());
            let rows = rows.collect();
            Write::Rows(RowsWrite { channel, schema, epoch, view, from, to, rows })
        },
    )
}

fn action() -> impl Strategy<Value = SavedAction> {
    (any::<i64>(), 0..3_u32).prop_map(|(millis, points)| SavedAction {
        channel: "notes".into(),
        action: json!({"type": "put", "payload": {"id": 1, "text": "x"}}),
        made_at: Timestamp::from_millis(millis),
        suspicion: Suspicion { points, millis: 7 },
    })
}

fn write() -> impl Strategy<Value = Write> {
    let client = || prop_oneof![Just("one"), Just("two")];
    let name = || client().prop_map(Arc::<str>::from);
    let seq = || 1..5_u64;
    let at = Timestamp::from_millis(9);
    let pending = proptest::collection::btree_map(seq(), action(), 0..3);
    let outbox = (client(), seq(), pending).prop_map(move |(client, pushed, pending)| Outbox {
        client: client.into(),
        pushed,
        pushed_at: Some(at),
        pending,
    });
    let abandoned = action().prop_map(|saved| Abandoned {
        channel: saved.channel,
        action: saved.action,
        made_at: saved.made_at,
        code: "abandoned".into(),
        message: "it is".into(),
    });
    prop_oneof![
        6 => rows(),
        1 => prop_oneof![Just("notes"), Just("others")].prop_map(Write::Stale),
        1 => outbox.prop_map(Write::Outbox),
        6 => (name(), seq(), action()).prop_map(|(client, seq, action)| Write::Act { client, seq, action }),
        2 => (name(), seq(), seq()).prop_map(|(client, from, to)| Write::Answered { client, from, to }),
        2 => (name(), seq(), seq()).prop_map(|(client, seq, points)| Write::Suspect {
            client,
            seq,
            suspicion: Suspicion { points: points as u32, millis: 8 },
        }),
        1 => ("[ab]", abandoned).prop_map(|(id, abandoned)| Write::Abandon { id, abandoned }),
        1 => "[ab]".prop_map(Write::Discard),
    ]
}

proptest! {
    #[test]
    fn sqlite_keeps_what_memory_keeps(batches in proptest::collection::vec(
        (proptest::collection::vec(write(), 0..6), any::<bool>()), 0..8,
    )) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.sqlite");
        let memory = MemoryStore::new();
        for (mut writes, pushes) in batches {
            // What is pushed is in the outbox.
            if pushes && let Some(outbox) = memory.kept().unwrap().outboxes.values().next() {
                let (client, at) = (Arc::from(outbox.client.as_str()), Timestamp::from_millis(3));
                writes.insert(0, Write::Pushed { client, seq: 3, at });
            }
            memory.write_now(writes.clone()).unwrap();
            // Opened anew each time: nothing is kept but in the file.
            open(&path).unwrap().write_now(&writes).unwrap();
            let kept = open(&path).unwrap().read().unwrap();
            let mut saved = memory.clone().open_now("another").unwrap();
            // Which one program uses at a time.
            saved.alone = true;
            prop_assert_eq!(kept, saved);
        }
    }
}

#[test]
fn rows_of_another_view_take_the_place_of_those_that_are_kept_also_at_the_same_version() {
    let write = |view: Option<&str>, from: Option<u64>, key: &str| {
        let (view, rows) = (view.map(str::to_owned), vec![(key.to_owned(), Some(json!([key])))]);
        let (epoch, schema) = ("e".to_owned(), "s".to_owned());
        Write::Rows(RowsWrite { channel: "notes", schema, epoch, view, from, to: 5, rows })
    };
    let kept = |store: &MemoryStore| {
        let kept = store.kept().unwrap().channels.remove("notes").unwrap();
        (kept.view, kept.rows.into_keys().collect::<Vec<_>>())
    };
    let store = MemoryStore::new();
    store.write_now(vec![write(None, None, "all")]).unwrap();
    store.write_now(vec![write(Some("v"), None, "own")]).unwrap();
    assert_eq!(kept(&store), (Some("v".to_owned()), vec!["own".to_owned()]));
    // What another tab was sent by the older view does not go over them.
    store.write_now(vec![write(None, Some(4), "more")]).unwrap();
    assert_eq!(kept(&store), (Some("v".to_owned()), vec!["own".to_owned()]));
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garbage");
    std::fs::write(&path, "not a database, but long enough to look at ".repeat(100)).unwrap();
    assert!(open(&path).is_err());
}

#[test]
fn a_file_is_one_rooms_and_one_users() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replica.sqlite");
    drop(open(&path).unwrap());
    for other in [
        Place::new("notes", "theirs", User::anyone()),
        Place::new("notes", "mine", User::new("ada")),
        Place::new("notes", "mine", User::anyone()).app("another"),
    ] {
        assert_eq!(SqliteStore::open(&path, &other).unwrap_err().code(), Code::Store, "{other}");
    }
    // Until it is deleted.
    let store = open(&path).unwrap();
    futures::executor::block_on(store.delete()).unwrap();
    drop(store);
    assert!(SqliteStore::open(&path, &Place::new("notes", "theirs", User::anyone())).is_ok());
}

#[test]
fn a_file_is_one_programs_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replica.sqlite");
    let first = open(&path).unwrap();
    assert!(open(&path).unwrap_err().message().contains("locked"));
    drop(first);
    assert!(open(&path).is_ok());
}

#[test]
fn an_outbox_in_memory_is_one_clients_at_a_time() {
    let store = MemoryStore::new();
    let act = |client: &str, seq| Write::Act {
        client: client.into(),
        seq,
        action: SavedAction {
            channel: "notes".into(),
            action: json!({"type": "put", "payload": {"id": 1, "text": "x"}}),
            made_at: Timestamp::from_millis(7),
            suspicion: Suspicion::default(),
        },
    };
    let clients = |outboxes: &[Outbox]| -> Vec<String> {
        outboxes.iter().map(|outbox| outbox.client.clone()).collect()
    };
    let (first, second, third) = (store.clone(), store.clone(), store.clone());
    let mut events = third.events();
    first.open_now("first").unwrap();
    first.write_now(vec![act("first", 1)]).unwrap();
    let saved = second.open_now("second").unwrap();
    assert_eq!((saved.outboxes, clients(&saved.others)), (vec![], vec!["first".to_owned()]));
    second.write_now(vec![act("second", 1), act("second", 2)]).unwrap();
    third.open_now("third").unwrap();
    drop(second);
    let Some(Some(StoreEvent::Orphan(orphan))) = events.next().now_or_never() else {
        panic!("the second left two actions");
    };
    assert_eq!((orphan.client.as_str(), orphan.pending.len()), ("second", 2));
    assert_eq!(clients(&store.clone().open_now("fourth").unwrap().others).len(), 2, "it is taken");
    drop((first, third));
    let heir = store.clone();
    assert_eq!(clients(&heir.open_now("fifth").unwrap().outboxes), ["first", "second"]);
    assert_eq!(heir.open_now("fifth").unwrap().outboxes, [], "once");
}

#[test]
fn rows_that_another_client_has_kept_already_are_left_as_they_are() {
    let store = MemoryStore::new();
    let rows = |from, to, row: i64| {
        let (epoch, schema) = ("e".to_owned(), "s".to_owned());
        let rows = vec![("1".to_owned(), Some(json!([row])))];
        let rows = RowsWrite { channel: "notes", schema, epoch, view: None, from, to, rows };
        store.write_now(vec![Write::Rows(rows)]).unwrap();
        let channel = store.kept().unwrap().channels["notes"].clone();
        (channel.version, channel.rows["1"][0].as_i64())
    };
    assert_eq!(rows(None, 5, 50), (Some(5), Some(50)));
    assert_eq!(rows(Some(5), 7, 70), (Some(7), Some(70)));
    assert_eq!(rows(Some(5), 6, 60), (Some(7), Some(70)), "older");
    assert_eq!(rows(None, 7, 71), (Some(7), Some(70)), "as old");
    assert_eq!(rows(Some(8), 9, 90), (Some(7), Some(70)), "not what it goes on from");
    assert_eq!(rows(Some(6), 9, 91), (Some(9), Some(91)), "from before, to after");
    store.write_now(vec![Write::Stale("notes")]).unwrap();
    assert_eq!(rows(Some(9), 10, 100), (None, Some(91)), "not to be built on");
    assert_eq!(rows(None, 4, 40), (Some(4), Some(40)), "the room was set back");
}
