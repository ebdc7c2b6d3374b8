//! What a table says of its rows beside their columns: references to other tables, indexes of
//! several columns.

use crate::sql::quote;

/// A column that holds the key of a row of another table, or of its own.
///
/// ```
/// use partysync::{OnDelete, Record};
///
/// #[derive(Record, Clone)]
/// #[record(table = "comments")]
/// struct Comment {
///     #[record(key)]
///     id: String,
///     #[record(references = "cards", on_delete = "cascade", index)]
///     card: String,
/// }
///
/// let reference = Comment::SCHEMA.columns[1].references.unwrap();
/// assert_eq!((reference.table, reference.on_delete), ("cards", OnDelete::Cascade));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reference {
    /// The table, whose key the column holds.
    pub table: &'static str,
    /// What becomes of the row when the one that it refers to is deleted.
    pub on_delete: OnDelete,
}

/// What becomes of a row when the one that it refers to is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDelete {
    /// The other row cannot be deleted, unless this one goes in the same statement: `NO ACTION` in
    /// SQL.
    Restrict,
    /// It is deleted, too.
    Cascade,
    /// It refers to none.
    SetNull,
}

/// An index of several columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexDef {
    /// The names of the columns, in their order.
    pub columns: &'static [&'static str],
    /// Whether each combination of values may be there once only.
    pub unique: bool,
}

impl Reference {
    pub(crate) const fn of(table: &'static str, on_delete: OnDelete) -> Self {
        Self { table, on_delete }
    }
}

impl IndexDef {
    pub(crate) const fn of(columns: &'static [&'static str], unique: bool) -> Self {
        Self { columns, unique }
    }
}

impl OnDelete {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Restrict => "restrict",
            Self::Cascade => "cascade",
            Self::SetNull => "set_null",
        }
    }
}

/// The constraint of a column, in SQL.
pub(crate) fn references_ddl(table: &str, on_delete: &str) -> String {
    let action = match on_delete {
        "cascade" => " ON DELETE CASCADE",
        "set_null" => " ON DELETE SET NULL",
        _ => "",
    };
    format!(" REFERENCES {}{action}", quote(table))
}
