//! What the running code does not know is kept: a rollback of the application loses nothing.

use super::*;

server!(newer {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
    pub(super) priority: Option<i64>,
    #[record(default = 7)] pub(super) stars: i64,
    #[record(unique, default = "-")] pub(super) slug: String,
    #[record(created_at)] pub(super) created_at: Timestamp,
});

/// The first column of a query, as text.
pub(super) fn column(path: &Path, sql: &str) -> Vec<String> {
    let db = Sqlite::open(path).unwrap();
    let db: &dyn partysync::sql::Sql = &db;
    let text = |row: &partysync::sql::Row<'_>| row.get::<Option<String>>(0);
    let rows = db.query_map(sql, [], text).unwrap();
    rows.into_iter().map(|text| text.unwrap_or("NULL".into())).collect()
}

/// Runs one statement in a room of this server.
macro_rules! run {
    ($module:ident, $path:expr, $sql:expr) => {
        $module::open($path).unwrap().sql().execute($sql, params![])
    };
}

#[test]
fn a_rollback_keeps_what_the_newer_application_stored() {
    let (_folder, path) = with_rows();
    run!(first, &path, "DELETE FROM things WHERE id = 'b'").unwrap();
    run!(newer, &path, "UPDATE things SET priority = 3, stars = 5, slug = 'one'").unwrap();
    let insert = "INSERT INTO things (id, title, rank) VALUES ('c', 'C', 3), ('d', 'D', 4)";
    run!(first, &path, insert).unwrap();
    let slugs = "UPDATE things SET slug = id WHERE slug = '-'";
    run!(first, &path, slugs).unwrap();
    let room = newer::open(&path).unwrap();
    let rows: Vec<newer::Thing> = room.rows().unwrap();
    let shown: Vec<_> =
        rows.iter().map(|r| (r.id.as_str(), r.priority, r.stars, r.slug.as_str())).collect();
    assert_eq!(shown, [("a", Some(3), 5, "one"), ("c", None, 7, "c"), ("d", None, 7, "d")]);
    // Rows that the older application inserted have a time, too.
    assert!(rows.iter().all(|row| row.created_at.as_millis() > 0), "{rows:?}");
    // And what was unique is so again.
    let twice = "INSERT INTO things (id, title, rank, slug) VALUES ('e', 'E', 5, 'one')";
    assert_eq!(room.sql().execute(twice, params![]).unwrap_err().code(), Code::Constraint);
}

server!(without {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) note: Option<String>,
});

#[test]
fn inserts_of_code_that_lacks_a_required_column_work_and_its_values_are_kept() {
    let (_folder, path) = with_rows();
    run!(without, &path, "INSERT INTO things (id, title) VALUES ('c', 'C')").unwrap();
    let ranks = "SELECT CAST(rank AS TEXT) FROM things ORDER BY id";
    assert_eq!(column(&path, ranks), ["1", "2", "NULL"]);

    // Back again: a row has nothing where the older code needs something.
    let error = refused(first::open(&path));
    assert!(error.message().contains("column `rank`"), "{error}");
    assert!(error.message().contains("`default = ...`"), "{error}");
    run!(without, &path, "UPDATE things SET rank = 3 WHERE id = 'c'").unwrap();
    let room = first::open(&path).unwrap();
    let ranks: Vec<_> = room.rows::<first::Thing>().unwrap().iter().map(|row| row.rank).collect();
    assert_eq!(ranks, [1, 2, 3]);

    // The column is required again, in inserts and in updates.
    let insert = "INSERT INTO things (id, title) VALUES ('d', 'D')";
    let update = "UPDATE things SET rank = NULL WHERE id = 'a'";
    for statement in [insert, update] {
        let error = room.sql().execute(statement, params![]).unwrap_err();
        assert_eq!(error.code(), Code::Constraint, "{error}");
        assert!(error.message().contains("NOT NULL constraint failed: things.rank"), "{error}");
    }
    drop(room);
    run!(without, &path, insert).unwrap();
}

