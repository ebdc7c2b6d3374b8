//! Notes by prefix: the same in every store, and no more is read than asked for.

use partysync::sql::{Sql, Sqlite, Value};
use partysync::streams::{Change, MemoryStore, SqlStore, Store};
use partysync_tests::watched::Watched;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

fn note(key: &str) -> Change {
    Change::Note { key: key.to_owned(), text: Some("text".to_owned()) }
}

#[test]
fn a_prefix_is_a_range_with_both_its_ends_in_the_index() {
    let disk = Rc::new(Sqlite::in_memory().unwrap());
    let asked = Rc::<RefCell<(String, Vec<Value>)>>::default();
    let last = asked.clone();
    let listened = Watched::new(&disk, move |sql, params| {
        *last.borrow_mut() = (sql.to_owned(), params.to_vec());
        Ok(())
    });
    let store = SqlStore::new(listened).unwrap();
    store.commit(vec![note("a/1"), note("b/1"), note("b/2"), note("c/1")]).unwrap();
    assert_eq!(store.notes("b/").unwrap().len(), 2);
    let (sql, params) = asked.borrow().clone();
    let disk: &dyn Sql = &*disk;
    let plan: Vec<String> =
        disk.query_map(&format!("EXPLAIN QUERY PLAN {sql}"), params, |row| row.get(3)).unwrap();
    assert!(plan.concat().contains("(key>? AND key<?)"), "{plan:?}");
}

proptest! {
    #[test]
    fn a_prefix_finds_the_same_in_sqlite_as_in_memory(
        keys in prop::collection::vec("[ab/~\u{7f}\u{d7ff}\u{e000}\u{10fffe}\u{10ffff}]{0,4}", 0..20),
        prefix in "[ab/~\u{7f}\u{d7ff}\u{e000}\u{10fffe}\u{10ffff}]{0,3}",
    ) {
        let sql = SqlStore::new(Sqlite::in_memory().unwrap()).unwrap();
        let memory = MemoryStore::new();
        let changes: Vec<_> = keys.iter().map(|key| note(key)).collect();
        sql.commit(changes.clone()).unwrap();
        memory.commit(changes).unwrap();
        prop_assert_eq!(sql.notes(&prefix).unwrap(), memory.notes(&prefix).unwrap());
    }
}
