//! Keeping what changed: a batch is one transaction.

use super::database::{
    ABANDONED, CHANNEL, IDENTITY, OUTBOX, PENDING, Put, ROW, Records, Tx, WHO, action_key, range,
    seqs,
};
use super::read::Head;
use super::rows::{ChannelHead, put_all};
use crate::gathered::gathered;
use crate::store::saved::Fit;
use crate::store::{Outbox, RowsWrite, SavedAction, Write};
use crate::transport::{Transport, WebTransport};
use partysync::Result;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::sync::Arc;
use wasm_bindgen::JsValue;

/// For so long the page is kept busy at a time, ms.
const BUSY: u64 = 12;

/// The object stores that a batch is for: others can be used by other tabs meanwhile.
pub(super) fn scope(writes: &[Write]) -> BTreeSet<&'static str> {
    let stores = writes.iter().flat_map(|write| match write {
        Write::Rows(_) | Write::Stale(_) => [CHANNEL, ROW],
        Write::Outbox(_)
        | Write::Act { .. }
        | Write::Answered { .. }
        | Write::Pushed { .. }
        | Write::Suspect { .. } => [OUTBOX, PENDING],
        Write::Abandon { .. } | Write::Discard(_) => [ABANDONED; 2],
        Write::Identity(_) => [IDENTITY; 2],
    });
    gathered(stores)
}

/// Does these writes. Returns the clients of whose outboxes nothing is left, and how many single
/// rows were written.
pub(super) async fn write(tx: &Tx, writes: Vec<Write>) -> Result<(BTreeSet<Arc<str>>, usize)> {
    let mut batch = Batch { tx, changed: BTreeSet::new(), loose: 0, pace: Pace::new() };
    for write in writes {
        batch.write(write).await?;
    }
    let mut emptied = BTreeSet::new();
    for client in std::mem::take(&mut batch.changed) {
        if tx.store(PENDING)?.count(&range(&client)?).await? == 0 {
            tx.store(OUTBOX)?.delete(&JsValue::from(&*client))?;
            emptied.insert(client);
        }
    }
    Ok((emptied, batch.loose))
}

/// Deletes a channel with its rows.
pub(super) fn delete_channel(tx: &Tx, name: &str) -> Result<()> {
    tx.store(CHANNEL)?.delete(&name.into())?;
    tx.store(ROW)?.delete(&range(name)?)
}

struct Batch<'a> {
    tx: &'a Tx,
    /// Whose outboxes may be empty now.
    changed: BTreeSet<Arc<str>>,
    loose: usize,
    pace: Pace,
}

impl Batch<'_> {
    async fn write(&mut self, write: Write) -> Result<()> {
        match write {
            Write::Rows(rows) => self.rows(rows).await,
            Write::Stale(name) => {
                let (channels, name) = (self.tx.store(CHANNEL)?, JsValue::from(name));
                if let Some(mut channel) = channels.get::<ChannelHead>(&name).await? {
                    channel.version = None;
                    channels.put(&name, &channel)?;
                }
                Ok(())
            }
            Write::Outbox(outbox) => self.outbox(outbox).await,
            Write::Act { client, seq, action } => {
                let put = self.pending()?.put(&action_key(&client, seq), &action)?;
                self.pace.rest(&put).await
            }
            Write::Answered { client, from, to } => {
                self.pending()?.delete(&seqs(&client, from, to)?)?;
                self.changed.insert(client);
                Ok(())
            }
            Write::Pushed { client, seq, at } => {
                let head = Head { pushed: seq, pushed_at: Some(at) };
                self.tx.store(OUTBOX)?.put(&JsValue::from(&*client), &head)?;
                self.changed.insert(client);
                Ok(())
            }
            Write::Suspect { client, seq, suspicion } => {
                let (pending, key) = (self.pending()?, action_key(&client, seq));
                if let Some(action) = pending.get::<SavedAction>(&key).await? {
                    pending.put(&key, &SavedAction { suspicion, ..action })?;
                }
                Ok(())
            }
            Write::Abandon { id, abandoned } => {
                self.tx.store(ABANDONED)?.put(&id.into(), &abandoned).map(drop)
            }
            Write::Discard(id) => self.tx.store(ABANDONED)?.delete(&id.into()),
            Write::Identity(None) => self.tx.store(IDENTITY)?.delete(&WHO.into()),
            Write::Identity(Some(identity)) => {
                self.tx.store(IDENTITY)?.put(&WHO.into(), &identity).map(drop)
            }
        }
    }

    fn pending(&self) -> Result<Records> {
        self.tx.store(PENDING)
    }

    async fn outbox(&mut self, outbox: Outbox) -> Result<()> {
        let Outbox { client, pushed, pushed_at, pending } = outbox;
        let records = self.pending()?;
        records.delete(&range(&client)?)?;
        for (seq, action) in &pending {
            let put = records.put(&action_key(&client, *seq), action)?;
            self.pace.rest(&put).await?;
        }
        let key = JsValue::from(client.as_str());
        self.tx.store(OUTBOX)?.put(&key, &Head { pushed, pushed_at })?;
        self.changed.insert(client.into());
        Ok(())
    }

    async fn rows(&mut self, write: RowsWrite) -> Result<()> {
        let (channels, rows) = (self.tx.store(CHANNEL)?, self.tx.store(ROW)?);
        let name = JsValue::from(write.channel);
        // One that cannot be read is replaced as one that is not there.
        let kept = channels.get::<ChannelHead>(&name).await.ok().flatten().unwrap_or_default();
        let fit = write.fits(&kept.epoch, &kept.schema, kept.view.as_deref(), kept.version);
        if fit == Fit::Not {
            return Ok(());
        }
        let RowsWrite { schema, epoch, view, to, rows: changed, channel, .. } = write;
        let head = |paged| ChannelHead { epoch, version: Some(to), schema, view, paged };
        if fit == Fit::Instead {
            let there = changed.into_iter().filter_map(|(key, row)| Some((key, row?)));
            let paged = put_all(&rows, channel, there, &mut self.pace).await?;
            return channels.put(&name, &head(paged)).map(drop);
        }
        let paged = kept.paged;
        channels.put(&name, &head(paged))?;
        self.loose += changed.len();
        for (key, row) in changed {
            let key = js_sys::Array::of2(&name, &key.into()).into();
            match row {
                Some(row) => self.pace.rest(&rows.put(&key, &row)?).await?,
                // A page may hold it.
                None if paged => self.pace.rest(&rows.put(&key, &Json::Null)?).await?,
                None => rows.delete(&key)?,
            }
        }
        Ok(())
    }
}

/// Lets the browser's page go on at times while a large batch is given to the database.
pub(super) struct Pace {
    since: u64,
    count: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { since: WebTransport.now().monotonic, count: 0 }
    }

    /// Waits for the last value, if the page was kept busy for long enough. The transaction lives
    /// on: a request of it is pending.
    async fn rest(&mut self, last: &Put) -> Result<()> {
        self.count += 1;
        if self.count.is_multiple_of(16) { self.rest_after_page(last).await } else { Ok(()) }
    }

    /// As [`rest`](Self::rest), after a value that takes time by itself.
    pub(super) async fn rest_after_page(&mut self, last: &Put) -> Result<()> {
        if WebTransport.now().monotonic - self.since > BUSY {
            last.done().await?;
            self.since = WebTransport.now().monotonic;
        }
        Ok(())
    }
}
