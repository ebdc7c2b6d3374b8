//! A record's table gets another name, or the record goes away.

use super::kept::column;
use super::*;

server!(tasks, "tasks", [renamed_from = "things"] {
    #[record(key)] pub(super) id: String,
    #[record(renamed_from = "title")] pub(super) name: String,
    #[record(unique)] pub(super) rank: i64,
    pub(super) note: Option<String>,
});
server!(forgotten, "tasks", [] {
    #[record(key)] pub(super) id: String,
    pub(super) name: String,
});
server!(cased, "Things", [renamed_from = "things"] {
    #[record(key)] pub(super) id: String,
    pub(super) title: String,
    pub(super) rank: i64,
    pub(super) note: Option<String>,
});

/// What the room knows of changes, and what is in the table.
fn known(path: &Path, channel: &str) -> (Vec<String>, Vec<String>) {
    // The log names a channel by the hash of its table's name.
    let id = |table: &str| {
        let hash = table
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        format!("WHEN {} THEN '{table}'", hash >> 1)
    };
    let names = ["things", "tasks", "Things"].map(id).join(" ");
    let changes = format!(
        "SELECT CASE channel {names} END || ' ' || key || ' ' || version
         FROM _partysync_change ORDER BY version"
    );
    (column(path, &changes), column(path, &format!("SELECT id FROM {channel} ORDER BY id")))
}

#[test]
fn a_table_moves_with_its_rows_and_what_is_known_of_its_changes() {
    let (_folder, path) = with_rows();
    first::open(&path).unwrap().act(first::ThingAction::Nothing).unwrap();
    let (changes, rows) = known(&path, "things");
    assert_eq!(rows, ["b"]);

    let room = tasks::open(&path).unwrap();
    let moved: Vec<_> = changes.iter().map(|change| change.replace("things", "tasks")).collect();
    assert_eq!(known(&path, "tasks"), (moved, rows.clone()));
    assert_eq!(room.rows::<tasks::Thing>().unwrap()[0].name, "B");
    // Triggers and indexes are those of the new name.
    let insert = "INSERT INTO tasks (id, name, rank) VALUES ('a', 'A', 2)";
    assert_eq!(room.sql().execute(insert, params![]).unwrap_err().code(), Code::Constraint);
    room.sql().execute(&insert.replace('2', "3"), params![]).unwrap();
    let noted = format!("tasks a {}", room.version() + 1);
    assert!(known(&path, "tasks").0.contains(&noted), "{noted}: {:?}", known(&path, "tasks"));
    let names = "SELECT name FROM sqlite_master WHERE name LIKE '%things%'";
    assert!(column(&path, names).is_empty());
    // Opened once more, nothing is left to do.
    drop(room);
    let before = dump_schema(&path);
    drop(tasks::open(&path).unwrap());
    assert_eq!(dump_schema(&path), before);
}

#[test]
fn a_table_that_was_renamed_is_found_by_the_older_application_and_by_the_newer_again() {
    let (_folder, path) = with_rows();
    drop(tasks::open(&path).unwrap());
    let rows = first::open(&path).unwrap().rows::<first::Thing>().unwrap();
    assert_eq!(rows.iter().map(|row| row.title.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(tasks::open(&path).unwrap().rows::<tasks::Thing>().unwrap().len(), 2);
}

#[test]
fn the_older_table_is_kept_where_renamed_from_was_forgotten_and_both_are_refused() {
    let (_folder, path) = with_rows();
    assert!(forgotten::open(&path).unwrap().rows::<forgotten::Thing>().unwrap().is_empty());
    assert_eq!(column(&path, "SELECT id FROM things ORDER BY id"), ["a", "b"]);
    let before = dump_schema(&path);
    let error = refused(tasks::open(&path));
    assert!(error.message().contains("table `tasks`"), "{error}");
    assert!(error.message().contains("`things`"), "{error}");
    assert!(error.message().contains("`on_start`"), "{error}");
    assert_eq!(dump_schema(&path), before);
}

#[test]
fn a_table_is_not_renamed_over_one_that_the_application_made() {
    let (_folder, path) = with_rows();
    let room = first::open(&path).unwrap();
    room.sql().execute("CREATE TABLE Tasks (id TEXT)", params![]).unwrap();
    drop(room);
    let error = refused(tasks::open(&path));
    assert!(error.message().contains("which this record did not make"), "{error}");
}

#[test]
fn a_table_whose_name_changes_in_case_only_moves_too() {
    let (_folder, path) = with_rows();
    assert_eq!(cased::open(&path).unwrap().rows::<cased::Thing>().unwrap().len(), 2);
    assert_eq!(first::open(&path).unwrap().rows::<first::Thing>().unwrap().len(), 2);
}

server!(others, "others", [] {
    #[record(key)] pub(super) id: String,
});

#[test]
fn the_table_of_a_record_that_went_away_is_kept() {
    let (_folder, path) = with_rows();
    drop(others::open(&path).unwrap());
    assert_eq!(first::open(&path).unwrap().rows::<first::Thing>().unwrap().len(), 2);
}
