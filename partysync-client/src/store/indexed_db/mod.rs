//! [`IndexedDbStore`]: a replica in the browser's storage, shared by the tabs of an app.
//!
//! The rows of a room are kept once, whichever tab hears of them first. Each client has an outbox
//! of its own and holds a Web Lock with its name: the browser lets go of it however the tab ends,
//! and then a living tab, or the next one to open, gets the lock and with it the outbox.

mod database;
mod locks;
mod read;
mod rows;
mod tabs;
mod write;

use super::{Events, Outbox, Saved, SavedChannel, Store, StoreEvent, Stored, Write};
use crate::peer::Note;
use crate::place::{Place, User};
use crate::transport::{Transport, WebTransport};
use database::{
    ABANDONED, CHANNEL, Database, Ended, IDENTITY, OUTBOX, PENDING, ROW, WHO, store_error,
};
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::channel::oneshot;
use futures::future::{Either, select};
use locks::Lock;
use partysync::Result;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tabs::{Channel, Heard, Message};
use wasm_bindgen_futures::spawn_local;
use web_sys::AbortController;

/// For so long a deletion waits for tabs that use the database, ms.
const DELETE_MS: u64 = 10_000;
/// When so many single rows were written in one life, pages may be made of them.
const MANY_LOOSE: usize = 10_000;
/// What can wait begins so much later.
const SOON: Duration = Duration::from_secs(3);

/// Keeps a replica in IndexedDB. Each batch of writes is one transaction: a tab that is killed at
/// any moment is opened again with what once was whole.
///
/// What is kept stays on the machine until it is deleted: by
/// [`SyncClient::forget`](crate::SyncClient::forget), by [`delete_place`](Self::delete_place), or
/// for all rooms of a user by [`delete_user`](Self::delete_user). A browser may evict it when the
/// disk is full or, in Safari, when the site was not visited for a week; the first action that is
/// kept asks it not to.
pub struct IndexedDbStore {
    shared: Rc<Shared>,
}

impl std::fmt::Debug for IndexedDbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexedDbStore").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl IndexedDbStore {
    /// The replica of this place. Nothing is opened before it is used.
    #[must_use]
    pub fn new(place: &Place) -> Self {
        let shared = Shared {
            name: place.to_string(),
            db: RefCell::default(),
            outboxes: RefCell::default(),
            awaited: RefCell::default(),
            events: RefCell::default(),
            channel: RefCell::default(),
            waits: RefCell::new(AbortController::new().ok()),
            loose: Cell::default(),
            asked_to_persist: Cell::new(false),
            deleted: Cell::new(false),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Deletes what is kept of a place. Clients that use it, in any tab, are closed.
    ///
    /// # Errors
    /// [`Code::Store`](partysync::Code::Store) when the browser refuses, or when a tab that does
    /// not answer keeps the database open: then it is deleted when that tab ends.
    pub async fn delete_place(place: &Place) -> Result<()> {
        delete(&place.to_string(), Channel::open(&place.to_string()).as_ref()).await
    }

    /// Deletes what is kept of all rooms of a user, as when the user logs out. `app` is the one of
    /// the [`Place`]s: `"app"` where they name none. Clients that use any of it are closed.
    ///
    /// # Errors
    /// As [`delete_place`](Self::delete_place); the others are deleted nevertheless.
    pub async fn delete_user(app: &str, user: &User) -> Result<()> {
        let prefix = Place::prefix(app, user);
        let names = database::database_names().await?;
        let deletions = names
            .iter()
            .filter(|name| name.starts_with(&prefix))
            .map(|name| async { delete(name, Channel::open(name).as_ref()).await });
        futures::future::join_all(deletions).await.into_iter().collect()
    }
}

struct Shared {
    /// Of the database, of the channel, and what the names of the locks begin with.
    name: String,
    db: RefCell<Option<Database>>,
    /// The outboxes that this store has, by client.
    outboxes: RefCell<BTreeMap<String, Held>>,
    /// The outboxes of others, whose locks are waited for.
    awaited: RefCell<BTreeSet<String>>,
    events: RefCell<Option<UnboundedSender<StoreEvent>>>,
    channel: RefCell<Option<Channel>>,
    /// Ends the waits for locks; there is none while nothing is taken over.
    waits: RefCell<Option<AbortController>>,
    /// How many single rows were written since pages were made.
    loose: Cell<usize>,
    asked_to_persist: Cell<bool>,
    /// It is not opened again, which would make it anew.
    deleted: Cell<bool>,
}

/// An outbox whose lock is held.
struct Held {
    _lock: Lock,
    whose: Whose,
}

#[derive(Clone, Copy, PartialEq)]
enum Whose {
    /// The store's own client's.
    Own,
    /// That of a client that is gone; the own one has not got it yet.
    Taken,
    /// That of a client that is gone; the own one has it.
    Given,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end_waits();
    }
}

