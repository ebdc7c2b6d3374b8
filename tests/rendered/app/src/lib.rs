//! A page that its Worker renders with the room's rows in it, and the browser hydrates.

// What `#[component]` makes of a private component says `pub`.
#![allow(unreachable_pub)]

#[cfg(feature = "ssr")]
mod document;

#[cfg(feature = "ssr")]
pub use document::document;

use leptos::prelude::*;
use partysync::wire::snapshot::Snapshot;
use partysync::{Action, Record};
use partysync_client::leptos::{Listing, Loaded, use_sync_from};
use partysync_client::{Phase, Place, User};

/// A note.
#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "notes")]
pub struct Note {
    /// Which one.
    #[record(key)]
    pub id: String,
    /// What it says.
    pub text: String,
}

/// What may be done.
#[derive(Action, Clone, Debug, PartialEq)]
#[action(record = Note)]
pub enum NoteAction {
    /// Writes a note.
    #[action(upsert)]
    Put {
        /// Which one.
        id: String,
        /// What it is to say.
        text: String,
    },
}

/// The page.
#[component]
pub fn App(
    /// What the server has put into it.
    rows: Option<Snapshot>,
) -> impl IntoView {
    let place = Place::new("notes", "default", User::anyone());
    let sync = use_sync_from::<NoteAction>(&place, rows);
    let notes = sync.query(|| Note::query().order_by(Note::text.asc()));
    let count = sync.count(Note::query);
    let live = move || sync.status().get().phase == Phase::Live;
    let add = move |_| {
        let n = notes.len() + 1;
        drop(sync.send(NoteAction::Put { id: n.to_string(), text: format!("Note {n}") }));
    };
    view! {
        <main data-live=move || live().to_string()>
            <h1>{move || match count.get() {
                Loaded::Ready(n) => format!("{n} notes"),
                Loaded::Loading => "Notes".to_owned(),
                Loaded::Failed(error) => error.to_string(),
            }}</h1>
            {move || match notes.listing() {
                Listing::Loading => view! { <p>"Loading"</p> }.into_any(),
                Listing::Empty => view! { <p>"No notes yet"</p> }.into_any(),
                Listing::Failed(error) => view! { <p>{error.to_string()}</p> }.into_any(),
                Listing::Rows => view! {
                    <ul>
                        <For each=move || notes.keys() key=Clone::clone let:key>
                            {notes.get(&key).map(|note| view! {
                                <li class:pending=move || note.pending()>
                                    {move || note.get().text.clone()}
                                </li>
                            })}
                        </For>
                    </ul>
                }.into_any(),
            }}
            <button on:click=add>"Add"</button>
        </main>
    }
}
