//! A record that cannot be wrong, or every reason why it is.

use super::constraints::{Index, Reference, checks, indexes, reference};
use super::parse::{Field, Parsed};
use crate::syntax::{Errors, is_bytes, last_name, option_of};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Expr, ExprLit, ExprUnary, Ident, Lit, LitInt, LitStr, Path, Type, UnOp, Visibility};

/// What a table in a Durable Object has at most.
const MAX_COLUMNS: usize = 100;
/// So many columns has a key at most.
const MAX_KEY: usize = 8;

pub(super) struct Checked {
    pub(super) ident: Ident,
    pub(super) vis: Visibility,
    pub(super) table: String,
    pub(super) renamed_from: Vec<String>,
    pub(super) dropped: Vec<String>,
    pub(super) version: u32,
    /// The oldest version whose code can work with the rows.
    pub(super) compatible: u32,
    pub(super) krate: Option<Path>,
    pub(super) columns: Vec<Column>,
    /// Of several columns.
    pub(super) indexes: Vec<Index>,
    pub(super) checks: Vec<String>,
}

pub(super) struct Column {
    pub(super) ident: Ident,
    pub(super) ty: Type,
    pub(super) name: String,
    pub(super) role: Role,
    /// The column's constant, for queries; a `json` column has none.
    pub(super) constant: Option<Ident>,
    pub(super) json: bool,
    pub(super) index: bool,
    pub(super) unique: bool,
    pub(super) references: Option<Reference>,
    /// Whether views may name it.
    pub(super) scope: bool,
    /// A `Literal`, as tokens.
    pub(super) default: Option<TokenStream>,
    pub(super) renamed_from: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Role {
    Plain,
    Key,
    CreatedAt,
    UpdatedAt,
    DeletedAt,
}

pub(super) fn check(parsed: Parsed) -> syn::Result<Checked> {
    let mut errors = Errors::default();
    let table = match &parsed.table {
        Some(table) => {
            if let Err(why) = identifier(&table.value()) {
                errors.at(table.span(), why);
            }
            table.value()
        }
        None => {
            errors.at(
                parsed.ident.span(),
                "which table? write #[record(table = \"...\")] on the struct",
            );
            String::new()
        }
    };
    places(&parsed, &mut errors);
    let columns: Vec<_> = parsed.fields.iter().filter_map(|f| column(f, &mut errors)).collect();
    for (i, column) in columns.iter().enumerate() {
        if columns.iter().take(i).any(|c| c.name.eq_ignore_ascii_case(&column.name)) {
            let message = format!("there are two columns `{}`", column.name);
            errors.at(column.ident.span(), message);
        }
    }
    constants(&columns, &mut errors);
    if let Some(column) = columns.get(MAX_COLUMNS) {
        let message = format!(
            "a table in a Durable Object has at most {MAX_COLUMNS} columns: put some into one \
             field with `#[record(json)]`, or into a record of their own"
        );
        errors.at(column.ident.span(), message);
    }
    former_names(&parsed, &table, &columns, &mut errors);
    let (version, compatible) = versions(&parsed, &mut errors);
    let indexes = indexes(&parsed.indexes, &columns, &mut errors);
    let on_fields = parsed.fields.iter().flat_map(|field| &field.checks);
    let checks = checks(parsed.checks.iter().chain(on_fields), &mut errors);
    errors.finish()?;
    let value = |names: &[LitStr]| names.iter().map(LitStr::value).collect();
    Ok(Checked {
        table,
        columns,
        indexes,
        checks,
        renamed_from: value(&parsed.renamed_from),
        dropped: value(&parsed.dropped),
        version,
        compatible,
        ident: parsed.ident,
        vis: parsed.vis,
        krate: parsed.krate,
    })
}

/// Each constant is there once. Two fields have two names: one of them says `constant`.
fn constants(columns: &[Column], errors: &mut Errors) {
    let mut seen: Vec<&Column> = Vec::new();
    for column in columns {
        let Some(constant) = &column.constant else { continue };
        let other = seen.iter().find(|other| other.constant.as_ref() == Some(constant));
        if let Some(other) = other {
            let renamed = if *constant == column.ident { other } else { column };
            let span = renamed.constant.as_ref().map_or(constant.span(), Ident::span);
            errors.at(span, format!("there are two columns that queries call `{constant}`"));
        }
        seen.push(column);
    }
}

/// The record's version, and the oldest one whose code can work with its rows.
fn versions(parsed: &Parsed, errors: &mut Errors) -> (u32, u32) {
    let number = |literal: &LitInt| match literal.base10_parse::<u32>() {
        Ok(0) => Err(syn::Error::new(literal.span(), "versions count from 1")),
        parsed => parsed,
    };
    let mut read = |literal: &Option<LitInt>| {
        literal.as_ref().and_then(|literal| errors.keep(number(literal)))
    };
    let version = read(&parsed.version).unwrap_or(1);
    let compatible = read(&parsed.compatible).unwrap_or(version);
    if let Some(literal) = parsed.compatible.as_ref().filter(|_| compatible > version) {
        let message = format!(
            "`compatible` is the oldest version whose code can work with the rows, and the \
             record's own is {version}"
        );
        errors.at(literal.span(), message);
    }
    (version, compatible)
}

/// What `renamed_from` and `dropped` name: nothing that is there, and each once.
fn former_names(parsed: &Parsed, table: &str, columns: &[Column], errors: &mut Errors) {
    const SAME: &str = "`renamed_from` is the name that the table had before, not the one it has";
    let mut seen: Vec<String> = Vec::new();
    for from in &parsed.renamed_from {
        note(from, &mut seen, "the table was renamed from it already", errors);
        if from.value() == table {
            errors.at(from.span(), SAME);
        }
    }
    let mut seen = Vec::new();
    for from in parsed.fields.iter().flat_map(|field| &field.renamed_from) {
        note(from, &mut seen, "a column was renamed from it already: remove one", errors);
    }
    for name in &parsed.dropped {
        let there = columns.iter().find(|column| column.name.eq_ignore_ascii_case(&name.value()));
        if let Some(column) = there {
            let message = format!(
                "`{}` is a field of this record: remove the field, or remove `dropped`",
                column.name
            );
            errors.at(name.span(), message);
        }
        note(
            name,
            &mut seen,
            "a column is renamed from it, or it is dropped twice: remove one",
            errors,
        );
    }
}

/// An error for a name that cannot be one, or that is among those seen before.
fn note(name: &LitStr, seen: &mut Vec<String>, twice: &str, errors: &mut Errors) {
    if let Err(why) = identifier(&name.value()) {
        errors.at(name.span(), why);
    }
    if seen.contains(&name.value()) {
        errors.at(name.span(), twice);
    }
    seen.push(name.value());
}

/// What stands where: the key, first; `deleted_at` last; each other role once.
fn places(parsed: &Parsed, errors: &mut Errors) {
    let once = |spans: Vec<Span>, name: &str, errors: &mut Errors| {
        for span in spans.into_iter().skip(1) {
            errors.at(span, format!("there is a `{name}` already: a record has one"));
        }
    };
    let fields = &parsed.fields;
    once(fields.iter().filter_map(|f| f.created_at).collect(), "created_at", errors);
    once(fields.iter().filter_map(|f| f.updated_at).collect(), "updated_at", errors);
    once(fields.iter().filter_map(|f| f.deleted_at).collect(), "deleted_at", errors);
    let key = fields.iter().take_while(|field| field.key.is_some()).count();
    if let Some(span) = fields.iter().skip(key).find_map(|field| field.key) {
        let message = match key {
            0 => "the key has to be the first field: rows travel in field order, key first",
            _ => {
                "the fields of the key have to be the first: rows travel in field order, key first"
            }
        };
        errors.at(span, message);
    } else if key == 0 {
        errors.at(
            parsed.ident.span(),
            "which field is the key? write #[record(key)] on the first one",
        );
    }
    if let Some(span) = fields.get(MAX_KEY).and_then(|field| field.key) {
        errors.at(span, format!("a key has at most {MAX_KEY} columns"));
    }
    // The others of its columns find none without.
    if let Some(span) = fields.first().filter(|field| field.key.is_some()).and_then(|f| f.index) {
        errors.at(span, "`index` does not go with this attribute: remove one of them");
    }
    if let Some(span) = fields.iter().rev().skip(1).find_map(|f| f.deleted_at) {
        errors.at(
            span,
            "`deleted_at` has to be the last field: a row's last value says whether it is deleted",
        );
    }
}

fn column(field: &Field, errors: &mut Errors) -> Option<Column> {
    let roles = [
        (field.key, Role::Key),
        (field.created_at, Role::CreatedAt),
        (field.updated_at, Role::UpdatedAt),
        (field.deleted_at, Role::DeletedAt),
    ];
    let mut roles = roles.into_iter().filter_map(|(span, role)| span.map(|span| (span, role)));
    let (role_span, role) = roles.next().map_or((None, Role::Plain), |(s, r)| (Some(s), r));
    if let Some((span, _)) = roles.next() {
        errors.at(span, "a field is one of `key`, `created_at`, `updated_at` and `deleted_at`");
    }
    check_type(field, role, errors);
    if let Some(span) = role_span {
        for (other, name) in [(field.json, "json"), (field.unique, "unique")] {
            if other.is_some() {
                errors.at(
                    span,
                    format!("`{name}` does not go with this attribute: remove one of them"),
                );
            }
        }
        if field.scope.is_some() && role != Role::Key {
            errors.at(span, "views do not name a time that the framework sets: remove `scope`");
        }
        if let Some(default) = &field.default {
            errors.add(syn::Error::new_spanned(
                default,
                "this column is always given: remove `default`",
            ));
        }
    }
    let (name, span) = match &field.rename {
        Some(rename) => (rename.value(), rename.span()),
        None => (field.ident.to_string().trim_start_matches("r#").to_owned(), field.ident.span()),
    };
    if let Err(why) = identifier(&name) {
        errors.at(span, why);
    }
    let constant = match &field.constant {
        Some(text) if field.json.is_some() => {
            errors.at(text.span(), "queries do not know a `json` column: remove `constant`");
            None
        }
        Some(text) => errors.keep(constant(text)),
        None => field.json.is_none().then(|| field.ident.clone()),
    };
    for from in field.renamed_from.iter().filter(|from| from.value() == name) {
        errors.at(
            from.span(),
            "`renamed_from` is the name that the column had before, not the one it has",
        );
    }
    let references = reference(field, role, errors);
    let default = field.default.as_ref().and_then(|expr| errors.keep(literal(expr, field)));
    Some(Column {
        ident: field.ident.clone(),
        ty: field.ty.clone(),
        name,
        role,
        constant,
        json: field.json.is_some(),
        index: field.index.is_some(),
        unique: field.unique.is_some(),
        references,
        scope: field.scope.is_some(),
        default,
        renamed_from: field.renamed_from.iter().map(LitStr::value).collect(),
    })
}

/// The name of a constant.
fn constant(text: &LitStr) -> syn::Result<Ident> {
    text.parse().map_err(|_| {
        syn::Error::new(text.span(), "the name of a constant of this record: \"text_column\"")
    })
}

fn check_type(field: &Field, role: Role, errors: &mut Errors) {
    let inner = option_of(&field.ty);
    let is = |ty: &Type, name: &str| last_name(ty).is_some_and(|n| n == name);
    let mut wrong = |message: &str| errors.add(syn::Error::new_spanned(&field.ty, message));
    match role {
        Role::Key if inner.is_some() => wrong("a key is never NULL: remove the `Option`"),
        Role::Key if is(&field.ty, "f32") || is(&field.ty, "f64") => {
            wrong("a float cannot be a key: use text, an integer or bytes");
        }
        Role::CreatedAt | Role::UpdatedAt if !is(&field.ty, "Timestamp") => {
            wrong("the framework sets this column: its type is `partysync::Timestamp`");
        }
        Role::DeletedAt if !inner.is_some_and(|ty| is(ty, "Timestamp")) => {
            wrong(
                "`deleted_at` is empty while the row lives: its type is `Option<partysync::Timestamp>`",
            );
        }
        _ => {}
    }
    if field.json.is_none() {
        let plain = inner.unwrap_or(&field.ty);
        for name in ["usize", "isize", "i128", "u128"] {
            if is(plain, name) {
                wrong(
                    "SQLite's integers are 64 bits with a sign: use `i64` or `u64`, or text for larger numbers",
                );
            }
        }
        if inner.is_some_and(|ty| option_of(ty).is_some()) {
            wrong("a column holds NULL in one way only: remove one `Option`");
        }
    }
}

/// A `Literal` of a `default`.
fn literal(expr: &Expr, field: &Field) -> syn::Result<TokenStream> {
    let literal = quote!(__partysync::__private::Literal);
    let (negative, lit) = match expr {
        Expr::Lit(ExprLit { lit, .. }) => (false, lit),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => match &**expr {
            Expr::Lit(ExprLit { lit, .. }) => (true, lit),
            _ => return Err(not_literal(expr)),
        },
        _ => return Err(not_literal(expr)),
    };
    let ty = option_of(&field.ty).unwrap_or(&field.ty);
    if field.json.is_none() && is_bytes(ty) {
        let message = "bytes have no literal here: make the field an `Option`";
        return Err(syn::Error::new_spanned(expr, message));
    }
    let name = last_name(ty).unwrap_or_default();
    let expected = match name.as_str() {
        _ if field.json.is_some() => "a string of JSON",
        "bool" => "`true` or `false`",
        "String" | "Cow" => "a string",
        "f32" | "f64" => "a number with a point",
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "Timestamp" => "an integer",
        // A column type of the user's own: what it stores is not known here.
        _ => "",
    };
    let (found, tokens) = match lit {
        Lit::Bool(lit) if !negative => ("`true` or `false`", {
            let value = i64::from(lit.value);
            quote!(#literal::Integer(#value))
        }),
        Lit::Int(lit) => ("an integer", {
            let value: i128 = lit.base10_parse()?;
            let value = i64::try_from(if negative { -value } else { value }).map_err(|_| {
                syn::Error::new_spanned(expr, "SQLite's integers are 64 bits with a sign")
            })?;
            fits(value, &name).map_err(|why| syn::Error::new_spanned(expr, why))?;
            quote!(#literal::Integer(#value))
        }),
        Lit::Float(lit) => ("a number with a point", {
            let value: f64 = lit.base10_parse()?;
            let value = if negative { -value } else { value };
            quote!(#literal::Real(#value))
        }),
        Lit::Str(lit) if !negative => (
            if field.json.is_some() { "a string of JSON" } else { "a string" },
            quote!(#literal::Text(#lit)),
        ),
        _ => return Err(not_literal(expr)),
    };
    if !expected.is_empty() && expected != found {
        return Err(syn::Error::new_spanned(
            expr,
            format!("the default of this column is {expected}"),
        ));
    }
    Ok(tokens)
}

/// Whether an integer type of this name holds the value.
fn fits(value: i64, name: &str) -> Result<(), String> {
    let fits = match name {
        "i8" => i8::try_from(value).is_ok(),
        "i16" => i16::try_from(value).is_ok(),
        "i32" => i32::try_from(value).is_ok(),
        "u8" => u8::try_from(value).is_ok(),
        "u16" => u16::try_from(value).is_ok(),
        "u32" => u32::try_from(value).is_ok(),
        "u64" => u64::try_from(value).is_ok(),
        _ => true,
    };
    if fits { Ok(()) } else { Err(format!("`{name}` does not hold {value}")) }
}

fn not_literal(expr: &Expr) -> syn::Error {
    syn::Error::new_spanned(
        expr,
        "a default is a literal, as SQL has to know it: 0, 1.5, \"text\" or true",
    )
}

/// A name that is safe everywhere a table's or column's name goes.
pub(super) fn identifier(name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') || name.len() > 64 {
        return Err(
            "a name in SQL is made of letters, digits and `_`, and begins with no digit".to_owned()
        );
    }
    for prefix in ["_partysync", "sqlite_"] {
        if name.to_ascii_lowercase().starts_with(prefix) {
            return Err(format!("names that begin with `{prefix}` are reserved: choose another"));
        }
    }
    Ok(())
}
