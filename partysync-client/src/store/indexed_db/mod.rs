//! [`IndexedDbStore`]: a replica in the browser's storage, shared by the tabs of an app.
//!
//! The rows of a room are kept once, whichever tab hears of them first. Each tab has an outbox of
//! its own and holds a Web Lock with its name: the browser lets go of it however the tab ends,
//! and then a living tab, or the next one to open, takes the outbox over.

mod locks;
mod tabs;

use super::saved::Fit;
use super::{Orphans, Outbox, RowsWrite, Saved, SavedAction, SavedChannel, Store, Stored, Write};
use crate::transport::{Transport, WebTransport};
use futures::future::{Either, select};
use idb::{Database, Factory, KeyRange, ObjectStore, Transaction, TransactionMode};
use js_sys::Array;
use locks::Lock;
use partysync::{Code, Error, Result};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::JsValue;

const OUTBOX: &str = "outbox";
const PENDING: &str = "pending";
const CHANNEL: &str = "channel";
const ROW: &str = "row";
const ALL: [&str; 4] = [OUTBOX, PENDING, CHANNEL, ROW];

/// A storage that takes longer is taken for blocked, ms.
const PATIENCE: u64 = 5_000;

/// Keeps a replica in IndexedDB. Each batch of writes is one transaction: a tab that is killed at
/// any moment is opened again with what once was whole.
///
/// What is kept stays on the machine until [`delete`](Self::delete) is called: do so when a user
/// logs out.
#[derive(Clone)]
pub struct IndexedDbStore {
    shared: Rc<Shared>,
}

struct Shared {
    /// Of the database, and of the locks.
    name: String,
    /// The open database, with the outbox that this store has taken.
    open: RefCell<Option<Open>>,
}

struct Open {
    db: Rc<Database>,
    /// What is kept of the outbox beside its pending actions.
    head: Outbox,
    /// The outbox's name; its lock is held as long as it is used.
    lock: Lock,
}

impl std::fmt::Debug for IndexedDbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexedDbStore").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl IndexedDbStore {
    /// The replica with this name, one for each room and user: [`SyncClient::connect`] takes the
    /// room's URL. Nothing is opened before it is used.
    ///
    /// [`SyncClient::connect`]: crate::SyncClient::connect
    #[must_use]
    pub fn new(name: &str) -> Self {
        let name = format!("partysync/{name}");
        Self { shared: Rc::new(Shared { name, open: RefCell::new(None) }) }
    }

    /// Deletes what is kept under this name. Tabs that use it go on in memory.
    ///
    /// # Errors
    /// [`Code::Store`] when the browser refuses.
    pub async fn delete(name: &str) -> Result<()> {
        let deleting = Factory::new().and_then(|f| f.delete(&format!("partysync/{name}")));
        in_time(async { failed(deleting)?.await.map_err(store_error) }).await
    }

    /// Takes an outbox that nobody uses, or begins one.
    async fn open(&self) -> Result<Saved> {
        let name = &self.shared.name;
        let db = Rc::new(open_database(name).await?);
        let mut lock = None;
        for slot in slots(&db).await? {
            lock = Lock::try_take(name, &slot).await?;
            if lock.is_some() {
                break;
            }
        }
        let lock = match lock {
            Some(lock) => lock,
            None => {
                let slot = random_id();
                // Nobody else has heard of it.
                Lock::wait(name, &slot).await?
            }
        };
        let tx = Tx::begin(&db, &ALL, TransactionMode::ReadWrite)?;
        let outbox = match read_outbox(&tx, lock.slot()).await? {
            Some(outbox) => outbox,
            None => {
                // It is there before others are told of it.
                let outbox = Outbox::new(random_id());
                put(&tx.store(OUTBOX)?, &lock.slot().into(), &outbox)?;
                outbox
            }
        };
        let mut saved = Saved { outbox: None, ..Saved::default() };
        let channels = tx.store(CHANNEL)?;
        let names = failed(failed(channels.get_all_keys(None, None))?.await)?;
        for name in names.iter().filter_map(JsValue::as_string) {
            // Rows that cannot be read are fetched anew.
            if let Ok(Some(channel)) = read_channel(&tx, &name).await {
                saved.channels.insert(name, channel);
            }
        }
        tx.commit().await?;
        tabs::announce(name, lock.slot());
        let head = Outbox { pending: Default::default(), ..outbox.clone() };
        *self.shared.open.borrow_mut() = Some(Open { db, head, lock });
        saved.outbox = Some(outbox);
        Ok(saved)
    }

    /// A store over an outbox whose lock is held.
    fn over(&self, db: Rc<Database>, outbox: &Outbox, lock: Lock) -> Self {
        let head = Outbox { pending: Default::default(), ..outbox.clone() };
        let open = RefCell::new(Some(Open { db, head, lock }));
        Self { shared: Rc::new(Shared { name: self.shared.name.clone(), open }) }
    }

    /// A store of the same name without an outbox: it does not keep this one's lock.
    fn name_only(&self) -> Self {
        Self {
            shared: Rc::new(Shared { name: self.shared.name.clone(), open: RefCell::default() }),
        }
    }

    /// The database and the outbox's head and name.
    fn opened(&self) -> Result<(Rc<Database>, Outbox, String)> {
        let open = self.shared.open.borrow();
        let open = open.as_ref().ok_or_else(|| Error::new(Code::Store, "it is not open"))?;
        Ok((open.db.clone(), open.head.clone(), open.lock.slot().to_owned()))
    }

    async fn keep(&self, writes: Vec<Write>) -> Result<()> {
        let (db, mut head, slot) = self.opened()?;
        let tx = Tx::begin(&db, &ALL, TransactionMode::ReadWrite)?;
        let (before, pending) = (head.clone(), tx.store(PENDING)?);
        for write in writes {
            match write {
                Write::Rows(rows) => keep_rows(&tx, rows).await?,
                Write::Stale(name) => {
                    let channels = tx.store(CHANNEL)?;
                    let kept: Option<SavedChannel> = get(&channels, name.into()).await?;
                    if let Some(mut channel) = kept {
                        channel.version = None;
                        put(&channels, &name.into(), &channel)?;
                    }
                }
                Write::Epoch(epoch) => head.epoch = Some(epoch),
                Write::Act { seq, channel, action, made_at } => {
                    head.next_seq = head.next_seq.max(seq.saturating_add(1));
                    let action = SavedAction { channel, action, made_at, blame: 0 };
                    put(&pending, &key(&slot, seq), &action)?;
                }
                Write::Answered(seq) => {
                    failed(pending.delete(key(&slot, seq)))?;
                }
                Write::Pushed(seq) => head.pushed = seq,
                Write::Blame(seq, blame) => {
                    let key = key(&slot, seq);
                    let kept: Option<SavedAction> = get(&pending, key.clone()).await?;
                    if let Some(mut action) = kept {
                        action.blame = blame;
                        put(&pending, &key, &action)?;
                    }
                }
                Write::Client(client) => {
                    head.client = client;
                    head.pushed = 0;
                }
            }
        }
        if head != before {
            put(&tx.store(OUTBOX)?, &slot.as_str().into(), &head)?;
        }
        tx.commit().await?;
        if let Some(open) = &mut *self.shared.open.borrow_mut() {
            open.head = head;
        }
        Ok(())
    }

    async fn forget(&self) -> Result<()> {
        let (db, _, slot) = self.opened()?;
        remove(&db, &slot).await?;
        *self.shared.open.borrow_mut() = None;
        Ok(())
    }
}

