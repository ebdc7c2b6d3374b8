//! Every store keeps what the one in memory keeps, for any writes; and a replica comes out of each
//! as it went in.

use partysync::{Action, Record, Timestamp};
use partysync_client::Replica;
use partysync_client::store::{MemoryStore, RowsWrite, SqliteStore, Write};
use proptest::prelude::*;
use serde_json::json;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: i64,
    text: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: i64, text: String },
}

fn rows() -> impl Strategy<Value = Write> {
    let key = prop_oneof![Just("1"), Just("2"), Just("'")].prop_map(str::to_owned);
    let row = prop_oneof![Just(None), any::<i64>().prop_map(|n| Some(json!([n, "\"ü\n"])))];
    let rows = proptest::collection::vec((key, row), 0..4);
    let channel = prop_oneof![Just("notes"), Just("others")];
    (channel, "[ab]", "[cd]", proptest::option::of(0..5_u64), 0..5_u64, rows).prop_map(
        |(channel, epoch, schema, from, to, rows)| {
            // All that there is holds no rows that are gone.
            let rows = rows.into_iter().filter(|(_, row)| from.is_some() || row.is_some());
            let rows = rows.collect();
            Write::Rows(RowsWrite { channel, schema, epoch, from, to, rows })
        },
    )
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => rows(),
        1 => prop_oneof![Just("notes"), Just("others")].prop_map(Write::Stale),
        1 => "[a-z]{0,4}".prop_map(Write::Epoch),
        1 => (0..6_u64).prop_map(Write::Answered),
        1 => (0..6_u64).prop_map(Write::Pushed),
        1 => (0..6_u64, 0..4_u32).prop_map(|(seq, n)| Write::Blame(seq, n)),
        1 => "[a-z]{1,4}".prop_map(Write::Client),
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
        let mut seq = 0;
        for (mut writes, acts) in batches {
            if acts {
                seq += 1;
                let action = json!({"type": "put", "payload": {"id": 1, "text": "x"}});
                let made_at = Timestamp::from_millis(7);
                writes.push(Write::Act { seq, channel: "notes".into(), action, made_at });
            }
            // A replica's outbox begins with its first word to the room.
            writes.insert(0, Write::Answered(0));
            memory.write_now("client", writes.clone()).unwrap();
            // Opened anew each time: nothing is kept but in the file.
            SqliteStore::open(&path).unwrap().write_now("client", &writes).unwrap();
            let kept = SqliteStore::open(&path).unwrap().load_now().unwrap();
            prop_assert_eq!(kept, memory.load_now().unwrap());
        }
    }
}

#[test]
fn a_replica_comes_out_as_it_went_in() {
    let store = SqliteStore::in_memory().unwrap();
    let mut replica = Replica::<NoteAction>::new("client");
    for id in [1, i64::MAX] {
        let action = NoteAction::Put { id, text: "pending".into() };
        replica.act(action, Timestamp::from_millis(5)).unwrap();
    }
    store.write_now("client", &replica.take_writes()).unwrap();
    let (loaded, lost) = Replica::<NoteAction>::load(&store.load_now().unwrap(), "another");
    assert!(lost.is_empty());
    assert_eq!(loaded.rows::<Note>().unwrap(), replica.rows::<Note>().unwrap());
    assert_eq!((loaded.pending(), loaded.client()), (2, "client"));
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garbage");
    std::fs::write(&path, "not a database, but long enough to look at ".repeat(100)).unwrap();
    assert!(SqliteStore::open(&path).is_err());
}

#[test]
fn a_file_is_one_programs_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replica.sqlite");
    let first = SqliteStore::open(&path).unwrap();
    assert!(SqliteStore::open(&path).unwrap_err().message().contains("locked"));
    drop(first);
    assert!(SqliteStore::open(&path).is_ok());
}

#[test]
fn an_outbox_in_memory_is_one_clients_at_a_time() {
    let store = MemoryStore::new();
    let act = |seq| Write::Act {
        seq,
        channel: "notes".into(),
        action: json!({"type": "put", "payload": {"id": 1, "text": "x"}}),
        made_at: Timestamp::from_millis(7),
    };
    let (first, second) = (store.clone(), store.clone());
    first.write_now("first", vec![act(1)]).unwrap();
    second.write_now("second", vec![act(1), act(2)]).unwrap();
    assert_eq!(store.load_now().unwrap().outbox, None, "both are taken");
    drop(second);
    let orphan = store.orphan_now().unwrap().expect("the second left two actions");
    assert_eq!((orphan.outbox.client.as_str(), orphan.outbox.pending.len()), ("second", 2));
    assert!(store.orphan_now().unwrap().is_none(), "it is taken");
    drop(orphan);
    let heir = store.clone();
    assert_eq!(heir.load_now().unwrap().outbox.unwrap().client, "second");
    heir.remove_now().unwrap();
    drop((heir, first));
    assert_eq!(store.load_now().unwrap().outbox.unwrap().client, "first");
}

#[test]
fn rows_that_another_client_has_kept_already_are_left_as_they_are() {
    let store = MemoryStore::new();
    let rows = |from, to, row: i64| {
        let (epoch, schema) = ("e".to_owned(), "s".to_owned());
        let rows = vec![("1".to_owned(), Some(json!([row])))];
        let rows = RowsWrite { channel: "notes", schema, epoch, from, to, rows };
        store.write_now("c", vec![Write::Rows(rows)]).unwrap();
        let channel = store.load_now().unwrap().channels["notes"].clone();
        (channel.version, channel.rows["1"][0].as_i64())
    };
    assert_eq!(rows(None, 5, 50), (Some(5), Some(50)));
    assert_eq!(rows(Some(5), 7, 70), (Some(7), Some(70)));
    assert_eq!(rows(Some(5), 6, 60), (Some(7), Some(70)), "older");
    assert_eq!(rows(None, 7, 71), (Some(7), Some(70)), "as old");
    assert_eq!(rows(Some(8), 9, 90), (Some(7), Some(70)), "not what it goes on from");
    assert_eq!(rows(Some(6), 9, 91), (Some(9), Some(91)), "from before, to after");
    store.write_now("c", vec![Write::Stale("notes")]).unwrap();
    assert_eq!(rows(Some(9), 10, 100), (None, Some(91)), "not to be built on");
    assert_eq!(rows(None, 4, 40), (Some(4), Some(40)), "the room was set back");
}
