//! Indexes of several columns, and checks.

use super::kept::column;
use super::*;

server!(ruled, "things", [
    index = "rank, title", unique = "title, rank", check = "length(title) > 0 AND rank <> 13"
] {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    #[record(check = "rank >= 0")] pub(super) rank: i64,
    pub(super) note: Option<String>,
});

server!(senseless, "things", [check = "lenght(title) > 0"] {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

server!(soft, "softs", [unique = "title, rank"] {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    #[record(deleted_at)] pub(super) deleted_at: Option<Timestamp>,
});

const OWN: &str =
    "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1";

fn run<S: SyncServer>(room: &TestRoom<S>, sql: &str) -> Result<()> {
    room.sql().execute(sql, params![]).map(drop)
}

#[test]
fn indexes_of_several_columns_come_and_go_and_the_applications_own_stays() {
    let (_folder, path) = with_rows();
    run(&first::open(&path).unwrap(), "CREATE INDEX mine ON things (rank, title)").unwrap();
    let room = ruled::open(&path).unwrap();
    let all = ["_partysync$things$rank$title$index", "_partysync$things$title$rank$unique", "mine"];
    assert_eq!(column(&path, OWN), all);
    run(&room, "INSERT INTO things (id, title, rank) VALUES ('c', 'A', 2)").unwrap();
    let twice = run(&room, "INSERT INTO things (id, title, rank) VALUES ('d', 'A', 2)");
    assert_eq!(twice.unwrap_err().code(), Code::Constraint);
    drop(room);
    let before = dump(&path);
    drop(ruled::open(&path).unwrap());
    assert_eq!(dump(&path), before);
    let room = first::open(&path).unwrap();
    assert_eq!(column(&path, OWN), ["mine"]);
    run(&room, "INSERT INTO things (id, title, rank) VALUES ('d', 'A', 2)").unwrap();
    drop(room);
    let before = dump(&path);
    let error = refused(ruled::open(&path));
    assert!(error.message().contains("two rows hold the same value"), "{error}");
    assert_eq!(dump(&path), before);
}

#[test]
fn a_row_that_is_softly_deleted_holds_no_values_of_several_columns() {
    let folder = tempfile::tempdir().unwrap();
    let room = soft::open(&folder.path().join("room.sqlite")).unwrap();
    let insert = |id: &str| {
        run(&room, &format!("INSERT INTO softs (id, title, rank) VALUES ('{id}', 'A', 1)"))
    };
    insert("a").unwrap();
    assert_eq!(insert("b").unwrap_err().code(), Code::Constraint);
    run(&room, "UPDATE softs SET deleted_at = 1").unwrap();
    insert("b").unwrap();
}

#[test]
fn a_check_is_of_inserts_and_updates_and_says_what_sqlite_says() {
    let (_folder, path) = with_rows();
    let room = ruled::open(&path).unwrap();
    let refused = [
        (
            "INSERT INTO things (id, title, rank) VALUES ('c', '', 1)",
            "length(title) > 0 AND rank <> 13",
        ),
        ("INSERT OR IGNORE INTO things (id, title, rank) VALUES ('c', 'x', -1)", "rank >= 0"),
        ("UPDATE things SET rank = 13", "length(title) > 0 AND rank <> 13"),
    ];
    for (sql, check) in refused {
        let error = run(&room, sql).unwrap_err();
        assert_eq!(error.code(), Code::Constraint);
        assert_eq!(error.message(), format!("CHECK constraint failed: {check}"));
    }
    run(&room, "UPDATE things SET rank = 12").unwrap();
    drop(room);
    // It goes as it came.
    run(&first::open(&path).unwrap(), "UPDATE things SET rank = 13").unwrap();
}

#[test]
fn rows_that_do_not_fit_a_check_are_named_and_nothing_is_altered() {
    let (_folder, path) = with_rows();
    run(&first::open(&path).unwrap(), "UPDATE things SET rank = -1 WHERE id = 'b'").unwrap();
    let before = dump(&path);
    let error = refused(ruled::open(&path));
    assert_eq!(error.code(), Code::Migration);
    assert_eq!(
        error.message(),
        "table `things`: `check = \"rank >= 0\"` does not hold of the rows 'b': change the rows first, \
         by a version of the application without the check"
    );
    assert_eq!(dump(&path), before);
}

#[test]
fn a_check_that_is_no_sql_is_refused_before_a_row_comes() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(senseless::open(&folder.path().join("room.sqlite")));
    assert_eq!(error.code(), Code::Migration);
    assert!(
        error.message().contains("`check = \"lenght(title) > 0\"` is no expression"),
        "{error}"
    );
}
