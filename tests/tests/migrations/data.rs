//! What rows mean is migrated by the application, in batches: each once, whatever happens in between.

use super::kept::column;
use super::{dump_schema, refused};
use futures::executor::block_on;
use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Event, Opening, Protocol};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Draft, Key, Migrated, Migration, Record, Reduce, Result, Room, SyncServer,
    Timestamp, params,
};
use std::path::{Path, PathBuf};

/// A server of one record, with a `migrate` of its own where there is one.
macro_rules! app {
    ($module:ident, [$($attributes:tt)*] { $($record:tt)* } $($hooks:tt)*) => {
        #[allow(dead_code)]
        mod $module {
            use super::*;

            #[derive(Record, Clone, PartialEq, Debug)]
            #[record(table = "prices", $($attributes)*)]
            pub(super) struct Price { $($record)* }

            #[derive(Action, Clone, Debug)]
            #[action(record = Price)]
            pub(super) enum PriceAction {
                #[action(custom)]
                Nothing,
            }

            impl Reduce for PriceAction {
                fn reduce_custom(&self, _: &mut Draft<'_, Price>) -> Result<()> {
                    Ok(())
                }
            }

            #[derive(Debug, Default)]
            pub(super) struct Server;

            impl SyncServer for Server {
                type Action = PriceAction;

                fn on_action(&self, _: &mut Room<'_, Self>, _: PriceAction) -> Result<()> {
                    Ok(())
                }

                $($hooks)*
            }

            pub(super) fn open(path: &Path) -> Result<TestRoom<Server>> {
                TestRoom::with(Server, Sqlite::open(path)?)
            }
        }
    };
}

app!(euros, [] {
    #[record(key)] pub(super) id: i64,
    pub(super) euros: f64,
});

/// Notes each row that is migrated: doing one twice is an error.
fn to_cents(sql: &dyn Sql, id: &Key) -> Result<()> {
    sql.execute("INSERT INTO migrated (id) VALUES (?)", params![id])?;
    let cents = "UPDATE prices SET cents = round(euros * 100) WHERE id = ?";
    sql.execute(cents, params![id]).map(drop)
}

app!(cents, [version = 2, dropped = "euros"] {
    #[record(key)] pub(super) id: i64,
    #[record(default = 0)] pub(super) cents: i64,
}
    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        assert_eq!((step.table(), step.from(), step.to()), ("prices", 1, 2));
        let sql = room.sql();
        step.each(sql, 300, |id| to_cents(sql, id))
    }

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let old = "SELECT count(*) FROM prices WHERE cents = 0";
        let old = room.sql().query_one(old, params![], |row| row.get::<i64>(0))?;
        let start = "CREATE TABLE IF NOT EXISTS starts (old INTEGER)";
        room.sql().execute(start, params![])?;
        room.sql().execute("INSERT INTO starts VALUES (?)", params![old]).map(drop)
    }
);

/// A room with so many prices, beginning at -2, of 1.5 euros each.
fn with_prices(count: i64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let room = euros::open(&path).unwrap();
    let insert = "INSERT INTO prices (id, euros) WITH RECURSIVE n(i) AS
        (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1) SELECT i - 2, 1.5 FROM n";
    room.sql().execute(insert, params![count]).unwrap();
    room.sql().execute("CREATE TABLE migrated (id INTEGER PRIMARY KEY)", params![]).unwrap();
    (folder, path)
}

fn count(path: &Path, condition: &str) -> i64 {
    column(path, &format!("SELECT CAST(count(*) AS TEXT) FROM {condition}"))[0].parse().unwrap()
}

#[test]
fn rows_are_migrated_before_on_start_with_what_is_dropped_at_hand() {
    let (_folder, path) = with_prices(10);
    let mut room = cents::open(&path).unwrap();
    let rows: Vec<cents::Price> = room.rows().unwrap();
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().all(|row| row.cents == 150), "{rows:?}");
    // The column went when all was done.
    let euros = room.sql().execute("SELECT euros FROM prices", params![]);
    assert_eq!(euros.unwrap_err().code(), Code::Sql);
    // Once is enough.
    room.act(cents::PriceAction::Nothing).unwrap();
    drop(room);
    drop(cents::open(&path).unwrap());
    assert_eq!(column(&path, "SELECT CAST(old AS TEXT) FROM starts"), ["0", "0"]);
    assert_eq!(count(&path, "migrated"), 10);
}

