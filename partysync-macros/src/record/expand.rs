//! The code of a record.

use super::check::{Checked, Column, Role};
use super::constraints::{Index, OnDelete, Reference};
use crate::syntax::in_block;
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;

pub(super) fn expand(record: &Checked) -> TokenStream {
    let Checked { ident, vis, table, renamed_from, dropped, krate, columns, .. } = record;
    let Checked { version, compatible, .. } = record;
    let Checked { indexes, checks, .. } = record;
    let indexes = indexes.iter().map(|Index { columns, unique }| {
        quote!(__partysync::__private::index(&[#(#columns),*], #unique))
    });
    let definitions = columns.iter().map(definition);
    let encode = columns.iter().map(|column| {
        let field = &column.ident;
        to_value(column, &quote!(&self.#field))
    });
    let decode = columns.iter().enumerate().map(|(index, column)| from_value(index, column));
    let check = columns.iter().enumerate().map(|(index, column)| check_cell(index, column));
    let setters = columns.iter().enumerate().map(|(index, column)| setter(index, column, vis));
    let fields = columns.iter().enumerate();
    let fields = fields.filter_map(|(index, column)| field(index, column, ident, vis));
    let keys = || columns.iter().filter(|column| column.role == Role::Key);
    let several = keys().count() > 1;
    let key_checks = keys().map(|column| key_check(column, several));
    let scopes = columns
        .iter()
        .filter(|column| column.scope && !column.json && column.role != Role::Key)
        .map(scope_check);
    let references = keys().filter(|_| !several).map(|column| reference(column, ident));
    let parts = keys().map(|column| {
        let ident = &column.ident;
        // The type was checked when this was compiled: it is always a key.
        quote! {
            __partysync::Key::new(&self.#ident).unwrap_or_else(|_| __partysync::Key::Integer(0))
        }
    });
    let key = if several {
        quote!(__partysync::__private::several([#(#parts),*]))
    } else {
        quote!(#(#parts)*)
    };
    let code = quote! {
        #[automatically_derived]
        impl __partysync::Record for #ident {
            const SCHEMA: &'static __partysync::Schema = &__partysync::__private::schema(
                #table,
                &[#(#renamed_from),*],
                &[#(#dropped),*],
                (#version, #compatible),
                const { &[#(#definitions),*] },
                const { &[#(#indexes),*] },
                &[#(#checks),*],
                <Self as __partysync::Record>::check_row,
            );

            fn key(&self) -> __partysync::Key {
                #key
            }

            fn to_row(&self) -> __partysync::Result<::std::vec::Vec<__partysync::sql::Value>> {
                ::std::result::Result::Ok(::std::vec![#(#encode),*])
            }

            fn from_row(
                mut row: ::std::vec::Vec<__partysync::sql::Value>,
            ) -> __partysync::Result<Self> {
                ::std::result::Result::Ok(Self { #(#decode),* })
            }

            fn check_row(row: &[__partysync::sql::Value]) -> __partysync::Result<()> {
                #(#check)*
                ::std::result::Result::Ok(())
            }
        }

        #[allow(dead_code, clippy::missing_errors_doc)]
        impl #ident {
            #(#setters)*
        }

        #[allow(dead_code, non_upper_case_globals)]
        impl #ident {
            #(#fields)*
        }

        #(#references)*

        #(#key_checks)*

        #(#scopes)*
    };
    in_block(krate.as_ref(), &code)
}

fn definition(column: &Column) -> TokenStream {
    let Column { ty, name, index, unique, scope, .. } = column;
    let role = match column.role {
        Role::Plain => quote!(Plain),
        Role::Key => quote!(Key),
        Role::CreatedAt => quote!(CreatedAt),
        Role::UpdatedAt => quote!(UpdatedAt),
        Role::DeletedAt => quote!(DeletedAt),
    };
    let (sql_type, nullable) = if column.json {
        let nullable = crate::syntax::option_of(ty).is_some();
        (quote!(__partysync::sql::SqlType::Json), quote!(#nullable))
    } else {
        (
            quote_spanned!(ty.span()=> <#ty as __partysync::Column>::TYPE),
            quote!(<#ty as __partysync::Column>::NULLABLE),
        )
    };
    let option = |value: Option<TokenStream>| match value {
        Some(value) => quote!(::std::option::Option::Some(#value)),
        None => quote!(::std::option::Option::None),
    };
    let default = option(column.default.clone());
    let references = option(column.references.as_ref().map(|Reference { table, on_delete }| {
        let on_delete = match on_delete {
            OnDelete::Restrict => quote!(Restrict),
            OnDelete::Cascade => quote!(Cascade),
            OnDelete::SetNull => quote!(SetNull),
        };
        quote! {
            __partysync::__private::reference(#table, __partysync::__private::OnDelete::#on_delete)
        }
    }));
    let renamed_from = &column.renamed_from;
    quote! {
        __partysync::__private::column(
            #name,
            #sql_type,
            #nullable,
            __partysync::__private::Role::#role,
            #default,
            #index,
            #unique,
            #references,
            &[#(#renamed_from),*],
            #scope,
        )
    }
}

fn to_value(column: &Column, value: &TokenStream) -> TokenStream {
    let name = &column.name;
    let encode = if column.json {
        quote!(__partysync::__private::json_to_value)
    } else {
        quote!(__partysync::Column::try_to_value)
    };
    quote!(#encode(#value).map_err(|e| __partysync::__private::in_column(e, #name))?)
}

fn from_value(index: usize, column: &Column) -> TokenStream {
    let (field, name) = (&column.ident, &column.name);
    let cell = quote!(__partysync::__private::cell(&mut row, #index));
    let read = if column.json {
        quote!(__partysync::__private::json_from_value(&#cell))
    } else {
        quote!(__partysync::Column::from_value(#cell))
    };
    quote!(#field: #read.map_err(|e| __partysync::__private::in_column(e, #name))?)
}

/// Whether a cell fits its field.
fn check_cell(index: usize, column: &Column) -> TokenStream {
    let Column { ty, name, .. } = column;
    let check = if column.json { quote!(check_json) } else { quote!(check_cell) };
    quote!(__partysync::__private::#check::<#ty>(row, #index, #name)?;)
}

/// What a derived action calls to set this column: a column that is not there is an error on the
/// action's field that names it.
fn setter(index: usize, column: &Column, vis: &syn::Visibility) -> TokenStream {
    let ty = &column.ty;
    let name = format_ident!("__column_{}", column.name);
    let value = to_value(column, &quote!(&value));
    quote! {
        #[doc(hidden)]
        #vis fn #name(
            value: impl __partysync::__private::IntoColumn<#ty>,
        ) -> __partysync::Result<(usize, __partysync::sql::Value)> {
            let value: #ty = __partysync::__private::IntoColumn::into_column(value);
            ::std::result::Result::Ok((#index, #value))
        }
    }
}

/// The column as queries name it.
fn field(
    index: usize,
    column: &Column,
    record: &syn::Ident,
    vis: &syn::Visibility,
) -> Option<TokenStream> {
    let Column { ty, name, .. } = column;
    let constant = column.constant.as_ref()?;
    let doc = format!("The column `{name}`, for queries.");
    Some(quote! {
        #[doc = #doc]
        #vis const #constant: __partysync::query::Field<#record, #ty> =
            __partysync::query::Field::at(#index);
    })
}

/// What has the key's type refers to the record.
fn reference(column: &Column, record: &syn::Ident) -> TokenStream {
    let ty = &column.ty;
    quote! {
        #[automatically_derived]
        impl __partysync::query::RefersTo<#record> for #ty {}
    }
}

fn key_check(column: &Column, several: bool) -> TokenStream {
    let ty = &column.ty;
    if several {
        return quote_spanned! {ty.span()=>
            const _: () = ::std::assert!(
                ::std::matches!(
                    <#ty as __partysync::Column>::TYPE,
                    __partysync::sql::SqlType::Integer | __partysync::sql::SqlType::Text
                ) && !<#ty as __partysync::Column>::NULLABLE,
                "each column of a key of several is text or an integer, and never NULL",
            );
        };
    }
    quote_spanned! {ty.span()=>
        const _: () = ::std::assert!(
            ::std::matches!(
                <#ty as __partysync::Column>::TYPE,
                __partysync::sql::SqlType::Integer
                    | __partysync::sql::SqlType::Text
                    | __partysync::sql::SqlType::Blob
            ) && !<#ty as __partysync::Column>::NULLABLE,
            "a key is text, an integer or bytes, and never NULL",
        );
    }
}

/// What a row held in the column is kept as JSON, and has to come out of it as it was.
fn scope_check(column: &Column) -> TokenStream {
    let ty = &column.ty;
    quote_spanned! {ty.span()=>
        const _: () = ::std::assert!(
            ::std::matches!(
                <#ty as __partysync::Column>::TYPE,
                __partysync::sql::SqlType::Integer
                    | __partysync::sql::SqlType::Text
                    | __partysync::sql::SqlType::Json
            ),
            "a `scope` column is text, an integer or JSON",
        );
    }
}
