//! Tables whose key has several columns.

use super::*;
use partysync::{Key, Migrated, Migration};

server!(first, "votes", [] {
    #[record(key)] pub(super) card: String,
    #[record(key)] pub(super) number: i64,
    pub(super) points: i64,
});
server!(renamed, "votes", [] {
    #[record(key, renamed_from = "card")] pub(super) question: String,
    #[record(key, index)] pub(super) number: i64,
    pub(super) points: i64,
    #[record(default = "x")] pub(super) note: String,
});
server!(turned, "votes", [] {
    #[record(key)] pub(super) number: i64,
    #[record(key)] pub(super) card: String,
    pub(super) points: i64,
});
server!(shorter, "votes", [] {
    #[record(key)] pub(super) card: String,
    pub(super) points: i64,
});
server!(plain, "votes", [] {
    #[record(key)] pub(super) card: String,
    #[record(default = 0)] pub(super) number: i64,
    pub(super) points: i64,
});
server!(longer, "votes", [] {
    #[record(key)] pub(super) card: String,
    #[record(key)] pub(super) number: i64,
    #[record(key)] pub(super) kind: String,
    pub(super) points: i64,
});
server!(dropped, "votes", [dropped = "number"] {
    #[record(key)] pub(super) card: String,
    pub(super) points: i64,
});
server!(doubled, "votes", [version = 2] {
    #[record(key)] pub(super) card: String,
    #[record(key)] pub(super) number: i64,
    pub(super) points: i64,
}
    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        let double = "UPDATE votes SET points = 2 * points WHERE card = ? AND number = ?";
        step.each(room.sql(), 7, |key| {
            let [card, number] = key.parts() else { return Err(Error::reject("no key")) };
            room.sql().execute(double, params![card, number]).map(drop)
        })
    });

fn with_rows(path: &Path) {
    let room = first::open(path).unwrap();
    for card in ["", "a", "a\",\"b", "[\"a\"]", "b"] {
        for number in [i64::MIN, -1, 0, (1 << 53) + 1, i64::MAX] {
            let insert = "INSERT INTO votes VALUES (?, ?, 1)";
            room.sql().execute(insert, params![card, number]).unwrap();
        }
    }
}

fn points(path: &Path) -> Vec<i64> {
    let all = "SELECT points FROM votes ORDER BY card, number";
    let db = Sqlite::open(path).unwrap();
    let sql: &dyn partysync::sql::Sql = &db;
    sql.query_map(all, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_key_is_renamed_in_part_and_refused_in_another_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    with_rows(&path);
    let why = |opened: Option<Error>| {
        let error = opened.unwrap();
        assert_eq!(error.code(), Code::Migration);
        error.message().to_owned()
    };
    assert!(why(turned::open(&path).err()).contains("its key changed, and was `card`, `number`"));
    assert!(why(shorter::open(&path).err()).contains("its key changed"));
    assert!(why(plain::open(&path).err()).contains("the key changed at column `number`"));
    assert!(why(longer::open(&path).err()).contains("`kind` cannot become the key"));
    assert!(why(dropped::open(&path).err()).contains("its key cannot be dropped"));
    assert_eq!(first::open(&path).unwrap().rows::<first::Thing>().unwrap().len(), 25);
    let room = renamed::open(&path).unwrap();
    let rows = room.rows::<renamed::Thing>().unwrap();
    assert_eq!((rows.len(), &*rows[0].question, rows[0].number), (25, "", i64::MIN));
    let delete = "DELETE FROM votes WHERE question = ? AND number = ?";
    assert_eq!(room.sql().execute(delete, params!["a\",\"b", i64::MAX]).unwrap(), 1);
    let logged = "SELECT key FROM _partysync_change ORDER BY version DESC LIMIT 1";
    let logged: String = room.sql().query_one(logged, [], |row| row.get(0)).unwrap();
    assert_eq!(logged, Key::from(("a\",\"b", i64::MAX)).to_string());
}

#[test]
fn a_data_migration_goes_through_all_keys_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    with_rows(&path);
    let room = doubled::open(&path).unwrap();
    drop(room);
    assert_eq!(points(&path), [2; 25]);
    drop(doubled::open(&path).unwrap());
    assert_eq!(points(&path), [2; 25]);
}

mod referring {
    use super::*;

    #[derive(Record, Clone)]
    #[record(table = "votes")]
    struct Vote {
        #[record(key)]
        card: String,
        #[record(key)]
        user: String,
    }

    #[derive(Record, Clone)]
    #[record(table = "reasons")]
    struct Reason {
        #[record(key)]
        id: String,
        #[record(references = "votes")]
        vote: String,
    }

    #[derive(Action, Clone, Debug)]
    #[action(record = Vote)]
    enum VoteAction {
        #[action(insert)]
        Add { card: String, user: String },
    }

    #[derive(Action, Clone, Debug)]
    #[action(record = Reason)]
    enum ReasonAction {
        #[action(insert)]
        Add { id: String, vote: String },
    }

    #[derive(Action, Clone, Debug)]
    #[action(channels)]
    enum Any {
        Votes(VoteAction),
        Reasons(ReasonAction),
    }

    struct Server;

    impl SyncServer for Server {
        type Action = Any;

        fn on_action(&self, _: &mut Room<'_, Self>, _: Any) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_refers_to_a_key_of_several_columns() {
        let error = TestRoom::new(Server).err().unwrap();
        assert_eq!(error.code(), Code::Migration);
        assert!(error.message().contains("`unique = \"card, user\"`"), "{error}");
    }
}
