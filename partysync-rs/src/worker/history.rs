//! A room's history as a durable stream in the room's own object.

use super::{DurableSql, Workers};
use crate::streams::{Options, Refusal, SqlStore, Streams};
use crate::{Code, Error, Result};
use worker::State;

/// The stream's path, below the room's URL.
const PATH: &str = "history";

/// The stream that a room's changes are published into.
#[derive(Debug)]
pub(super) struct History {
    pub(super) streams: Streams<SqlStore<DurableSql>, Workers>,
}

impl History {
    pub(super) fn open(state: &State) -> Result<Self> {
        let store = SqlStore::new(DurableSql::new(state)?)?;
        let options = Options { root: String::new(), ..Options::default() };
        Ok(Self { streams: Streams::new(store, Workers::without_alarm(), options) })
    }

    /// The version that it ends with.
    pub(super) fn published(&self) -> Result<u64> {
        self.streams.published(PATH).map_err(failed)
    }

    /// Publishes what a turn has changed, in that turn: the object keeps both or neither.
    pub(super) fn publish(&self, to: u64, messages: &[String]) -> Result<()> {
        self.streams.publish(PATH, to, messages).map_err(failed)
    }

    /// The request as the streams know it, if it is one for the history of this room: its path
    /// without the room's.
    pub(super) fn own(uri: &http::Uri, room: &str) -> Option<http::Uri> {
        let above = uri.path().strip_suffix(PATH)?.strip_suffix('/')?;
        let last = above.rsplit('/').next().unwrap_or_default();
        if percent_encoding::percent_decode_str(last).decode_utf8().ok()? != room {
            return None;
        }
        let mut parts = uri.clone().into_parts();
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        parts.path_and_query = format!("/{PATH}{query}").parse().ok();
        http::Uri::from_parts(parts).ok()
    }
}

fn failed(refusal: Refusal) -> Error {
    Error::new(Code::Internal, format!("the room's history: {refusal}"))
}
