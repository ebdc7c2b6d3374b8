//! What has to be done to a table, or why it cannot be done safely.

use super::refuse;
use super::stored::{Stored, StoredColumn};
use crate::Result;
use crate::record::{ColumnDef, Role, Schema};

pub(super) struct Plan<'a> {
    pub(super) schema: &'a Schema,
    /// The table's name before; `None` for a table that is to be made.
    pub(super) table: Option<&'a str>,
    /// Columns that get another name: from, to.
    pub(super) renames: Vec<(String, String)>,
    pub(super) drops: Vec<String>,
    pub(super) adds: Vec<StoredColumn>,
    pub(super) replaces: Vec<Replace>,
    pub(super) times: Vec<Time>,
    /// Columns, by the name they have before, in which no row may hold NULL.
    pub(super) without_null: Vec<String>,
    /// Whether a client may hold values of a column that is not that column any more.
    pub(super) rewrites: bool,
    /// What the table then looks like.
    pub(super) next: Stored,
    before: Option<Stored>,
}

/// A column whose NULL or default changes: another takes its place.
pub(super) struct Replace {
    pub(super) column: StoredColumn,
    /// What rows get that hold NULL, in SQL.
    pub(super) fill: Option<String>,
    /// Whether it refers to another table than before, or otherwise.
    pub(super) refers: bool,
}

/// A column that the framework sets, and has not set in rows that are there.
pub(super) struct Time {
    pub(super) name: &'static str,
    /// Whether clients may hold rows of it.
    pub(super) known: bool,
}

