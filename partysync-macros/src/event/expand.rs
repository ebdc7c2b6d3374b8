//! The code of an enum of events.

use super::check::{Checked, CheckedField, CheckedVariant};
use crate::syntax::in_block;
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::Ident;

pub(super) fn expand(events: &Checked) -> TokenStream {
    let Checked { ident, krate, variants } = events;
    let (idents, names): (Vec<_>, Vec<_>) = variants.iter().map(|v| (&v.ident, &v.name)).unzip();
    let encode = variants.iter().map(encode);
    let decode = variants.iter().map(decode);
    let code = quote! {
        #[automatically_derived]
        impl __partysync::Event for #ident {
            const NAMES: &'static [&'static str] = &[#(#names),*];

            fn name(&self) -> &'static str {
                match self { #(Self::#idents { .. } => #names,)* }
            }

            fn args(
                &self,
            ) -> __partysync::Result<
                ::std::option::Option<__partysync::__private::serde_json::Value>,
            > {
                match self { #(#encode)* }
            }

            fn from_parts(
                name: &str,
                args: ::std::option::Option<&str>,
            ) -> __partysync::Result<::std::option::Option<Self>> {
                match name {
                    #(#decode)*
                    _ => ::std::result::Result::Ok(::std::option::Option::None),
                }
            }
        }
    };
    in_block(krate.as_ref(), &code)
}

/// A match arm that gives the arguments.
fn encode(variant: &CheckedVariant) -> TokenStream {
    let CheckedVariant { ident, unit, fields, .. } = variant;
    if *unit {
        return quote!(Self::#ident => ::std::result::Result::Ok(::std::option::Option::None),);
    }
    let idents = fields.iter().map(|f| &f.ident);
    // No name of a field's.
    let args = Ident::new("args", Span::mixed_site());
    let puts = fields.iter().map(|CheckedField { ident, name, optional, .. }| {
        let put = quote!(__partysync::__private::put_json(&mut #args, #name, #ident)?;);
        if *optional { quote!(if ::std::option::Option::is_some(#ident) { #put }) } else { put }
    });
    quote! {
        Self::#ident { #(#idents),* } => {
            #[allow(unused_mut)]
            let mut #args = __partysync::__private::serde_json::Map::new();
            #(#puts)*
            ::std::result::Result::Ok(::std::option::Option::Some(
                __partysync::__private::serde_json::Value::Object(#args),
            ))
        }
    }
}

/// A match arm that takes the fields out of the arguments.
fn decode(variant: &CheckedVariant) -> TokenStream {
    let CheckedVariant { ident, name, unit, fields } = variant;
    let make = if *unit {
        quote!(Self::#ident)
    } else {
        let takes = fields.iter().map(|CheckedField { ident, name: field, ty, .. }| {
            quote!(#ident: __partysync::__private::take_argument::<#ty>(&args, #name, #field)?)
        });
        quote!({
            #[allow(unused_variables)]
            let args = __partysync::__private::open_arguments(#name, args)?;
            Self::#ident { #(#takes),* }
        })
    };
    quote! {
        #name => ::std::result::Result::Ok(::std::option::Option::Some(#make)),
    }
}
