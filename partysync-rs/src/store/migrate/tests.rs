//! Migrations without a room: whose clients have to start over, what was stored by earlier
//! versions of this crate, and any sequence of schemas.

#![cfg(feature = "sqlite")]

use super::migrate;
use crate::record::{ColumnDef, Literal, Role, RowCheck, Schema};
use crate::sql::{Sql, SqlType, Sqlite, Value};
use crate::{Code, Record, Timestamp, params};
use proptest::prelude::*;
use std::collections::BTreeMap;

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
        "CREATE TABLE _partysync_change (version INTEGER PRIMARY KEY, channel, key, at)",
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

#[test]
fn one_table_does_not_become_two() {
    macro_rules! of {
        ($record:ident, $table:literal) => {
            #[derive(Record, Clone)]
            #[record(table = $table, renamed_from = "things")]
            #[allow(dead_code)]
            struct $record {
                #[record(key)]
                id: String,
            }
        };
    }
    of!(Tasks, "tasks");
    of!(Jobs, "jobs");
    let db = database();
    rewritten::<first::Thing>(&db);
    let error = migrate(&[Tasks::SCHEMA, Jobs::SCHEMA], &db).unwrap_err();
    assert!(error.message().contains("`jobs`: `tasks` is renamed from `things`, too"), "{error}");
    // Nor when both are names that it had.
    rewritten::<Tasks>(&db);
    rewritten::<Jobs>(&db);
    rewritten::<first::Thing>(&db);
    run(&db, "INSERT INTO things (id) VALUES ('a')");
    let fresh = |schema: &Schema| Schema { renamed_from: &[], ..*schema };
    let (tasks, jobs) = (fresh(Tasks::SCHEMA), fresh(Jobs::SCHEMA));
    migrate(&[&tasks, &jobs], &db).unwrap();
    let rows = |table: &str| {
        let count = format!("SELECT count(*) FROM {table}");
        (&db as &dyn Sql).query_one(&count, [], |row| row.get::<i64>(0)).unwrap()
    };
    assert_eq!((rows("tasks"), rows("jobs")), (1, 0));
}

