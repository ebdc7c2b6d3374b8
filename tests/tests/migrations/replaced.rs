//! A column whose NULL, default or role changes: the table stays, with all that the application
//! has built on it.

use super::kept::column;
use super::*;

#[test]
fn rows_that_refer_to_the_table_stay_when_null_or_a_default_changes() {
    let (_folder, path) = with_rows();
    let parts = "CREATE TABLE parts (id TEXT PRIMARY KEY, thing TEXT REFERENCES Things (id) ON DELETE CASCADE)";
    let room = first::open(&path).unwrap();
    room.sql().execute(parts, params![]).unwrap();
    room.sql().execute("INSERT INTO parts VALUES ('p', 'a')", params![]).unwrap();
    drop(room);
    let room = looser::open(&path).unwrap();
    let parts = "SELECT count(*) FROM parts";
    assert_eq!(room.sql().query_one(parts, [], |row| row.get::<i64>(0)).unwrap(), 1);
    // The foreign key still refers to the table.
    room.sql().execute("DELETE FROM things WHERE id = 'a'", params![]).unwrap();
    assert_eq!(room.sql().query_one(parts, [], |row| row.get::<i64>(0)).unwrap(), 0);
}

#[test]
fn the_applications_own_indexes_triggers_and_views_survive() {
    let (_folder, path) = with_rows();
    let room = first::open(&path).unwrap();
    for statement in [
        "CREATE TABLE audit (id TEXT)",
        "CREATE INDEX by_note ON things (note) WHERE note IS NOT NULL",
        "CREATE INDEX by_rank ON things (rank)",
        "CREATE VIEW noted AS SELECT id, note FROM things WHERE note IS NOT NULL",
        "CREATE TRIGGER watch AFTER UPDATE OF note ON things BEGIN INSERT INTO audit VALUES (NEW.id); END",
        "CREATE TRIGGER watch_all AFTER UPDATE ON things BEGIN INSERT INTO audit VALUES (NEW.id); END",
        "CREATE TRIGGER from_audit AFTER INSERT ON audit WHEN NEW.id = 'never' BEGIN UPDATE things SET note = 'x'; END",
        "CREATE TRIGGER on_noted INSTEAD OF DELETE ON noted BEGIN UPDATE things SET note = NULL WHERE id = OLD.id; END",
    ] {
        room.sql().execute(statement, params![]).unwrap();
    }
    drop(room);
    let own = "SELECT name || ' ' || sql FROM sqlite_master WHERE type <> 'table' \
               AND name NOT LIKE '\\_partysync%' ESCAPE '\\' AND sql IS NOT NULL ORDER BY name";
    let before = column(&path, own);
    assert_eq!(before.len(), 7);
    drop(looser::open(&path).unwrap());
    assert_eq!(column(&path, own), before);
    // A migration is no update that the application's triggers are for.
    assert!(column(&path, "SELECT id FROM audit").is_empty());
    let room = looser::open(&path).unwrap();
    room.sql().execute("UPDATE things SET note = 'y' WHERE id = 'a'", params![]).unwrap();
    assert_eq!(column(&path, "SELECT id FROM audit"), ["a", "a"]);
    assert_eq!(column(&path, "SELECT note FROM noted ORDER BY id"), ["y", "-"]);
}

server!(defaulted {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    #[record(default = 5)] pub(super) rank: i64,
    #[record(json, default = "[]")] pub(super) tags: Vec<String>,
    pub(super) note: Option<String>,
});
server!(undefaulted {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    #[record(json)] pub(super) tags: Vec<String>,
    pub(super) note: Option<String>,
});

