//! The derives of `partysync-rs`; use them through that crate, where they are documented on the
//! traits `Record`, `Action`, `Event` and `Column`.
//!
//! Each derive reads its attributes into one plain type (`parse`), turns that into one that
//! cannot be wrong (`check`), and only then writes code (`expand`). Every misuse is an error on
//! the user's own token, and all of them are reported at once.

mod action;
mod column;
mod event;
mod record;
mod syntax;

use proc_macro::TokenStream;

/// Derives `partysync::Record`.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    run(input, record::derive)
}

/// Derives `partysync::Action`.
#[proc_macro_derive(Action, attributes(action))]
pub fn derive_action(input: TokenStream) -> TokenStream {
    run(input, action::derive)
}

/// Derives `partysync::Column`.
#[proc_macro_derive(Column, attributes(column))]
pub fn derive_column(input: TokenStream) -> TokenStream {
    run(input, column::derive)
}

/// Derives `partysync::Event`.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    run(input, event::derive)
}

fn run(
    input: TokenStream,
    derive: impl FnOnce(&syn::DeriveInput) -> syn::Result<proc_macro2::TokenStream>,
) -> TokenStream {
    syn::parse(input)
        .and_then(|input| derive(&input))
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
