//! derive(Column): a newtype is stored as what it wraps, a unit enum as text.

use crate::syntax::{
    Errors, crate_path, each_meta, in_block, once, refuse_generics, string, unknown,
};
use heck::ToSnakeCase;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields};

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    refuse_generics(input, &mut errors);
    let mut krate = None;
    each_meta(&input.attrs, "column", &mut errors, |meta| {
        if meta.path.is_ident("crate") {
            return once(&mut krate, crate_path(meta)?, meta);
        }
        Err(unknown(meta, &["crate"]))
    });
    let body = match &input.data {
        Data::Struct(data) => newtype(input, &data.fields, &mut errors),
        Data::Enum(data) => unit_enum(input, data, &mut errors),
        Data::Union(_) => {
            errors.at(input.ident.span(), "a column is a newtype or an enum of unit variants");
            TokenStream::new()
        }
    };
    errors.finish()?;
    Ok(in_block(krate.as_ref(), &body))
}

fn newtype(input: &DeriveInput, fields: &Fields, errors: &mut Errors) -> TokenStream {
    let ident = &input.ident;
    let field = match fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => fields.unnamed.first(),
        _ => None,
    };
    let Some(field) = field else {
        errors.at(
            ident.span(),
            "a column type wraps one value: struct Name(Inner); \
             store a struct with several under `#[record(json)]`",
        );
        return TokenStream::new();
    };
    let ty = &field.ty;
    quote! {
        #[automatically_derived]
        impl __partysync::Column for #ident {
            const TYPE: __partysync::sql::SqlType = <#ty as __partysync::Column>::TYPE;
            const NULLABLE: bool = <#ty as __partysync::Column>::NULLABLE;

            fn to_value(&self) -> __partysync::sql::Value {
                __partysync::Column::to_value(&self.0)
            }

            fn try_to_value(&self) -> __partysync::Result<__partysync::sql::Value> {
                __partysync::Column::try_to_value(&self.0)
            }

            fn from_value(value: __partysync::sql::Value) -> __partysync::Result<Self> {
                __partysync::Column::from_value(value).map(Self)
            }

            fn check(value: &__partysync::sql::Value) -> __partysync::Result<()> {
                <#ty as __partysync::Column>::check(value)
            }
        }
    }
}

fn unit_enum(input: &DeriveInput, data: &syn::DataEnum, errors: &mut Errors) -> TokenStream {
    let ident = &input.ident;
    let mut variants = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            let message = "a column's enum has unit variants only: \
                           store one with fields under `#[record(json)]`";
            errors.add(syn::Error::new_spanned(&variant.fields, message));
        }
        let mut rename = None;
        each_meta(&variant.attrs, "column", errors, |meta| {
            if !meta.path.is_ident("rename") {
                return Err(unknown(meta, &["rename"]));
            }
            once(&mut rename, string(meta)?, meta)
        });
        let name = match rename {
            Some(rename) => rename.value(),
            None => variant.ident.to_string().to_snake_case(),
        };
        if names.contains(&name) {
            errors.at(variant.ident.span(), format!("two variants are stored as `{name}`"));
        }
        names.push(name);
        variants.push(&variant.ident);
    }
    if variants.is_empty() {
        errors.at(ident.span(), "an enum without variants has no value to store");
    }
    let expected = names.join(", ");
    quote! {
        #[automatically_derived]
        impl __partysync::Column for #ident {
            const TYPE: __partysync::sql::SqlType = __partysync::sql::SqlType::Text;

            fn to_value(&self) -> __partysync::sql::Value {
                __partysync::sql::Value::from(match self { #(Self::#variants => #names),* })
            }

            fn from_value(value: __partysync::sql::Value) -> __partysync::Result<Self> {
                let text = <::std::string::String as __partysync::Column>::from_value(value)?;
                match text.as_str() {
                    #(#names => ::std::result::Result::Ok(Self::#variants),)*
                    other => ::std::result::Result::Err(__partysync::Error::new(
                        __partysync::Code::InvalidValue,
                        ::std::format!("expected one of {}, found `{}`", #expected, other),
                    )),
                }
            }
        }
    }
}
