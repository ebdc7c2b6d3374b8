//! The code of an action.

use super::check::{Checked, CheckedField, CheckedVariant, Codec};
use super::parse::Kind;
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;

pub(super) fn expand(action: &Checked) -> TokenStream {
    let Checked { ident, record, variants } = action;
    let known: Vec<_> = variants.iter().map(|v| format!("`{}`", v.name)).collect();
    let known = known.join(", ");
    let encode = variants.iter().map(encode);
    let decode = variants.iter().map(decode);
    let operations = variants.iter().map(|v| operation(v, record));
    let checks = variants.iter().map(|v| key_check(v, record));
    let customs: Vec<_> = variants.iter().filter(|v| v.kind == Kind::Custom).collect();
    let custom_idents: Vec<_> = customs.iter().map(|v| &v.ident).collect();
    let custom_names: Vec<_> = customs.iter().map(|v| &v.name).collect();
    let reduce_custom = customs.iter().map(|CheckedVariant { ident, .. }| {
        // On the variant, where a missing `impl Reduce` is then reported.
        let reduce = quote_spanned!(ident.span()=> <Self as ::partysync::Reduce>::reduce_custom);
        quote!(Self::#ident { .. } => #reduce(self, &mut ::partysync::Draft::new(tables)),)
    });
    // With nothing but custom variants there is no operation to run.
    let rest = (customs.len() < variants.len()).then(|| {
        (
            quote!(_ => ::partysync::__private::reduce::<Self>(&self.__operation()?, tables),),
            quote!(_ => ::partysync::__private::apply::<Self>(&self.__operation()?, sql),),
        )
    });
    let (rest_reduce, rest_apply) = rest.unzip();
    quote! {
        #[automatically_derived]
        impl ::partysync::Action for #ident {
            const CHANNELS: &'static [&'static ::partysync::Schema] =
                &[<#record as ::partysync::Record>::SCHEMA];

            fn channel(&self) -> &'static str {
                <#record as ::partysync::Record>::SCHEMA.table
            }

            fn to_json(&self) -> ::partysync::Result<::partysync::__private::serde_json::Value> {
                let mut payload = ::partysync::__private::serde_json::Map::new();
                let name = match self { #(#encode)* };
                ::std::result::Result::Ok(::partysync::__private::close_action(name, payload))
            }

            fn from_json(
                channel: &str,
                json: &::partysync::__private::serde_json::Value,
            ) -> ::partysync::Result<Self> {
                if channel != <#record as ::partysync::Record>::SCHEMA.table {
                    return ::std::result::Result::Err(
                        ::partysync::__private::unknown_channel(channel),
                    );
                }
                #[allow(unused_mut)]
                let (name, mut payload) = ::partysync::__private::open_action(json)?;
                match name {
                    #(#decode)*
                    other => ::std::result::Result::Err(
                        ::partysync::__private::unknown_action(other, #known),
                    ),
                }
            }

            fn reduce(
                &self,
                tables: &mut dyn ::partysync::Tables,
            ) -> ::partysync::Result<()> {
                match self { #(#reduce_custom)* #rest_reduce }
            }

            fn apply(&self, sql: &dyn ::partysync::sql::Sql) -> ::partysync::Result<()> {
                match self {
                    #(Self::#custom_idents { .. } => ::std::result::Result::Err(
                        ::partysync::__private::unhandled(#custom_names),
                    ),)*
                    #rest_apply
                }
            }
        }

        #[automatically_derived]
        impl ::partysync::RecordAction for #ident {
            type Record = #record;
        }

        #[automatically_derived]
        impl #ident {
            #[allow(dead_code)]
            fn __operation(&self) -> ::partysync::Result<::partysync::__private::Op> {
                match self { #(#operations)* }
            }
        }

        #[automatically_derived]
        impl ::partysync::__private::serde::Serialize for #ident {
            fn serialize<S: ::partysync::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                ::partysync::__private::serialize(self, serializer)
            }
        }

        #[automatically_derived]
        impl<'de> ::partysync::__private::serde::Deserialize<'de> for #ident {
            fn deserialize<D: ::partysync::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                ::partysync::__private::deserialize(deserializer)
            }
        }

        #(#checks)*
    }
}

