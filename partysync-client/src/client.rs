//! [`SyncClient`]: drives a session over a transport and a store.

use crate::driver;
use crate::replica::{Changes, Replica};
use crate::session::{Session, Status, Timing};
use crate::store::{MemoryStore, Store};
use crate::transport::Transport;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::channel::oneshot;
use futures::future::FutureExt;
use partysync::{Action, Code, Error, Key, Record, Result};
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

/// A room, kept in sync. Clones are handles to the same client; it ends when the last is dropped.
///
/// ```no_run
/// # use partysync::{Action, Record};
/// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
/// # struct Note { #[record(key)] id: String, text: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
/// # enum NoteAction { #[action(insert)] Create { id: String, text: String } }
/// # #[cfg(feature = "native")]
/// # async fn example() -> partysync::Result<()> {
/// use partysync_client::SyncClient;
///
/// let client = SyncClient::<NoteAction>::connect("ws://127.0.0.1:8787/parties/notes/mine").await?;
/// client.ready().await?;
/// client.send(NoteAction::Create { id: "a".into(), text: "hi".into() }).await?;
/// let notes: Vec<Note> = client.rows()?;
/// # let _ = notes; Ok(()) }
/// ```
pub struct SyncClient<A: Action> {
    shared: Arc<Shared<A>>,
}

pub(crate) struct Shared<A> {
    inner: Mutex<Inner<A>>,
    /// Wakes the driver; closed when the last handle is dropped.
    wake: UnboundedSender<()>,
}

pub(crate) struct Inner<A> {
    pub(crate) session: Session<A>,
    /// Actions that were made before the replica was read.
    early: Vec<(A, oneshot::Sender<Result<()>>)>,
    now: Box<dyn Fn() -> partysync::Timestamp + Send>,
    answers: BTreeMap<u64, oneshot::Sender<Result<()>>>,
    listeners: Vec<UnboundedSender<Update>>,
    /// Told when what was done so far is in the store.
    pub(crate) storing: Vec<oneshot::Sender<()>>,
    last_status: Option<Status>,
}

/// What happened to a client's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The keys whose row, or whose being pending, changed; by channel.
    pub changes: Changes,
    /// Where the client stands.
    pub status: Status,
    /// The application's own messages from the server.
    pub messages: Vec<Json>,
    /// What the server could not use, and rejections that nobody waits for.
    pub errors: Vec<Error>,
}

/// How a client is made.
pub struct Options {
    /// How long it waits for what.
    pub timing: Timing,
    /// Where the replica is kept.
    pub store: Box<dyn Store>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("timing", &self.timing).finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults, with the replica kept here.
    ///
    /// ```
    /// use partysync_client::{Options, store::MemoryStore};
    /// let options = Options::new(MemoryStore::new());
    /// assert_eq!(options.timing.answer_ms, 10_000);
    /// ```
    pub fn new(store: impl Store + 'static) -> Self {
        Self { timing: Timing::default(), store: Box::new(store) }
    }
}

impl Default for Options {
    /// The replica ends with the client.
    fn default() -> Self {
        Self::new(MemoryStore::new())
    }
}

impl<A: Action> Clone for SyncClient<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<A: Action> std::fmt::Debug for SyncClient<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncClient").finish_non_exhaustive()
    }
}

#[cfg(all(feature = "native", not(target_arch = "wasm32")))]
impl<A: Action + Send> SyncClient<A> {
    /// Follows a room, with a replica that ends with the client. The rest happens in a task of
    /// the tokio runtime.
    ///
    /// # Errors
    /// None: there is no store to read.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::with(url, Options::default()).await
    }

    /// Follows a room; returns when the store has been read, and connects in the background.
    ///
    /// # Errors
    /// [`Code::Store`] when the store cannot be read.
    pub async fn with(url: &str, options: Options) -> Result<Self> {
        let (client, driver) =
            Self::make(url.to_owned(), options, crate::transport::NativeTransport);
        tokio::spawn(driver);
        client.loaded().await?;
        Ok(client)
    }
}

