//! The code of an action.

use super::check::{Checked, CheckedField, CheckedVariant, Codec};
use super::parse::Kind;
use super::serde;
use crate::syntax::in_block;
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Ident;
use syn::spanned::Spanned;

pub(super) fn expand(action: &Checked) -> TokenStream {
    let Checked { ident, krate, record, variants } = action;
    let known: Vec<_> = variants.iter().map(|v| format!("`{}`", v.name)).collect();
    let known = known.join(", ");
    // No name of a field's.
    let payload = Ident::new("payload", Span::mixed_site());
    let encode = variants.iter().map(|variant| encode(variant, &payload));
    let decode = variants.iter().map(|variant| decode(variant, record));
    let operations = variants.iter().map(|v| operation(ident, v, record));
    let checks = variants.iter().flat_map(|v| [key_check(v, record), insert_check(v, record)]);
    let customs: Vec<_> = variants.iter().filter(|v| v.kind == Kind::Custom).collect();
    let custom_idents: Vec<_> = customs.iter().map(|v| &v.ident).collect();
    let custom_names: Vec<_> = customs.iter().map(|v| &v.name).collect();
    let reduce_custom = customs.iter().map(|CheckedVariant { ident, .. }| {
        // On the variant, where a missing `impl Reduce` is then reported.
        let reduce = quote_spanned!(ident.span()=> <Self as __partysync::Reduce>::reduce_custom);
        quote!(Self::#ident { .. } => #reduce(self, &mut __partysync::Draft::new(tables)),)
    });
    // With nothing but custom variants there is no operation to run.
    let rest = (customs.len() < variants.len()).then(|| {
        (
            quote!(_ => __partysync::__private::reduce::<Self>(&operation(self)?, tables),),
            quote!(_ => __partysync::__private::apply::<Self>(&operation(self)?, sql),),
        )
    });
    let (rest_reduce, rest_apply) = rest.unzip();
    let serde = serde(ident, &quote!(serialize), &quote!(deserialize));
    let code = quote! {
        #[allow(unused_imports)]
        use __partysync::__private::SerdeField as _;

        #[automatically_derived]
        impl __partysync::Action for #ident {
            const CHANNELS: &'static [&'static __partysync::Schema] =
                &[<#record as __partysync::Record>::SCHEMA];

            fn channel(&self) -> &'static str {
                <#record as __partysync::Record>::SCHEMA.table
            }

            fn to_json(&self) -> __partysync::Result<__partysync::__private::serde_json::Value> {
                let mut #payload = __partysync::__private::serde_json::Map::new();
                let name = match self { #(#encode)* };
                ::std::result::Result::Ok(__partysync::__private::close_action(name, #payload))
            }

            fn from_json(channel: &str, json: &str) -> __partysync::Result<Self> {
                if channel != <#record as __partysync::Record>::SCHEMA.table {
                    return ::std::result::Result::Err(
                        __partysync::__private::unknown_channel(channel),
                    );
                }
                #[allow(unused_variables)]
                let (name, payload) = __partysync::__private::open_action(json)?;
                match name.as_str() {
                    #(#decode)*
                    other => ::std::result::Result::Err(
                        __partysync::__private::unknown_action(other, #known),
                    ),
                }
            }

            fn reduce(
                &self,
                tables: &mut dyn __partysync::Tables,
            ) -> __partysync::Result<()> {
                match self { #(#reduce_custom)* #rest_reduce }
            }

            fn apply(&self, sql: &dyn __partysync::sql::Sql) -> __partysync::Result<()> {
                match self {
                    #(Self::#custom_idents { .. } => ::std::result::Result::Err(
                        __partysync::__private::unhandled(#custom_names),
                    ),)*
                    #rest_apply
                }
            }
        }

        #[automatically_derived]
        impl __partysync::RecordAction for #ident {
            type Record = #record;
        }

        #[allow(dead_code)]
        fn operation(action: &#ident) -> __partysync::Result<__partysync::__private::Op> {
            match action { #(#operations)* }
        }

        #serde

        #(#checks)*
    };
    in_block(krate.as_ref(), &code)
}

/// The function `put` or `take` of a field of a custom action.
fn either(ty: &syn::Type, function: &str) -> TokenStream {
    let at = ty.span().resolved_at(Span::call_site());
    let function = Ident::new(function, at);
    quote_spanned!(at=> __partysync::__private::CustomField::<#ty>::#function)
}

/// A match arm that fills `payload` and gives the name.
fn encode(variant: &CheckedVariant, payload: &Ident) -> TokenStream {
    let CheckedVariant { ident, name, fields, .. } = variant;
    let idents = fields.iter().map(|f| &f.ident);
    let puts = fields.iter().map(|field| {
        let CheckedField { ident, name, ty, codec, optional, .. } = field;
        let put = match codec {
            Codec::Column => quote!(__partysync::__private::put(&mut #payload, #name, #ident)?;),
            Codec::Serde => {
                quote!(__partysync::__private::put_json(&mut #payload, #name, #ident)?;)
            }
            Codec::Either => {
                let put = either(ty, "put");
                quote!(#put(&mut #payload, #name, #ident)?;)
            }
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
fn decode(variant: &CheckedVariant, record: &syn::Path) -> TokenStream {
    let CheckedVariant { ident, name, aliases, kind, fields } = variant;
    let names =
        fields.iter().map(|CheckedField { name, aliases, .. }| quote!((#name, &[#(#aliases),*])));
    // The fields of a custom action are no columns.
    let schema = match kind {
        Kind::Custom => quote!(::std::option::Option::None),
        _ => quote! {
            ::std::option::Option::Some(<#record as __partysync::Record>::SCHEMA)
        },
    };
    let takes = fields.iter().map(|field| {
        let CheckedField { ident, name: column, ty, codec, optional, .. } = field;
        let take = match (codec, optional) {
            (Codec::Column, false) => quote!(__partysync::__private::take::<#ty>),
            (Codec::Column, true) => quote!(__partysync::__private::take_option::<#ty>),
            (Codec::Serde, false) => quote!(__partysync::__private::take_json::<#ty>),
            (Codec::Serde, true) => quote!(__partysync::__private::take_json_option::<#ty>),
            // No field of a custom action is left out.
            (Codec::Either, _) => either(ty, "take"),
        };
        // On the user's type, where it is told if it cannot be a field.
        let at = ty.span().resolved_at(Span::call_site());
        let took = quote_spanned!(at=> #take(&payload, #name, #column));
        quote!(#ident: #took?)
    });
    quote! {
        #name #(| #aliases)* => {
            let payload = payload.under_names(#name, #schema, &[#(#names),*])?;
            ::std::result::Result::Ok(Self::#ident { #(#takes),* })
        }
    }
}

/// A match arm that gives the operation.
fn operation(action: &Ident, variant: &CheckedVariant, record: &syn::Path) -> TokenStream {
    let CheckedVariant { ident, name, kind, fields, .. } = variant;
    let op = quote!(__partysync::__private::Op);
    if *kind == Kind::Custom {
        return quote! {
            #action::#ident { .. } => ::std::result::Result::Err(
                __partysync::__private::unhandled(#name),
            ),
        };
    }
    let idents = fields.iter().map(|f| &f.ident);
    let cells = Ident::new("cells", Span::mixed_site());
    let pushes = fields.iter().map(|field| {
        let ident = &field.ident;
        let setter = format_ident!("__column_{}", field.name, span = ident.span());
        // On the user's type, but `cells` is this function's.
        let at = field.ty.span().resolved_at(Span::call_site());
        let push = quote_spanned! {at=>
            #cells.push(<#record>::#setter(::std::clone::Clone::clone(#ident))?);
        };
        if field.optional {
            quote!(if let ::std::option::Option::Some(#ident) = #ident { #push })
        } else {
            push
        }
    });
    let make = match kind {
        Kind::Insert => quote!(#op::Insert(#cells)),
        Kind::Update => quote!(#op::Update(#cells)),
        Kind::Upsert => quote!(#op::Upsert(#cells)),
        Kind::Delete | Kind::Custom => quote!(#op::Delete(#cells)),
    };
    quote! {
        #action::#ident { #(#idents),* } => {
            let mut #cells = ::std::vec::Vec::new();
            #(#pushes)*
            ::std::result::Result::Ok(#make)
        }
    }
}

/// A row that is inserted has a value in each column: of a field, or a default. An upsert may be of a
/// row that is there.
fn insert_check(variant: &CheckedVariant, record: &syn::Path) -> TokenStream {
    if variant.kind != Kind::Insert {
        return TokenStream::new();
    }
    let names = variant.fields.iter().map(|f| &f.name);
    let before = format!("`{}` leaves out `", variant.ident);
    let after = "`: make it a field, or give the column a `default`, or make it an `Option`";
    quote_spanned! {variant.ident.span()=>
        const _: () = {
            const SCHEMA: &__partysync::Schema = <#record as __partysync::Record>::SCHEMA;
            if let ::std::option::Option::Some(column) =
                __partysync::__private::left_out(SCHEMA, &[#(#names),*])
            {
                let message = __partysync::__private::Message::of(&[#before, column, #after]);
                ::std::panic!("{}", message.as_str());
            }
        };
    }
}

/// Every operation names its row: the key is among the fields, and of a delete nothing else is.
fn key_check(variant: &CheckedVariant, record: &syn::Path) -> TokenStream {
    if variant.kind == Kind::Custom {
        return TokenStream::new();
    }
    // An `Option` may be None, and then no row is named.
    let names: Vec<_> =
        variant.fields.iter().filter(|f| !f.optional).map(|f| f.name.as_str()).collect();
    let before = format!("`{}` needs the record's key as a field: `", variant.ident);
    let schema =
        quote!(const SCHEMA: &__partysync::Schema = <#record as __partysync::Record>::SCHEMA;);
    let named = quote_spanned! {variant.ident.span()=>
        const _: () = {
            #schema
            if let ::std::option::Option::Some(column) =
                __partysync::__private::without_key(SCHEMA, &[#(#names),*])
            {
                let message = __partysync::__private::Message::of(&[#before, column, "`"]);
                ::std::panic!("{}", message.as_str());
            }
        };
    };
    // More fields than a key has columns: the last one is told of.
    let more = variant.fields.last().filter(|_| variant.kind == Kind::Delete).map(|last| {
        let fields = variant.fields.len();
        quote_spanned! {last.ident.span()=>
            const _: () = {
                #schema
                ::std::assert!(
                    #fields <= __partysync::__private::key_columns(SCHEMA),
                    "a delete takes the key alone: remove this field",
                );
            };
        }
    });
    quote!(#named #more)
}
