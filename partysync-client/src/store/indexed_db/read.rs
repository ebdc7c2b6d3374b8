//! Reading what is kept. What cannot be read is left out, and costs nothing else.

use super::database::{
    ABANDONED, CHANNEL, OUTBOX, PENDING, ROW, Records, Tx, parse, range, range_after,
};
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
    entries(&tx.store(PENDING)?, client, |key, value| {
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

/// The channels with their rows, and the names of those that cannot be read.
pub(super) async fn channels(tx: &Tx) -> Result<(BTreeMap<String, SavedChannel>, Vec<String>)> {
    let (heads, rows) = (tx.store(CHANNEL)?, tx.store(ROW)?);
    let (mut channels, mut unreadable) = (BTreeMap::new(), Vec::new());
    for name in heads.keys().await?.iter().filter_map(|name| name.as_string()) {
        match channel(&heads, &rows, &name).await {
            Ok(channel) => drop(channels.insert(name, channel)),
            Err(_) => unreadable.push(name),
        }
    }
    Ok((channels, unreadable))
}

async fn channel(heads: &Records, rows: &Records, name: &str) -> Result<SavedChannel> {
    let mut channel: SavedChannel = heads.get(&name.into()).await?.unwrap_or_default();
    entries(rows, name, |key, value| {
        if let Some(key) = key.as_string() {
            channel.rows.insert(key, parse(value)?);
        }
        Ok(())
    })
    .await?;
    Ok(channel)
}

/// Goes through what is kept under keys of two parts with this first: the second part and the
/// value of each.
async fn entries(
    store: &Records,
    first: &str,
    mut each: impl FnMut(JsValue, &JsValue) -> Result<()>,
) -> Result<()> {
    let mut rest = range(first)?;
    loop {
        let page = store.entries(&rest, PAGE).await?;
        for (key, value) in &page {
            each(Array::from(key).get(1), value)?;
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE as usize => rest = range_after(first, last)?,
            _ => return Ok(()),
        }
    }
}
