//! Changes that were given up: the server never answered, or is of another version of the application.
//! They are in no list of notes, and are kept until somebody decides.

use app_shared::NoteAction;
use leptos::prelude::*;
use partysync::Action;
use partysync_client::Answer;
use partysync_client::leptos::Synced;
use partysync_client::store::Abandoned;

/// What was given up, why, and what can be done about it.
#[component]
pub(crate) fn GivenUp(sync: Synced<NoteAction>, watch: Callback<Answer>) -> impl IntoView {
    let status = sync.status();
    let kept = Memo::new(move |_| {
        // Whenever the status is another: it counts them.
        status.track();
        sync.client().abandoned()
    });
    let item = move |(id, given_up): (String, Abandoned)| {
        let (what, why) = (text(&given_up), given_up.message);
        let id = StoredValue::new(id);
        let again = move |_| watch.run(sync.client().retry(&id.get_value()));
        // Another tab may have let go of it.
        let discard = move |_| drop(sync.client().discard(&id.get_value()));
        view! {
            <li>
                <p><strong>{what.clone()}</strong>" "{why}</p>
                <button aria-label=format!("Try again: {what}") on:click=again>"Try again"</button>
                <button aria-label=format!("Discard: {what}") on:click=discard>"Discard"</button>
            </li>
        }
    };
    let count = move || match kept.with(|kept| kept.len()) {
        0 => String::new(),
        1 => "1 change could not be saved".to_owned(),
        n => format!("{n} changes could not be saved"),
    };
    view! {
        <div class="given-up">
            // It is there before it says anything, so that it is read out when it does.
            <p role="status">{count}</p>
            <ul>
                <For each=move || kept.get() key=|(id, _)| id.clone() children=item />
            </ul>
        </div>
    }
}

/// What somebody wanted to do.
fn text(given_up: &Abandoned) -> String {
    match NoteAction::from_json(&given_up.channel, &given_up.action.to_string()) {
        Ok(NoteAction::Add { text, .. }) => text,
        Ok(NoteAction::Edit { text, .. }) => text.unwrap_or_default(),
        Ok(NoteAction::Remove { .. }) => "The removal of a note".to_owned(),
        Err(_) => "A change of another version".to_owned(),
    }
}
