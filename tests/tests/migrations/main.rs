//! From the previous schema to the next, on a database with rows - or a refusal that names the
//! column and the remedy, with nothing altered.

use partysync::sql::Sqlite;
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Draft, Error, Record, Reduce, Result, Room, SyncServer, Timestamp, params,
};
use std::path::Path;

/// A server of one record that does nothing; the record's table is what is tested.
macro_rules! server {
    ($module:ident { $($record:tt)* }) => {
        server!($module, "things", [] { $($record)* });
    };
    ($module:ident, $table:literal, [$($attributes:tt)*] { $($record:tt)* } $($hooks:tt)*) => {
        #[allow(dead_code)]
        mod $module {
            use super::*;

            #[derive(Record, Clone, PartialEq, Debug)]
            #[record(table = $table, $($attributes)*)]
            pub(super) struct Thing { $($record)* }

            #[derive(Action, Clone, Debug)]
            #[action(record = Thing)]
            pub(super) enum ThingAction {
                #[action(custom)]
                Nothing,
            }

            impl Reduce for ThingAction {
                fn reduce_custom(&self, _: &mut Draft<'_, Thing>) -> Result<()> {
                    Ok(())
                }
            }

            #[derive(Debug, Default)]
            pub(super) struct Server;

            impl SyncServer for Server {
                type Action = ThingAction;

                fn on_action(&self, room: &mut Room<'_, Self>, _: ThingAction) -> Result<()> {
                    let delete = concat!("DELETE FROM ", $table, " WHERE id = 'a'");
                    room.sql().execute(delete, params![]).map(drop)
                }

                $($hooks)*
            }

            pub(super) fn open(path: &Path) -> Result<TestRoom<Server>> {
                TestRoom::with(Server, Sqlite::open(path)?)
            }
        }
    };
}

mod data;
mod kept;
mod references;
mod renamed;
mod replaced;
mod rules;
mod several_keys;