#[test]
fn a_table_that_an_earlier_version_of_the_crate_made_goes_on() {
    let db = database();
    run(&db, "CREATE TABLE things (id TEXT NOT NULL PRIMARY KEY, note TEXT) STRICT");
    run(&db, "CREATE UNIQUE INDEX _partysync_things_note_unique ON things (note)");
    run(&db, "INSERT INTO things VALUES ('a', 'x')");
    let column = |name: &str, key: bool| {
        format!(
            r#"{{"name":"{name}","type":"TEXT","nullable":{},"key":{key},"default":null,"index":false,"unique":{}}}"#,
            !key, !key
        )
    };
    let json =
        format!(r#"{{"triggers":1,"columns":[{},{}]}}"#, column("id", true), column("note", false));
    (&db as &dyn Sql)
        .execute("INSERT INTO _partysync_schema VALUES ('things', ?)", params![json])
        .unwrap();
    assert!(rewritten::<first::Thing>(&db).is_empty());
    let made = "SELECT name FROM sqlite_master WHERE name LIKE '%unique%'";
    assert!((&db as &dyn Sql).query_map(made, [], |row| row.get::<String>(0)).unwrap().is_empty());
    run(&db, "INSERT INTO things VALUES ('b', 'x')");
}

/// One of a few columns, in one of its forms.
fn any_column(name: &'static str) -> impl Strategy<Value = ColumnDef> {
    let default = prop_oneof![Just(None), Just(Some(Literal::Integer(7)))];
    (any::<[bool; 3]>(), default).prop_map(move |([nullable, index, text], default)| ColumnDef {
        name,
        // Mostly a type that stays.
        sql_type: if text && index { SqlType::Text } else { SqlType::Integer },
        nullable,
        role: Role::Plain,
        default: default.filter(|_| !(text && index)),
        index,
        unique: false,
        references: None,
        renamed_from: &[],
        scope: false,
    })
}

/// A schema with some of the columns, which may drop the others.
fn any_schema() -> impl Strategy<Value = Schema> {
    let key = ColumnDef {
        name: "id",
        sql_type: SqlType::Text,
        nullable: false,
        role: Role::Key,
        default: None,
        index: false,
        unique: false,
        references: None,
        renamed_from: &[],
        scope: false,
    };
    let some = (any_column("a"), any_column("b"), any_column("c"), any::<[bool; 3]>(), 0..8_u8);
    some.prop_map(move |(a, b, c, there, dropping)| {
        let (mut columns, mut dropped) = (vec![ColumnDef { ..key }], Vec::new());
        for (column, there) in [a, b, c].into_iter().zip(there) {
            if there {
                columns.push(column);
            } else if dropping == 0 {
                dropped.push(column.name);
            }
        }
        Schema {
            table: "things",
            renamed_from: &[],
            dropped: dropped.leak(),
            version: 1,
            compatible: 1,
            columns: columns.leak(),
            indexes: &[],
            checks: &[],
            check: RowCheck(|_| Ok(())),
        }
    })
}

type Rows = BTreeMap<String, BTreeMap<&'static str, Value>>;

/// All that the database says.
fn dump(db: &Sqlite) -> Vec<String> {
    let sql = "SELECT coalesce(sql, name) FROM sqlite_master UNION ALL SELECT columns FROM _partysync_schema";
    (db as &dyn Sql).query_map(sql, [], |row| row.get(0)).unwrap()
}

fn literal_of(column: &ColumnDef) -> Option<Value> {
    column.default.map(|_| Value::Integer(7))
}

proptest! {
    #[test]
    fn any_sequence_of_schemas_keeps_the_values_or_is_refused(
        schemas in proptest::collection::vec(any_schema(), 1..12),
    ) {
        let db = database();
        let sql: &dyn Sql = &db;
        let mut rows = Rows::new();
        for (n, schema) in schemas.iter().enumerate() {
            let before = dump(&db);
            let mut migrated = None;
            let result = db.transaction(&mut || {
                migrated = Some(migrate(&[schema], &db)?);
                Ok(())
            });
            if let Err(error) = result {
                prop_assert_eq!(error.code(), Code::Migration);
                prop_assert!(error.message().contains("column `"), "{}", error);
                prop_assert_eq!(dump(&db), before);
                continue;
            }
            // What is dropped is gone; NULL becomes the default where it has to.
            let mut filled = false;
            for row in rows.values_mut() {
                row.retain(|name, _| !schema.dropped.contains(name));
                for column in schema.columns.iter().skip(1) {
                    let cell = row.entry(column.name).or_insert(literal_of(column).unwrap_or(Value::Null));
                    if *cell == Value::Null && !column.nullable {
                        *cell = literal_of(column).expect("a refusal");
                        filled = true;
                    }
                }
            }
            let told = migrated.unwrap().rewritten == ["things"];
            prop_assert!(told || !filled, "nobody is told");
            for (id, row) in &rows {
                for (name, cell) in row {
                    let value = format!("SELECT quote({name}) = quote(?) FROM things WHERE id = ?");
                    let same = sql.query_one(&value, [cell.clone(), Value::from(id.as_str())], |row| row.get::<bool>(0));
                    prop_assert!(same.unwrap(), "{} of {} is not {:?}", name, id, cell);
                }
            }
            // A second time there is nothing to do.
            let after = dump(&db);
            prop_assert!(migrate(&[schema], &db).unwrap().rewritten.is_empty());
            prop_assert_eq!(dump(&db), after);
            // Each column takes what the schema says, and nothing else.
            for column in schema.columns.iter().skip(1) {
                let mut names = vec!["id"];
                let needed = |c: &&ColumnDef| c.name != column.name && !c.nullable;
                names.extend(schema.columns.iter().skip(1).filter(needed).map(|c| c.name));
                let text = |name: &&str| schema.columns.iter().any(|c| c.name == *name && c.sql_type == SqlType::Text);
                let values: Vec<_> = names.iter().map(|name| if *name == "id" { "'x'" } else if text(name) { "'t'" } else { "3" }).collect();
                let insert = |more: &str, value: &str| {
                    sql.execute(&format!("INSERT INTO things ({}{more}) VALUES ({}{value})", names.join(","), values.join(",")), [])
                };
                let omitted = insert("", "");
                prop_assert_eq!(omitted.is_ok(), column.nullable || column.default.is_some(), "{:?}", column);
                sql.execute("DELETE FROM things WHERE id = 'x'", []).unwrap();
                let null = insert(&format!(",{}", column.name), ",NULL");
                prop_assert_eq!(null.is_ok(), column.nullable, "{:?}", column);
                sql.execute("DELETE FROM things WHERE id = 'x'", []).unwrap();
            }
            // A row of this schema, with what the kept columns get by themselves.
            let id = format!("row{n}");
            let mut row = BTreeMap::new();
            let (mut names, mut values) = (vec!["id"], vec![Value::from(id.as_str())]);
            for column in schema.columns.iter().skip(1) {
                let value = match column.sql_type {
                    SqlType::Text => Value::from("t"),
                    _ => Value::Integer(n as i64),
                };
                names.push(column.name);
                values.push(value.clone());
                row.insert(column.name, value);
            }
            let holders = vec!["?"; names.len()].join(",");
            sql.execute(&format!("INSERT INTO things ({}) VALUES ({holders})", names.join(",")), values).unwrap();
            for name in ["a", "b", "c"] {
                if row.contains_key(name) || !rows.values().chain([&row]).any(|row| row.contains_key(name)) {
                    continue;
                }
                let cell = sql.query_one(&format!("SELECT {name} FROM things WHERE id = ?"), params![id], |row| row.get::<Option<i64>>(0));
                row.insert(name, cell.unwrap().map_or(Value::Null, Value::Integer));
            }
            rows.insert(id, row);
        }
    }
}