#[test]
fn a_default_that_was_taken_away_is_not_used_any_more() {
    let (_folder, path) = with_rows();
    let insert = "INSERT INTO things (id, title, note) VALUES (?, 'C', 'c')";
    let room = defaulted::open(&path).unwrap();
    room.sql().execute(insert, params!["c"]).unwrap();
    drop(room);
    let room = undefaulted::open(&path).unwrap();
    let rows: Vec<undefaulted::Thing> = room.rows().unwrap();
    assert_eq!(rows.iter().map(|row| row.rank).collect::<Vec<_>>(), [1, 2, 5]);
    assert!(rows.iter().all(|row| row.tags.is_empty()));
    let error = room.sql().execute(insert, params!["d"]).unwrap_err();
    assert_eq!(error.code(), Code::Constraint, "{error}");
    let whole = "INSERT INTO things (id, title, rank, tags) VALUES ('d', 'D', 4, ?)";
    let error = room.sql().execute(whole, params!["no json"]).unwrap_err();
    assert_eq!(error.code(), Code::Constraint, "{error}");
    room.sql().execute(whole, params!["[]"]).unwrap();
    // And it can come back.
    drop(room);
    defaulted::open(&path).unwrap().sql().execute(insert, params!["e"]).unwrap();
}

server!(plain_time {
    #[record(key)] pub(super) id: String,
    #[record(unique)] pub(super) title: String,
    pub(super) deleted_at: Option<Timestamp>,
});
server!(soft {
    #[record(key)] pub(super) id: String,
    #[record(unique)] pub(super) title: String,
    #[record(deleted_at)] pub(super) deleted_at: Option<Timestamp>,
});

#[test]
fn a_column_that_becomes_deleted_at_frees_the_values_of_deleted_rows() {
    let (_folder, path) = with_rows();
    drop(plain_time::open(&path).unwrap());
    let room = soft::open(&path).unwrap();
    room.sql().execute("UPDATE things SET deleted_at = 5 WHERE id = 'a'", params![]).unwrap();
    let insert = "INSERT INTO things (id, title) VALUES (?, 'A')";
    room.sql().execute(insert, params!["c"]).unwrap();
    assert_eq!(room.sql().execute(insert, params!["d"]).unwrap_err().code(), Code::Constraint);
    // The other way round, two rows hold the same value.
    drop(room);
    let error = refused(plain_time::open(&path));
    assert!(error.message().contains("make the values differ"), "{error}");
    let room = soft::open(&path).unwrap();
    room.sql().execute("DELETE FROM things WHERE id = 'a'", params![]).unwrap();
    drop(room);
    let room = plain_time::open(&path).unwrap();
    room.sql().execute("UPDATE things SET deleted_at = 5", params![]).unwrap();
    assert_eq!(room.sql().execute(insert, params!["d"]).unwrap_err().code(), Code::Constraint);
}

/// Two records whose names meet where they are put together.
mod meeting {
    use super::*;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "user")]
    pub(super) struct User {
        #[record(key)]
        id: String,
        #[record(unique)]
        post_slug: Option<String>,
    }

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "user_post")]
    pub(super) struct UserPost {
        #[record(key)]
        id: String,
        #[record(unique)]
        slug: Option<String>,
    }

    #[derive(Action, Clone, Debug)]
    #[action(record = User)]
    pub(super) enum UserAction {
        #[action(insert)]
        Add { id: String, post_slug: Option<String> },
    }

    #[derive(Action, Clone, Debug)]
    #[action(record = UserPost)]
    pub(super) enum UserPostAction {
        #[action(insert)]
        Add { id: String, slug: Option<String> },
    }

    #[derive(Action, Clone, Debug)]
    #[action(channels)]
    pub(super) enum BothAction {
        Users(UserAction),
        Posts(UserPostAction),
    }

    #[derive(Default)]
    pub(super) struct Server;

    impl SyncServer for Server {
        type Action = BothAction;

        fn on_action(&self, room: &mut Room<'_, Self>, action: BothAction) -> Result<()> {
            action.apply(room.sql())
        }
    }
}

#[test]
fn the_indexes_of_two_tables_never_have_the_same_name() {
    let mut room = TestRoom::new(meeting::Server).unwrap();
    let user = |id: &str| meeting::UserAction::Add { id: id.into(), post_slug: Some("s".into()) };
    let post = |id: &str| meeting::UserPostAction::Add { id: id.into(), slug: Some("s".into()) };
    room.act(user("a").into()).unwrap();
    room.act(post("a").into()).unwrap();
    assert_eq!(room.act(user("b").into()).unwrap_err().code(), Code::Constraint);
    assert_eq!(room.act(post("b").into()).unwrap_err().code(), Code::Constraint);
}