impl Store for IndexedDbStore {
    fn open<'a>(&'a self, client: &'a str) -> Stored<'a, Saved> {
        let (shared, client) = (self.shared.clone(), client.to_owned());
        to_the_end(async move { shared.open(&client).await })
    }

    fn write(&self, writes: Vec<Write>) -> Stored<'_, ()> {
        let shared = self.shared.clone();
        to_the_end(async move { shared.write(writes).await })
    }

    fn events(&self) -> Events {
        let (tell, events) = unbounded();
        self.shared.events.replace(Some(tell));
        let weak = Rc::downgrade(&self.shared);
        let channel = Channel::listen(&self.shared.name, move |heard| {
            let Some(shared) = weak.upgrade() else { return };
            match heard {
                Heard::Opened(client) => shared.wait_for(client),
                Heard::Event(event) => shared.tell_client(event),
            }
        });
        self.shared.channel.replace(channel);
        Box::pin(events)
    }

    fn tell(&self, note: &Note) {
        if let Some(channel) = &*self.shared.channel.borrow() {
            channel.tell(&Message::Note(Cow::Borrowed(note)));
        }
    }

    fn take_over(&self, others: bool) {
        if !others {
            self.shared.end_waits();
            // Their locks are let go.
            return self.shared.outboxes.borrow_mut().retain(|_, held| held.whose == Whose::Own);
        }
        self.shared.waits.replace(AbortController::new().ok());
        let shared = self.shared.clone();
        spawn_local(async move {
            // One that is not open takes them when it is.
            let _ = shared.wait_for_others().await;
        });
    }

    fn delete(&self) -> Stored<'_, ()> {
        // Its own connection would hold it up.
        drop(self.shared.db.take());
        self.shared.deleted.set(true);
        let shared = self.shared.clone();
        Box::pin(async move {
            let channel = shared.channel.take();
            delete(&shared.name, channel.as_ref()).await
        })
    }
}

/// Work that is not left half done when nobody waits for it any more.
fn to_the_end<T: 'static>(work: impl Future<Output = Result<T>> + 'static) -> Stored<'static, T> {
    let (tell, told) = oneshot::channel();
    spawn_local(async move {
        // The client may have ended.
        let _ = tell.send(work.await);
    });
    Box::pin(async move { told.await.unwrap_or_else(|_| Err(store_error("the page has ended"))) })
}

async fn delete(name: &str, channel: Option<&Channel>) -> Result<()> {
    if let Some(channel) = channel {
        channel.tell(&Message::Deleted);
    }
    let timer = WebTransport.sleep(Duration::from_millis(DELETE_MS));
    match select(std::pin::pin!(database::delete_database(name)), timer).await {
        Either::Left((deleted, _)) => deleted,
        Either::Right(_) => Err(store_error("a tab that does not answer keeps it open")),
    }
}

impl Shared {
    /// Waits for no outboxes any more, and takes none.
    fn end_waits(&self) {
        if let Some(waits) = self.waits.take() {
            waits.abort();
        }
        self.awaited.borrow_mut().clear();
    }

    /// Waits for the outboxes that it has not; those that nobody has are its own at once.
    async fn wait_for_others(self: &Rc<Self>) -> Result<()> {
        for client in self.stored_clients().await? {
            self.wait_for(client);
        }
        self.wait_for_living().await
    }

    /// The clients that have something stored.
    async fn stored_clients(&self) -> Result<Vec<String>> {
        let tx = self.with_db(|db| db.read(&[PENDING]))?;
        let stored = read::clients(&tx).await?;
        tx.commit().await?;
        Ok(stored.into_iter().collect())
    }

    /// Waits for those of clients that live, which may have nothing stored yet.
    async fn wait_for_living(self: &Rc<Self>) -> Result<()> {
        let prefix = self.lock_name("");
        for name in locks::held().await? {
            if let Some(client) = name.strip_prefix(&prefix) {
                self.wait_for(client.to_owned());
            }
        }
        Ok(())
    }

