//! A client of the todo app in a page without a framework: what `cargo xtask bench client`
//! measures in a browser.

#![cfg(target_arch = "wasm32")]

use futures::StreamExt;
use partysync::{Error, Record};
use partysync_client::{Phase, Place, SyncClient, User};
use todo_shared::{Todo, TodoAction};
use wasm_bindgen::prelude::*;

/// A client of one room.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Client(SyncClient<TodoAction>);

#[wasm_bindgen]
impl Client {
    /// Opens what is kept of a room, and connects.
    #[must_use]
    pub fn open(room: &str) -> Self {
        Self(SyncClient::connect(&Place::new("todos", room, User::anyone())))
    }

    /// Waits for the first rows; to be called at once.
    ///
    /// # Errors
    /// The client has ended before.
    pub async fn first_rows(&self) -> Result<(), JsError> {
        let mut updates = self.0.updates();
        while let Some(update) = updates.next().await {
            if !update.changes.is_empty() {
                return Ok(());
            }
        }
        Err(JsError::new("the client has ended"))
    }

    /// Waits until the client is live.
    ///
    /// # Errors
    /// What the client says when it ends before.
    pub async fn live(&self) -> Result<(), JsError> {
        let client = self.0.clone();
        client.until(|client| client.status().phase == Phase::Live).await.map_err(js)
    }

    /// Waits until what it has is stored.
    ///
    /// # Errors
    /// What the store says.
    pub async fn stored(&self) -> Result<(), JsError> {
        let client = self.0.clone();
        client.stored().await.map_err(js)
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.keys(Todo::SCHEMA.table).len()
    }
}

fn js(error: Error) -> JsError {
    JsError::new(&error.to_string())
}