/// A column that was there, and what becomes of it.
struct Old<'a> {
    column: &'a StoredColumn,
    kept: bool,
    /// Whether a column of the type is this one.
    taken: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn create(schema: &'a Schema) -> Self {
        Self {
            schema,
            table: None,
            renames: Vec::new(),
            drops: Vec::new(),
            adds: Vec::new(),
            replaces: Vec::new(),
            times: Vec::new(),
            without_null: Vec::new(),
            rewrites: false,
            next: Stored::of(schema),
            before: None,
        }
    }

    /// From what the table `table` looked like to what the schema says. As long as rows of any table
    /// are to be migrated, columns that are dropped stay: what was in them may go elsewhere. `renamed`
    /// are the tables that get another name: from, to.
    pub(super) fn alter(
        schema: &'a Schema,
        table: &'a str,
        before: &Stored,
        (renamed, migrates): (&[(&str, &str)], bool),
    ) -> Result<Self> {
        check_version(schema, before)?;
        let mut plan = Self::create(schema);
        plan.table = Some(table);
        plan.before = Some(before.clone());
        let before = &before.after_renames(renamed);
        plan.next.version = before.version;
        if before.version != schema.version {
            plan.next.compatible = before.compatible;
        }
        plan.next.cursor.clone_from(&before.cursor);
        plan.next.names.clone_from(&before.names);
        if table != schema.table {
            plan.next.names.push(table.to_owned());
            plan.next.names.retain(|name| name != schema.table);
        }
        let known = before.columns.iter().map(|column| (column, false));
        let kept = before.kept.iter().map(|column| (column, true));
        let mut old: Vec<_> =
            known.chain(kept).map(|(column, kept)| Old { column, kept, taken: false }).collect();

        let is_dropped = |old: &Old<'_>| schema.dropped.iter().any(|n| same(n, &old.column.name));
        for old in old.iter().filter(|old| is_dropped(old)) {
            if old.column.key {
                return Err(refuse(schema, "its key cannot be dropped: use a new table"));
            }
            if migrates {
                plan.set_aside(old.column);
            } else {
                plan.drops.push(old.column.name.clone());
            }
        }
        old.retain(|old| !is_dropped(old));
        let gone = before.gone.iter().filter(|gone| !plan.drops.contains(gone));
        plan.next.gone = gone.chain(&plan.drops).cloned().collect();

        let sources = sources(schema, &mut old)?;
        let mut columns = Vec::new();
        let source = |source: &Option<usize>| source.and_then(|place| old.get(place));
        let key = sources.iter().take(schema.key().len()).filter_map(source);
        let key: Vec<_> = key.map(|old| old.column.name.as_str()).collect();
        let same_key = before.key().eq(key);
        for (column, source) in schema.columns.iter().zip(sources) {
            columns.push(match source.and_then(|place| old.get(place)) {
                Some(source) => plan.keep(column, source)?,
                None => plan.add(column)?,
            });
        }
        if !same_key {
            let key: Vec<_> = before.key().map(|name| format!("`{name}`")).collect();
            let why = format!(
                "its key changed, and was {}: use a new table and copy the rows over in `on_start`",
                key.join(", ")
            );
            return Err(refuse(schema, &why));
        }
        plan.next.columns = columns;
        // What the log holds of former values is of other columns.
        plan.rewrites |= !before.scope().eq(plan.next.scope());
        for old in old.iter().filter(|old| !old.taken) {
            plan.set_aside(old.column);
        }
        Ok(plan)
    }

    /// A column that is not in the type any more while another one is new: that may be a rename which
    /// nobody wrote down.
    pub(super) fn note(&self) -> Option<String> {
        let before = self.before.as_ref()?;
        let dropped = |kept: &StoredColumn| self.schema.dropped.iter().any(|n| same(n, &kept.name));
        let is_now_kept = |kept: &&StoredColumn| {
            before.columns.iter().any(|c| c.name == kept.name) && !dropped(kept)
        };
        let (new, kept) = self.adds.iter().find_map(|new| {
            let mut kept = self.next.kept.iter().filter(is_now_kept);
            Some((new, kept.find(|kept| kept.r#type == new.r#type)?))
        })?;
        let (table, new, kept) = (self.schema.table, &new.name, &kept.name);
        Some(format!(
            "column `{new}` of `{table}` is new, and `{kept}` is no field any more: it is kept, with \
             its values. If `{new}` is its name now, say `renamed_from = \"{kept}\"`"
        ))
    }

    /// What is checked of rows that was not before.
    pub(super) fn new_checks(&self) -> impl Iterator<Item = &'static str> {
        let before = self.before.as_ref().map(|before| &before.checks);
        let is_new = move |check: &&str| before.is_none_or(|b| !b.iter().any(|old| old == check));
        self.schema.checks.iter().copied().filter(is_new)
    }

    /// Whether there is anything to do.
    pub(super) fn changes(&self) -> bool {
        self.table != Some(self.schema.table) || self.before.as_ref() != Some(&self.next)
    }

    fn add(&mut self, column: &ColumnDef) -> Result<StoredColumn> {
        let name = column.name;
        let added = StoredColumn::of(column);
        if added.key {
            let why = format!(
                "column `{name}` cannot become the key of rows that are there: \
                 use a new table and copy the rows over in `on_start`"
            );
            return Err(refuse(self.schema, &why));
        }
        if !added.nullable && added.default.is_none() {
            // A reference has no default.
            let remedy = match column.references {
                Some(_) => "make it an `Option`",
                None => "give it `default = ...` or make it an `Option`",
            };
            let why = format!(
                "column `{name}` is new and the rows that are there would have nothing in it: {remedy}"
            );
            return Err(refuse(self.schema, &why));
        }
        // Clients that were there before it was dropped hold what it held then.
        let known = self.next.gone.iter().any(|gone| same(gone, name));
        self.next.gone.retain(|gone| !same(gone, name));
        self.rewrites |= known;
        if is_time(column) {
            self.times.push(Time { name, known });
        }
        self.adds.push(added.clone());
        Ok(added)
    }

    fn keep(&mut self, column: &ColumnDef, old: &Old<'_>) -> Result<StoredColumn> {
        let (schema, name, before) = (self.schema, column.name, old.column);
        let mut after = StoredColumn::of(column);
        after.was(before);
        if before.key != after.key {
            let why = format!(
                "the key changed at column `{name}`: \
                 use a new table and copy the rows over in `on_start`"
            );
            return Err(refuse(schema, &why));
        }
        if before.r#type != after.r#type {
            let (from, to) = (&before.r#type, &after.r#type);
            let kept =
                if old.kept { ", as another version of the application made it" } else { "" };
            let why = format!(
                "column `{name}` changed from {from} to {to}{kept}: \
                 add a column of the new type under another name, raise the record's `version`, and \
                 fill the column in `SyncServer::migrate`"
            );
            return Err(refuse(schema, &why));
        }
        if before.nullable && !after.nullable && after.default.is_none() {
            if !old.kept {
                let why = format!(
                    "column `{name}` no longer takes NULL, which rows may hold: \
                     give it `default = ...`, which those rows then get"
                );
                return Err(refuse(schema, &why));
            }
            self.without_null.push(before.name.clone());
        }
        let refers = before.references != after.references;
        if refers && after.key {
            let why = format!(
                "the key `{name}` cannot get, lose or change a reference: \
                 use a new table and copy the rows over in `on_start`"
            );
            return Err(refuse(schema, &why));
        }
        // A column that is NOT NULL and has no default can be made with its table only.
        let is_so = !before.takes_null() && before.default.is_none() && !refers;
        after.guarded = !after.nullable && after.default.is_none() && !is_so;
        if before.name != after.name {
            self.renames.push((before.name.clone(), after.name.clone()));
        }
        let other = (before.takes_null(), &before.default) != (after.takes_null(), &after.default);
        if other || refers {
            let fill = after.default.clone().filter(|_| before.nullable && !after.nullable);
            self.replaces.push(Replace { column: after.clone(), fill, refers });
        }
        let other = old.kept || !["", after.role.as_str()].contains(&before.role.as_str());
        if is_time(column) && other {
            self.times.push(Time { name, known: true });
        }
        Ok(after)
    }

    /// A column that the type has not stays as it is; inserts need not know of it.
    fn set_aside(&mut self, column: &StoredColumn) {
        let mut kept = StoredColumn {
            index: false,
            unique: false,
            scope: false,
            references: None,
            ..column.clone()
        };
        let refers = column.references.is_some();
        if !kept.nullable && kept.default.is_none() {
            kept.nullable = true;
            kept.guarded = false;
            if !column.takes_null() || refers {
                self.replaces.push(Replace { column: kept.clone(), fill: None, refers });
            }
        } else if refers {
            // No row is kept by a column that is in no type.
            self.replaces.push(Replace { column: kept.clone(), fill: None, refers });
        }
        self.next.kept.push(kept);
    }
}

/// Whether this code may work with rows of the version that is stored.
fn check_version(schema: &Schema, before: &Stored) -> Result<()> {
    let (own, stored) = (schema.version, before.version);
    if before.cursor.is_some() && own <= stored {
        let why = format!(
            "some of its rows are of version {} already, and this code is of version {own}: deploy \
             one that knows the later version, which migrates the others",
            stored.saturating_add(1)
        );
        return Err(refuse(schema, &why));
    }
    if own < stored && own < before.compatible {
        let why = format!(
            "its rows are of version {stored}, and this code is of version {own}: deploy one that \
             knows that version (which may say `compatible = {own}` if this one can work with \
             its rows)"
        );
        return Err(refuse(schema, &why));
    }
    Ok(())
}

/// For each column of the type the place of the old one that it is.
fn sources(schema: &Schema, old: &mut [Old<'_>]) -> Result<Vec<Option<usize>>> {
    let is_column = |name: &str| schema.columns.iter().any(|column| same(column.name, name));
    let mut sources = vec![None; schema.columns.len()];
    // By its name; by the name that it says it had.
    for (column, source) in schema.columns.iter().zip(&mut sources) {
        let name = column.name;
        *source = old.iter().position(|old| same(&old.column.name, name));
        let named = source.and_then(|place| old.get(place)).map(|old| old.column);
        for from in column.renamed_from {
            let Some(place) = old.iter().position(|old| same(&old.column.name, from)) else {
                continue;
            };
            match named {
                None if is_column(from) => {
                    let why = format!(
                        "column `{name}` is renamed from `{from}`, which is still a column: \
                         remove one of the two"
                    );
                    return Err(refuse(schema, &why));
                }
                None => *source = source.or(Some(place)),
                Some(named) if is_column(from) || named.names.iter().any(|n| same(n, from)) => {}
                Some(_) => {
                    let why = format!(
                        "column `{name}` is renamed from `{from}`, but both are there: remove \
                         `renamed_from`, and copy over in `on_start` what `{from}` still holds"
                    );
                    return Err(refuse(schema, &why));
                }
            }
        }
        if let Some(old) = source.and_then(|place| old.get_mut(place)) {
            old.taken = true;
        }
    }
    // By a name that it had: the code that renamed it was rolled back, or is here again.
    for (column, source) in schema.columns.iter().zip(&mut sources) {
        let had = |name: &String| {
            same(name, column.name) || column.renamed_from.iter().any(|from| same(name, from))
        };
        if source.is_none()
            && let Some((place, old)) = old.iter_mut().enumerate().find(|(_, old)| {
                let is_same_type = old.column.r#type == column.sql_type.name();
                !old.taken && is_same_type && old.column.names.iter().any(had)
            })
        {
            old.taken = true;
            *source = Some(place);
        }
    }
    Ok(sources)
}

fn is_time(column: &ColumnDef) -> bool {
    matches!(column.role, Role::CreatedAt | Role::UpdatedAt)
}

/// Whether SQLite takes the two for the same name.
fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}
