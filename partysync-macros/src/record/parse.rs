//! The attributes of a record, as they were written.

use crate::syntax::{Errors, crate_path, each_meta, once, refuse_generics, string, unknown};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Expr, Fields, Ident, LitInt, LitStr, Path, Type, Visibility};

pub(super) struct Parsed {
    pub(super) ident: Ident,
    pub(super) vis: Visibility,
    pub(super) table: Option<LitStr>,
    pub(super) renamed_from: Vec<LitStr>,
    pub(super) dropped: Vec<LitStr>,
    /// Of several columns.
    pub(super) indexes: Vec<Index>,
    pub(super) checks: Vec<LitStr>,
    pub(super) version: Option<LitInt>,
    pub(super) compatible: Option<LitInt>,
    /// Where the library is, if not at `::partysync`.
    pub(super) krate: Option<Path>,
    pub(super) fields: Vec<Field>,
}

/// The columns of an index, with commas between them.
pub(super) struct Index {
    pub(super) columns: LitStr,
    pub(super) unique: bool,
}

pub(super) struct Field {
    pub(super) ident: Ident,
    pub(super) ty: Type,
    pub(super) key: Option<Span>,
    pub(super) created_at: Option<Span>,
    pub(super) updated_at: Option<Span>,
    pub(super) deleted_at: Option<Span>,
    pub(super) index: Option<Span>,
    pub(super) unique: Option<Span>,
    /// Whether views may name the column.
    pub(super) scope: Option<Span>,
    pub(super) json: Option<Span>,
    pub(super) default: Option<Expr>,
    pub(super) references: Option<LitStr>,
    pub(super) on_delete: Option<LitStr>,
    pub(super) checks: Vec<LitStr>,
    pub(super) rename: Option<LitStr>,
    /// What queries call the column.
    pub(super) constant: Option<LitStr>,
    pub(super) renamed_from: Vec<LitStr>,
}

const ON_STRUCT: [&str; 9] = [
    "table",
    "version",
    "compatible",
    "renamed_from",
    "dropped",
    "index",
    "unique",
    "check",
    "crate",
];

const ON_FIELDS: [&str; 15] = [
    "key",
    "created_at",
    "updated_at",
    "deleted_at",
    "default",
    "index",
    "unique",
    "references",
    "on_delete",
    "check",
    "scope",
    "json",
    "rename",
    "renamed_from",
    "constant",
];

pub(super) fn parse(input: &DeriveInput) -> syn::Result<Parsed> {
    let mut errors = Errors::default();
    refuse_generics(input, &mut errors);
    let (mut table, mut krate) = (None, None);
    let (mut renamed_from, mut dropped) = (Vec::new(), Vec::new());
    let (mut indexes, mut checks) = (Vec::new(), Vec::new());
    let (mut version, mut compatible) = (None, None);
    each_meta(&input.attrs, "record", &mut errors, |meta| {
        if meta.path.is_ident("table") {
            return once(&mut table, string(meta)?, meta);
        } else if meta.path.is_ident("version") {
            return once(&mut version, meta.value()?.parse()?, meta);
        } else if meta.path.is_ident("compatible") {
            return once(&mut compatible, meta.value()?.parse()?, meta);
        } else if meta.path.is_ident("crate") {
            return once(&mut krate, crate_path(meta)?, meta);
        } else if meta.path.is_ident("renamed_from") {
            renamed_from.push(string(meta)?);
        } else if meta.path.is_ident("dropped") {
            dropped.push(string(meta)?);
        } else if meta.path.is_ident("check") {
            checks.push(string(meta)?);
        } else if meta.path.is_ident("index") || meta.path.is_ident("unique") {
            let unique = meta.path.is_ident("unique");
            if !meta.input.peek(syn::Token![=]) {
                let name = if unique { "unique" } else { "index" };
                return Err(meta.error(format!(
                    "say which columns, `{name} = \"a, b\"`, or write `{name}` on one field"
                )));
            }
            indexes.push(Index { columns: string(meta)?, unique });
        } else {
            return Err(unknown(meta, &ON_STRUCT));
        }
        Ok(())
    });
    let mut fields = Vec::new();
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(named) => {
                fields.extend(named.named.iter().filter_map(|f| field(f, &mut errors)));
            }
            _ => errors.at(input.ident.span(), "a record is a struct with named fields"),
        },
        _ => errors.at(input.ident.span(), "a record is a struct: an enum can be a column's type"),
    }
    errors.finish()?;
    let (ident, vis) = (input.ident.clone(), input.vis.clone());
    Ok(Parsed {
        ident,
        vis,
        table,
        renamed_from,
        dropped,
        indexes,
        checks,
        version,
        compatible,
        krate,
        fields,
    })
}

fn field(field: &syn::Field, errors: &mut Errors) -> Option<Field> {
    let mut parsed = Field {
        ident: field.ident.clone()?,
        ty: field.ty.clone(),
        key: None,
        created_at: None,
        updated_at: None,
        deleted_at: None,
        index: None,
        unique: None,
        scope: None,
        json: None,
        default: None,
        references: None,
        on_delete: None,
        checks: Vec::new(),
        rename: None,
        constant: None,
        renamed_from: Vec::new(),
    };
    each_meta(&field.attrs, "record", errors, |meta| {
        let Some(name) = meta.path.get_ident() else { return Err(unknown(meta, &ON_FIELDS)) };
        let flag = match name.to_string().as_str() {
            "key" => &mut parsed.key,
            "created_at" => &mut parsed.created_at,
            "updated_at" => &mut parsed.updated_at,
            "deleted_at" => &mut parsed.deleted_at,
            "index" => &mut parsed.index,
            "unique" => &mut parsed.unique,
            "scope" => &mut parsed.scope,
            "json" => &mut parsed.json,
            "default" => {
                if !meta.input.peek(syn::Token![=]) {
                    return Err(
                        meta.error("say which: `default = 0`, `default = \"\"`, `default = false`")
                    );
                }
                let default = meta.value()?.parse()?;
                return once(&mut parsed.default, default, meta);
            }
            "rename" => return once(&mut parsed.rename, string(meta)?, meta),
            "references" if !meta.input.peek(syn::Token![=]) => {
                return Err(meta.error("say which table: `references = \"cards\"`"));
            }
            "references" => return once(&mut parsed.references, string(meta)?, meta),
            "on_delete" => return once(&mut parsed.on_delete, string(meta)?, meta),
            "check" => {
                parsed.checks.push(string(meta)?);
                return Ok(());
            }
            "constant" => return once(&mut parsed.constant, string(meta)?, meta),
            "renamed_from" => {
                parsed.renamed_from.push(string(meta)?);
                return Ok(());
            }
            _ => return Err(unknown(meta, &ON_FIELDS)),
        };
        once(flag, meta.path.span(), meta)
    });
    Some(parsed)
}
