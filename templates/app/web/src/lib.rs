//! The page.

mod given_up;

use app_shared::{MAX_TEXT, Note, NoteAction};
use given_up::GivenUp;
use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use partysync::Record;
use partysync_client::leptos::{Listing, Row, use_sync};
use partysync_client::{Answer, Phase, Place, Status, User};
use wasm_bindgen::prelude::wasm_bindgen;

/// Shows the page; its HTML calls this when the module is loaded.
#[wasm_bindgen(start)]
pub fn start() {
    leptos::mount::mount_to_body(App);
}

#[component]
fn App() -> impl IntoView {
    // The room `default`, for anybody. With a login it is `User::new(name)`: what one user of a browser
    // wrote is never sent in another's name.
    let sync = use_sync::<NoteAction>(&Place::new("notes", "default", User::anyone()));
    let notes = sync.query(|| Note::query().order_by(Note::created_at.desc()).limit(100));

    let error = RwSignal::new(None::<String>);
    sync.on_error(move |problem| error.set(Some(problem.message().to_owned())));
    // The answer says what the server made of an action.
    let watch = Callback::new(move |answer: Answer| {
        error.set(None);
        spawn_local(async move {
            if let Err(problem) = answer.await {
                error.set(Some(problem.message().to_owned()));
            }
        });
    });
    // Shown at once.
    let send = Callback::new(move |action| watch.run(sync.send(action)));

    view! {
        <main>
            <header>
                <h1>"Notes"</h1>
                <Saved status=sync.status() />
            </header>
            <NewNote send />
            {move || error.get().map(|text| view! { <p class="error" role="alert">{text}</p> })}
            <GivenUp sync watch />
            {move || match notes.listing() {
                Listing::Loading => view! { <p class="nothing">"Loading"</p> }.into_any(),
                Listing::Empty => view! { <p class="nothing">"No notes yet"</p> }.into_any(),
                Listing::Failed(problem) => {
                    view! { <p class="error" role="alert">{problem.to_string()}</p> }.into_any()
                }
                Listing::Rows => view! {
                    <ul>
                        <For each=move || notes.keys() key=Clone::clone let:key>
                            {notes.get(&key).map(|note| view! { <Item note send /> })}
                        </For>
                    </ul>
                }
                .into_any(),
            }}
        </main>
    }
}

/// The form for a new note.
#[component]
fn NewNote(send: Callback<NoteAction>) -> impl IntoView {
    let text = RwSignal::new(String::new());
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let text = std::mem::take(&mut *text.write());
        if !text.trim().is_empty() {
            send.run(NoteAction::Add { id: new_id(), text });
        }
    };
    view! {
        <form on:submit=submit>
            <input
                aria-label="A new note"
                placeholder="Write a note"
                autocomplete="off"
                maxlength=MAX_TEXT
                prop:value=text
                on:input:target=move |event| text.set(event.target().value())
            />
            <button>"Add"</button>
        </form>
    }
}

/// A note. What is read from `note` in a closure is updated when this note changes.
#[component]
fn Item(note: Row<Note>, send: Callback<NoteAction>) -> impl IntoView {
    let id = StoredValue::new(note.get_untracked().id.clone());
    let edit = move |text: String| {
        if text != note.get_untracked().text {
            send.run(NoteAction::Edit {
                id: id.get_value(),
                text: Some(text),
            });
        }
    };
    let remove = move |_| send.run(NoteAction::Remove { id: id.get_value() });
    view! {
        <li class:pending=move || note.pending()>
            <input
                aria-label="Note"
                maxlength=MAX_TEXT
                prop:value=move || note.get().text.clone()
                on:change:target=move |event| edit(event.target().value())
            />
            <button aria-label=move || format!("Remove {}", note.get().text) on:click=remove>
                "×"
            </button>
        </li>
    }
}

/// Whether what is seen is current, and what is written is saved.
#[component]
fn Saved(status: Signal<Status>) -> impl IntoView {
    let text = move || {
        let Status { phase, pending, .. } = status.get();
        match phase {
            Phase::Live if pending == 0 => "Saved".to_owned(),
            Phase::Live => "Saving".to_owned(),
            Phase::Offline { .. } if pending > 0 => format!("Offline, {pending} not saved"),
            Phase::Offline { .. } => "Offline".to_owned(),
            Phase::Refused(problem) => problem.to_string(),
            _ => "Connecting".to_owned(),
        }
    };
    let live = move || matches!(status.get().phase, Phase::Live);
    view! { <span class="status" class:live=live role="status">{text}</span> }
}

fn new_id() -> String {
    window()
        .crypto()
        .map(|crypto| crypto.random_uuid())
        .unwrap_or_default()
}
