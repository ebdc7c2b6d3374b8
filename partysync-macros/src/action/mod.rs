//! derive(Action).

mod channels;
mod check;
mod expand;
mod parse;

use proc_macro2::TokenStream;
use quote::quote;

pub(crate) fn derive(input: &syn::DeriveInput) -> syn::Result<TokenStream> {
    match parse::parse(input)? {
        parse::Parsed::Channels(channels) => channels::expand(&channels),
        parse::Parsed::Actions(actions) => Ok(expand::expand(&check::check(actions)?)),
    }
}

/// serde's traits, through these functions of `__private`.
fn serde(ident: &syn::Ident, serialize: &TokenStream, deserialize: &TokenStream) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl __partysync::__private::serde::Serialize for #ident {
            fn serialize<S: __partysync::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                __partysync::__private::#serialize(self, serializer)
            }
        }

        #[automatically_derived]
        impl<'de> __partysync::__private::serde::Deserialize<'de> for #ident {
            fn deserialize<D: __partysync::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                __partysync::__private::#deserialize(deserializer)
            }
        }
    }
}
