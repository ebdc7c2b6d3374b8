//! The code of an enum of actions, one variant for each record.

use super::parse::Channels;
use crate::syntax::Errors;
use proc_macro2::TokenStream;
use quote::quote;
use syn::Fields;

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
    let record = quote!(::partysync::RecordAction>::Record as ::partysync::Record>::SCHEMA);
    Ok(quote! {
        #[automatically_derived]
        impl ::partysync::Action for #ident {
            const CHANNELS: &'static [&'static ::partysync::Schema] =
                &[#(<<#types as #record),*];

            fn channel(&self) -> &'static str {
                match self { #(Self::#idents(action) => ::partysync::Action::channel(action),)* }
            }

            fn to_json(&self) -> ::partysync::Result<::partysync::__private::serde_json::Value> {
                match self { #(Self::#idents(action) => ::partysync::Action::to_json(action),)* }
            }

            fn from_json(
                channel: &str,
                json: &::partysync::__private::serde_json::Value,
            ) -> ::partysync::Result<Self> {
                #(if channel == <<#types as #record.table {
                    return <#types as ::partysync::Action>::from_json(channel, json)
                        .map(Self::#idents);
                })*
                ::std::result::Result::Err(::partysync::__private::unknown_channel(channel))
            }

            fn reduce(&self, tables: &mut dyn ::partysync::Tables) -> ::partysync::Result<()> {
                match self {
                    #(Self::#idents(action) => ::partysync::Action::reduce(action, tables),)*
                }
            }

            fn apply(&self, sql: &dyn ::partysync::sql::Sql) -> ::partysync::Result<()> {
                match self {
                    #(Self::#idents(action) => ::partysync::Action::apply(action, sql),)*
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
    })
}
