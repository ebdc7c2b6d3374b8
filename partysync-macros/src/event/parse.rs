//! The attributes of an event, as they were written.

use crate::syntax::{Errors, crate_path, each_meta, once, refuse_generics, string, unknown};
use syn::{Data, DeriveInput, Fields, Ident, LitStr, Path, Type};

pub(super) struct Events {
    pub(super) ident: Ident,
    /// Where the library is, if not at `::partysync`.
    pub(super) krate: Option<Path>,
    pub(super) rename_all: Option<LitStr>,
    pub(super) variants: Vec<Variant>,
}

pub(super) struct Variant {
    pub(super) ident: Ident,
    pub(super) name: Option<LitStr>,
    /// Whether the event has no arguments, not even an empty object.
    pub(super) unit: bool,
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) ident: Ident,
    pub(super) ty: Type,
    pub(super) rename: Option<LitStr>,
    pub(super) optional: bool,
}

pub(super) fn parse(input: &DeriveInput) -> syn::Result<Events> {
    let mut errors = Errors::default();
    refuse_generics(input, &mut errors);
    let (mut rename_all, mut krate) = (None, None);
    each_meta(&input.attrs, "event", &mut errors, |meta| {
        if meta.path.is_ident("rename_all") {
            once(&mut rename_all, string(meta)?, meta)
        } else if meta.path.is_ident("crate") {
            once(&mut krate, crate_path(meta)?, meta)
        } else {
            Err(unknown(meta, &["rename_all", "crate"]))
        }
    });
    let Data::Enum(data) = &input.data else {
        errors.at(input.ident.span(), "events are an enum: one variant for each");
        errors.finish()?;
        return Err(syn::Error::new(input.ident.span(), "not an enum"));
    };
    if data.variants.is_empty() {
        errors.at(input.ident.span(), "an enum of events needs at least one variant");
    }
    let variants = data.variants.iter().map(|v| variant(v, &mut errors)).collect();
    errors.finish()?;
    Ok(Events { ident: input.ident.clone(), krate, rename_all, variants })
}

fn variant(syntax: &syn::Variant, errors: &mut Errors) -> Variant {
    let mut name = None;
    each_meta(&syntax.attrs, "event", errors, |meta| {
        if meta.path.is_ident("name") {
            once(&mut name, string(meta)?, meta)
        } else {
            Err(unknown(meta, &["name"]))
        }
    });
    let mut fields = Vec::new();
    match &syntax.fields {
        Fields::Unit => {}
        Fields::Named(named) => {
            for field in &named.named {
                let Some(ident) = field.ident.clone() else { continue };
                let (mut rename, mut optional) = (None, None);
                each_meta(&field.attrs, "event", errors, |meta| {
                    if meta.path.is_ident("rename") {
                        once(&mut rename, string(meta)?, meta)
                    } else if meta.path.is_ident("optional") {
                        once(&mut optional, (), meta)
                    } else {
                        Err(unknown(meta, &["rename", "optional"]))
                    }
                });
                let (ty, optional) = (field.ty.clone(), optional.is_some());
                fields.push(Field { ident, ty, rename, optional });
            }
        }
        Fields::Unnamed(unnamed) => errors.add(syn::Error::new_spanned(
            unnamed,
            "name the fields: they are the event's arguments, { id: String, ... }",
        )),
    }
    let unit = matches!(syntax.fields, Fields::Unit);
    Variant { ident: syntax.ident.clone(), name, unit, fields }
}
