//! An action that cannot be wrong, or every reason why it is.

use super::parse::{Actions, Field, Kind, Variant};
use crate::syntax::{Errors, option_of};
use syn::{Ident, Path, Type};

pub(super) struct Checked {
    pub(super) ident: Ident,
    pub(super) krate: Option<Path>,
    pub(super) record: Path,
    pub(super) variants: Vec<CheckedVariant>,
}

pub(super) struct CheckedVariant {
    pub(super) ident: Ident,
    pub(super) name: String,
    /// Names that it had before.
    pub(super) aliases: Vec<String>,
    pub(super) kind: Kind,
    pub(super) fields: Vec<CheckedField>,
}

pub(super) struct CheckedField {
    pub(super) ident: Ident,
    /// The column's name, and the name on the wire.
    pub(super) name: String,
    /// Names that it had before.
    pub(super) aliases: Vec<String>,
    pub(super) ty: Type,
    pub(super) codec: Codec,
    /// In an update: `None` leaves the column alone. The type is then what is in the `Option`.
    pub(super) optional: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Codec {
    Column,
    Serde,
    /// As a column, if the type is one, and otherwise as serde has it: which of them, only the
    /// compiler knows.
    Either,
}

pub(super) fn check(actions: Actions) -> syn::Result<Checked> {
    let mut errors = Errors::default();
    let mut names: Vec<String> = Vec::new();
    let mut variants = Vec::new();
    for variant in &actions.variants {
        let own = std::iter::once((variant.name.clone(), variant.syntax.ident.span()));
        let aliases = variant.aliases.iter().map(|alias| (alias.value(), alias.span()));
        for (name, span) in own.chain(aliases) {
            if names.contains(&name) {
                errors.at(span, format!("two variants are called `{name}` on the wire"));
            }
            names.push(name);
        }
        if let Some(kind) = kind(variant, &mut errors) {
            let field = |f: &Field| check_field(f, kind, &mut errors);
            let fields: Vec<_> = variant.fields.iter().map(field).collect();
            let mut taken: Vec<&str> = Vec::new();
            for field in &fields {
                for name in std::iter::once(&field.name).chain(&field.aliases) {
                    if taken.contains(&&**name) {
                        let message = format!("two fields are called `{name}` on the wire");
                        errors.at(field.ident.span(), message);
                    }
                    taken.push(name);
                }
            }
            let (ident, name) = (variant.syntax.ident.clone(), variant.name.clone());
            let aliases = variant.aliases.iter().map(syn::LitStr::value).collect();
            variants.push(CheckedVariant { ident, name, aliases, kind, fields });
        }
    }
    errors.finish()?;
    Ok(Checked { ident: actions.ident, krate: actions.krate, record: actions.record, variants })
}

fn kind(variant: &Variant, errors: &mut Errors) -> Option<Kind> {
    let mut kinds = variant.kinds.iter();
    let Some((_, kind)) = kinds.next() else {
        errors.at(
            variant.syntax.ident.span(),
            "what does it do? write #[action(insert)], update, upsert, delete or custom on it",
        );
        return None;
    };
    for (span, _) in kinds {
        errors.at(*span, "a variant does one thing: remove one of these");
    }
    Some(*kind)
}

fn check_field(field: &Field, kind: Kind, errors: &mut Errors) -> CheckedField {
    let inner = option_of(&field.ty).filter(|_| kind == Kind::Update);
    if kind == Kind::Delete && option_of(&field.ty).is_some() {
        errors.add(syn::Error::new_spanned(&field.ty, "a key is never NULL: remove the `Option`"));
    }
    let codec = match (field.json, kind) {
        (true, _) => Codec::Serde,
        (false, Kind::Custom) => Codec::Either,
        (false, _) => Codec::Column,
    };
    CheckedField {
        ident: field.ident.clone(),
        name: match &field.rename {
            Some(rename) => rename.value(),
            None => field.ident.to_string().trim_start_matches("r#").to_owned(),
        },
        aliases: field.aliases.iter().map(syn::LitStr::value).collect(),
        ty: inner.unwrap_or(&field.ty).clone(),
        codec,
        optional: inner.is_some(),
    }
}
