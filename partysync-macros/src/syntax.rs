//! What the derives share: collecting errors, looking at types, reading attributes.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{GenericArgument, LitStr, Path, PathArguments, Type};

/// Errors found so far: all are reported at once.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        }
    }

    pub(crate) fn at(&mut self, span: Span, message: impl std::fmt::Display) {
        self.add(syn::Error::new(span, message));
    }

    /// Keeps the value, or notes the error.
    pub(crate) fn keep<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    pub(crate) fn finish(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Reads `#[name(a, b = ...)]` of all attributes of that name.
pub(crate) fn each_meta(
    attributes: &[syn::Attribute],
    name: &str,
    errors: &mut Errors,
    mut each: impl FnMut(&ParseNestedMeta<'_>) -> syn::Result<()>,
) {
    for attribute in attributes.iter().filter(|a| a.path().is_ident(name)) {
        let result = attribute.parse_nested_meta(|meta| each(&meta));
        errors.keep(result);
    }
}

/// The string of `name = "..."`.
pub(crate) fn string(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    meta.value()?.parse()
}

/// Keeps what an attribute says that may be there once.
pub(crate) fn once<T>(
    slot: &mut Option<T>,
    value: T,
    meta: &ParseNestedMeta<'_>,
) -> syn::Result<()> {
    if slot.replace(value).is_some() {
        let name = meta.path.get_ident().map_or_else(|| "this".to_owned(), |i| format!("`{i}`"));
        return Err(meta.error(format!("{name} is there twice")));
    }
    Ok(())
}

/// The path of `crate = "..."`.
pub(crate) fn crate_path(meta: &ParseNestedMeta<'_>) -> syn::Result<Path> {
    let path = string(meta)?;
    path.parse_with(Path::parse_mod_style).map_err(|_| {
        syn::Error::new(path.span(), "the path under which partysync is: \"my_crate::partysync\"")
    })
}

/// Derived code, which calls the library `__partysync`; in a block of its own, so that no name in
/// it meets one of the user's.
pub(crate) fn in_block(path: Option<&Path>, code: &TokenStream) -> TokenStream {
    let import = match path {
        Some(path) => quote_spanned!(path.span()=> use #path as __partysync;),
        None => quote!(
            use ::partysync as __partysync;
        ),
    };
    quote! {
        #[doc(hidden)]
        const _: () = {
            #import
            #code
        };
    }
}

/// An error for an attribute that is not known, naming those that are.
pub(crate) fn unknown(meta: &ParseNestedMeta<'_>, known: &[&str]) -> syn::Error {
    let found = meta.path.get_ident().map_or_else(|| "this".to_owned(), |i| format!("`{i}`"));
    meta.error(format!("{found} is not an attribute here: it is one of {}", list(known)))
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|n| format!("`{n}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// The last part of a type's path: `Option` of `std::option::Option<T>`.
pub(crate) fn last_name(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        _ => None,
    }
}

/// `T` of `Option<T>`.
pub(crate) fn option_of(ty: &Type) -> Option<&Type> {
    argument_of(ty, "Option")
}

/// `T` of `Name<T>`.
pub(crate) fn argument_of<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    }
}

/// Whether the type is `Vec<u8>` or `[u8; N]`.
pub(crate) fn is_bytes(ty: &Type) -> bool {
    let inner = match ty {
        Type::Array(array) => Some(&*array.elem),
        _ => argument_of(ty, "Vec"),
    };
    inner.and_then(last_name).is_some_and(|name| name == "u8")
}

/// An error for generics, which the derives do not take.
pub(crate) fn refuse_generics(input: &syn::DeriveInput, errors: &mut Errors) {
    if let Some(first) = input.generics.params.first() {
        let message = "a type with generics cannot be derived: write the concrete type";
        errors.add(syn::Error::new_spanned(first, message));
    }
}
