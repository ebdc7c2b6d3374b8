//! derive(Record).

mod check;
mod constraints;
mod expand;
mod parse;

pub(crate) fn derive(input: &syn::DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let parsed = parse::parse(input)?;
    let checked = check::check(parsed)?;
    Ok(expand::expand(&checked))
}
