//! Events that cannot be wrong, or every reason why they are.

use super::parse::{Events, Field, Variant};
use crate::syntax::{Errors, option_of};
use heck::ToLowerCamelCase;
use syn::{Ident, Path, Type};

pub(super) struct Checked {
    pub(super) ident: Ident,
    pub(super) krate: Option<Path>,
    pub(super) variants: Vec<CheckedVariant>,
}

pub(super) struct CheckedVariant {
    pub(super) ident: Ident,
    /// The event's name in the log.
    pub(super) name: String,
    pub(super) unit: bool,
    pub(super) fields: Vec<CheckedField>,
}

pub(super) struct CheckedField {
    pub(super) ident: Ident,
    /// The argument's name.
    pub(super) name: String,
    pub(super) ty: Type,
    /// `None` is left out, where it would be null.
    pub(super) optional: bool,
}

pub(super) fn check(events: Events) -> syn::Result<Checked> {
    let mut errors = Errors::default();
    let camel = match &events.rename_all {
        None => false,
        Some(case) if case.value() == "camelCase" => true,
        Some(case) => {
            errors
                .at(case.span(), "the only case that arguments can be renamed to is \"camelCase\"");
            false
        }
    };
    let mut variants: Vec<CheckedVariant> = Vec::new();
    for variant in events.variants {
        let Variant { ident, name, unit, fields } = variant;
        let name = name.map_or_else(|| ident.to_string(), |name| name.value());
        if name.is_empty() {
            errors.at(ident.span(), "an event's name is not empty");
        }
        if variants.iter().any(|other| other.name == name) {
            errors.at(ident.span(), format!("two events are called `{name}`"));
        }
        let mut checked: Vec<CheckedField> = Vec::new();
        for Field { ident, ty, rename, optional } in fields {
            let own = ident.to_string().trim_start_matches("r#").to_owned();
            let name = match rename {
                Some(rename) => rename.value(),
                None if camel => own.to_lower_camel_case(),
                None => own,
            };
            if optional && option_of(&ty).is_none() {
                errors.add(syn::Error::new_spanned(&ty, "what is `optional` is an `Option`"));
            }
            if checked.iter().any(|other| other.name == name) {
                errors.at(ident.span(), format!("two arguments are called `{name}`"));
            }
            checked.push(CheckedField { ident, name, ty, optional });
        }
        variants.push(CheckedVariant { ident, name, unit, fields: checked });
    }
    errors.finish()?;
    Ok(Checked { ident: events.ident, krate: events.krate, variants })
}
