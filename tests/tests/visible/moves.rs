//! Rows that come into views and leave them.

use super::*;

#[test]
fn nobody_is_told_of_what_they_do_not_see() {
    let mut world = World::new(server(own));
    world.run(&[
        &put("a", "ada"),
        &put("b", "bob"),
        "INSERT INTO users (name) VALUES ('ada'), ('bob')",
    ]);
    for who in ["ada", "bob", "eve"] {
        world.connect(who);
    }
    world.run(&[&put("a2", "ada"), "UPDATE notes SET text = 'ho' WHERE id = 'b'"]);
    world.run(&["UPDATE notes SET deleted_at = 1 WHERE id = 'b'"]);
    world.run(&["DELETE FROM notes WHERE id = 'a'", "UPDATE users SET visits = 1"]);
    world.run(&[
        "UPDATE notes SET id = 'a3' WHERE id = 'a2'",
        "DELETE FROM users WHERE name = 'bob'",
    ]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec!["a3".to_owned()], vec![]));
    assert_eq!(world.told("ada"), ["a", "a2", "a3", "ada"]);
    assert_eq!(world.told("bob"), ["b", "bob"]);
    assert_eq!(world.told("eve"), [] as [&str; 0]);
    assert_eq!(world.closed, BTreeMap::new());
}

#[test]
fn a_row_that_leaves_a_view_is_gone_and_one_that_enters_it_comes() {
    let mut world = World::new(server(own));
    world.connect("ada");
    world.connect("bob");
    world.run(&[&put("x", "ada")]);
    world.run(&["UPDATE notes SET owner = 'bob'"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec![], vec!["x".to_owned()]));
    // Written and moved in one statement each, of one action; and there and back.
    world.run(&["UPDATE notes SET owner = 'eve'", "UPDATE notes SET owner = 'ada'"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec!["x".to_owned()], vec![]));
    world.run(&["UPDATE notes SET owner = 'eve'", "UPDATE notes SET owner = 'ada', text = 'ho'"]);
    assert_eq!(world.notes("ada"), ["x"]);
    // In one that gives it its time itself, and one that does not.
    world.run(&["UPDATE notes SET owner = 'bob', updated_at = 7"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec![], vec!["x".to_owned()]));
    world.run(&["INSERT OR REPLACE INTO notes (id, owner, text) VALUES ('x', 'ada', 'new')"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec!["x".to_owned()], vec![]));
    // What moves when it is softly deleted was nobody's to see, and comes back to another.
    world.run(&["UPDATE notes SET deleted_at = 1"]);
    world.run(&["UPDATE notes SET owner = 'bob'"]);
    assert_eq!(world.notes("bob"), [] as [&str; 0]);
    world.run(&["UPDATE notes SET deleted_at = NULL"]);
    assert_eq!((world.notes("ada"), world.notes("bob")), (vec![], vec!["x".to_owned()]));
}

#[test]
fn who_was_away_hears_what_has_left_the_view_also_after_a_compaction() {
    let mut world = World::new(server(own));
    for who in ["ada", "bob"] {
        world.connect(who);
    }
    world.run(&[&put("x", "ada"), &put("y", "ada"), &put("z", "bob")]);
    world.leave("ada");
    world.run(&["UPDATE notes SET owner = 'bob' WHERE id = 'x'"]);
    world.run(&[
        "UPDATE notes SET owner = 'eve' WHERE id = 'z'",
        "DELETE FROM notes WHERE id = 'z'",
    ]);
    // So much more happens that the log is compacted.
    for n in 0..300 {
        world.run(&[&format!("UPDATE notes SET text = '{n}' WHERE id = 'x'")]);
    }
    let entries = "SELECT count(*) FROM _partysync_change";
    let count =
        |world: &World| world.room.sql().query_one(entries, [], |row| row.get::<i64>(0)).unwrap();
    assert!(count(&world) > 300);
    world.room.advance_millis(100);
    let sent = world.room.run_for(61_000).unwrap();
    world.take(sent);
    assert!(count(&world) < 20, "{}", count(&world));
    world.connect("ada");
    assert_eq!(world.notes("ada"), ["y"]);
    assert_eq!(world.told("ada"), ["x", "y"]);
}

#[test]
fn a_large_delta_says_what_is_gone_once_it_comes_to_it() {
    let (mut small, count) = (server(own), 40);
    small.page_bytes = 64;
    let mut world = World::new(small);
    let many = |sql: &str| -> Vec<String> {
        (0..count).map(|n| sql.replace('#', &format!("{n:02}"))).collect()
    };
    let run = |world: &mut World, sql: Vec<String>| {
        let sql: Vec<_> = sql.iter().map(String::as_str).collect();
        world.run(&sql);
    };
    world.connect("ada");
    run(&mut world, many("INSERT INTO notes (id, owner, text) VALUES ('x#', 'ada', 'hi')"));
    assert_eq!(world.notes("ada").len(), count);
    // Patches larger than a page, for one who is connected; and what is later is said of each key
    // behind what was before.
    run(&mut world, many("UPDATE notes SET owner = 'bob' WHERE id = 'x#' AND id > 'x19'"));
    assert_eq!(world.notes("ada").len(), 20);
    world.leave("ada");
    run(&mut world, many("UPDATE notes SET owner = 'bob' WHERE id = 'x#' AND id < 'x10'"));
    run(&mut world, many("UPDATE notes SET text = 'ho' WHERE id = 'x#'"));
    world.connect("ada");
    assert_eq!(world.notes("ada").len(), 10);
    // Nobody else's were named.
    run(&mut world, many("INSERT INTO notes (id, owner, text) VALUES ('y#', 'bob', 'hi')"));
    run(&mut world, many("UPDATE notes SET deleted_at = 1 WHERE id = 'y#'"));
    assert!(world.told("ada").iter().all(|key| key.starts_with('x')));
    let total = world.frames.iter().filter(|(_, frame)| frame["type"] == "catch_up");
    assert!(
        total.filter_map(|(_, frame)| frame["total"].as_u64()).all(|total| total <= count as u64)
    );
}

