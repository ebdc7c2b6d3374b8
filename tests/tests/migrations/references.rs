//! Columns that refer to other tables: in what order tables are made, references that come and go, and
//! tables that are renamed.

use super::*;

/// A server of cards and lists, the cards first.
macro_rules! board {
    ($module:ident, [$($lists:tt)*] { $($card:tt)* }) => {
        #[allow(dead_code)]
        mod $module {
            use super::*;

            #[derive(Record, Clone, PartialEq, Debug)]
            #[record($($lists)*)]
            pub(super) struct List {
                #[record(key)]
                pub(super) id: String,
            }

            #[derive(Record, Clone, PartialEq, Debug)]
            #[record(table = "cards")]
            pub(super) struct Card {
                #[record(key)]
                pub(super) id: String,
                $($card)*
            }

            #[derive(Action, Clone, Debug)]
            #[action(record = List)]
            pub(super) enum ListAction {
                #[action(delete)]
                Delete { id: String },
            }

            #[derive(Action, Clone, Debug)]
            #[action(record = Card)]
            pub(super) enum CardAction {
                #[action(delete)]
                Delete { id: String },
            }

            #[derive(Action, Clone, Debug)]
            #[action(channels)]
            pub(super) enum BoardAction {
                Cards(CardAction),
                Lists(ListAction),
            }

            #[derive(Debug, Default)]
            pub(super) struct Server;

            impl SyncServer for Server {
                type Action = BoardAction;

                fn on_action(&self, room: &mut Room<'_, Self>, action: BoardAction) -> Result<()> {
                    action.apply(room.sql())
                }
            }

            pub(super) fn open(path: &Path) -> Result<TestRoom<Server>> {
                TestRoom::with(Server, Sqlite::open(path)?)
            }
        }
    };
}