impl Store for IndexedDbStore {
    fn load(&self) -> Stored<'_, Saved> {
        Box::pin(in_time(self.open()))
    }

    fn write<'a>(&'a self, _: &'a str, writes: Vec<Write>) -> Stored<'a, ()> {
        Box::pin(in_time(self.keep(writes)))
    }

    fn orphans(&self) -> Orphans {
        tabs::orphans(self)
    }

    fn remove(&self) -> Stored<'_, ()> {
        Box::pin(in_time(self.forget()))
    }
}

async fn keep_rows(tx: &Tx, write: RowsWrite) -> Result<()> {
    let (channels, rows) = (tx.store(CHANNEL)?, tx.store(ROW)?);
    let kept: Option<SavedChannel> = get(&channels, write.channel.into()).await?;
    let kept = kept.unwrap_or_default();
    match write.fits(&kept.epoch, &kept.schema, kept.version) {
        Fit::Not => return Ok(()),
        Fit::Over => {}
        Fit::Instead => {
            failed(rows.delete(range(write.channel)?))?;
        }
    }
    let RowsWrite { channel, schema, epoch, to, rows: changed, .. } = write;
    let kept = SavedChannel { epoch, version: Some(to), schema, ..SavedChannel::default() };
    put(&channels, &channel.into(), &kept)?;
    for (key, row) in changed {
        let key = Array::of2(&channel.into(), &key.into()).into();
        match row {
            Some(row) => put(&rows, &key, &row)?,
            None => failed(rows.delete(key)).map(drop)?,
        }
    }
    Ok(())
}

async fn open_database(name: &str) -> Result<Database> {
    let mut request = failed(Factory::new().and_then(|factory| factory.open(name, Some(1))))?;
    request.on_upgrade_needed(|event| {
        use idb::DatabaseEvent;
        let Ok(db) = event.database() else { return };
        for name in ALL {
            // What fails here fails the opening.
            let _ = db.create_object_store(name, idb::ObjectStoreParams::new());
        }
    });
    let mut db = failed(request.await)?;
    // Whoever deletes it need not wait for this tab, which goes on in memory.
    db.on_version_change(|event| {
        use idb::event::DatabaseEvent as _;
        if let Ok(db) = event.database() {
            db.close();
        }
    });
    Ok(db)
}

/// The names of all outboxes.
async fn slots(db: &Database) -> Result<Vec<String>> {
    let tx = Tx::begin(db, &[OUTBOX], TransactionMode::ReadOnly)?;
    let keys = failed(failed(tx.store(OUTBOX)?.get_all_keys(None, None))?.await)?;
    Ok(keys.iter().filter_map(JsValue::as_string).collect())
}