#[test]
fn a_table_that_is_new_has_nothing_to_migrate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let room = cents::open(&path).unwrap();
    assert!(room.rows::<cents::Price>().unwrap().is_empty());
}

/// One turn of a room whose process begins with it.
fn turn<S: SyncServer + Default>(
    path: &Path,
    events: Vec<Event<'_, S::Action>>,
) -> Result<Turn<S>> {
    take(&mut Local::new(S::default()), path, events)
}

fn take<S: SyncServer>(
    room: &mut Local<S>,
    path: &Path,
    events: Vec<Event<'_, S::Action>>,
) -> Result<Turn<S>> {
    let db = Sqlite::open(path)?;
    let opening = || Opening { fresh_epoch: "epoch".into(), ..Opening::default() };
    room.turn(&db, Timestamp::from_millis(5_000), opening, events)
}

#[test]
fn a_large_table_takes_several_turns_that_the_alarm_leads_through_and_nobody_is_let_in() {
    let (_folder, path) = with_prices(5_000);
    let request = http::Request::new(());
    let mut turns = 0;
    loop {
        let connect = Event::Connect {
            wanted: None,
            fresh_id: "a".into(),
            protocol: Protocol::V2,
            request: &request,
        };
        let mut room = Local::new(cents::Server);
        let turn = take(&mut room, &path, vec![Event::Alarm, connect]).unwrap();
        let answer = block_on(room.answer(http::Request::new(Vec::new()))).response;
        assert!(turn.aborted.is_none());
        turns += 1;
        let of = |wanted: fn(&Effect<_>) -> bool| turn.effects.iter().filter(|e| wanted(e)).count();
        if !turn.reopens {
            assert_eq!(of(|effect| matches!(effect, Effect::Accept { .. })), 1);
            assert_eq!(answer.status(), 404);
            break;
        }
        // Each has done some, and no more than is its part.
        let done = count(&path, "migrated");
        assert!((turns * 1_000..turns * 1_300).contains(&done), "{done} in {turns} turns");
        assert_eq!(count(&path, "sqlite_master WHERE name = 'starts'"), 0, "it has not started");
        let refused = turn.effects.iter().find_map(|effect| match effect {
            Effect::Refuse { error, code, frame, .. } => Some((error.code(), *code, frame.clone())),
            _ => None,
        });
        let (code, close, frame) = refused.unwrap();
        assert_eq!((code, close), (Code::Unavailable, 4429));
        assert!(frame.unwrap().contains("brought up to date"));
        let alarm = |effect: &Effect<_>| matches!(effect, Effect::SetAlarm(Some(at)) if at.as_millis() == 5_000);
        assert_eq!(of(alarm), 1);
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    assert_eq!(turns, 5);
    assert_eq!(count(&path, "migrated"), 5_000);
    assert_eq!(count(&path, "prices WHERE cents = 150"), 5_000);
    assert_eq!(column(&path, "SELECT CAST(old AS TEXT) FROM starts"), ["0"]);
}

#[test]
fn the_application_s_alarm_is_set_again_and_sockets_of_an_earlier_life_come_again() {
    let (_folder, path) = with_prices(1_500);
    // Somebody who followed the room, and an alarm in a minute.
    let request = http::Request::new(());
    let (wanted, fresh_id) = (None, "page".to_owned());
    let connect = Event::Connect { wanted, fresh_id, protocol: Protocol::V2, request: &request };
    let before = turn::<euros::Server>(&path, vec![connect]).unwrap();
    let attachment = before.effects.into_iter().find_map(|effect| match effect {
        Effect::StoreAttachment { attachment, .. } => Some(attachment),
        _ => None,
    });
    let db = Sqlite::open(&path).unwrap();
    let sql: &dyn Sql = &db;
    sql.execute("UPDATE _partysync_meta SET alarm_at = 60000", params![]).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let sockets = vec![attachment.clone()];
        let opening = || Opening { fresh_epoch: "epoch".into(), sockets, ..Opening::default() };
        let now = Timestamp::from_millis(5_000);
        let turn = Local::new(cents::Server).turn(&db, now, opening, []).unwrap();
        for effect in turn.effects {
            match effect {
                Effect::Close { code, .. } => seen.push(format!("close {code}")),
                Effect::SetAlarm(at) => seen.push(format!("alarm {:?}", at.unwrap().as_millis())),
                _ => {}
            }
        }
    }
    assert_eq!(seen, ["close 4429", "alarm 5000", "close 1012", "alarm 60000"]);
}

