//! Carries a plan out.

use super::super::keys::Keys;
use super::super::triggers::triggers;
use super::ddl::{OWN, breaking, checks, column_ddl, create_table, guards, indexes};
use super::plan::{Plan, Replace};
use super::stored::{StoredColumn, StoredReference};
use super::{refuse, renamed};
use crate::sql::{Row, Sql, quote};
use crate::{Code, Result, params};

/// What a Durable Object takes.
const MAX_COLUMNS: usize = 100;
/// So many rows are named that do not fit.
const NAMED: i64 = 5;
/// The name of a column until it takes another's place.
const NEW: &str = "_partysync_new";

/// What only the database can tell, before the first change.
pub(super) fn check(plan: &Plan<'_>, sql: &dyn Sql) -> Result<()> {
    let schema = plan.schema;
    let Some(table) = plan.table else { return check_free(plan, sql) };
    if !table.eq_ignore_ascii_case(schema.table) {
        check_free(plan, sql)?;
    }
    for column in &plan.without_null {
        let (table, name) = (quote(table), quote(column));
        let query = format!("SELECT count(*) FROM {table} WHERE {name} IS NULL");
        let rows: i64 = sql.query_one(&query, [], |row| row.get(0))?;
        if rows > 0 {
            let why = format!(
                "column `{column}` does not take NULL, but {rows} rows hold it, which were \
                 inserted by a version of the application that does not know the column: \
                 give it `default = ...`, which those rows then get"
            );
            return Err(refuse(schema, &why));
        }
    }
    let now = sql.query_map(&format!("PRAGMA table_info({})", quote(table)), [], |_| Ok(()))?;
    let at_once = plan.adds.len() + usize::from(!plan.replaces.is_empty());
    let columns = (now.len() + at_once).saturating_sub(plan.drops.len());
    if at_once > 0 && columns > MAX_COLUMNS {
        let kept: Vec<_> = plan.next.kept.iter().map(|c| format!("`{}`", c.name)).collect();
        let remedy = if kept.is_empty() {
            "move some to a table of their own".to_owned()
        } else {
            format!(
                "{} are kept for other versions of the application: drop what none needs with \
                 `#[record(dropped = \"...\")]`",
                kept.join(", ")
            )
        };
        let why = format!(
            "it would have {columns} columns, if only until the migration is done, and a Durable \
             Object takes {MAX_COLUMNS} columns: {remedy}"
        );
        return Err(refuse(schema, &why));
    }
    Ok(())
}

/// That no table has the name which this one gets.
fn check_free(plan: &Plan<'_>, sql: &dyn Sql) -> Result<()> {
    let found = sql.query_opt(
        "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE",
        params![plan.schema.table.to_owned()],
        |row| row.get::<i64>(0),
    )?;
    if found.is_none() {
        return Ok(());
    }
    Err(refuse(
        plan.schema,
        "there is a table of that name which this record did not make: \
         rename that table, and copy its rows over in `on_start`",
    ))
}

/// Gives a table its name.
pub(super) fn rename(plan: &Plan<'_>, sql: &dyn Sql) -> Result<()> {
    let renamed = plan.table.filter(|before| *before != plan.schema.table);
    renamed.map_or(Ok(()), |before| Steps { plan, sql }.rename(before))
}

/// Does all of it, with the table's name as it is to be; whether values changed that clients may hold.
pub(super) fn run(plan: &Plan<'_>, sql: &dyn Sql) -> Result<bool> {
    let steps = Steps { plan, sql };
    let mut rewritten = plan.rewrites;
    match plan.table {
        None => steps.run(&create_table(plan.schema, &plan.next.columns))?,
        Some(_) => rewritten |= steps.alter()?,
    }
    let there = steps.made("index")?;
    for index in indexes(plan.schema) {
        if !there.iter().any(|(_, sql)| *sql == index) {
            steps.run(&index)?;
        }
    }
    for trigger in triggers(plan.schema)? {
        steps.run(&trigger)?;
    }
    for column in plan.next.columns.iter().filter(|column| column.guarded) {
        for guard in guards(plan.schema, column) {
            steps.run(&guard)?;
        }
    }
    for check in plan.new_checks() {
        steps.look(check)?;
    }
    for trigger in checks(plan.schema) {
        steps.run(&trigger)?;
    }
    Ok(rewritten)
}

