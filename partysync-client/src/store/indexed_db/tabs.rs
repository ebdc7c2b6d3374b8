//! What the tabs of an app tell each other, over a `BroadcastChannel` with the database's name.

use crate::peer::Note;
use crate::store::StoreEvent;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{BroadcastChannel, MessageEvent};

/// What a tab tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message<'a> {
    /// A client holds the lock of its outbox: who gets the lock next gets the outbox.
    Opened {
        /// The client's id.
        client: String,
    },
    /// The database is being deleted.
    Deleted,
    /// A note of its client.
    Note(Cow<'a, Note>),
}

/// Something that was heard.
pub(super) enum Heard {
    Opened(String),
    Event(StoreEvent),
}

/// The channel; it closes when it is dropped.
pub(super) struct Channel {
    inner: BroadcastChannel,
    _handler: Option<Closure<dyn FnMut(MessageEvent)>>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.inner.set_onmessage(None);
        self.inner.close();
    }
}

impl Channel {
    /// Hears what the other tabs tell from now on. `None` where there are no such channels: then
    /// tabs hear of each other when they are opened.
    pub(super) fn listen(name: &str, hear: impl Fn(Heard) + 'static) -> Option<Self> {
        let inner = BroadcastChannel::new(name).ok()?;
        let handler = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let text = event.data().as_string().unwrap_or_default();
            let heard = match serde_json::from_str(&text) {
                Ok(Message::Opened { client }) => Heard::Opened(client),
                Ok(Message::Deleted) => Heard::Event(StoreEvent::Deleted),
                Ok(Message::Note(note)) => Heard::Event(StoreEvent::Note(note.into_owned())),
                // Another version of the app says what this one does not know.
                Err(_) => return,
            };
            hear(heard);
        });
        inner.set_onmessage(Some(handler.as_ref().unchecked_ref()));
        Some(Self { inner, _handler: Some(handler) })
    }

    /// A channel that is only told on.
    pub(super) fn open(name: &str) -> Option<Self> {
        Some(Self { inner: BroadcastChannel::new(name).ok()?, _handler: None })
    }

    pub(super) fn tell(&self, message: &Message<'_>) {
        if let Ok(text) = serde_json::to_string(message) {
            // A tab that does not hear it reads the store when it is opened again.
            let _ = self.inner.post_message(&text.into());
        }
    }
}