board!(plain, [table = "lists"] { pub(super) list: String, });
board!(cascading, [table = "lists"] {
    #[record(references = "lists", on_delete = "cascade")] pub(super) list: String,
});
board!(restricting, [table = "lists"] {
    #[record(references = "lists")] pub(super) list: String,
});
board!(clearing, [table = "lists"] {
    #[record(references = "lists", on_delete = "set_null")] pub(super) list: Option<String>,
});
board!(without, [table = "lists"] { pub(super) text: Option<String>, });
board!(renamed, [table = "columns", renamed_from = "lists"] {
    #[record(references = "columns", on_delete = "cascade", renamed_from = "list")]
    pub(super) column: String,
});
board!(grown, [table = "lists"] {
    pub(super) list: String,
    #[record(references = "lists", on_delete = "cascade")] pub(super) second: Option<String>,
    #[record(references = "cards", on_delete = "set_null", index)] pub(super) parent: Option<String>,
});
board!(of_nobody, [table = "lists"] { #[record(references = "boards")] pub(super) list: String, });
board!(of_another_type, [table = "lists"] { #[record(references = "lists")] pub(super) list: i64, });

/// Two lists with a card in each.
const ROWS: &str = "INSERT INTO lists VALUES ('x'), ('y')";
const CARDS: &str = "INSERT INTO cards (id, list) VALUES ('a', 'x'), ('b', 'y')";

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    (folder, path)
}

fn run<S: SyncServer>(room: &TestRoom<S>, sql: &str) -> Result<()> {
    room.sql().execute(sql, params![]).map(drop)
}

/// The cards and what they say of their lists.
fn cards(path: &Path, column: &str) -> Vec<String> {
    let cards = format!("SELECT id || ' ' || coalesce({column}, '-') FROM cards ORDER BY id");
    super::kept::column(path, &cards)
}

/// All that the database says of its tables.
fn schema(path: &Path) -> Vec<String> {
    super::kept::column(
        path,
        "SELECT coalesce(sql, name) FROM sqlite_master UNION ALL SELECT columns FROM _partysync_schema",
    )
}

#[test]
fn a_table_is_made_before_or_after_the_one_that_it_refers_to() {
    let (_folder, path) = folder();
    let mut room = cascading::open(&path).unwrap();
    run(&room, ROWS).unwrap();
    run(&room, CARDS).unwrap();
    let nowhere = run(&room, "INSERT INTO cards VALUES ('c', 'z')").unwrap_err();
    assert_eq!(nowhere.code(), Code::Constraint);
    room.act(cascading::ListAction::Delete { id: "x".into() }.into()).unwrap();
    assert_eq!(cards(&path, "list"), ["b y"]);
    // Clients hear of the card as of the list.
    let gone = "SELECT key FROM _partysync_change WHERE version > 4 ORDER BY key";
    assert_eq!(super::kept::column(&path, gone), ["a", "x"]);
}

#[test]
fn a_reference_comes_changes_and_goes_and_rows_stay() {
    let (_folder, path) = folder();
    let room = plain::open(&path).unwrap();
    run(&room, ROWS).unwrap();
    run(&room, CARDS).unwrap();
    drop(room);
    let room = restricting::open(&path).unwrap();
    assert_eq!(cards(&path, "list"), ["a x", "b y"]);
    assert_eq!(run(&room, "DELETE FROM lists").unwrap_err().code(), Code::Constraint);
    // It takes no NULL, as before.
    let null = run(&room, "UPDATE cards SET list = NULL").unwrap_err();
    assert_eq!(null.message(), "NOT NULL constraint failed: cards.list");
    drop(room);
    let room = clearing::open(&path).unwrap();
    run(&room, "DELETE FROM lists WHERE id = 'x'").unwrap();
    run(&room, "UPDATE cards SET list = 'y'").unwrap();
    drop(room);
    // As it is: nothing to do.
    let before = schema(&path);
    drop(clearing::open(&path).unwrap());
    assert_eq!(schema(&path), before);
    assert_eq!(cards(&path, "list"), ["a y", "b y"]);
    let error = refused(plain::open(&path));
    assert!(error.message().contains("no longer takes NULL"), "{error}");
}

#[test]
fn a_reference_that_goes_is_no_more() {
    let (_folder, path) = folder();
    let room = cascading::open(&path).unwrap();
    run(&room, ROWS).unwrap();
    run(&room, CARDS).unwrap();
    drop(room);
    let room = plain::open(&path).unwrap();
    run(&room, "DELETE FROM lists").unwrap();
    assert_eq!(cards(&path, "list"), ["a x", "b y"]);
    let null = run(&room, "UPDATE cards SET list = NULL").unwrap_err();
    assert_eq!(null.code(), Code::Constraint);
}

#[test]
fn a_field_that_goes_takes_its_reference_along_and_a_rollback_has_it_again() {
    let (_folder, path) = folder();
    for open in [
        |path: &Path| run(&cascading::open(path).unwrap(), CARDS),
        |path: &Path| run(&restricting::open(path).unwrap(), CARDS),
        |path: &Path| run(&clearing::open(path).unwrap(), CARDS),
    ] {
        let _ = std::fs::remove_file(&path);
        let room = plain::open(&path).unwrap();
        run(&room, ROWS).unwrap();
        drop(room);
        open(&path).unwrap();
        let room = without::open(&path).unwrap();
        run(&room, "DELETE FROM lists WHERE id = 'x'").unwrap();
        drop(room);
        assert_eq!(cards(&path, "list"), ["a x", "b y"]);
        let room = without::open(&path).unwrap();
        run(&room, "DELETE FROM cards WHERE id = 'a'").unwrap();
        drop(room);
        let room = cascading::open(&path).unwrap();
        run(&room, "DELETE FROM lists").unwrap();
        drop(room);
        assert!(cards(&path, "list").is_empty());
    }
}

#[test]
fn rows_that_refer_to_none_are_named_and_nothing_is_altered() {
    let (_folder, path) = folder();
    let room = plain::open(&path).unwrap();
    run(&room, "INSERT INTO lists VALUES ('x')").unwrap();
    for id in 0..7 {
        run(&room, &format!("INSERT INTO cards VALUES ('{id}', 'nowhere')")).unwrap();
    }
    run(&room, "INSERT INTO cards VALUES ('it''s', 'x')").unwrap();
    drop(room);
    let (tables, rows) = (schema(&path), cards(&path, "list"));
    let error = refused(cascading::open(&path));
    assert_eq!(error.code(), Code::Migration);
    assert_eq!(
        error.message(),
        "table `cards`: column `list` references `lists`, which has no rows for the rows \
         '0', '1', '2', '3', '4' and 2 more: delete those rows, or put the keys of others into them, by \
         a version of the application without the reference"
    );
    assert_eq!((schema(&path), cards(&path, "list")), (tables, rows));
    run(&plain::open(&path).unwrap(), "DELETE FROM cards WHERE list = 'nowhere'").unwrap();
    let room = cascading::open(&path).unwrap();
    run(&room, "DELETE FROM lists").unwrap();
    assert!(cards(&path, "list").is_empty());
}

#[test]
fn a_table_that_is_renamed_is_still_referred_to() {
    let (_folder, path) = folder();
    let room = cascading::open(&path).unwrap();
    run(&room, ROWS).unwrap();
    run(&room, CARDS).unwrap();
    drop(room);
    let room = renamed::open(&path).unwrap();
    assert_eq!(cards(&path, "\"column\""), ["a x", "b y"]);
    // It is the column that it was.
    let taken = "SELECT name FROM pragma_table_info('cards') WHERE \"notnull\" ORDER BY name";
    assert_eq!(super::kept::column(&path, taken), ["column", "id"]);
    run(&room, "DELETE FROM columns WHERE id = 'x'").unwrap();
    assert_eq!(cards(&path, "\"column\""), ["b y"]);
    drop(room);
    let before = schema(&path);
    drop(renamed::open(&path).unwrap());
    assert_eq!(schema(&path), before);
    // Back, and on again.
    let room = cascading::open(&path).unwrap();
    assert_eq!(
        run(&room, "INSERT INTO cards VALUES ('c', 'z')").unwrap_err().code(),
        Code::Constraint
    );
    drop(room);
    let room = renamed::open(&path).unwrap();
    run(&room, "DELETE FROM columns").unwrap();
    assert!(cards(&path, "\"column\"").is_empty());
}

#[test]
fn a_reference_may_come_with_the_name_of_its_table() {
    let (_folder, path) = folder();
    let room = plain::open(&path).unwrap();
    run(&room, ROWS).unwrap();
    run(&room, CARDS).unwrap();
    drop(room);
    let room = renamed::open(&path).unwrap();
    run(&room, "DELETE FROM columns WHERE id = 'x'").unwrap();
    assert_eq!(cards(&path, "\"column\""), ["b y"]);
}

#[test]
fn a_column_that_is_new_may_refer_to_its_own_table_and_to_others() {
    let (_folder, path) = folder();
    let room = plain::open(&path).unwrap();
    run(&room, ROWS).unwrap();
    run(&room, CARDS).unwrap();
    drop(room);
    let room = grown::open(&path).unwrap();
    run(&room, "UPDATE cards SET parent = 'a', second = 'y' WHERE id = 'b'").unwrap();
    run(&room, "DELETE FROM cards WHERE id = 'a'").unwrap();
    assert_eq!(cards(&path, "parent"), ["b -"]);
    run(&room, "DELETE FROM lists WHERE id = 'y'").unwrap();
    assert!(cards(&path, "parent").is_empty());
}

#[test]
fn a_reference_to_no_record_or_of_another_type_is_refused() {
    let (_folder, path) = folder();
    let error = refused(of_nobody::open(&path));
    assert!(error.message().contains("`boards`, which is no record of this server"), "{error}");
    let error = refused(of_another_type::open(&path));
    assert!(error.message().contains("`list` is INTEGER, and the key of `lists`"), "{error}");
    assert_eq!(error.code(), Code::Migration);
}

server!(keyed, "things", [] {
    #[record(key, references = "things", on_delete = "cascade")] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

#[test]
fn a_key_may_refer_from_the_beginning_and_not_later() {
    let (_folder, path) = with_rows();
    let error = refused(keyed::open(&path));
    assert!(
        error.message().contains("the key `id` cannot get, lose or change a reference"),
        "{error}"
    );
    let (_folder, path) = folder();
    let room = keyed::open(&path).unwrap();
    run(&room, "INSERT INTO things (id, title, rank) VALUES ('a', 'A', 1)").unwrap();
}

#[test]
fn a_native_database_keeps_references_as_an_object_does() {
    let (_folder, path) = folder();
    let memory = Sqlite::in_memory().unwrap();
    for db in [memory.copy().unwrap(), memory, Sqlite::open(path).unwrap()] {
        let sql: &dyn partysync::sql::Sql = &db;
        let on = sql.query_one("PRAGMA foreign_keys", [], |row| row.get::<bool>(0));
        assert!(on.unwrap());
    }
}

board!(softly, [table = "lists"] {
    #[record(references = "cards", on_delete = "cascade")] pub(super) parent: Option<String>,
    #[record(deleted_at)] pub(super) deleted_at: Option<Timestamp>,
});

#[test]
fn a_soft_delete_cascades_nothing_until_the_row_goes_for_good() {
    let (_folder, path) = folder();
    let mut room = softly::open(&path).unwrap();
    run(&room, "INSERT INTO cards (id, parent) VALUES ('a', NULL), ('b', 'a')").unwrap();
    room.act(softly::CardAction::Delete { id: "a".into() }.into()).unwrap();
    assert_eq!(cards(&path, "parent"), ["a -", "b a"]);
    let version = room.version();
    room.run_for(8 * 24 * 60 * 60 * 1000).unwrap();
    assert!(cards(&path, "parent").is_empty());
    assert!(room.version() > version, "clients are told that the other is gone");
}
