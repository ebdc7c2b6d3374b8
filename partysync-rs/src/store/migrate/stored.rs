//! What a table looked like when it was last migrated, as JSON in `_partysync_schema`.

use super::super::triggers::TRIGGERS;
use crate::Key;
use crate::constraint::{IndexDef, Reference};
use crate::record::{ColumnDef, Role, Schema, first_version, is_first_version};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
pub(super) struct Stored {
    /// Rises when the triggers' text changes.
    pub(super) triggers: u32,
    /// The version that the rows are of.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub(super) version: u32,
    /// The oldest version whose code can work with them.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub(super) compatible: u32,
    /// How far they are on the way to the next version, if that has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<Cursor>,
    /// The columns of the type.
    pub(super) columns: Vec<StoredColumn>,
    /// Indexes of several columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) indexes: Vec<StoredIndex>,
    /// What triggers check of each row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) checks: Vec<String>,
    /// Columns that another version of the application has and this one does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kept: Vec<StoredColumn>,
    /// Names of columns that were dropped and did not come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gone: Vec<String>,
    /// Other names that the table had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) names: Vec<String>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
pub(super) struct StoredIndex {
    columns: Vec<String>,
    unique: bool,
}

/// Whose key a column holds.
#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
pub(super) struct StoredReference {
    pub(super) table: String,
    /// [`OnDelete::name`](crate::OnDelete).
    pub(super) on_delete: String,
}

/// A [`Key`] in JSON.
#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cursor {
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
    Several(Vec<Cursor>),
}

impl From<&Key> for Cursor {
    fn from(key: &Key) -> Self {
        match key {
            Key::Integer(n) => Self::Integer(*n),
            Key::Text(text) => Self::Text(text.as_ref().to_owned()),
            Key::Blob(bytes) => Self::Blob(bytes.to_vec()),
            Key::Several(parts) => Self::Several(parts.iter().map(Self::from).collect()),
        }
    }
}

impl From<&Cursor> for Key {
    fn from(cursor: &Cursor) -> Self {
        match cursor {
            Cursor::Integer(n) => Self::Integer(*n),
            Cursor::Text(text) => Self::Text(text.as_str().into()),
            Cursor::Blob(bytes) => Self::Blob(bytes.as_slice().into()),
            Cursor::Several(parts) => Self::Several(parts.iter().map(Self::from).collect()),
        }
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
pub(super) struct StoredColumn {
    pub(super) name: String,
    /// [`SqlType::name`](crate::sql::SqlType::name).
    pub(super) r#type: String,
    /// Whether it takes NULL.
    pub(super) nullable: bool,
    pub(super) key: bool,
    /// In SQL.
    pub(super) default: Option<String>,
    pub(super) index: bool,
    pub(super) unique: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) references: Option<StoredReference>,
    /// Empty in what was stored before roles were.
    #[serde(default)]
    pub(super) role: String,
    /// Whether views may name it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) scope: bool,
    /// Whether triggers keep NULL out, as the column itself takes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) guarded: bool,
    /// Other names that the column had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) names: Vec<String>,
}

impl Stored {
    /// A table that is new.
    pub(super) fn of(schema: &Schema) -> Self {
        Self {
            triggers: TRIGGERS,
            version: schema.version,
            compatible: schema.compatible,
            cursor: None,
            columns: schema.columns.iter().map(StoredColumn::of).collect(),
            indexes: schema.indexes.iter().map(StoredIndex::of).collect(),
            checks: schema.checks.iter().map(|check| (*check).to_owned()).collect(),
            kept: Vec::new(),
            gone: Vec::new(),
            names: Vec::new(),
        }
    }

    /// The names of the key's columns.
    pub(super) fn key(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| column.key).map(|column| column.name.as_str())
    }

    /// The names of the columns that views may name.
    pub(super) fn scope(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| column.scope).map(|column| column.name.as_str())
    }

    /// The same, where tables that it refers to have other names now: from, to.
    pub(super) fn after_renames(&self, renamed: &[(&str, &str)]) -> Self {
        let mut after = self.clone();
        let columns = after.columns.iter_mut().chain(&mut after.kept);
        for reference in columns.filter_map(|column| column.references.as_mut()) {
            let now = renamed.iter().find(|(from, _)| *from == reference.table);
            if let Some((_, to)) = now {
                reference.table = (*to).to_owned();
            }
        }
        after
    }
}

impl StoredIndex {
    fn of(index: &IndexDef) -> Self {
        let columns = index.columns.iter().map(|name| (*name).to_owned()).collect();
        Self { columns, unique: index.unique }
    }
}

impl StoredReference {
    fn of(reference: &Reference) -> Self {
        let Reference { table, on_delete } = *reference;
        Self { table: table.to_owned(), on_delete: on_delete.name().to_owned() }
    }
}

impl StoredColumn {
    pub(super) fn of(column: &ColumnDef) -> Self {
        Self {
            name: column.name.to_owned(),
            r#type: column.sql_type.name().to_owned(),
            nullable: column.nullable,
            key: column.role == Role::Key,
            default: match column.role {
                // The triggers put the time in.
                Role::CreatedAt | Role::UpdatedAt => Some("0".to_owned()),
                _ => column.default.map(crate::record::Literal::ddl),
            },
            index: column.index,
            unique: column.unique,
            references: column.references.as_ref().map(StoredReference::of),
            role: column.role.name().to_owned(),
            scope: column.scope,
            guarded: false,
            names: Vec::new(),
        }
    }

    /// Whether the column itself takes NULL, whatever triggers say.
    pub(super) fn takes_null(&self) -> bool {
        self.nullable || self.guarded
    }

    /// Remembers another name of the column.
    pub(super) fn was(&mut self, before: &Self) {
        let names = before.names.iter().chain([&before.name]);
        self.names = names.filter(|name| **name != self.name).cloned().collect();
    }
}