    fn tell_client(&self, event: StoreEvent) {
        if event == StoreEvent::Deleted {
            self.deleted.set(true);
        }
        if let Some(events) = &*self.events.borrow() {
            // A client that has ended is not told.
            let _ = events.unbounded_send(event);
        }
    }

    fn lock_name(&self, client: &str) -> String {
        format!("{}/{client}", self.name)
    }

    fn with_db<T>(&self, use_it: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let db = self.db.borrow();
        use_it(db.as_ref().ok_or_else(|| store_error("it is not open"))?)
    }

    async fn open(self: Rc<Self>, client: &str) -> Result<Saved> {
        if !self.has(client) {
            // Nobody else knows of it: it is free.
            let lock = Lock::try_take(&self.lock_name(client)).await?;
            let lock = lock.ok_or_else(|| store_error("another tab has this client's id"))?;
            self.outboxes
                .borrow_mut()
                .insert(client.to_owned(), Held { _lock: lock, whose: Whose::Own });
            if let Some(channel) = &*self.channel.borrow() {
                channel.tell(&Message::Opened { client: client.to_owned() });
            }
        }
        self.connect().await?;
        self.take_free_outboxes().await?;
        // What was taken before it is read is not changed by others.
        let taken: Vec<String> = self.taken();
        let tx = self.with_db(|db| db.read(&[OUTBOX, PENDING, ABANDONED, IDENTITY]))?;
        let mut outboxes = BTreeMap::new();
        for client in read::clients(&tx).await? {
            let outbox = read::outbox(&tx, &client).await?;
            outboxes.insert(client, outbox);
        }
        let mut saved = Saved { abandoned: read::abandoned(&tx).await?, ..Saved::default() };
        // One that cannot be read is asked for anew.
        saved.identity = tx.store(IDENTITY)?.get(&WHO.into()).await.ok().flatten();
        tx.commit().await?;
        // After the outboxes: what is pending no more is in the rows.
        saved.channels = self.read_channels().await?;
        for client in taken {
            let outbox = outboxes.remove(&client).unwrap_or_else(|| Outbox::new(client));
            if self.give(&outbox) {
                saved.outboxes.push(outbox);
            }
        }
        let others = outboxes.into_values().filter(|outbox| !self.has(&outbox.client));
        saved.others = others.collect();
        for outbox in &saved.others {
            self.wait_for(outbox.client.clone());
        }
        Ok(saved)
    }

    /// Opens the database, anew if it is open.
    async fn connect(self: &Rc<Self>) -> Result<()> {
        drop(self.db.take());
        if self.deleted.get() {
            return Err(store_error("it was deleted"));
        }
        let weak = Rc::downgrade(self);
        let ended = move |ended| {
            if let Some(shared) = Weak::upgrade(&weak) {
                shared.tell_client(match ended {
                    Ended::Broke(error) => StoreEvent::Broke(error),
                    Ended::Deleted => StoreEvent::Deleted,
                });
            }
        };
        let db = Database::open(&self.name, ended).await?;
        self.db.replace(Some(db));
        Ok(())
    }

    /// Takes the outboxes that nobody has, and waits for the others.
    async fn take_free_outboxes(self: &Rc<Self>) -> Result<()> {
        if self.waits.borrow().is_none() {
            // It takes nothing over.
            return Ok(());
        }
        for client in self.stored_clients().await? {
            if self.has(&client) || self.awaited.borrow().contains(&client) {
                continue;
            }
            if let Some(lock) = Lock::try_take(&self.lock_name(&client)).await? {
                self.outboxes
                    .borrow_mut()
                    .insert(client, Held { _lock: lock, whose: Whose::Taken });
            }
        }
        self.wait_for_living().await
    }

    /// The rows. Those that cannot be read are deleted: they are fetched anew.
    async fn read_channels(self: &Rc<Self>) -> Result<BTreeMap<String, SavedChannel>> {
        let tx = self.with_db(|db| db.read(&[CHANNEL, ROW]))?;
        let read::Channels { all, unreadable, worth_pages } = read::channels(&tx).await?;
        tx.commit().await?;
        if !unreadable.is_empty() {
            let tx = self.with_db(|db| db.write(&[CHANNEL, ROW]))?;
            unreadable.iter().try_for_each(|name| write::delete_channel(&tx, name))?;
            tx.commit().await?;
        }
        if worth_pages {
            self.make_pages_soon();
        }
        Ok(all)
    }

