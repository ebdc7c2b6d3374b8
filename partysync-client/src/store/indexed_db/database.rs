//! IndexedDB as futures: connections, transactions and requests. Values are JSON texts, so that
//! 64-bit integers stay whole.

use futures::channel::oneshot;
use js_sys::{Array, Function, Promise, Reflect};
use partysync::{Code, Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;
use web_sys::{
    DomException, Event, IdbDatabase, IdbFactory, IdbKeyRange, IdbObjectStore, IdbRequest,
    IdbRequestReadyState, IdbTransaction, IdbTransactionMode, IdbVersionChangeEvent,
};

/// What is kept of a client's outbox beside its pending actions, by client id.
pub(super) const OUTBOX: &str = "outbox";
/// Pending actions by client id and seq.
pub(super) const PENDING: &str = "pending";
/// Actions that were given up, by their id.
pub(super) const ABANDONED: &str = "abandoned";
/// What is kept of a channel beside its rows, by its name.
pub(super) const CHANNEL: &str = "channel";
/// Who the client is to the room, under [`WHO`].
pub(super) const IDENTITY: &str = "identity";
pub(super) const WHO: &str = "who";
/// Rows by channel and key, and pages of rows by channel and number.
pub(super) const ROW: &str = "row";

const VERSION: u32 = 2;

type Handler = Closure<dyn FnMut(Event)>;

/// Why a connection ended from outside.
#[derive(Debug)]
pub(super) enum Ended {
    /// The browser closed it, or a later version of the application wants it.
    Broke(Error),
    /// The database is being deleted.
    Deleted,
}

/// A connection; it closes when it is dropped.
pub(super) struct Database {
    inner: IdbDatabase,
    _handlers: [Handler; 2],
}

impl Drop for Database {
    fn drop(&mut self) {
        self.inner.set_onclose(None);
        self.inner.set_onversionchange(None);
        self.inner.close();
    }
}

impl Database {
    /// Opens the database with this name, or makes it. `ended` is told at most once.
    pub(super) async fn open(name: &str, ended: impl Fn(Ended) + Clone + 'static) -> Result<Self> {
        let request = factory()?.open_with_u32(name, VERSION).map_err(thrown)?;
        let upgrade = Closure::<dyn FnMut(Event)>::new(|event: Event| {
            let request = event.target().and_then(|target| target.dyn_into::<IdbRequest>().ok());
            let db = request.and_then(|request| request.result().ok());
            let Some(db) = db.and_then(|db| db.dyn_into::<IdbDatabase>().ok()) else { return };
            for name in [OUTBOX, PENDING, ABANDONED, IDENTITY, CHANNEL, ROW] {
                // An older version may have made it. Without it every transaction fails, and says so.
                let _ = db.create_object_store(name);
            }
        });
        request.set_onupgradeneeded(Some(upgrade.as_ref().unchecked_ref()));
        let opened = result(&request).await;
        request.set_onupgradeneeded(None);
        let inner: IdbDatabase = opened?.dyn_into().map_err(thrown)?;
        let tell = ended.clone();
        let close = Closure::<dyn FnMut(Event)>::new(move |_: Event| {
            tell(Ended::Broke(store_error("the browser closed the database")));
        });
        let versionchange = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
            // Whoever waits for this is not held up.
            if let Some(db) = event.target().and_then(|t| t.dyn_into::<IdbDatabase>().ok()) {
                db.close();
            }
            let event = event.dyn_into::<IdbVersionChangeEvent>();
            ended(match event.ok().and_then(|event| event.new_version()) {
                None => Ended::Deleted,
                Some(_) => Ended::Broke(store_error("a newer version of the app has it open")),
            });
        });
        inner.set_onclose(Some(close.as_ref().unchecked_ref()));
        inner.set_onversionchange(Some(versionchange.as_ref().unchecked_ref()));
        Ok(Self { inner, _handlers: [close, versionchange] })
    }

    /// Begins to read these object stores.
    pub(super) fn read(&self, stores: &[&str]) -> Result<Tx> {
        self.begin(stores, IdbTransactionMode::Readonly)
    }

    /// Begins to change these object stores.
    pub(super) fn write(&self, stores: &[&str]) -> Result<Tx> {
        self.begin(stores, IdbTransactionMode::Readwrite)
    }

    fn begin(&self, stores: &[&str], mode: IdbTransactionMode) -> Result<Tx> {
        let names: Array = stores.iter().map(|name| JsValue::from(*name)).collect();
        let inner =
            self.inner.transaction_with_str_sequence_and_mode(&names, mode).map_err(thrown)?;
        let (tell, ended) = oneshot::channel();
        let mut tell = Some(tell);
        let handler = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
            if let Some(tell) = tell.take() {
                // A transaction that was dropped is not waited for.
                let _ = tell.send(event.type_() == "complete");
            }
        });
        inner.set_oncomplete(Some(handler.as_ref().unchecked_ref()));
        inner.set_onabort(Some(handler.as_ref().unchecked_ref()));
        Ok(Tx { inner, ended: Some(ended), _handler: handler })
    }
}

