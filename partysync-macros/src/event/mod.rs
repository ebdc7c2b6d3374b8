//! derive(Event).

mod check;
mod expand;
mod parse;

use proc_macro2::TokenStream;

pub(crate) fn derive(input: &syn::DeriveInput) -> syn::Result<TokenStream> {
    Ok(expand::expand(&check::check(parse::parse(input)?)?))
}