/// A match arm that fills `payload` and gives the name.
fn encode(variant: &CheckedVariant) -> TokenStream {
    let CheckedVariant { ident, name, fields, .. } = variant;
    let idents = fields.iter().map(|f| &f.ident);
    let puts = fields.iter().map(|field| {
        let CheckedField { ident, name, codec, optional, .. } = field;
        let put = match codec {
            Codec::Column => quote!(::partysync::__private::put(&mut payload, #name, #ident)?;),
            Codec::Serde => quote!(::partysync::__private::put_json(&mut payload, #name, #ident)?;),
        };
        if *optional {
            quote!(if let ::std::option::Option::Some(#ident) = #ident { #put })
        } else {
            put
        }
    });
    quote!(Self::#ident { #(#idents),* } => { #(#puts)* #name })
}

/// A match arm that takes the fields out of `payload`.
fn decode(variant: &CheckedVariant) -> TokenStream {
    let CheckedVariant { ident, name, fields, .. } = variant;
    let takes = fields.iter().map(|field| {
        let CheckedField { ident, name: column, ty, codec, optional } = field;
        let take = match (codec, optional) {
            (Codec::Column, false) => quote!(take),
            (Codec::Column, true) => quote!(take_option),
            (Codec::Serde, false) => quote!(take_json),
            (Codec::Serde, true) => quote!(take_json_option),
        };
        quote!(#ident: ::partysync::__private::#take::<#ty>(&mut payload, #name, #column)?)
    });
    quote!(#name => ::std::result::Result::Ok(Self::#ident { #(#takes),* }),)
}

/// A match arm that gives the operation.
fn operation(variant: &CheckedVariant, record: &syn::Path) -> TokenStream {
    let CheckedVariant { ident, name, kind, fields } = variant;
    let op = quote!(::partysync::__private::Op);
    if *kind == Kind::Custom {
        return quote! {
            Self::#ident { .. } => ::std::result::Result::Err(
                ::partysync::__private::unhandled(#name),
            ),
        };
    }
    let idents = fields.iter().map(|f| &f.ident);
    let pushes = fields.iter().map(|field| {
        let ident = &field.ident;
        let setter = format_ident!("column_{}", field.name, span = ident.span());
        let push = quote_spanned! {field.ty.span()=>
            cells.push(<#record>::#setter(::std::clone::Clone::clone(#ident))?);
        };
        if field.optional {
            quote!(if let ::std::option::Option::Some(#ident) = #ident { #push })
        } else {
            push
        }
    });
    let key = quote!(::partysync::__private::key_cell(&cells));
    let make = match kind {
        Kind::Insert => quote!(#op::Insert(cells)),
        Kind::Update => quote!(#op::Update(#key, cells)),
        Kind::Upsert => quote!(#op::Upsert(#key, cells)),
        Kind::Delete | Kind::Custom => quote!(#op::Delete(#key)),
    };
    quote! {
        Self::#ident { #(#idents),* } => {
            let mut cells = ::std::vec::Vec::new();
            #(#pushes)*
            ::std::result::Result::Ok(#make)
        }
    }
}

/// Every operation names its row: the key is among the fields.
fn key_check(variant: &CheckedVariant, record: &syn::Path) -> TokenStream {
    if variant.kind == Kind::Custom {
        return TokenStream::new();
    }
    // An `Option` may be None, and then no row is named.
    let names = variant.fields.iter().filter(|f| !f.optional).map(|f| &f.name);
    let message = format!("`{}` needs the record's key as a field", variant.ident);
    quote_spanned! {variant.ident.span()=>
        const _: () = ::std::assert!(
            ::partysync::__private::has_key(
                <#record as ::partysync::Record>::SCHEMA,
                &[#(#names),*],
            ),
            #message,
        );
    }
}
