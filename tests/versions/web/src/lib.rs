//! A client of one channel of the application, in either of its versions: what the page shows of it,
//! as JSON.

#![cfg(target_arch = "wasm32")]

use futures::StreamExt;
use js_sys::Function;
use partysync::sql::Value;
use partysync::{Action, Error, Record, Schema};
use partysync_client::{Phase, Place, Status, SyncClient, User};
use serde_json::{Value as Json, json};
use versions_shared::{before, now};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

/// A client of one channel.
#[wasm_bindgen]
pub struct Page(Box<dyn Channel>);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

/// What a page does with a channel of any version.
trait Channel {
    fn act(&self, action: &str) -> partysync::Result<()>;
}

struct Followed<A: Action>(SyncClient<A>);

impl<A: Action> Channel for Followed<A> {
    fn act(&self, action: &str) -> partysync::Result<()> {
        let channel = A::CHANNELS.first().map_or("", |schema| schema.table);
        // What becomes of it is among the errors, if it is one.
        drop(self.0.send(A::from_json(channel, action)?));
        Ok(())
    }
}

#[wasm_bindgen]
impl Page {
    /// Opens what is kept of a room's channel, and connects; `show` is called with all that there is
    /// to show whenever it is something else.
    ///
    /// # Errors
    /// There is no such channel.
    pub fn open(version: &str, channel: &str, room: &str, show: Function) -> Result<Self, JsError> {
        Ok(match (version, channel) {
            ("before", "books") => follow::<before::BookAction, before::Book>(room, show),
            ("before", "tickets") => follow::<before::TicketAction, before::Ticket>(room, show),
            ("before", "cards") => follow::<before::CardAction, before::Card>(room, show),
            ("before", "things") => follow::<before::ThingAction, before::Thing>(room, show),
            ("now", "books") => follow::<now::BookAction, now::Book>(room, show),
            ("now", "tickets") => follow::<now::TicketAction, now::Ticket>(room, show),
            ("now", "cards") => follow::<now::CardAction, now::Card>(room, show),
            ("now", "things") => follow::<now::ThingAction, now::Thing>(room, show),
            _ => return Err(JsError::new("there is no such channel")),
        })
    }

    /// Does an action, given as it is sent.
    ///
    /// # Errors
    /// It is none of this version's.
    pub fn act(&self, action: &str) -> Result<(), JsError> {
        self.0.act(action).map_err(|error| JsError::new(&error.to_string()))
    }
}

fn follow<A: Action, R: Record>(room: &str, show: Function) -> Page {
    let client = SyncClient::<A>::connect(&Place::new("board", room, User::anyone()));
    let shown = client.clone();
    spawn_local(async move {
        let mut updates = shown.updates();
        tell::<A, R>(&shown, &[], &show);
        while let Some(update) = updates.next().await {
            tell::<A, R>(&shown, &update.errors, &show);
        }
    });
    Page(Box::new(Followed(client)))
}

fn tell<A: Action, R: Record>(client: &SyncClient<A>, errors: &[Error], show: &Function) {
    let rows = client.rows::<R>().into_iter();
    let rows = rows.map(|row| object(R::SCHEMA, &row.to_row().unwrap_or_default()));
    let Status { phase, pending, unreadable, .. } = client.status();
    let (name, why) = match phase {
        Phase::Live => ("live", String::new()),
        Phase::Offline { error, .. } => ("offline", error.to_string()),
        Phase::Refused(error) => ("refused", error.to_string()),
        _ => ("connecting", String::new()),
    };
    let kept: Vec<_> = client.abandoned().into_values().map(|kept| kept.action).collect();
    let json = json!({
        "rows": rows.collect::<Vec<_>>(),
        "phase": name,
        "why": why,
        "pending": pending,
        "unreadable": unreadable,
        "kept": kept,
        "errors": errors.iter().map(Error::message).collect::<Vec<_>>(),
    });
    let _ = show.call1(&JsValue::NULL, &JsValue::from_str(&json.to_string()));
}

/// A row by the names of its columns.
fn object(schema: &Schema, row: &[Value]) -> Json {
    let cells = schema.columns.iter().zip(row);
    let cells = cells.filter_map(|(column, cell)| {
        Some((column.name.to_owned(), cell.to_json(column.sql_type).ok()?))
    });
    Json::Object(cells.collect())
}