    /// Makes pages of rows that were written one by one, when the page has begun.
    fn make_pages_soon(self: &Rc<Self>) {
        self.loose.set(0);
        let weak = Rc::downgrade(self);
        spawn_local(async move {
            WebTransport.sleep(SOON).await;
            if let Some(shared) = Weak::upgrade(&weak) {
                // If it fails, what is kept stays as it was, and is tried the next time.
                let _ = shared.make_pages().await;
            }
        });
    }

    async fn make_pages(&self) -> Result<()> {
        let tx = self.with_db(|db| db.read(&[CHANNEL]))?;
        let names = tx.store(CHANNEL)?.keys().await?;
        tx.commit().await?;
        for name in names.iter().filter_map(|name| name.as_string()) {
            let tx = self.with_db(|db| db.write(&[CHANNEL, ROW]))?;
            rows::make_pages(&tx, &name).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    fn has(&self, client: &str) -> bool {
        self.outboxes.borrow().contains_key(client)
    }

    fn taken(&self) -> Vec<String> {
        let outboxes = self.outboxes.borrow();
        let taken = outboxes.iter().filter(|(_, held)| held.whose == Whose::Taken);
        taken.map(|(client, _)| client.clone()).collect()
    }

    /// Whether the client is to get this outbox now: it gets it once. The lock of an empty one is
    /// let go.
    fn give(&self, outbox: &Outbox) -> bool {
        let mut outboxes = self.outboxes.borrow_mut();
        let held = outboxes.get_mut(&outbox.client);
        let Some(held) = held.filter(|held| held.whose == Whose::Taken) else { return false };
        held.whose = Whose::Given;
        if outbox.pending.is_empty() {
            outboxes.remove(&outbox.client);
        }
        true
    }

    /// Waits until the client with this outbox is gone.
    fn wait_for(self: &Rc<Self>, client: String) {
        let signal = self.waits.borrow().as_ref().map(AbortController::signal);
        let Some(signal) = signal else { return };
        if self.has(&client) || !self.awaited.borrow_mut().insert(client.clone()) {
            return;
        }
        let (weak, name) = (Rc::downgrade(self), self.lock_name(&client));
        spawn_local(async move {
            let lock = Lock::wait(&name, &signal).await;
            // A store that is gone lets go again.
            let Some(shared) = Weak::upgrade(&weak) else { return };
            shared.awaited.borrow_mut().remove(&client);
            let Ok(lock) = lock else { return };
            let held = Held { _lock: lock, whose: Whose::Taken };
            shared.outboxes.borrow_mut().insert(client.clone(), held);
            match shared.read_outbox(&client).await {
                Ok(outbox) if shared.give(&outbox) => {
                    shared.tell_client(StoreEvent::Orphan(outbox));
                }
                Ok(_) => {}
                // It is given when the database is opened the next time.
                Err(error) => shared.tell_client(StoreEvent::Broke(error)),
            }
        });
    }

    async fn read_outbox(&self, client: &str) -> Result<Outbox> {
        let tx = self.with_db(|db| db.read(&[OUTBOX, PENDING]))?;
        let outbox = read::outbox(&tx, client).await?;
        tx.commit().await?;
        Ok(outbox)
    }

    async fn write(self: &Rc<Self>, writes: Vec<Write>) -> Result<()> {
        let scope: Vec<_> = write::scope(&writes).into_iter().collect();
        if scope.is_empty() {
            return Ok(());
        }
        if writes.iter().any(|write| matches!(write, Write::Act { .. })) {
            self.ask_to_persist();
        }
        let tx = self.with_db(|db| db.write(&scope))?;
        let (emptied, loose) = write::write(&tx, writes).await?;
        tx.commit().await?;
        self.loose.set(self.loose.get() + loose);
        if self.loose.get() >= MANY_LOOSE {
            self.make_pages_soon();
        }
        for client in emptied {
            let mut outboxes = self.outboxes.borrow_mut();
            // Its own client's is filled again.
            if outboxes.get(&*client).is_some_and(|held| held.whose == Whose::Given) {
                outboxes.remove(&*client);
            }
        }
        Ok(())
    }

    /// Asks the browser, once, not to evict what is kept.
    fn ask_to_persist(&self) {
        if self.asked_to_persist.replace(true) {
            return;
        }
        let storage = web_sys::window().map(|window| window.navigator().storage());
        // It does as it likes.
        if let Some(Ok(asked)) = storage.map(|storage| storage.persist()) {
            spawn_local(async move { drop(wasm_bindgen_futures::JsFuture::from(asked).await) });
        }
    }
}