#[test]
fn rows_that_move_while_a_snapshot_is_read_are_where_they_belong_in_the_end() {
    let mut small = server(own);
    small.page_bytes = 64;
    let mut world = World::new(small);
    let rows: Vec<_> = (0..30).map(|n| put(&format!("x{n:02}"), "ada")).collect();
    world.run(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    // It is sent a window, and reads no more until rows have moved.
    world.connect_as("ada", Protocol::V2).unwrap();
    let channel = |schema: &&partysync::Schema| json!({"channel": schema.table, "since": null, "schema": schema.hash()});
    let channels: Vec<_> = Any::CHANNELS.iter().map(channel).collect();
    let hello = json!({"type": "hello", "client": "ada", "epoch": null, "channels": channels});
    let first = world.room.frame("ada", &hello.to_string()).unwrap();
    assert!(!first.iter().any(|(_, text)| text.contains("x29")));
    world.run(&["UPDATE notes SET owner = 'bob' WHERE id IN ('x00', 'x29')", &put("x99", "ada")]);
    world.take(first);
    let notes = world.notes("ada");
    assert_eq!(notes.len(), 29, "{notes:?}");
    assert!(notes.contains(&"x99".to_owned()) && !notes.contains(&"x00".to_owned()));
}

#[test]
fn what_was_forgotten_has_a_client_start_over() {
    let short = Server { retention_ms: 1_000, ..server(own) };
    let mut world = World::new(short);
    world.connect("ada");
    world.run(&[&put("x", "ada"), &put("y", "ada")]);
    world.leave("ada");
    world.run(&["UPDATE notes SET owner = 'bob' WHERE id = 'x'"]);
    world.forget();
    world.run(&[&put("z", "bob")]);
    let left = "SELECT count(old) FROM _partysync_change";
    let left = world.room.sql().query_one(left, [], |row| row.get::<i64>(0)).unwrap();
    assert_eq!(left, 0);
    world.connect("ada");
    let resets = world.frames.iter().filter(|(_, frame)| frame["type"] == "reset").count();
    assert_eq!((resets, world.notes("ada")), (1, vec!["y".to_owned()]));
}

#[test]
fn a_column_that_becomes_scope_has_all_start_over() {
    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    struct Before {
        #[record(key)]
        id: String,
        owner: String,
    }
    #[derive(Record, Clone, PartialEq, Debug)]
    #[record(table = "notes")]
    struct After {
        #[record(key)]
        id: String,
        #[record(scope)]
        owner: String,
    }
    by_sql!(BeforeAction, Before);
    by_sql!(AfterAction, After);
    struct Plain;
    impl SyncServer for Plain {
        type Action = BeforeAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: BeforeAction) -> Result<()> {
            let BeforeAction::Run { sql } = action;
            sql.iter().try_for_each(|sql| room.sql().exec(sql, &[]))
        }
    }
    struct Scoped;
    impl SyncServer for Scoped {
        type Action = AfterAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: AfterAction) -> Result<()> {
            let AfterAction::Run { sql } = action;
            sql.iter().try_for_each(|sql| room.sql().exec(sql, &[]))
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let old = |sql: &dyn Sql| {
        let columns =
            "SELECT count(*) FROM pragma_table_info('_partysync_change') WHERE name = 'old'";
        let trimmed = "SELECT trimmed_to FROM _partysync_meta";
        let one = |query: &str| sql.query_one(query, [], |row| row.get::<i64>(0)).unwrap();
        (one(columns), one(trimmed))
    };
    let insert = vec!["INSERT INTO notes (id, owner) VALUES ('a', 'ada')".to_owned()];
    {
        let mut room = TestRoom::with(Plain, Sqlite::open(file.path()).unwrap()).unwrap();
        room.act(BeforeAction::Run { sql: insert }).unwrap();
        // Who has no such columns pays nothing.
        assert_eq!(old(room.sql()), (0, 0));
    }
    for _ in 0..2 {
        let mut room = TestRoom::with(Scoped, Sqlite::open(file.path()).unwrap()).unwrap();
        let (column, trimmed) = old(room.sql());
        assert_eq!((column, trimmed), (1, 2));
        room.act(AfterAction::Run { sql: vec!["UPDATE notes SET owner = 'bob'".into()] }).unwrap();
    }
}
