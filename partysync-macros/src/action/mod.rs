//! derive(Action).

mod channels;
mod check;
mod expand;
mod parse;

pub(crate) fn derive(input: &syn::DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    match parse::parse(input)? {
        parse::Parsed::Channels(channels) => channels::expand(&channels),
        parse::Parsed::Actions(actions) => Ok(expand::expand(&check::check(actions)?)),
    }
}
