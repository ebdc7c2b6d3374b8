//! The attributes of an action, as they were written.

use crate::syntax::{Errors, crate_path, each_meta, once, refuse_generics, string, unknown};
use heck::ToSnakeCase;
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Ident, LitStr, Path};

pub(super) enum Parsed {
    Channels(Channels),
    Actions(Actions),
}

pub(super) struct Channels {
    pub(super) ident: Ident,
    /// Where the library is, if not at `::partysync`.
    pub(super) krate: Option<Path>,
    pub(super) variants: Vec<syn::Variant>,
}

pub(super) struct Actions {
    pub(super) ident: Ident,
    /// Where the library is, if not at `::partysync`.
    pub(super) krate: Option<Path>,
    pub(super) record: Path,
    pub(super) variants: Vec<Variant>,
}

pub(super) struct Variant {
    pub(super) syntax: syn::Variant,
    /// The name on the wire.
    pub(super) name: String,
    /// Names that it had before.
    pub(super) aliases: Vec<LitStr>,
    pub(super) kinds: Vec<(Span, Kind)>,
    pub(super) fields: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Insert,
    Update,
    Upsert,
    Delete,
    Custom,
}

pub(super) struct Field {
    pub(super) ident: Ident,
    pub(super) ty: syn::Type,
    pub(super) json: bool,
    pub(super) rename: Option<LitStr>,
    /// Names that it had before.
    pub(super) aliases: Vec<LitStr>,
}

const KINDS: [&str; 7] = ["insert", "update", "upsert", "delete", "custom", "rename", "alias"];

pub(super) fn parse(input: &DeriveInput) -> syn::Result<Parsed> {
    let mut errors = Errors::default();
    refuse_generics(input, &mut errors);
    let (mut record, mut channels, mut krate) = (None, None, None);
    each_meta(&input.attrs, "action", &mut errors, |meta| {
        if meta.path.is_ident("record") {
            once(&mut record, meta.value()?.parse::<Path>()?, meta)
        } else if meta.path.is_ident("channels") {
            once(&mut channels, meta.path.span(), meta)
        } else if meta.path.is_ident("crate") {
            once(&mut krate, crate_path(meta)?, meta)
        } else {
            Err(unknown(meta, &["record", "channels", "crate"]))
        }
    });
    let Data::Enum(data) = &input.data else {
        errors.at(input.ident.span(), "an action is an enum: one variant for each thing to do");
        errors.finish()?;
        return Err(syn::Error::new(input.ident.span(), "not an enum"));
    };
    if data.variants.is_empty() {
        errors.at(input.ident.span(), "an action needs at least one variant");
    }
    let ident = input.ident.clone();
    match (record, channels) {
        (Some(_), Some(span)) => {
            errors.at(span, "`channels` is for an enum of other actions: remove it or `record`");
        }
        (None, None) => errors.at(
            ident.span(),
            "whose action? write #[action(record = Name)], or #[action(channels)] on an enum of actions",
        ),
        (None, Some(_)) => {
            errors.finish()?;
            let variants = data.variants.iter().cloned().collect();
            return Ok(Parsed::Channels(Channels { ident, krate, variants }));
        }
        (Some(record), None) => {
            let variants = data.variants.iter().map(|v| variant(v, &mut errors)).collect();
            errors.finish()?;
            return Ok(Parsed::Actions(Actions { ident, krate, record, variants }));
        }
    }
    errors.finish()?;
    Err(syn::Error::new(ident.span(), "not an action"))
}

fn variant(syntax: &syn::Variant, errors: &mut Errors) -> Variant {
    let mut rename = None;
    let (mut kinds, mut aliases) = (Vec::new(), Vec::new());
    each_meta(&syntax.attrs, "action", errors, |meta| {
        let ident = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        let kind = match ident.as_str() {
            "insert" => Kind::Insert,
            "update" => Kind::Update,
            "upsert" => Kind::Upsert,
            "delete" => Kind::Delete,
            "custom" => Kind::Custom,
            "rename" => return once(&mut rename, string(meta)?, meta),
            "alias" => {
                aliases.push(string(meta)?);
                return Ok(());
            }
            _ => return Err(unknown(meta, &KINDS)),
        };
        kinds.push((meta.path.span(), kind));
        Ok(())
    });
    let mut fields = Vec::new();
    match &syntax.fields {
        syn::Fields::Unit => {}
        syn::Fields::Named(named) => {
            for field in &named.named {
                let Some(ident) = field.ident.clone() else { continue };
                let (mut json, mut rename, mut aliases) = (None, None, Vec::new());
                each_meta(&field.attrs, "action", errors, |meta| {
                    if meta.path.is_ident("json") {
                        once(&mut json, (), meta)
                    } else if meta.path.is_ident("rename") {
                        once(&mut rename, string(meta)?, meta)
                    } else if meta.path.is_ident("alias") {
                        aliases.push(string(meta)?);
                        Ok(())
                    } else {
                        Err(unknown(meta, &["json", "rename", "alias"]))
                    }
                });
                let ty = field.ty.clone();
                fields.push(Field { ident, ty, json: json.is_some(), rename, aliases });
            }
        }
        syn::Fields::Unnamed(unnamed) => errors.add(syn::Error::new_spanned(
            unnamed,
            "name the fields: they are the record's columns, { id: String, ... }",
        )),
    }
    let name = match rename {
        Some(rename) => rename.value(),
        None => syntax.ident.to_string().to_snake_case(),
    };
    Variant { syntax: syntax.clone(), name, aliases, kinds, fields }
}