#[cfg(all(feature = "web", target_arch = "wasm32"))]
impl<A: Action> SyncClient<A> {
    /// Follows a room, with a replica in the browser's storage
    /// ([`IndexedDbStore`](crate::store::IndexedDbStore)) named by the URL.
    #[must_use]
    pub fn connect(url: &str) -> Self {
        Self::with(url, Options::new(crate::store::IndexedDbStore::new(url)))
    }

    /// Follows a room. A store that cannot be read is told by [`Status::warning`].
    #[must_use]
    pub fn with(url: &str, options: Options) -> Self {
        let (client, driver) = Self::make(url.to_owned(), options, crate::transport::WebTransport);
        wasm_bindgen_futures::spawn_local(driver);
        client
    }
}

impl<A: Action> Shared<A> {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner<A>> {
        // A reducer that panicked leaves the replica as it was: the action is not in it.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        // The driver is gone only when all handles are.
        let _ = self.wake.unbounded_send(());
    }
}

impl<A: Action> SyncClient<A> {
    /// A client over any transport, and the future that drives it: spawn it.
    pub fn make<T: Transport + Clone + Send>(
        url: String,
        options: Options,
        transport: T,
    ) -> (Self, impl Future<Output = ()>) {
        let Options { timing, store } = options;
        let session = Session::loading(timing, transport.random(), transport.now());
        let (wake, woken) = unbounded();
        let clock = transport.clone();
        let inner = Inner {
            session,
            early: Vec::new(),
            now: Box::new(move || clock.now()),
            answers: BTreeMap::new(),
            listeners: Vec::new(),
            storing: Vec::new(),
            last_status: None,
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), wake });
        // The driver holds no handle: it ends when the last one is dropped.
        let driver = driver::drive(Arc::downgrade(&shared), woken, url, timing, transport, store);
        (Self { shared }, driver)
    }

    fn inner(&self) -> MutexGuard<'_, Inner<A>> {
        self.shared.inner()
    }

    fn wake(&self) {
        self.shared.wake();
    }

    /// Does an action: its effect is shown at once, and it is sent, now or when there is a
    /// connection. The answer resolves when the server has committed or rejected it; it need not
    /// be awaited.
    pub fn send(&self, action: A) -> Answer {
        let mut inner = self.inner();
        let (sender, receiver) = oneshot::channel();
        inner.send(action, sender);
        inner.tell();
        drop(inner);
        self.wake();
        Answer { receiver }
    }

    /// Sends a message of the application's own; `false` when there is no live connection.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn message<T: Serialize>(&self, message: &T) -> Result<bool> {
        let json = serde_json::to_value(message)
            .map_err(|e| Error::new(Code::InvalidValue, format!("message: {e}")))?;
        let sent = self.inner().session.message(json);
        self.wake();
        Ok(sent)
    }

    /// All rows as they are shown, by key.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when a row does not fit the type.
    pub fn rows<R: Record>(&self) -> Result<Vec<R>> {
        self.inner().session.replica().rows()
    }

    /// A row as it is shown.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the row does not fit the type.
    pub fn get<R: Record>(&self, key: impl Into<Key>) -> Result<Option<R>> {
        self.inner().session.replica().get(&key.into())
    }

    /// The keys of all rows of a channel as they are shown, in order.
    #[must_use]
    pub fn keys(&self, channel: &str) -> Vec<Key> {
        self.inner().session.replica().keys(channel)
    }

    /// Whether the row's shown state is not the server's word yet.
    #[must_use]
    pub fn is_pending<R: Record>(&self, key: impl Into<Key>) -> bool {
        self.inner().session.replica().is_pending(R::SCHEMA.table, &key.into())
    }

    /// Where the client stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner().session.status()
    }

    /// The version of the room that the confirmed rows of a record are of.
    #[must_use]
    pub fn version<R: Record>(&self) -> Option<u64> {
        self.inner().session.replica().version(R::SCHEMA.table)
    }

    /// All that happens from now on.
    #[must_use]
    pub fn updates(&self) -> UnboundedReceiver<Update> {
        let (sender, receiver) = unbounded();
        self.inner().listeners.push(sender);
        receiver
    }

    /// Waits until `condition` holds of the client; it is asked at once and at each update.
    ///
    /// # Errors
    /// [`Code::Closed`] when the client is closed before, or the error of a refusal.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let mut updates = self.updates();
        loop {
            if condition(self) {
                return Ok(());
            }
            match self.status().phase {
                crate::Phase::Refused(error) => return Err(error),
                crate::Phase::Closed => return Err(closed()),
                _ => {}
            }
            if updates.next().await.is_none() {
                return Err(closed());
            }
        }
    }

    /// Waits until the store has been read: until then there are no rows.
    ///
    /// # Errors
    /// [`Code::Store`] when it cannot be read. The client goes on without it.
    pub async fn loaded(&self) -> Result<()> {
        self.until(|client| client.status().phase != crate::Phase::Loading).await?;
        self.status().warning.map_or(Ok(()), Err)
    }

    /// Waits until what was done so far is in the store: then it outlives this program.
    ///
    /// # Errors
    /// [`Code::Store`] when the store does not work, [`Code::Closed`] when the client is closed.
    pub async fn stored(&self) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.inner().storing.push(sender);
        self.wake();
        receiver.await.map_err(|_| closed())?;
        self.status().warning.map_or(Ok(()), Err)
    }

    /// Waits until the client is live with nothing pending.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub async fn ready(&self) -> Result<()> {
        self.until(|client| {
            let status = client.status();
            status.phase == crate::Phase::Live && status.pending == 0
        })
        .await
    }

    /// Tries to connect at once instead of waiting for the next attempt.
    pub fn reconnect(&self) {
        let mut inner = self.inner();
        let now = (inner.now)();
        inner.session.reconnect(now);
        inner.tell();
        drop(inner);
        self.wake();
    }

    /// Closes the connection for good. Pending actions stay in the store.
    pub fn close(&self) {
        let mut inner = self.inner();
        inner.session.close();
        inner.answers.clear();
        inner.early.clear();
        inner.tell();
        drop(inner);
        self.wake();
    }
}