struct Steps<'a> {
    plan: &'a Plan<'a>,
    sql: &'a dyn Sql,
}

impl Steps<'_> {
    fn run(&self, statement: &str) -> Result<()> {
        self.change(statement).map(drop)
    }

    /// How many rows a statement changed.
    fn change(&self, statement: &str) -> Result<u64> {
        self.sql.execute(statement, []).map_err(|error| {
            if error.code() == Code::Storage {
                return error;
            }
            let message = error.message();
            let remedy = if error.code() == Code::Constraint && message.contains("UNIQUE") {
                ": two rows hold the same value where `unique` was added: make the values differ first"
            } else {
                ""
            };
            refuse(self.plan.schema, &format!("{message}{remedy}"))
        })
    }

    /// The name and the SQL of what the framework made for this table.
    fn made(&self, kind: &str) -> Result<Vec<(String, String)>> {
        self.sql.query_map(
            "SELECT name, sql FROM sqlite_master WHERE type = ? AND tbl_name = ? COLLATE NOCASE
             AND substr(name, 1, length(?)) = ? AND sql IS NOT NULL",
            params![kind, self.plan.schema.table, OWN, OWN],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    fn rename(&self, before: &str) -> Result<()> {
        let (mut from, table) = (quote(before), self.plan.schema.quoted());
        // SQLite takes a name in other case for the same.
        if before.eq_ignore_ascii_case(self.plan.schema.table) {
            let aside = quote("_partysync_renamed");
            self.run(&format!("ALTER TABLE {from} RENAME TO {aside}"))?;
            from = aside;
        }
        self.run(&format!("ALTER TABLE {from} RENAME TO {table}"))?;
        renamed(before, self.plan.schema.table, self.sql)
    }

    /// Looks whether all rows are as an expression says, and whether it is one.
    fn look(&self, check: &str) -> Result<()> {
        let schema = self.plan.schema;
        let (some, count) = self.some(&breaking(schema, check)).map_err(|error| {
            let why = format!("`check = \"{check}\"` is no expression of its columns: {error}");
            if error.code() == Code::Storage { error } else { refuse(schema, &why) }
        })?;
        if count == 0 {
            return Ok(());
        }
        let why = format!(
            "`check = \"{check}\"` does not hold of {some}: change the rows first, by a version of \
             the application without the check"
        );
        Err(refuse(schema, &why))
    }

    /// Looks whether what a column holds are keys of the table that it refers to.
    fn look_for(&self, column: &StoredColumn) -> Result<()> {
        let (schema, name) = (self.plan.schema, &column.name);
        let Some(StoredReference { table, .. }) = &column.references else { return Ok(()) };
        let other = quote(table);
        let columns = format!("PRAGMA table_info({other})");
        let read = |row: &Row<'_>| Ok((row.get::<String>(1)?, row.get::<i64>(5)?));
        let columns = self.sql.query_map(&columns, [], read)?;
        let Some((to, _)) = columns.iter().find(|(_, place)| *place == 1) else { return Ok(()) };
        let (own, key, from, to) =
            (schema.quoted(), Keys::of(schema).told("a"), quote(name), quote(to));
        let (some, count) = self.some(&format!(
            "SELECT {key} FROM {own} AS a WHERE a.{from} IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM {other} AS b WHERE b.{to} = a.{from})"
        ))?;
        if count == 0 {
            return Ok(());
        }
        let why = format!(
            "column `{name}` references `{table}`, which has no rows for {some}: delete those rows, or \
             put the keys of others into them, by a version of the application without the reference"
        );
        Err(refuse(schema, &why))
    }

    /// The first of these rows, in words, and how many there are.
    fn some(&self, rows: &str) -> Result<(String, i64)> {
        let count = format!("SELECT count(*) FROM ({rows})");
        let count = self.sql.query_one(&count, [], |row| row.get::<i64>(0))?;
        let keys = format!("{rows} ORDER BY 1 LIMIT {NAMED}");
        let keys = self.sql.query_map(&keys, [], |row| row.get::<String>(0))?;
        let (keys, more) = (keys.join(", "), count.saturating_sub(NAMED));
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Ok((format!("the rows {keys}{more}"), count))
    }

    /// From the table as it was; whether values changed that clients may hold.
    fn alter(&self) -> Result<bool> {
        let (plan, table) = (self.plan, self.plan.schema.quoted());
        for (name, _) in self.made("trigger")? {
            self.run(&format!("DROP TRIGGER {}", quote(&name)))?;
        }
        for (from, to) in &plan.renames {
            let (from, to) = (quote(from), quote(to));
            self.run(&format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}"))?;
        }
        let wanted = indexes(plan.schema);
        for (name, sql) in self.made("index")? {
            if !wanted.contains(&sql) || self.is_touched(&sql) {
                self.run(&format!("DROP INDEX {}", quote(&name)))?;
            }
        }
        for column in &plan.drops {
            self.run(&format!("ALTER TABLE {table} DROP COLUMN {}", quote(column)))?;
        }
        for column in &plan.adds {
            let ddl = column_ddl(&column.name, column, "");
            self.run(&format!("ALTER TABLE {table} ADD COLUMN {ddl}"))?;
        }
        self.rewrite()
    }

    /// Whether the SQL of an index may name a column that is replaced.
    fn is_touched(&self, sql: &str) -> bool {
        let sql = sql.to_ascii_lowercase();
        let mut names = self.plan.replaces.iter().map(|r| r.column.name.to_ascii_lowercase());
        names.any(|name| sql.contains(&name))
    }

    /// All that writes rows. What the application has built on the table is taken away for so
    /// long: its triggers are not for migrations, and SQLite drops no column that is named.
    fn rewrite(&self) -> Result<bool> {
        if self.plan.replaces.is_empty() && self.plan.times.is_empty() {
            return Ok(false);
        }
        let own = self.applications_own()?;
        for (kind, name, _) in own.iter().rev() {
            self.run(&format!("DROP {kind} {}", quote(name)))?;
        }
        let mut rewritten = false;
        for replace in &self.plan.replaces {
            rewritten |= self.replace(replace)?;
        }
        for time in &self.plan.times {
            let (table, name) = (self.plan.schema.quoted(), quote(time.name));
            let rows = self.change(&format!(
                "UPDATE {table} SET {name} = (SELECT now FROM _partysync_meta) WHERE {name} = 0"
            ))?;
            rewritten |= time.known && rows > 0;
        }
        for (_, _, sql) in &own {
            self.run(sql)?;
        }
        Ok(rewritten)
    }

    /// The application's views, indexes and triggers, in the order in which they can be made:
    /// kind, name, SQL. A view or trigger on another table may name this one.
    fn applications_own(&self) -> Result<Vec<(String, String, String)>> {
        let mut own = self.sql.query_map(
            "SELECT upper(type), name, sql FROM sqlite_master WHERE sql IS NOT NULL
             AND substr(name, 1, length(?)) <> ? AND (type IN ('view', 'trigger')
               OR type = 'index' AND tbl_name = ? COLLATE NOCASE)
             ORDER BY type = 'trigger', type = 'index', rowid",
            params![OWN, OWN, self.plan.schema.table],
            |row| Ok((row.get::<String>(0)?, row.get(1)?, row.get::<String>(2)?)),
        )?;
        own.retain(|(kind, _, sql)| kind != "INDEX" || self.is_touched(sql));
        Ok(own)
    }

    /// Puts a column in another's place; whether rows that held NULL now hold something.
    fn replace(&self, replace: &Replace) -> Result<bool> {
        let (table, name, new) =
            (self.plan.schema.quoted(), quote(&replace.column.name), quote(NEW));
        let mut filled = false;
        if replace.fill.is_some() {
            let query = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {name} IS NULL)");
            filled = self.sql.query_one(&query, [], |row| row.get::<bool>(0))?;
        }
        if replace.refers {
            self.look_for(&replace.column)?;
        }
        let ddl = column_ddl(NEW, &replace.column, "");
        // What is NULL gets the new column's default where it has to.
        let kept =
            if replace.fill.is_some() { format!("{name} IS NOT NULL AND ") } else { String::new() };
        for statement in [
            format!("ALTER TABLE {table} ADD COLUMN {ddl}"),
            format!("UPDATE {table} SET {new} = {name} WHERE {kept}{name} IS NOT {new}"),
            format!("ALTER TABLE {table} DROP COLUMN {name}"),
            format!("ALTER TABLE {table} RENAME COLUMN {new} TO {name}"),
        ] {
            self.run(&statement)?;
        }
        Ok(filled)
    }
}
