//! What a record says beside its columns: references, indexes of several columns, checks.

use super::check::{Column, Role, identifier};
use super::parse::{self, Field};
use crate::syntax::{Errors, last_name, option_of};
use syn::LitStr;

/// Whose key a column holds.
pub(super) struct Reference {
    pub(super) table: String,
    pub(super) on_delete: OnDelete,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum OnDelete {
    Restrict,
    Cascade,
    SetNull,
}

/// An index of several columns.
pub(super) struct Index {
    pub(super) columns: Vec<String>,
    pub(super) unique: bool,
}

pub(super) fn reference(field: &Field, role: Role, errors: &mut Errors) -> Option<Reference> {
    let Some(table) = &field.references else {
        if let Some(on_delete) = &field.on_delete {
            let message = "what is deleted? write `references = \"table\"`, or remove `on_delete`";
            errors.at(on_delete.span(), message);
        }
        return None;
    };
    if let Err(why) = identifier(&table.value()) {
        errors.at(table.span(), why);
    }
    if field.json.is_some() {
        errors.at(table.span(), "a reference is a key, and no JSON: remove `json`");
    }
    if !matches!(role, Role::Plain | Role::Key) {
        errors.at(table.span(), "the framework sets this column: remove `references`");
    }
    let optional = option_of(&field.ty);
    let plain = optional.unwrap_or(&field.ty);
    if last_name(plain).is_some_and(|name| matches!(&*name, "f32" | "f64" | "bool")) {
        let message = "a reference is a key: text, an integer or bytes";
        errors.add(syn::Error::new_spanned(plain, message));
    }
    if let Some(default) = &field.default {
        let message =
            "a reference has no default: make the field an `Option`, where it may be none";
        errors.add(syn::Error::new_spanned(default, message));
    }
    let on_delete = match &field.on_delete {
        None => OnDelete::Restrict,
        Some(text) => match &*text.value() {
            "restrict" => OnDelete::Restrict,
            "cascade" => OnDelete::Cascade,
            "set_null" => {
                if optional.is_none() {
                    let message = "`set_null` wants a column that takes NULL: make the field an \
                                   `Option`, or say `cascade` or `restrict`";
                    errors.at(text.span(), message);
                }
                OnDelete::SetNull
            }
            _ => {
                let message = "it is one of `restrict`, `cascade` or `set_null`";
                errors.at(text.span(), message);
                OnDelete::Restrict
            }
        },
    };
    Some(Reference { table: table.value(), on_delete })
}

pub(super) fn indexes(
    parsed: &[parse::Index],
    columns: &[Column],
    errors: &mut Errors,
) -> Vec<Index> {
    let mut indexes: Vec<Index> = Vec::new();
    for index in parsed {
        let (text, span) = (index.columns.value(), index.columns.span());
        let attribute = if index.unique { "unique" } else { "index" };
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        for (place, name) in names.iter().enumerate() {
            if !columns.iter().any(|column| column.name == *name) {
                let known: Vec<_> = columns.iter().map(|c| format!("`{}`", c.name)).collect();
                let known = known.join(", ");
                errors.at(span, format!("there is no column `{name}`: the columns are {known}"));
            } else if names.iter().take(place).any(|other| other == name) {
                errors.at(span, format!("`{name}` is there twice"));
            }
        }
        if names.len() < 2 {
            let message = format!("of one column: write `{attribute}` on its field");
            errors.at(span, message);
        }
        if indexes.iter().any(|other| other.columns == names && other.unique == index.unique) {
            errors.at(span, format!("there is this `{attribute}` already: remove one"));
        }
        indexes.push(Index { columns: names, unique: index.unique });
    }
    indexes
}

pub(super) fn checks<'a>(
    parsed: impl Iterator<Item = &'a LitStr>,
    errors: &mut Errors,
) -> Vec<String> {
    let mut checks = Vec::new();
    for check in parsed {
        let text = check.value();
        if let Err(why) = expression(&text) {
            errors.at(check.span(), why);
        }
        if checks.contains(&text) {
            errors.at(check.span(), "this is checked already: remove one");
        }
        checks.push(text);
    }
    checks
}

/// Whether a text may be one expression: SQL itself is read by SQLite alone.
fn expression(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("which rows are right? an expression in SQL: \"length(text) > 0\"");
    }
    let (mut quote, mut open, mut before) = (None, 0_i32, ' ');
    for c in text.chars() {
        match (quote, c) {
            (Some(mark), _) => quote = (mark != c).then_some(mark),
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(') => open += 1,
            (None, ')') => open -= 1,
            (None, '-' | '*') if before == if c == '-' { '-' } else { '/' } => {
                return Err("a comment may hide what follows: write it into the code");
            }
            (None, ';' | '?') => return Err("one expression, without `;` and parameters"),
            _ => {}
        }
        if open < 0 {
            break;
        }
        before = c;
    }
    if open != 0 || quote.is_some() {
        return Err("a parenthesis or a quote of this expression has no other");
    }
    Ok(())
}