app!(third, [version = 4, dropped = "euros"] {
    #[record(key)] pub(super) id: i64,
    #[record(default = 0)] pub(super) cents: i64,
    #[record(default = "")] pub(super) steps: String,
}
    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        let sql = room.sql();
        let note = "UPDATE prices SET steps = steps || ?";
        sql.execute(note, params![step.to().to_string()])?;
        if step.to() == 2 {
            sql.execute("UPDATE prices SET cents = round(euros * 100)", params![])?;
        }
        Ok(Migrated::Done)
    }
);

#[test]
fn a_room_that_slept_through_versions_takes_each_step() {
    let (_folder, path) = with_prices(3);
    let rows: Vec<third::Price> = third::open(&path).unwrap().rows().unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row.cents, row.steps.as_str())).collect();
    assert_eq!(shown, [(150, "234"); 3]);
    // One of the second version takes those that it lacks.
    let (_folder, path) = with_prices(3);
    drop(cents::open(&path).unwrap());
    let rows: Vec<third::Price> = third::open(&path).unwrap().rows().unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row.cents, row.steps.as_str())).collect();
    assert_eq!(shown, [(150, "34"); 3]);
}

app!(failing, [version = 2, dropped = "euros"] {
    #[record(key)] pub(super) id: i64,
    #[record(default = 0)] pub(super) cents: i64,
}
    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        let sql = room.sql();
        step.each(sql, 10, |id| {
            to_cents(sql, id)?;
            match id {
                Key::Integer(25) => Err(partysync::Error::reject("this one is odd")),
                _ => Ok(()),
            }
        })
    }
);

#[test]
fn a_batch_that_fails_is_taken_back_and_those_before_it_are_kept() {
    let (_folder, path) = with_prices(100);
    for _ in 0..2 {
        let error = refused(failing::open(&path));
        assert_eq!(error.code(), Code::Migration);
        for part in ["`prices`", "from version 1 to 2", "this one is odd"] {
            assert!(error.message().contains(part), "{error}");
        }
        assert_eq!(count(&path, "migrated"), 20);
        assert_eq!(count(&path, "prices WHERE cents = 150"), 20);
    }
    // What works goes on where it was.
    drop(cents::open(&path).unwrap());
    assert_eq!(count(&path, "migrated"), 100);
    assert_eq!(count(&path, "prices WHERE cents = 150"), 100);
}

app!(silent, [version = 2] {
    #[record(key)] pub(super) id: i64,
    pub(super) euros: f64,
});

#[test]
fn a_version_that_rises_without_code_is_refused_and_the_message_says_what_to_write() {
    let (_folder, path) = with_prices(2);
    let before = dump_schema(&path);
    let error = refused(silent::open(&path));
    assert_eq!(error.code(), Code::Migration);
    let wanted = "write it in `SyncServer::migrate`, for (\"prices\", 2)";
    assert!(error.message().contains(wanted), "{error}");
    assert_eq!(dump_schema(&path), before);
    // Nothing was written: the older code runs still.
    assert_eq!(euros::open(&path).unwrap().rows::<euros::Price>().unwrap().len(), 2);
}

app!(stuck, [version = 2] {
    #[record(key)] pub(super) id: i64,
    pub(super) euros: f64,
}
    fn migrate(&self, _: &mut Room<'_, Self>, _: &Migration) -> Result<Migrated> {
        Ok(Migrated::More(Key::from(7)))
    }
);

#[test]
fn a_migration_that_does_not_move_is_an_error() {
    let (_folder, path) = with_prices(2);
    let error = refused(stuck::open(&path));
    assert!(error.message().contains("its cursor is the same"), "{error}");
    // It has begun: code of the version before cannot know which rows are of which.
    let error = refused(euros::open(&path));
    assert!(error.message().contains("some of its rows are of version 2 already"), "{error}");
}