server!(first {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

fn with_rows() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let room = first::open(&path).unwrap();
    let sql =
        "INSERT INTO things (id, title, rank, note) VALUES ('a', 'A', 1, 'x'), ('b', 'B', 2, NULL)";
    room.sql().execute(sql, params![]).unwrap();
    (folder, path)
}

fn refused<T>(result: Result<T>) -> Error {
    result.err().expect("the change should be refused")
}

/// All that the database says of its tables, and the rows.
fn dump(path: &Path) -> (Vec<String>, Vec<String>) {
    let db = Sqlite::open(path).unwrap();
    let sql: &dyn partysync::sql::Sql = &db;
    let text =
        |row: &partysync::sql::Row<'_>| row.get::<Option<String>>(0).map(Option::unwrap_or_default);
    let schema = sql.query_map("SELECT sql FROM sqlite_master ORDER BY name", [], text).unwrap();
    let rows =
        sql.query_map("SELECT json_array(id, title, rank, note) FROM things ORDER BY id", [], text);
    (schema, rows.unwrap())
}

server!(next, "things", [dropped = "rank"] {
    #[record(key)] pub(super) id: String,
    #[record(renamed_from = "title", unique)] pub(super) name: String,
    #[record(index)] pub(super) note: Option<String>,
    #[record(default = 7)] pub(super) stars: i64,
    pub(super) extra: Option<f64>,
    #[record(updated_at)] pub(super) updated_at: Timestamp,
    #[record(deleted_at)] pub(super) deleted_at: Option<Timestamp>,
});

#[test]
fn columns_are_added_dropped_and_renamed_and_indexes_added_with_rows_kept() {
    let (_folder, path) = with_rows();
    let mut room = next::open(&path).unwrap();
    let rows: Vec<next::Thing> = room.rows().unwrap();
    let shown: Vec<_> =
        rows.iter().map(|r| (r.id.as_str(), r.name.as_str(), r.note.as_deref(), r.stars)).collect();
    assert_eq!(shown, [("a", "A", Some("x"), 7), ("b", "B", None, 7)]);
    assert!(rows.iter().all(|row| row.updated_at.as_millis() > 0 && row.extra.is_none()));
    let dropped = room.sql().execute("SELECT rank FROM things", params![]);
    assert_eq!(dropped.unwrap_err().code(), Code::Sql);
    // The new index and the new triggers work.
    let twice = room.sql().execute("INSERT INTO things (id, name) VALUES ('c', 'A')", params![]);
    assert_eq!(twice.unwrap_err().code(), Code::Constraint);
    room.act(next::ThingAction::Nothing).unwrap();
    let noted = "SELECT count(*) FROM _partysync_change WHERE version > 2";
    assert_eq!(room.sql().query_one(noted, [], |row| row.get::<i64>(0)).unwrap(), 1);
    assert_eq!(room.version(), 3);
    // Opened once more, nothing is left to do.
    drop(room);
    let before = dump_schema(&path);
    drop(next::open(&path).unwrap());
    assert_eq!(dump_schema(&path), before);
}

fn dump_schema(path: &Path) -> Vec<String> {
    let db = Sqlite::open(path).unwrap();
    let sql: &dyn partysync::sql::Sql = &db;
    sql.query_map("SELECT coalesce(sql, '') FROM sqlite_master ORDER BY name", [], |row| row.get(0))
        .unwrap()
}

server!(looser {
    #[record(key)] pub(super) id: String,
    #[record(default = "untitled")] pub(super) title: String,
    pub(super) rank: Option<i64>,
    #[record(default = "-")] pub(super) note: String,
});

#[test]
fn null_and_defaults_change_with_rows_kept() {
    let (_folder, path) = with_rows();
    let room = looser::open(&path).unwrap();
    let rows: Vec<looser::Thing> = room.rows().unwrap();
    let notes: Vec<_> = rows.iter().map(|row| (row.rank, row.note.as_str())).collect();
    assert_eq!(notes, [(Some(1), "x"), (Some(2), "-")]);
    room.sql().execute("INSERT INTO things (id, rank) VALUES ('c', NULL)", params![]).unwrap();
    assert_eq!(room.rows::<looser::Thing>().unwrap()[2].title, "untitled");
}

server!(missing {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
    pub(super) wanted: String,
});
server!(retyped {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: String,
    pub(super) note: Option<String>,
});
server!(tighter {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: String,
});
server!(rekeyed {
    #[record(key)] pub(super) title: String,
    pub(super) id: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});
server!(torn {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    #[record(renamed_from = "title")] pub(super) name: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});
server!(crowded {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    #[record(unique)] pub(super) rank: i64,
    pub(super) note: Option<String>,
});

#[test]
fn a_change_that_is_not_safe_is_refused_and_nothing_is_altered() {
    let (_folder, path) = with_rows();
    first::open(&path).unwrap().sql().execute("UPDATE things SET rank = 1", params![]).unwrap();
    let before = dump(&path);
    let cases = [
        (refused(missing::open(&path)), "column `wanted` is new", "`default = ...`"),
        (
            refused(retyped::open(&path)),
            "column `rank` changed from INTEGER to TEXT",
            "`SyncServer::migrate`",
        ),
        (refused(tighter::open(&path)), "column `note` no longer takes NULL", "`default = ...`"),
        (refused(rekeyed::open(&path)), "key changed at column `title`", "new table"),
        (refused(torn::open(&path)), "`name` is renamed from `title`", "remove one"),
        (refused(crowded::open(&path)), "things.rank", "make the values differ"),
    ];
    for (error, names, remedy) in cases {
        assert_eq!(error.code(), Code::Migration);
        assert!(error.message().contains("`things`"), "{error}");
        assert!(error.message().contains(names), "{error}");
        assert!(error.message().contains(remedy), "{error}");
    }
    assert_eq!(dump(&path), before);
}

#[test]
fn a_table_that_the_record_did_not_make_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let db = Sqlite::open(&path).unwrap();
    let sql: &dyn partysync::sql::Sql = &db;
    sql.execute("CREATE TABLE things (id TEXT)", params![]).unwrap();
    let error = refused(first::open(&path));
    assert!(error.message().contains("rename that table"), "{error}");
    assert_eq!(
        sql.query_one("SELECT count(*) FROM _partysync_meta", [], |r| r.get::<i64>(0))
            .unwrap_err()
            .code(),
        Code::Sql
    );
}
