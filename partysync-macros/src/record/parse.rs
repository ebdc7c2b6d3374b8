//! The attributes of a record, as they were written.

use crate::syntax::{Errors, each_meta, refuse_generics, string, unknown};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Expr, Fields, Ident, LitStr, Type, Visibility};

pub(super) struct Parsed {
    pub(super) ident: Ident,
    pub(super) vis: Visibility,
    pub(super) table: Option<LitStr>,
    pub(super) fields: Vec<Field>,
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
    pub(super) json: Option<Span>,
    pub(super) default: Option<Expr>,
    pub(super) rename: Option<LitStr>,
    pub(super) renamed_from: Option<LitStr>,
}

const ON_FIELDS: [&str; 10] = [
    "key",
    "created_at",
    "updated_at",
    "deleted_at",
    "default",
    "index",
    "unique",
    "json",
    "rename",
    "renamed_from",
];

pub(super) fn parse(input: &DeriveInput) -> syn::Result<Parsed> {
    let mut errors = Errors::default();
    refuse_generics(input, &mut errors);
    let mut table = None;
    each_meta(&input.attrs, "record", &mut errors, |meta| {
        if !meta.path.is_ident("table") {
            return Err(unknown(meta, &["table"]));
        }
        table = Some(string(meta)?);
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
    Ok(Parsed { ident: input.ident.clone(), vis: input.vis.clone(), table, fields })
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
        json: None,
        default: None,
        rename: None,
        renamed_from: None,
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
            "json" => &mut parsed.json,
            "default" => {
                if !meta.input.peek(syn::Token![=]) {
                    return Err(
                        meta.error("say which: `default = 0`, `default = \"\"`, `default = false`")
                    );
                }
                parsed.default = Some(meta.value()?.parse()?);
                return Ok(());
            }
            "rename" => {
                parsed.rename = Some(string(meta)?);
                return Ok(());
            }
            "renamed_from" => {
                parsed.renamed_from = Some(string(meta)?);
                return Ok(());
            }
            _ => return Err(unknown(meta, &ON_FIELDS)),
        };
        if flag.replace(meta.path.span()).is_some() {
            return Err(meta.error(format!("`{name}` is there twice")));
        }
        Ok(())
    });
    Some(parsed)
}