async fn read_channel(tx: &Tx, name: &str) -> Result<Option<SavedChannel>> {
    let head: Option<SavedChannel> = get(&tx.store(CHANNEL)?, name.into()).await?;
    let Some(mut channel) = head else { return Ok(None) };
    for (key, value) in entries(&tx.store(ROW)?, name).await? {
        if let Some(key) = key.as_string() {
            channel.rows.insert(key, parse(&value)?);
        }
    }
    Ok(Some(channel))
}

async fn read_outbox(tx: &Tx, slot: &str) -> Result<Option<Outbox>> {
    let head: Option<Outbox> = get(&tx.store(OUTBOX)?, slot.into()).await?;
    let Some(mut outbox) = head else { return Ok(None) };
    for (key, value) in entries(&tx.store(PENDING)?, slot).await? {
        let Some(seq) = key.as_f64() else { continue };
        // What cannot be read is given up by its client, and its seq is not missed.
        let unreadable = |_| SavedAction {
            channel: String::new(),
            action: serde_json::Value::Null,
            made_at: partysync::Timestamp::from_millis(0),
            blame: 0,
        };
        // Written by `key`, from a seq.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        outbox.pending.insert(seq as u64, parse(&value).unwrap_or_else(unreadable));
    }
    Ok(Some(outbox))
}

/// What is kept under keys of two parts: the second part and the value of each with this first.
async fn entries(store: &ObjectStore, first: &str) -> Result<Vec<(JsValue, JsValue)>> {
    let range = range(first)?;
    let keys = failed(store.get_all_keys(Some(range.clone().into()), None))?;
    let values = failed(store.get_all(Some(range.into()), None))?;
    let keys = failed(keys.await)?.into_iter().map(|key| Array::from(&key).get(1));
    Ok(keys.zip(failed(values.await)?).collect())
}

/// Deletes an outbox with all that is in it.
async fn remove(db: &Database, slot: &str) -> Result<()> {
    let tx = Tx::begin(db, &[OUTBOX, PENDING], TransactionMode::ReadWrite)?;
    failed(tx.store(OUTBOX)?.delete(JsValue::from(slot)))?;
    failed(tx.store(PENDING)?.delete(range(slot)?))?;
    tx.commit().await
}

/// A transaction: aborted when it is dropped, so that a batch that fails leaves nothing.
struct Tx(Option<Transaction>);

impl Tx {
    fn begin(db: &Database, stores: &[&str], mode: TransactionMode) -> Result<Self> {
        Ok(Self(Some(failed(db.transaction(stores, mode))?)))
    }

    fn store(&self, name: &str) -> Result<ObjectStore> {
        let tx = self.0.as_ref().ok_or_else(|| Error::new(Code::Store, "it has ended"))?;
        failed(tx.object_store(name))
    }

    async fn commit(mut self) -> Result<()> {
        let Some(tx) = self.0.take() else { return Ok(()) };
        let done = failed(failed(tx.commit())?.await)?;
        if done.is_committed() { Ok(()) } else { Err(Error::new(Code::Store, "it is full")) }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(tx) = self.0.take() {
            // One that has aborted already says so; that is what is wanted.
            let _ = tx.abort();
        }
    }
}

/// The key of a pending action.
fn key(slot: &str, seq: u64) -> JsValue {
    // Seqs count one client's actions: they stay far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    Array::of2(&slot.into(), &JsValue::from_f64(seq as f64)).into()
}

/// All keys whose first part is this.
fn range(first: &str) -> Result<KeyRange> {
    let lower = Array::of1(&first.into());
    // Arrays come after all numbers and strings.
    let upper = Array::of2(&first.into(), &Array::new());
    failed(KeyRange::bound(&lower, &upper, None, None))
}

fn put(store: &ObjectStore, key: &JsValue, value: &impl serde::Serialize) -> Result<()> {
    // As text: 64-bit integers stay whole.
    let text =
        serde_json::to_string(value).map_err(|e| Error::new(Code::InvalidValue, e.to_string()))?;
    failed(store.put(&text.into(), Some(key))).map(drop)
}

async fn get<T: DeserializeOwned>(store: &ObjectStore, key: JsValue) -> Result<Option<T>> {
    let value = failed(failed(store.get(key))?.await)?;
    value.as_ref().map(parse).transpose()
}

fn parse<T: DeserializeOwned>(value: &JsValue) -> Result<T> {
    let text = value.as_string().unwrap_or_default();
    serde_json::from_str(&text)
        .map_err(|e| Error::new(Code::Store, format!("what it holds cannot be read: {e}")))
}

fn failed<T>(result: std::result::Result<T, idb::Error>) -> Result<T> {
    result.map_err(store_error)
}

#[allow(clippy::needless_pass_by_value)]
fn store_error(error: idb::Error) -> Error {
    Error::new(Code::Store, format!("the browser's storage: {error}"))
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let timer = WebTransport.sleep(Duration::from_millis(PATIENCE));
    match select(std::pin::pin!(work), timer).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Error::new(Code::Store, "the browser's storage is blocked")),
    }
}

fn random_id() -> String {
    format!("{:016x}{:016x}", WebTransport.random(), WebTransport.random())
}
