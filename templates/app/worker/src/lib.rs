//! The worker: a Durable Object for each room, and the router in front of them.

#[cfg(test)]
mod tests;

use app_shared::{MAX_TEXT, NoteAction};
use partysync::worker::Router;
use partysync::{Action, Error, Result, Room, SyncServer};
use worker::{Context, Env, Request, Response, event};

/// A room of notes.
#[derive(Debug, Default)]
pub struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    /// One transaction: after an `Err` nothing is written, and the client takes back what it showed.
    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        if let NoteAction::Add { text, .. }
        | NoteAction::Edit {
            text: Some(text), ..
        } = &action
        {
            check(text)?;
        }
        // The SQL that the derive wrote. Any SQL may stand here: changed rows are found by triggers.
        action.apply(room.sql())
    }
}

fn check(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::reject("A note needs some text"));
    }
    if text.chars().count() > MAX_TEXT {
        return Err(Error::reject(format!(
            "A note has at most {MAX_TEXT} characters"
        )));
    }
    Ok(())
}

partysync::durable_object!(Notes);

/// Rooms are at `/parties/notes/{room}`; the page is an asset.
#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
    Router::new()
        .party("notes", "NOTES")
        .route(request, &env)
        .await
}
