//! [`MemoryStore`]: replicas that outlive their clients, but not the process.

use super::{Orphan, Orphans, Outbox, Saved, SavedChannel, Store, Stored, Write};
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt, future};
use partysync::{Code, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Keeps replicas in memory. Clones share what they keep: one may be used for each client, and a
/// client that is made when another is gone goes on where that one ended.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
    /// The outbox that this handle has taken.
    mine: Mutex<Option<u64>>,
}

#[derive(Debug, Default)]
struct Kept {
    channels: BTreeMap<String, SavedChannel>,
    outboxes: BTreeMap<u64, Outbox>,
    taken: BTreeSet<u64>,
    last: u64,
    /// Told when an outbox is let go.
    waiting: Vec<UnboundedSender<()>>,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self { kept: self.kept.clone(), mine: Mutex::default() }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        if let (Ok(mut kept), Ok(mine)) = (self.kept.lock(), self.mine.lock())
            && let Some(mine) = *mine
        {
            kept.taken.remove(&mine);
            kept.waiting.retain(|waiting| waiting.unbounded_send(()).is_ok());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| Error::new(Code::Store, "the store broke in another thread"))
}

impl Kept {
    /// Takes an outbox that nobody has.
    fn take(&mut self, fits: impl Fn(&Outbox) -> bool) -> Option<u64> {
        let free = |(slot, outbox): &(&u64, &Outbox)| !self.taken.contains(slot) && fits(outbox);
        let slot = self.outboxes.iter().find(free).map(|(slot, _)| *slot)?;
        self.taken.insert(slot);
        Some(slot)
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is kept: the rows, and an outbox that nobody has, which is taken.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn load_now(&self) -> Result<Saved> {
        let (mut kept, mut mine) = (lock(&self.kept)?, lock(&self.mine)?);
        if mine.is_none() {
            *mine = kept.take(|_| true);
        }
        let outbox = mine.and_then(|mine| kept.outboxes.get(&mine)).cloned();
        Ok(Saved { outbox, channels: kept.channels.clone() })
    }

    /// Keeps these writes.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn write_now(&self, client: &str, writes: Vec<Write>) -> Result<()> {
        let (mut kept, mut mine) = (lock(&self.kept)?, lock(&self.mine)?);
        let slot = mine.unwrap_or(kept.last + 1);
        let mut saved = Saved {
            outbox: kept.outboxes.remove(&slot),
            channels: std::mem::take(&mut kept.channels),
        };
        writes.into_iter().for_each(|write| saved.apply(client, write));
        kept.channels = saved.channels;
        if let Some(outbox) = saved.outbox {
            kept.last = kept.last.max(slot);
            kept.taken.insert(slot);
            kept.outboxes.insert(slot, outbox);
            *mine = Some(slot);
        }
        Ok(())
    }

    /// An outbox with pending actions whose client is gone, if there is one.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn orphan_now(&self) -> Result<Option<Orphan>> {
        let mut kept = lock(&self.kept)?;
        let Some(slot) = kept.take(|outbox| !outbox.pending.is_empty()) else { return Ok(None) };
        let outbox = kept.outboxes.get(&slot).cloned().unwrap_or_default();
        let store = Self { kept: self.kept.clone(), mine: Mutex::new(Some(slot)) };
        Ok(Some(Orphan { outbox, store: Box::new(store) }))
    }

    /// Forgets the outbox that this handle has.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn remove_now(&self) -> Result<()> {
        let (mut kept, mut mine) = (lock(&self.kept)?, lock(&self.mine)?);
        if let Some(slot) = mine.take() {
            kept.outboxes.remove(&slot);
            kept.taken.remove(&slot);
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Stored<'_, Saved> {
        Box::pin(future::ready(self.load_now()))
    }

    fn write<'a>(&'a self, client: &'a str, writes: Vec<Write>) -> Stored<'a, ()> {
        Box::pin(future::ready(self.write_now(client, writes)))
    }

    fn orphans(&self) -> Orphans {
        let (waiting, woken) = unbounded();
        // One may be there already.
        let told = waiting.unbounded_send(()).is_ok();
        if let Ok(mut kept) = self.kept.lock()
            && told
        {
            kept.waiting.push(waiting);
        }
        let store = self.clone();
        Box::pin(woken.flat_map(move |()| {
            let found = std::iter::from_fn(|| store.orphan_now().ok().flatten());
            futures::stream::iter(found.collect::<Vec<_>>())
        }))
    }

    fn remove(&self) -> Stored<'_, ()> {
        Box::pin(future::ready(self.remove_now()))
    }
}