server!(typo {
    #[record(key)] pub(super) id: String,
    #[record(default = "")] pub(super) name: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});
server!(renamed {
    #[record(key)] pub(super) id: String,
    #[record(renamed_from = "title")] pub(super) name: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

#[test]
fn a_rename_that_was_rolled_back_is_undone_and_then_done_again() {
    let (_folder, path) = with_rows();
    run!(renamed, &path, "UPDATE things SET name = 'A2' WHERE id = 'a'").unwrap();
    run!(first, &path, "INSERT INTO things (id, title, rank) VALUES ('c', 'C', 3)").unwrap();
    let titles: Vec<_> = first::open(&path)
        .unwrap()
        .rows()
        .unwrap()
        .into_iter()
        .map(|r: first::Thing| r.title)
        .collect();
    assert_eq!(titles, ["A2", "B", "C"]);
    let names: Vec<_> = renamed::open(&path)
        .unwrap()
        .rows()
        .unwrap()
        .into_iter()
        .map(|r: renamed::Thing| r.name)
        .collect();
    assert_eq!(names, ["A2", "B", "C"]);
}

#[test]
fn a_rename_without_renamed_from_keeps_the_values_and_is_refused_later_with_a_remedy() {
    let (_folder, path) = with_rows();
    run!(typo, &path, "UPDATE things SET name = 'new' WHERE id = 'b'").unwrap();
    assert_eq!(column(&path, "SELECT title FROM things ORDER BY id"), ["A", "B"]);
    // Now both are there: which values are right is not for the framework to say.
    let before = dump_schema(&path);
    let error = refused(renamed::open(&path));
    assert!(error.message().contains("`name`") && error.message().contains("`title`"), "{error}");
    assert!(error.message().contains("remove `renamed_from`"), "{error}");
    assert_eq!(dump_schema(&path), before);
    // What the remedy says.
    run!(typo, &path, "UPDATE things SET name = title WHERE name = ''").unwrap();
    assert_eq!(column(&path, "SELECT name FROM things ORDER BY id"), ["A", "new"]);
}

server!(retyped {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
    pub(super) priority: Option<String>,
});

#[test]
fn a_kept_column_that_comes_back_with_another_type_is_refused() {
    let (_folder, path) = with_rows();
    run!(first, &path, "DELETE FROM things WHERE id = 'b'").unwrap();
    drop(newer::open(&path).unwrap());
    drop(first::open(&path).unwrap());
    let error = refused(retyped::open(&path));
    assert!(error.message().contains("column `priority`"), "{error}");
    assert!(error.message().contains("INTEGER to TEXT"), "{error}");
}

server!(cased {
    #[record(key)] pub(super) id: String,
    #[record(rename = "Title")] pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

#[test]
fn a_name_that_changes_in_case_only_is_the_same_column() {
    let (_folder, path) = with_rows();
    let rows: Vec<cased::Thing> = cased::open(&path).unwrap().rows().unwrap();
    assert_eq!(rows[0].title, "A");
    assert_eq!(first::open(&path).unwrap().rows::<first::Thing>().unwrap()[1].title, "B");
}

#[test]
fn a_table_that_would_get_more_columns_than_a_durable_object_takes_is_refused() {
    let (_folder, path) = with_rows();
    run!(first, &path, "DELETE FROM things WHERE id = 'b'").unwrap();
    drop(newer::open(&path).unwrap());
    let room = first::open(&path).unwrap();
    for n in 0..92 {
        room.sql()
            .execute(&format!("ALTER TABLE things ADD COLUMN own{n} TEXT"), params![])
            .unwrap();
    }
    drop(room);
    let before = dump_schema(&path);
    let error = refused(typo::open(&path));
    assert!(error.message().contains("takes 100 columns"), "{error}");
    assert!(error.message().contains("`priority`, `stars`"), "{error}");
    assert!(error.message().contains("#[record(dropped = "), "{error}");
    assert_eq!(dump_schema(&path), before);
    // One that changes its default needs room for another.
    let error = refused(looser::open(&path));
    assert!(error.message().contains("101 columns"), "{error}");
    drop(first::open(&path).unwrap());
}

server!(let_go, "things", [dropped = "note", dropped = "never_there"] {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
});

#[test]
fn a_column_is_dropped_only_where_the_record_says_so() {
    let (_folder, path) = with_rows();
    drop(without::open(&path).unwrap());
    assert_eq!(column(&path, "SELECT note FROM things ORDER BY id"), ["x", "NULL"]);
    // A column that is kept goes, too.
    drop(typo::open(&path).unwrap());
    run!(let_go, &path, "INSERT INTO things (id, title, rank) VALUES ('c', 'C', 3)").unwrap();
    let note = run!(let_go, &path, "SELECT note FROM things").unwrap_err();
    assert_eq!(note.code(), Code::Sql);
    assert_eq!(column(&path, "SELECT title FROM things ORDER BY id"), ["A", "B", "C"]);
    // And may come back, empty.
    assert!(first::open(&path).unwrap().rows::<first::Thing>().unwrap()[0].note.is_none());
}

#[test]
fn a_column_that_a_view_names_is_not_dropped() {
    let (_folder, path) = with_rows();
    run!(first, &path, "CREATE VIEW noted AS SELECT note FROM things").unwrap();
    let error = refused(let_go::open(&path));
    assert!(error.message().contains("view noted"), "{error}");
    assert_eq!(column(&path, "SELECT note FROM noted"), ["x", "NULL"]);
}

server!(renamed_twice {
    #[record(key)] pub(super) id: String,
    #[record(renamed_from = "name", renamed_from = "title")] pub(super) headline: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

#[test]
fn a_room_that_slept_through_a_rename_is_renamed_too() {
    let (_folder, path) = with_rows();
    let headlines = |path: &Path| -> Vec<String> {
        let rows = renamed_twice::open(path).unwrap().rows::<renamed_twice::Thing>().unwrap();
        rows.into_iter().map(|row| row.headline).collect()
    };
    assert_eq!(headlines(&path), ["A", "B"]);
    // Back over two renames, and on by one at a time.
    assert_eq!(first::open(&path).unwrap().rows::<first::Thing>().unwrap()[0].title, "A");
    assert_eq!(renamed::open(&path).unwrap().rows::<renamed::Thing>().unwrap()[0].name, "A");
    assert_eq!(headlines(&path), ["A", "B"]);
}

server!(retitled {
    #[record(key)] pub(super) id: String,
    #[record(default = 0)] pub(super) title: i64,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

#[test]
fn a_new_column_that_has_a_former_name_but_another_type_is_a_new_column() {
    let (_folder, path) = with_rows();
    drop(renamed::open(&path).unwrap());
    let rows = retitled::open(&path).unwrap().rows::<retitled::Thing>().unwrap();
    assert_eq!(rows[0].title, 0);
    assert_eq!(column(&path, "SELECT name FROM things ORDER BY id"), ["A", "B"]);
}