impl<A: Action> Inner<A> {
    fn send(&mut self, action: A, sender: oneshot::Sender<Result<()>>) {
        if self.session.status().phase == crate::Phase::Loading {
            self.early.push((action, sender));
            return;
        }
        let now = (self.now)();
        let seq = self.session.act(action, now);
        self.answers.insert(seq, sender);
    }

    /// The replica is here: what was done in the meantime goes on top of it.
    pub(crate) fn loaded(&mut self, replica: Replica<A>) {
        let now = (self.now)();
        self.session.loaded(replica, now);
        for (action, sender) in std::mem::take(&mut self.early) {
            self.send(action, sender);
        }
    }

    /// Resolves answers and tells listeners what happened.
    pub(crate) fn tell(&mut self) {
        for (seq, outcome) in self.session.take_answers() {
            let untold = match self.answers.remove(&seq) {
                Some(sender) => sender.send(outcome).err(),
                // Whoever made it was here before this client.
                None => Some(outcome),
            };
            // What nobody waits for is told to all.
            if let Some(Err(error)) = untold {
                self.session.report(error);
            }
        }
        let status = self.session.status();
        let update = Update {
            changes: self.session.take_changes(),
            messages: self.session.take_messages(),
            errors: self.session.take_errors(),
            status,
        };
        let quiet = update.changes.is_empty()
            && update.messages.is_empty()
            && update.errors.is_empty()
            && self.last_status.as_ref() == Some(&update.status);
        if !quiet {
            self.last_status = Some(update.status.clone());
            self.listeners.retain(|listener| listener.unbounded_send(update.clone()).is_ok());
        }
    }
}

fn closed() -> Error {
    Error::new(Code::Closed, "the client is closed")
}

/// What becomes of an action.
#[derive(Debug)]
pub struct Answer {
    receiver: oneshot::Receiver<Result<()>>,
}

impl Future for Answer {
    /// `Ok` when the server has committed it, `Err` with why it rejected it, or
    /// [`Code::Closed`] when the client was closed before.
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.receiver.poll_unpin(context).map(|answer| answer.unwrap_or_else(|_| Err(closed())))
    }
}
