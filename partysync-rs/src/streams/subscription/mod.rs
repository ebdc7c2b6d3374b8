//! Subscriptions: cursors over streams that wake a worker when there is something to do
//! (sections 6 and 7).
//!
//! Everything about them is kept as notes in the store and changes in the transaction of the
//! append that causes it: `sub/{id}` is the subscription, `link/{id}/{path}` its cursor in a
//! stream, `todo/{id}/{path}` is there while that stream holds more than the cursor has seen.

mod api;
mod deliver;
mod glob;
mod keys;
mod wake;
pub(super) mod webhook;

use super::{Change, Offset, Platform, Store, StreamId};
use crate::{Code, Error, Result, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What a creator asks for, normalized: two requests for the same subscription are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Config {
    pattern: Option<String>,
    streams: BTreeSet<String>,
    delivery: Delivery,
    lease_ttl_ms: u64,
    description: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Delivery {
    Webhook { url: String },
    PullWake { wake_stream: String },
}

impl Config {
    /// Whether this is the stream that its own wakes are written into.
    fn wakes_on(&self, path: &str) -> bool {
        matches!(&self.delivery, Delivery::PullWake { wake_stream } if wake_stream == path)
    }
}

/// A subscription as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Subscription {
    id: String,
    config: Config,
    created_at: Timestamp,
    /// The URL of the streams' root, as its creator saw it.
    base: String,
    /// Counts wakes.
    generation: u64,
    /// The wake under way; idle without one.
    wake: Option<Wake>,
    /// Whether the last delivery failed.
    failed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wake {
    id: String,
    /// What the worker shows when it comes back.
    token: String,
    /// Who has claimed it.
    holder: Option<String>,
    /// When it is taken away from a worker that does not come back.
    lease_until: Option<Timestamp>,
    /// The streams' ends, as the webhook was told.
    snapshot: BTreeMap<String, u64>,
    /// How often the webhook was tried.
    attempts: u32,
    /// When it is tried next.
    next_attempt: Option<Timestamp>,
}

/// A subscription's cursor in a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Link {
    explicit: bool,
    glob: bool,
    /// The stream that `acked` belongs to; another one under the same path begins anew.
    stream: Option<StreamId>,
    acked: u64,
}

impl Link {
    fn kind(&self) -> &'static str {
        if self.explicit { "explicit" } else { "glob" }
    }

    fn offset(&self) -> String {
        Offset::new(self.acked).to_string()
    }
}

impl Subscription {
    fn key(id: &str) -> String {
        format!("sub/{id}")
    }

    fn link_key(id: &str, path: &str) -> String {
        format!("link/{id}/{path}")
    }

    fn todo_key(id: &str, path: &str) -> String {
        format!("todo/{id}/{path}")
    }

    /// Whether its pattern fits a stream. Its own wakes never wake it.
    fn covers(&self, path: &str) -> bool {
        let fits = |pattern: &String| glob::fits(pattern, path);
        !self.config.wakes_on(path) && self.config.pattern.as_ref().is_some_and(fits)
    }

    /// Whether its wakes are posted.
    fn posts(&self) -> bool {
        matches!(self.config.delivery, Delivery::Webhook { .. })
    }

    /// When something has to be done for it next.
    fn due(&self) -> Option<Timestamp> {
        let wake = self.wake.as_ref()?;
        [wake.next_attempt, wake.lease_until].into_iter().flatten().min()
    }
}

/// A note with its key.
#[derive(Clone, Debug)]
struct Known<T> {
    key: String,
    value: T,
}

fn known<T: DeserializeOwned>(store: &impl Store, prefix: &str) -> Result<Vec<Known<T>>> {
    let read = |(key, text): (String, String)| Ok(Known { value: parse(&text)?, key });
    store.notes(prefix)?.into_iter().map(read).collect()
}

fn read_note<T: DeserializeOwned>(store: &impl Store, key: &str) -> Result<Option<T>> {
    store.note(key)?.map(|text| parse(&text)).transpose()
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Error::new(Code::Internal, format!("a note is unreadable: {e}")))
}

fn note(key: String, value: &impl Serialize) -> Result<Change> {
    let text =
        serde_json::to_string(value).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
    Ok(Change::Note { key, text: Some(text) })
}

/// A name that nobody can guess.
fn random_text(platform: &impl Platform) -> Result<String> {
    let bytes = platform.random()?;
    Ok(bytes.iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
