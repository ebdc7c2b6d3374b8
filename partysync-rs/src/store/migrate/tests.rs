//! Whose clients have to start over after a migration.

use super::migrate;
use crate::sql::{Sql, Sqlite};
use crate::{Record, Timestamp};

macro_rules! thing {
    ($module:ident, [$($attributes:tt)*] { $($record:tt)* }) => {
        mod $module {
            use super::*;

            #[derive(Record, Clone)]
            #[record(table = "things", $($attributes)*)]
            #[allow(dead_code)]
            pub(super) struct Thing { #[record(key)] id: String, $($record)* }
        }
    };
}

thing!(first, [] { note: Option<String> });
thing!(filled, [] { #[record(default = "-")] note: String });
thing!(dropped, [dropped = "note"] {});
thing!(timed, [] { note: Option<String>, #[record(created_at)] created_at: Timestamp });

/// Those of the framework's tables that a migration needs.
fn database() -> Sqlite {
    let db = Sqlite::in_memory().unwrap();
    for statement in [
        "CREATE TABLE _partysync_schema (channel TEXT PRIMARY KEY, columns TEXT)",
        "CREATE TABLE _partysync_meta (now INTEGER, version INTEGER)",
        "INSERT INTO _partysync_meta VALUES (1000, 0)",
        "CREATE TABLE _partysync_change (channel TEXT, key, version, at, PRIMARY KEY (channel, key))",
    ] {
        run(&db, statement);
    }
    db
}

fn run(db: &Sqlite, statement: &str) {
    (db as &dyn Sql).execute(statement, []).unwrap();
}

/// The tables that a migration to this record says were rewritten.
fn rewritten<R: Record>(db: &Sqlite) -> Vec<&'static str> {
    migrate(&[R::SCHEMA], db).unwrap().rewritten
}

#[test]
fn a_table_is_rewritten_when_rows_get_a_default_for_null() {
    let db = database();
    assert!(rewritten::<first::Thing>(&db).is_empty());
    run(&db, "INSERT INTO things VALUES ('a', 'x'), ('b', NULL)");
    assert_eq!(rewritten::<filled::Thing>(&db), ["things"]);
    // Back, and on: no row holds NULL now.
    assert!(rewritten::<first::Thing>(&db).is_empty());
    assert!(rewritten::<filled::Thing>(&db).is_empty());
}

#[test]
fn a_table_is_rewritten_when_a_column_that_was_dropped_comes_back() {
    let db = database();
    for _ in 0..2 {
        rewritten::<first::Thing>(&db);
        run(&db, "INSERT OR IGNORE INTO things VALUES ('a', 'x')");
        assert!(rewritten::<dropped::Thing>(&db).is_empty());
        assert_eq!(rewritten::<first::Thing>(&db), ["things"]);
        assert!(rewritten::<first::Thing>(&db).is_empty());
    }
}

#[test]
fn a_table_is_rewritten_when_rows_that_older_code_inserted_get_their_time() {
    let db = database();
    rewritten::<first::Thing>(&db);
    run(&db, "INSERT INTO things VALUES ('a', 'x')");
    assert!(rewritten::<timed::Thing>(&db).is_empty(), "no client has that column");
    assert!(rewritten::<first::Thing>(&db).is_empty());
    assert!(rewritten::<timed::Thing>(&db).is_empty(), "no row is without");
    rewritten::<first::Thing>(&db);
    run(&db, "INSERT INTO things (id) VALUES ('b')");
    assert_eq!(rewritten::<timed::Thing>(&db), ["things"]);
}