/// A transaction. One that is dropped without [`commit`](Self::commit) is aborted, so that a batch
/// that fails leaves nothing.
pub(super) struct Tx {
    inner: IdbTransaction,
    ended: Option<oneshot::Receiver<bool>>,
    _handler: Handler,
}

impl Tx {
    pub(super) fn store(&self, name: &str) -> Result<Records> {
        self.inner.object_store(name).map(Records).map_err(thrown)
    }

    /// Waits until all that was asked of it is done, durably.
    pub(super) async fn commit(mut self) -> Result<()> {
        // Old browsers have none, and commit by themselves.
        #[allow(deprecated)]
        let _ = self.inner.commit();
        let Some(ended) = self.ended.take() else { return Ok(()) };
        if ended.await.unwrap_or(false) {
            return Ok(());
        }
        Err(match self.inner.error() {
            Some(error) => dom_error(&error),
            None => store_error("the transaction was aborted"),
        })
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.inner.set_oncomplete(None);
        self.inner.set_onabort(None);
        if self.ended.is_some() {
            // One that has ended already says so; that is what is wanted.
            let _ = self.inner.abort();
        }
    }
}

/// An object store within a transaction.
pub(super) struct Records(IdbObjectStore);

impl Records {
    /// Puts a value; whether that worked is known at the latest when the transaction is committed.
    pub(super) fn put(&self, key: &JsValue, value: &impl Serialize) -> Result<Put> {
        let text = serde_json::to_string(value)
            .map_err(|e| Error::new(Code::InvalidValue, e.to_string()))?;
        self.put_text(key, &text)
    }

    /// Puts a text, as [`put`](Self::put) does a value.
    pub(super) fn put_text(&self, key: &JsValue, text: &str) -> Result<Put> {
        self.0.put_with_key(&text.into(), key).map(Put).map_err(thrown)
    }

    /// Deletes what is under this key, or under a range of keys.
    pub(super) fn delete(&self, key: &JsValue) -> Result<()> {
        self.0.delete(key).map(drop).map_err(thrown)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, key: &JsValue) -> Result<Option<T>> {
        let value = result(&self.0.get(key).map_err(thrown)?).await?;
        if value.is_undefined() { Ok(None) } else { parse(&value).map(Some) }
    }

    /// How many values there are in a range.
    pub(super) async fn count(&self, range: &JsValue) -> Result<u64> {
        let count = result(&self.0.count_with_key(range).map_err(thrown)?).await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(count.as_f64().unwrap_or_default() as u64)
    }

    /// All keys.
    pub(super) async fn keys(&self) -> Result<Array> {
        Ok(result(&self.0.get_all_keys().map_err(thrown)?).await?.unchecked_into())
    }

    /// The entries of a range, at most so many of the first.
    pub(super) async fn entries(
        &self,
        range: &JsValue,
        limit: u32,
    ) -> Result<Vec<(JsValue, JsValue)>> {
        let keys = self.0.get_all_keys_with_key_and_limit(range, limit).map_err(thrown)?;
        let values = self.0.get_all_with_key_and_limit(range, limit).map_err(thrown)?;
        // Each is heard from the moment it is asked for.
        let (keys, values) = futures::join!(result(&keys), result(&values));
        let (keys, values): (Array, Array) = (keys?.unchecked_into(), values?.unchecked_into());
        Ok(keys.iter().zip(values.iter()).collect())
    }
}

/// A value on its way.
pub(super) struct Put(IdbRequest);

impl Put {
    /// Waits until the database has it. The page goes on meanwhile.
    pub(super) async fn done(&self) -> Result<()> {
        result(&self.0).await.map(drop)
    }
}