app!(compatible, [version = 3, compatible = 2] {
    #[record(key)] pub(super) id: i64,
    #[record(default = 0)] pub(super) cents: i64,
}
    fn migrate(&self, room: &mut Room<'_, Self>, _: &Migration) -> Result<Migrated> {
        room.sql().execute("UPDATE prices SET cents = cents + 1", params![])?;
        Ok(Migrated::Done)
    }
);

#[test]
fn a_rollback_is_refused_unless_the_newer_version_says_that_the_older_can_work_with_its_rows() {
    let (_folder, path) = with_prices(2);
    drop(cents::open(&path).unwrap());
    let before = dump_schema(&path);
    let error = refused(euros::open(&path));
    assert_eq!(error.code(), Code::Migration);
    assert!(error.message().contains("of version 2, and this code is of version 1"), "{error}");
    assert_eq!(dump_schema(&path), before);

    drop(compatible::open(&path).unwrap());
    // Back to the second, which is said to be compatible, and not to the first.
    let room = cents::open(&path).unwrap();
    room.sql().execute("INSERT INTO prices (id, cents) VALUES (9, 5)", params![]).unwrap();
    drop(room);
    assert!(refused(euros::open(&path)).message().contains("of version 3"));
    // And on again: nothing is migrated twice.
    let rows: Vec<compatible::Price> = compatible::open(&path).unwrap().rows().unwrap();
    assert_eq!(rows.iter().map(|row| row.cents).collect::<Vec<_>>(), [151, 151, 5]);
}

app!(served, [version = 2, compatible = 1] {
    #[record(key)] pub(super) id: i64,
    pub(super) euros: f64,
}
    fn migrate(&self, room: &mut Room<'_, Self>, _: &Migration) -> Result<Migrated> {
        room.sql().execute("UPDATE prices SET euros = 2.5 WHERE id = 0", params![])?;
        Ok(Migrated::Done)
    }
);

