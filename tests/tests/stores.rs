//! Every store keeps what the one in memory keeps, for any writes; and a replica comes out of each
//! as it went in.

use partysync::{Action, Record, Timestamp};
use partysync_client::Replica;
use partysync_client::store::{MemoryStore, SqliteStore, Store, Write};
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

fn write() -> impl Strategy<Value = Write> {
    let channel = prop_oneof![Just("notes"), Just("others")];
    let key = prop_oneof![Just("1"), Just("2"), Just("'")].prop_map(str::to_owned);
    let row = prop_oneof![Just(None), any::<i64>().prop_map(|n| Some(json!([n, "\"ü\n"])))];
    prop_oneof![
        "[a-z]{0,4}".prop_map(Write::Epoch),
        (channel.clone(), proptest::option::of((0..1_000_u64, "[a-f]{2}")))
            .prop_map(|(channel, version)| Write::Version(channel, version)),
        (channel, key, row).prop_map(|(channel, key, row)| Write::Row { channel, key, row }),
        (0..6_u64).prop_map(Write::Answered),
        (0..6_u64).prop_map(Write::Pushed),
        (0..6_u64, 0..4_u32).prop_map(|(seq, n)| Write::Attempts(seq, n)),
        "[a-z]{1,4}".prop_map(Write::Client),
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
            memory.write("client", writes.clone()).unwrap();
            // Opened anew each time: nothing is kept but in the file.
            SqliteStore::open(&path).unwrap().write("client", writes).unwrap();
            let (kept, wanted) = (SqliteStore::open(&path).unwrap().load(), memory.load());
            let (mut kept, mut wanted) = (kept.unwrap().unwrap(), wanted.unwrap().unwrap());
            // A channel of which nothing is known may be there or not.
            for saved in [&mut kept, &mut wanted] {
                saved.channels.retain(|_, c| c.version.is_some() || !c.rows.is_empty());
                for channel in saved.channels.values_mut().filter(|c| c.version.is_none()) {
                    channel.schema.clear();
                }
            }
            prop_assert_eq!(kept, wanted);
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
    store.write("client", replica.take_writes()).unwrap();
    let (loaded, lost) = Replica::<NoteAction>::load(&store.load().unwrap().unwrap()).unwrap();
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
