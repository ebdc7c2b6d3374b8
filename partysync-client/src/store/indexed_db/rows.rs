//! Rows as they are kept: pages of many, which are written when all rows are, and single rows over
//! them, `null` for one that is gone. To the database a page costs no more than a row.

use super::database::{CHANNEL, ROW, Records, Tx, bound, parse, range, store_error};
use super::read::entries;
use super::write::Pace;
use crate::store::SavedChannel;
use js_sys::Array;
use partysync::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use wasm_bindgen::JsValue;

/// About how long a page is.
const PAGE_BYTES: usize = 64 * 1024;
/// So many pages, or single rows, are read at a time.
const PAGES: u32 = 1;
const ROWS: u32 = 1_000;
/// From so many single rows on it may be worth to make pages of them.
const LOOSE: usize = 1_000;

/// What is kept of a channel beside its rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ChannelHead {
    pub(super) epoch: String,
    pub(super) version: Option<u64>,
    pub(super) schema: String,
    /// What the client sees of the channel, if not all rows.
    #[serde(default)]
    pub(super) view: Option<String>,
    /// Whether there are pages, whose rows cannot be deleted.
    #[serde(default)]
    pub(super) paged: bool,
}

/// A channel, and whether pages should be made of its rows.
pub(super) async fn read(tx: &Tx, name: &str) -> Result<(SavedChannel, bool)> {
    let head: ChannelHead = tx.store(CHANNEL)?.get(&name.into()).await?.unwrap_or_default();
    let ChannelHead { epoch, version, schema, view, .. } = head;
    let mut channel = SavedChannel { epoch, version, schema, view, ..SavedChannel::default() };
    let (store, mut loose) = (tx.store(ROW)?, 0);
    // Numbers come before texts.
    let pages = bound(&key(name, &0.into()), false, &key(name, &f64::INFINITY.into()))?;
    entries(&store, pages, PAGES, |_, page| {
        for line in page.as_string().unwrap_or_default().lines() {
            let (key, row) = entry(serde_json::from_str(line).map_err(unreadable)?)?;
            channel.rows.insert(key, row);
        }
        Ok(())
    })
    .await?;
    entries(&store, single(name)?, ROWS, |key, row| {
        let key = key.as_string().unwrap_or_default();
        loose += 1;
        match parse(row)? {
            Json::Null => channel.rows.remove(&key),
            row => channel.rows.insert(key, row),
        };
        Ok(())
    })
    .await?;
    let worth_pages = loose >= LOOSE && loose > channel.rows.len() / 4;
    Ok((channel, worth_pages))
}

/// The keys of a channel's single rows: texts come before arrays.
fn single(name: &str) -> Result<JsValue> {
    bound(&key(name, &"".into()), false, &key(name, &Array::new()))
}

fn key(name: &str, second: &JsValue) -> JsValue {
    Array::of2(&name.into(), second).into()
}

/// Makes pages of a channel's rows, if that is worth it: another tab may have done so.
pub(super) async fn make_pages(tx: &Tx, name: &str) -> Result<()> {
    if tx.store(ROW)?.count(&single(name)?).await? < LOOSE as u64 {
        return Ok(());
    }
    let (SavedChannel { epoch, version, schema, view, rows }, worth_pages) = read(tx, name).await?;
    if !worth_pages {
        return Ok(());
    }
    let paged = put_all(&tx.store(ROW)?, name, rows, &mut Pace::new()).await?;
    let head = ChannelHead { epoch, version, schema, view, paged };
    tx.store(CHANNEL)?.put(&name.into(), &head).map(drop)
}

/// Puts these rows in the place of all that are kept of a channel; `true` if there are any.
pub(super) async fn put_all(
    store: &Records,
    name: &str,
    rows: impl IntoIterator<Item = (String, Json)>,
    pace: &mut Pace,
) -> Result<bool> {
    store.delete(&range(name)?)?;
    let (mut rows, mut number) = (rows.into_iter().peekable(), 0);
    while rows.peek().is_some() {
        let mut page = String::new();
        while page.len() < PAGE_BYTES
            && let Some((key, row)) = rows.next()
        {
            page.push_str(&Json::Array(vec![Json::String(key), row]).to_string());
            page.push('\n');
        }
        let put = store.put_text(&key(name, &f64::from(number).into()), &page)?;
        number += 1;
        pace.rest_after_page(&put).await?;
    }
    Ok(number > 0)
}

/// A line of a page: a key and its row.
fn entry(line: Json) -> Result<(String, Json)> {
    if let Json::Array(pair) = line
        && let Ok([Json::String(key), row]) = <[Json; 2]>::try_from(pair)
    {
        return Ok((key, row));
    }
    Err(store_error("a page is not what was written"))
}

#[allow(clippy::needless_pass_by_value)]
fn unreadable(error: serde_json::Error) -> Error {
    store_error(&format!("a page cannot be read: {error}"))
}