/// What a client of this record is told that has rows up to a version.
fn hello<R: Record, S: SyncServer>(room: &mut TestRoom<S>, since: u64) -> Vec<String> {
    room.connect("page", Protocol::V2).unwrap();
    let columns = serde_json::to_string(&R::SCHEMA.signature()).unwrap();
    let (hash, version) = (R::SCHEMA.hash(), R::SCHEMA.version);
    let hello = format!(
        r#"{{"type":"hello","client":"page","epoch":"epoch","channels":[{{"channel":"prices","since":{since},"schema":"{hash}","record":{version},"columns":{columns}}}]}}"#
    );
    room.frame("page", &hello).unwrap().into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_page_of_an_older_version_is_told_to_reload_unless_it_can_work_with_the_rows() {
    let (_folder, path) = with_prices(5);
    let mut room = served::open(&path).unwrap();
    // It has all five rows: of what the migration has changed it is sent the difference.
    let told = hello::<euros::Price, _>(&mut room, 5);
    assert!(told[1].contains(r#""from":5,"to":6,"rows":[[0,2.5]],"gone":[]"#), "{told:?}");
    let told = hello::<served::Price, _>(&mut served::open(&path).unwrap(), 5);
    assert!(told[1].contains(r#""rows":[[0,2.5]]"#), "{told:?}");

    let (_folder, path) = with_prices(5);
    let mut room = cents::open(&path).unwrap();
    for version in [1, 3] {
        let (columns, client) =
            (r#"["id:INTEGER:key","cents:INTEGER"]"#, &*format!("of-{version}"));
        room.connect(client, Protocol::V2).unwrap();
        let hello = format!(
            r#"{{"type":"hello","client":"{client}","epoch":null,"channels":[{{"channel":"prices","since":null,"schema":"0","record":{version},"columns":{columns}}}]}}"#
        );
        let told = room.frame(client, &hello).unwrap();
        assert_eq!(told.last().unwrap().1, "close 4409 schema_mismatch");
        assert!(
            told[0].1.contains(&format!(
                "rows of version 2 here, and the client is of version {version}"
            )),
            "{told:?}"
        );
    }
}

#[test]
fn a_page_of_a_record_that_is_no_more_is_told_to_reload() {
    let (_folder, path) = with_prices(1);
    let mut room = euros::open(&path).unwrap();
    room.connect("page", Protocol::V2).unwrap();
    let hello = r#"{"type":"hello","client":"page","epoch":null,"channels":[{"channel":"gone","since":null,"schema":"0"}]}"#;
    let told = room.frame("page", hello).unwrap();
    assert_eq!(told.last().unwrap().1, "close 4409 schema_mismatch");
    assert!(told[0].1.contains("there is no channel `gone` here"), "{told:?}");
}

/// A record that went, whose rows go into another.
mod moved {
    use super::*;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "offers", version = 2)]
    pub(super) struct Offer {
        #[record(key)]
        pub(super) name: String,
        #[record(default = 0.0)]
        pub(super) euros: f64,
    }

    #[derive(Action, Clone, Debug)]
    #[action(record = Offer)]
    pub(super) enum OfferAction {
        #[action(insert)]
        Create { name: String },
    }

    #[derive(Debug, Default)]
    pub(super) struct Server;

    impl SyncServer for Server {
        type Action = OfferAction;

        fn on_action(&self, room: &mut Room<'_, Self>, action: OfferAction) -> Result<()> {
            action.apply(room.sql())
        }

        fn migrate(&self, room: &mut Room<'_, Self>, _: &Migration) -> Result<Migrated> {
            let copy = "INSERT INTO offers (name, euros) SELECT 'price ' || id, euros FROM prices";
            room.sql().execute(copy, params![])?;
            Ok(Migrated::Done)
        }
    }
}

/// The same, before the rows are wanted.
mod before_moved {
    use super::*;

    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "offers")]
    pub(super) struct Offer {
        #[record(key)]
        pub(super) name: String,
    }

    #[derive(Action, Clone, Debug)]
    #[action(record = Offer)]
    pub(super) enum OfferAction {
        #[action(insert)]
        Create { name: String },
    }

    #[derive(Debug, Default)]
    pub(super) struct Server;

    impl SyncServer for Server {
        type Action = OfferAction;

        fn on_action(&self, room: &mut Room<'_, Self>, action: OfferAction) -> Result<()> {
            action.apply(room.sql())
        }
    }
}

#[test]
fn a_table_that_is_no_record_any_more_stays_and_may_be_migrated_from() {
    let (_folder, path) = with_prices(3);
    let open = |path: &Path| Sqlite::open(path).unwrap();
    drop(TestRoom::with(before_moved::Server, open(&path)).unwrap());
    assert_eq!(count(&path, "prices WHERE euros = 1.5"), 3);
    let room = TestRoom::with(moved::Server, open(&path)).unwrap();
    let offers: Vec<moved::Offer> = room.rows().unwrap();
    assert_eq!(offers.iter().map(|offer| offer.euros).collect::<Vec<_>>(), [1.5; 3]);
    drop(room);
    // It is there still, and is a record's again when there is one.
    assert_eq!(euros::open(&path).unwrap().rows::<euros::Price>().unwrap().len(), 3);
}

/// A key of each type.
mod keys {
    use super::*;

    macro_rules! keyed {
        ($module:ident, $key:ty, $version:literal) => {
            #[allow(dead_code)]
            pub(super) mod $module {
                use super::*;

                #[derive(Record, Clone, PartialEq, Debug)]
                #[record(table = "keyed", version = $version)]
                pub(in super::super) struct Keyed {
                    #[record(key)]
                    pub(in super::super) key: $key,
                    #[record(default = 0)]
                    pub(in super::super) times: i64,
                }

                #[derive(Action, Clone, Debug)]
                #[action(record = Keyed)]
                pub(in super::super) enum KeyedAction {
                    #[action(insert)]
                    Create { key: $key },
                }

                #[derive(Debug, Default)]
                pub(in super::super) struct Server;

                impl SyncServer for Server {
                    type Action = KeyedAction;

                    fn on_action(
                        &self,
                        room: &mut Room<'_, Self>,
                        action: KeyedAction,
                    ) -> Result<()> {
                        action.apply(room.sql())
                    }

                    fn migrate(
                        &self,
                        room: &mut Room<'_, Self>,
                        step: &Migration,
                    ) -> Result<Migrated> {
                        let sql = room.sql();
                        step.each(sql, 1, |key| {
                            let once = "UPDATE keyed SET times = times + 1 WHERE key = ?";
                            sql.execute(once, params![key]).map(drop)
                        })
                    }
                }
            }
        };
    }
    keyed!(text, String, 1);
    keyed!(text_next, String, 2);
    keyed!(integer, i64, 1);
    keyed!(integer_next, i64, 2);
    keyed!(bytes, Vec<u8>, 1);
    keyed!(bytes_next, Vec<u8>, 2);
}

#[test]
fn a_cursor_is_a_key_of_any_type() {
    macro_rules! migrates {
        ($now:ident, $next:ident, $keys:expr) => {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("room.sqlite");
            let mut room =
                TestRoom::with(keys::$now::Server, Sqlite::open(&path).unwrap()).unwrap();
            for key in $keys {
                room.act(keys::$now::KeyedAction::Create { key }).unwrap();
            }
            drop(room);
            let room = TestRoom::with(keys::$next::Server, Sqlite::open(&path).unwrap()).unwrap();
            let rows: Vec<keys::$next::Keyed> = room.rows().unwrap();
            assert_eq!(rows.len(), $keys.len());
            assert!(rows.iter().all(|row| row.times == 1), "{rows:?}");
        };
    }
    migrates!(text, text_next, ["", "a", "ü\u{1F980}"].map(str::to_owned));
    migrates!(integer, integer_next, [i64::MIN, -1, 0, i64::MAX - 1, i64::MAX]);
    migrates!(bytes, bytes_next, [vec![], vec![0], vec![0, 255], vec![255]]);
}

app!(renamed, [] {
    #[record(key)] pub(super) id: i64,
    #[record(default = 0.0)] pub(super) amount: f64,
});

#[test]
fn a_rename_that_nobody_wrote_down_is_told_to_whoever_runs_the_room() {
    let (_folder, path) = with_prices(1);
    let mut room = renamed::open(&path).unwrap();
    let logged = room.take_logged();
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains("say `renamed_from = \"euros\"`"), "{logged:?}");
    drop(room);
    assert_eq!(count(&path, "prices WHERE euros = 1.5"), 1);
    assert!(renamed::open(&path).unwrap().take_logged().is_empty());
}

app!(dated_euros, [] {
    #[record(key)] pub(super) id: i64,
    pub(super) euros: f64,
    #[record(updated_at)] pub(super) updated_at: Timestamp,
});

app!(dated_cents, [version = 2, dropped = "euros"] {
    #[record(key)] pub(super) id: i64,
    #[record(default = 0)] pub(super) cents: i64,
    #[record(updated_at)] pub(super) updated_at: Timestamp,
}
    fn migrate(&self, room: &mut Room<'_, Self>, step: &Migration) -> Result<Migrated> {
        let cents = "UPDATE prices SET cents = round(euros * 100)";
        room.sql().execute(cents, params![])?;
        let _ = step;
        Ok(Migrated::Done)
    }
);

#[test]
fn a_migration_is_no_edit_and_what_is_edited_later_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let mut room = dated_euros::open(&path).unwrap();
    room.advance_millis(5_000);
    room.act(dated_euros::PriceAction::Nothing).unwrap();
    room.sql().execute("INSERT INTO prices (id, euros) VALUES (1, 1.5)", params![]).unwrap();
    let edited = room.rows::<dated_euros::Price>().unwrap()[0].updated_at;
    let before = room.version();
    // The next version is deployed later.
    room.sql().execute("UPDATE _partysync_meta SET now = now + 9000", params![]).unwrap();
    drop(room);
    let now = |room: &TestRoom<dated_cents::Server>| {
        let found = room.rows::<dated_cents::Price>().unwrap().remove(0);
        (found.cents, found.updated_at)
    };
    let room = dated_cents::open(&path).unwrap();
    assert_eq!(now(&room), (150, edited));
    // It is a change that clients are sent.
    assert!(room.version() > before, "{} after {before}", room.version());
    room.sql().execute("UPDATE _partysync_meta SET now = now + 9000", params![]).unwrap();
    room.sql().execute("UPDATE prices SET cents = 200", params![]).unwrap();
    assert!(now(&room).1 > edited);
}
