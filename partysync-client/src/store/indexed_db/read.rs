//! Reading what is kept. What cannot be read is left out, and costs nothing else.

use super::database::{
    ABANDONED, CHANNEL, OUTBOX, PENDING, Records, Tx, parse, range, range_after,
};
use super::rows;
use crate::gathered::gathered;
use crate::store::{Abandoned, Outbox, SavedAction, SavedChannel};
use js_sys::Array;
use partysync::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use wasm_bindgen::JsValue;

/// So many entries are read at a time: the page goes on in between.
const PAGE: u32 = 1_000;

/// What is kept of an outbox beside its pending actions.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) pushed: u64,
    pub(super) pushed_at: Option<Timestamp>,
}

/// The ids of the clients with pending actions.
pub(super) async fn clients(tx: &Tx) -> Result<BTreeSet<String>> {
    let keys = tx.store(PENDING)?.keys().await?;
    Ok(gathered(keys.iter().filter_map(|key| Array::from(&key).get(0).as_string())))
}

/// A client's outbox; an empty one if nothing is kept.
pub(super) async fn outbox(tx: &Tx, client: &str) -> Result<Outbox> {
    let mut outbox = Outbox::new(client);
    entries(&tx.store(PENDING)?, range(client)?, PAGE, |key, value| {
        // What cannot be read is sent as nothing, which the room rejects: its seq is not missed.
        let unreadable = |_| SavedAction {
            channel: String::new(),
            action: serde_json::Value::Null,
            made_at: Timestamp::from_millis(0),
            suspicion: Default::default(),
        };
        if let Some(seq) = key.as_f64() {
            // Written by `action_key`, from a seq.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            outbox.pending.insert(seq as u64, parse(value).unwrap_or_else(unreadable));
        }
        Ok(())
    })
    .await?;
    let last = outbox.pending.keys().next_back().copied().unwrap_or_default();
    let head = tx.store(OUTBOX)?.get::<Head>(&client.into()).await;
    let head = match head {
        Ok(head) => head.unwrap_or_default(),
        // Any of them may have been pushed, from the beginning on.
        Err(_) => Head { pushed: last, pushed_at: outbox.began() },
    };
    (outbox.pushed, outbox.pushed_at) = (head.pushed, head.pushed_at);
    Ok(outbox)
}

/// The actions that were given up.
pub(super) async fn abandoned(tx: &Tx) -> Result<BTreeMap<String, Abandoned>> {
    let store = tx.store(ABANDONED)?;
    let mut abandoned = BTreeMap::new();
    for key in store.keys().await?.iter() {
        if let (Some(id), Ok(Some(action))) = (key.as_string(), store.get(&key).await) {
            abandoned.insert(id, action);
        }
    }
    Ok(abandoned)
}

/// The channels with their rows.
#[derive(Default)]
pub(super) struct Channels {
    pub(super) all: BTreeMap<String, SavedChannel>,
    /// The names of those that cannot be read.
    pub(super) unreadable: Vec<String>,
    /// Whether pages should be made of the rows of one.
    pub(super) worth_pages: bool,
}

pub(super) async fn channels(tx: &Tx) -> Result<Channels> {
    let mut channels = Channels::default();
    for name in tx.store(CHANNEL)?.keys().await?.iter().filter_map(|name| name.as_string()) {
        match rows::read(tx, &name).await {
            Ok((channel, worth_pages)) => {
                channels.worth_pages |= worth_pages;
                channels.all.insert(name, channel);
            }
            Err(_) => channels.unreadable.push(name),
        }
    }
    Ok(channels)
}

/// Goes through what is kept under a range of keys of two parts, at most so much at a time: the
/// second part and the value of each.
pub(super) async fn entries(
    store: &Records,
    range: JsValue,
    limit: u32,
    mut each: impl FnMut(JsValue, &JsValue) -> Result<()>,
) -> Result<()> {
    let mut rest = range;
    loop {
        let page = store.entries(&rest, limit).await?;
        for (key, value) in &page {
            each(Array::from(key).get(1), value)?;
        }
        match page.last() {
            Some((last, _)) if page.len() == limit as usize => rest = range_after(&rest, last)?,
            _ => return Ok(()),
        }
    }
}