/// All keys of two parts whose first is this.
pub(super) fn range(first: &str) -> Result<JsValue> {
    // Arrays come after all numbers and strings.
    bound(&Array::of1(&first.into()), false, &Array::of2(&first.into(), &Array::new()))
}

/// The keys of a range from this one on, without it.
pub(super) fn range_after(range: &JsValue, key: &JsValue) -> Result<JsValue> {
    let upper = range.unchecked_ref::<IdbKeyRange>().upper().map_err(thrown)?;
    bound(key, true, &upper)
}

/// The keys of a client's actions from one seq to another.
pub(super) fn seqs(client: &str, from: u64, to: u64) -> Result<JsValue> {
    bound(&action_key(client, from), false, &action_key(client, to))
}

/// The keys from one on, with it unless `open`, up to another.
pub(super) fn bound(lower: &JsValue, open: bool, upper: &JsValue) -> Result<JsValue> {
    let range = IdbKeyRange::bound_with_lower_open_and_upper_open(lower, upper, open, false);
    range.map(JsValue::from).map_err(thrown)
}

/// The key of a pending action.
pub(super) fn action_key(client: &str, seq: u64) -> JsValue {
    // Seqs count one client's actions: they stay far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    Array::of2(&client.into(), &JsValue::from_f64(seq as f64)).into()
}

/// Deletes a database; connections of others are asked to close.
pub(super) async fn delete_database(name: &str) -> Result<()> {
    let request = factory()?.delete_database(name).map_err(thrown)?;
    result(&request).await.map(drop)
}

/// The names of all databases of the origin.
pub(super) async fn database_names() -> Result<Vec<String>> {
    let factory = factory()?;
    let databases = Reflect::get(&factory, &"databases".into())
        .and_then(JsCast::dyn_into::<Function>)
        .and_then(|databases| databases.call0(&factory))
        .and_then(JsCast::dyn_into::<Promise>)
        .map_err(|_| store_error("this browser does not tell which databases there are"))?;
    let all = wasm_bindgen_futures::JsFuture::from(databases).await.map_err(thrown)?;
    let name = |info: JsValue| Reflect::get(&info, &"name".into()).ok()?.as_string();
    Ok(Array::from(&all).iter().filter_map(name).collect())
}

fn factory() -> Result<IdbFactory> {
    Reflect::get(&js_sys::global(), &"indexedDB".into())
        .and_then(JsCast::dyn_into)
        .map_err(|_| store_error("there is no IndexedDB here"))
}

/// The result of a request.
async fn result(request: &IdbRequest) -> Result<JsValue> {
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let handler = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
        // A value that cannot be read does not end the transaction of those that can; whoever
        // waits for a write that failed aborts it.
        event.prevent_default();
        event.stop_propagation();
        if let Some(tell) = tell.take() {
            // A request that was dropped is not waited for.
            let _ = tell.send(());
        }
    });
    request.set_onsuccess(Some(handler.as_ref().unchecked_ref()));
    request.set_onerror(Some(handler.as_ref().unchecked_ref()));
    let _listening = Listening(request);
    let done = request.ready_state() == IdbRequestReadyState::Done || told.await.is_ok();
    match request.error() {
        Ok(None) if done => request.result().map_err(thrown),
        Ok(Some(error)) => Err(dom_error(&error)),
        _ => Err(store_error("a request failed")),
    }
}

struct Listening<'a>(&'a IdbRequest);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.set_onsuccess(None);
        self.0.set_onerror(None);
    }
}

pub(super) fn parse<T: DeserializeOwned>(value: &JsValue) -> Result<T> {
    let text = value.as_string().unwrap_or_default();
    serde_json::from_str(&text)
        .map_err(|e| store_error(&format!("what is kept cannot be read: {e}")))
}

pub(super) fn store_error(message: &str) -> Error {
    Error::new(Code::Store, format!("the browser's storage: {message}"))
}

fn dom_error(error: &DomException) -> Error {
    store_error(&format!("{}: {}", error.name(), error.message()))
}

#[allow(clippy::needless_pass_by_value)]
pub(super) fn thrown(error: JsValue) -> Error {
    match error.dyn_ref::<DomException>() {
        Some(error) => dom_error(error),
        None => store_error(&format!("{error:?}")),
    }
}
