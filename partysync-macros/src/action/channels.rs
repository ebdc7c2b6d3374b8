//! The code of an enum of actions, one variant for each record.

use super::parse::Channels;
use super::serde;
use crate::syntax::{Errors, in_block};
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::Fields;
use syn::spanned::Spanned;

pub(super) fn expand(channels: &Channels) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let mut idents = Vec::new();
    let mut types = Vec::new();
    for variant in &channels.variants {
        match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                idents.push(&variant.ident);
                types.extend(fields.unnamed.first().map(|field| &field.ty));
            }
            _ => errors.at(
                variant.ident.span(),
                "a variant of `channels` holds one record's actions: Todos(TodoAction)",
            ),
        }
    }
    errors.finish()?;
    let ident = &channels.ident;
    let record = quote!(__partysync::RecordAction>::Record as __partysync::Record>::SCHEMA);
    let checks = types.iter().enumerate().map(|(index, ty)| {
        quote_spanned! {ty.span()=>
            const _: () = ::std::assert!(
                __partysync::__private::is_new_channel(
                    <#ident as __partysync::Action>::CHANNELS,
                    #index,
                ),
                "another variant has actions of this record, or of one with the same table: \
                 a record has one enum of actions, so move all variants into that",
            );
        }
    });
    let serde = serde(ident, &quote!(serialize_in_channel), &quote!(deserialize_in_channel));
    let code = quote! {
        #[automatically_derived]
        impl __partysync::Action for #ident {
            const CHANNELS: &'static [&'static __partysync::Schema] =
                &[#(<<#types as #record),*];

            fn channel(&self) -> &'static str {
                match self { #(Self::#idents(action) => __partysync::Action::channel(action),)* }
            }

            fn to_json(&self) -> __partysync::Result<__partysync::__private::serde_json::Value> {
                match self { #(Self::#idents(action) => __partysync::Action::to_json(action),)* }
            }

            fn from_json(channel: &str, json: &str) -> __partysync::Result<Self> {
                #(if channel == <<#types as #record.table {
                    return <#types as __partysync::Action>::from_json(channel, json)
                        .map(Self::#idents);
                })*
                ::std::result::Result::Err(__partysync::__private::unknown_channel(channel))
            }

            fn reduce(&self, tables: &mut dyn __partysync::Tables) -> __partysync::Result<()> {
                match self {
                    #(Self::#idents(action) => __partysync::Action::reduce(action, tables),)*
                }
            }

            fn apply(&self, sql: &dyn __partysync::sql::Sql) -> __partysync::Result<()> {
                match self {
                    #(Self::#idents(action) => __partysync::Action::apply(action, sql),)*
                }
            }
        }

        #(
            #[automatically_derived]
            impl ::std::convert::From<#types> for #ident {
                fn from(action: #types) -> Self {
                    Self::#idents(action)
                }
            }
        )*

        #serde

        #(#checks)*
    };
    Ok(in_block(channels.krate.as_ref(), &code))
}
