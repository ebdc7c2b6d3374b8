//! [`MemoryStore`]: replicas that outlive their clients, but not the process.

use super::{Events, Kept, Outbox, Saved, Store, StoreEvent, Stored, Write};
use crate::peer::Note;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::future;
use partysync::{Code, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Keeps replicas in memory. Clones share what they keep: use one for each client. A client that
/// is made when another is gone goes on with what that one left behind.
///
/// ```
/// use partysync_client::store::{MemoryStore, Saved};
///
/// let store = MemoryStore::new();
/// assert_eq!(store.open_now("a client")?, Saved::default());
/// # Ok::<(), partysync::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    /// What tells this handle from others.
    handle: Mutex<Option<u64>>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Kept,
    /// Which handle has the outbox of a client.
    owners: BTreeMap<String, u64>,
    /// What handles are told.
    listeners: BTreeMap<u64, UnboundedSender<StoreEvent>>,
    handles: u64,
    /// The client of each handle.
    clients: BTreeMap<u64, String>,
    /// Those that take nothing over.
    standing_back: BTreeSet<u64>,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), handle: Mutex::default() }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        if let (Ok(mut shared), Ok(Some(handle))) =
            (self.shared.lock(), self.handle.lock().map(|handle| *handle))
        {
            shared.listeners.remove(&handle);
            shared.clients.remove(&handle);
            shared.standing_back.remove(&handle);
            shared.release(handle, None);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| Error::new(Code::Store, "the store broke in another thread"))
}

impl Shared {
    /// Lets go of what a handle has, but for what it keeps; another one that lives gets it.
    fn release(&mut self, handle: u64, keeps: Option<&str>) {
        let owned = self
            .owners
            .iter()
            .filter(|(client, owner)| **owner == handle && keeps != Some(client.as_str()));
        let owned: Vec<_> = owned.map(|(client, _)| client.clone()).collect();
        for client in owned {
            self.owners.remove(&client);
            match self.kept.outboxes.get(&client) {
                None => {
                    let gone = StoreEvent::Orphan(Outbox::new(client));
                    self.listeners.retain(|_, told| told.unbounded_send(gone.clone()).is_ok());
                }
                Some(outbox) => {
                    let orphan = StoreEvent::Orphan(outbox.clone());
                    let mut heirs = self.listeners.iter();
                    let heir = heirs.find(|(handle, told)| {
                        !self.standing_back.contains(handle)
                            && told.unbounded_send(orphan.clone()).is_ok()
                    });
                    if let Some((heir, _)) = heir {
                        self.owners.insert(client, *heir);
                    }
                }
            }
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn handle(&self, shared: &mut Shared) -> Result<u64> {
        let mut handle = lock(&self.handle)?;
        Ok(*handle.get_or_insert_with(|| {
            shared.handles += 1;
            shared.handles
        }))
    }

    /// [`Store::open`], at once.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn open_now(&self, client: &str) -> Result<Saved> {
        let mut shared = lock(&self.shared)?;
        let handle = self.handle(&mut shared)?;
        let Shared { kept, owners, clients, standing_back, .. } = &mut *shared;
        owners.insert(client.to_owned(), handle);
        clients.insert(handle, client.to_owned());
        let takes = !standing_back.contains(&handle);
        let mut saved = Saved {
            alone: false,
            channels: kept.channels.clone(),
            abandoned: kept.abandoned.clone(),
            identity: kept.identity.clone(),
            ..Saved::default()
        };
        for outbox in kept.outboxes.values() {
            match owners.get(&outbox.client) {
                None if takes => {
                    owners.insert(outbox.client.clone(), handle);
                    saved.outboxes.push(outbox.clone());
                }
                Some(owner) if *owner == handle => {}
                _ => saved.others.push(outbox.clone()),
            }
        }
        Ok(saved)
    }

    /// [`Store::write`], at once.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn write_now(&self, writes: Vec<Write>) -> Result<()> {
        let mut shared = lock(&self.shared)?;
        writes.into_iter().for_each(|write| shared.kept.apply(write));
        Ok(())
    }

    /// What is kept.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn kept(&self) -> Result<Kept> {
        Ok(lock(&self.shared)?.kept.clone())
    }

    /// Keeps this in place of what was kept, as a copy that is played back does.
    ///
    /// # Errors
    /// [`Code::Store`] after a panic in another thread.
    pub fn set_kept(&self, kept: Kept) -> Result<()> {
        lock(&self.shared)?.kept = kept;
        Ok(())
    }

    fn others(&self, told: impl Fn(&UnboundedSender<StoreEvent>)) -> Result<()> {
        let mut shared = lock(&self.shared)?;
        let own = self.handle(&mut shared)?;
        shared.listeners.iter().filter(|(handle, _)| **handle != own).for_each(|(_, l)| told(l));
        Ok(())
    }
}

impl Store for MemoryStore {
    fn open<'a>(&'a self, client: &'a str) -> Stored<'a, Saved> {
        Box::pin(future::ready(self.open_now(client)))
    }

    fn write(&self, writes: Vec<Write>) -> Stored<'_, ()> {
        Box::pin(future::ready(self.write_now(writes)))
    }

    fn events(&self) -> Events {
        let (told, events) = unbounded();
        if let Ok(mut shared) = lock(&self.shared)
            && let Ok(handle) = self.handle(&mut shared)
        {
            shared.listeners.insert(handle, told);
        }
        Box::pin(events)
    }

    fn tell(&self, note: &Note) {
        // After a panic in another thread nothing works any more, and opening says so.
        let _ = self.others(|told| drop(told.unbounded_send(StoreEvent::Note(note.clone()))));
    }

    fn take_over(&self, others: bool) {
        // After a panic in another thread nothing works any more, and opening says so.
        let Ok(mut shared) = lock(&self.shared) else { return };
        let Ok(handle) = self.handle(&mut shared) else { return };
        if !others {
            shared.standing_back.insert(handle);
            let own = shared.clients.get(&handle).cloned();
            return shared.release(handle, own.as_deref());
        }
        shared.standing_back.remove(&handle);
        let Shared { kept, owners, listeners, .. } = &mut *shared;
        let Some(told) = listeners.get(&handle) else { return };
        let free = kept.outboxes.values().filter(|outbox| !owners.contains_key(&outbox.client));
        for outbox in free.cloned().collect::<Vec<_>>() {
            owners.insert(outbox.client.clone(), handle);
            // A client that has ended is not told.
            let _ = told.unbounded_send(StoreEvent::Orphan(outbox));
        }
    }

    fn delete(&self) -> Stored<'_, ()> {
        let deleted = lock(&self.shared).map(|mut shared| shared.kept = Kept::default());
        let told = self.others(|told| drop(told.unbounded_send(StoreEvent::Deleted)));
        Box::pin(future::ready(deleted.and(told)))
    }
}
