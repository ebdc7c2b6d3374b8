//! [`SyncClient`]: drives a session over a transport and a store.

use crate::replica::{Changes, Replica};
use crate::session::{Effect, Session, Status, Timing};
use crate::store::{MemoryStore, Store};
use crate::transport::{Event, Link, Transport};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::channel::oneshot;
use futures::future::{Either, FutureExt, select};
use futures::{Stream, StreamExt};
use partysync::{Action, Code, Error, Key, Record, Result};
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

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
/// let client = SyncClient::<NoteAction>::connect("ws://127.0.0.1:8787/parties/notes/mine")?;
/// client.ready().await?;
/// client.send(NoteAction::Create { id: "a".into(), text: "hi".into() }).await?;
/// let notes: Vec<Note> = client.rows()?;
/// # let _ = notes; Ok(()) }
/// ```
pub struct SyncClient<A: Action> {
    shared: Arc<Shared<A>>,
}

struct Shared<A> {
    inner: Mutex<Inner<A>>,
    /// Wakes the driver; closed when the last handle is dropped.
    wake: UnboundedSender<()>,
}

struct Inner<A> {
    session: Session<A>,
    now: Box<dyn Fn() -> partysync::Timestamp + Send>,
    answers: BTreeMap<u64, oneshot::Sender<Result<()>>>,
    listeners: Vec<UnboundedSender<Update>>,
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
    /// What the server could not use.
    pub errors: Vec<Error>,
}

/// How a client is made.
pub struct Options<S = MemoryStore> {
    /// How long it waits for what.
    pub timing: Timing,
    /// Where the replica is kept.
    pub store: S,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Options<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("timing", &self.timing).field("store", &self.store).finish()
    }
}

impl<S> Options<S> {
    /// The defaults, with the replica kept here.
    ///
    /// ```
    /// use partysync_client::{Options, store::MemoryStore};
    /// let options = Options::new(MemoryStore::new());
    /// assert_eq!(options.timing.answer_ms, 10_000);
    /// ```
    pub fn new(store: S) -> Self {
        Self { timing: Timing::default(), store }
    }
}

impl Default for Options {
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

fn locked<A>(inner: &Mutex<Inner<A>>) -> MutexGuard<'_, Inner<A>> {
    // A reducer that panicked leaves the replica as it was: the action is not in it.
    inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(all(feature = "native", not(target_arch = "wasm32")))]
impl<A: Action + Send> SyncClient<A> {
    /// Connects to a room with the defaults. The rest happens in a task of the tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn connect(url: &str) -> Result<Self> {
        Self::with(url, Options::default())
    }

    /// Connects to a room.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn with<S: Store + Send + 'static>(url: &str, options: Options<S>) -> Result<Self> {
        let (client, driver) =
            Self::make(url.to_owned(), options, crate::transport::NativeTransport)?;
        tokio::spawn(driver);
        Ok(client)
    }
}

#[cfg(all(feature = "web", target_arch = "wasm32"))]
impl<A: Action> SyncClient<A> {
    /// Connects to a room with the defaults.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn connect(url: &str) -> Result<Self> {
        Self::with(url, Options::default())
    }

    /// Connects to a room.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn with<S: Store + 'static>(url: &str, options: Options<S>) -> Result<Self> {
        let (client, driver) = Self::make(url.to_owned(), options, crate::transport::WebTransport)?;
        wasm_bindgen_futures::spawn_local(driver);
        Ok(client)
    }
}

impl<A: Action> SyncClient<A> {
    /// A client over any transport, and the future that drives it: spawn it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn make<T: Transport + Clone + Send, S: Store + 'static>(
        url: String,
        options: Options<S>,
        transport: T,
    ) -> Result<(Self, impl Future<Output = ()>)> {
        let now = transport.now();
        let (replica, lost) = match options.store.load()? {
            Some(saved) => Replica::load(&saved)?,
            None => {
                let id = format!("{:016x}{:016x}", transport.random(), transport.random());
                (Replica::new(id), Vec::new())
            }
        };
        let mut session = Session::new(replica, options.timing, transport.random(), now);
        lost.into_iter().for_each(|error| session.report(error));
        let (wake, woken) = unbounded();
        let clock = transport.clone();
        let inner = Inner {
            session,
            now: Box::new(move || clock.now()),
            answers: BTreeMap::new(),
            listeners: Vec::new(),
            last_status: None,
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), wake });
        // The driver holds no handle: it ends when the last one is dropped.
        let driver = drive(Arc::downgrade(&shared), woken, url, transport, options.store);
        Ok((Self { shared }, driver))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<A>> {
        locked(&self.shared.inner)
    }

    fn wake(&self) {
        // The driver is gone only when all handles are.
        let _ = self.shared.wake.unbounded_send(());
    }

    /// Does an action: its effect is shown at once, and it is sent, now or when there is a
    /// connection. The answer resolves when the server has committed or rejected it; it need not
    /// be awaited.
    pub fn send(&self, action: A) -> Answer {
        let mut inner = self.inner();
        let now = (inner.now)();
        let seq = inner.session.act(action, now);
        let (sender, receiver) = oneshot::channel();
        inner.answers.insert(seq, sender);
        inner.tell();
        drop(inner);
        self.wake();
        Answer { seq, receiver }
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
        inner.tell();
        drop(inner);
        self.wake();
    }
}

impl<A: Action> Inner<A> {
    /// Resolves answers and tells listeners what happened.
    fn tell(&mut self) {
        for (seq, outcome) in self.session.take_answers() {
            if let Some(sender) = self.answers.remove(&seq) {
                // Nobody waits for it: then nobody has to be told.
                let _ = sender.send(outcome);
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
    seq: u64,
    receiver: oneshot::Receiver<Result<()>>,
}

impl Answer {
    /// The action's seq: the client's count of its actions.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

impl Future for Answer {
    /// `Ok` when the server has committed it, `Err` with why it rejected it, or
    /// [`Code::Closed`] when the client was closed before.
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.receiver.poll_unpin(context).map(|answer| answer.unwrap_or_else(|_| Err(closed())))
    }
}

/// Carries effects out and events in, until the client is closed or dropped.
async fn drive<A: Action, T: Transport, S: Store>(
    shared: std::sync::Weak<Shared<A>>,
    mut woken: UnboundedReceiver<()>,
    url: String,
    transport: T,
    store: S,
) {
    let mut link: Option<Link> = None;
    loop {
        let wait = {
            let Some(shared) = shared.upgrade() else { return };
            let mut inner = locked(&shared.inner);
            // First stored, then sent: what the server may see is never forgotten here.
            let writes = inner.session.take_writes();
            if !writes.is_empty() {
                let client = inner.session.replica().client().to_owned();
                if let Err(error) = store.write(&client, writes) {
                    inner.session.report(error);
                }
            }
            for effect in inner.session.take_effects() {
                match effect {
                    Effect::Connect => link = Some(transport.open(&url)),
                    Effect::Disconnect => link = None,
                    Effect::Send(text) => {
                        if let Some(link) = &link {
                            // A socket that is gone tells so itself.
                            let _ = link.outgoing.unbounded_send(text);
                        }
                    }
                }
            }
            inner.tell();
            if inner.session.status().phase == crate::Phase::Closed {
                return;
            }
            let now = transport.now().as_millis();
            inner
                .session
                .wake_at()
                .map(|at| Duration::from_millis(u64::try_from(at.as_millis() - now).unwrap_or(0)))
        };
        let happened = {
            let event = async {
                match &mut link {
                    Some(link) => next_event(&mut link.incoming).await,
                    None => std::future::pending().await,
                }
            };
            let timer = async {
                match wait {
                    Some(time) => transport.sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            let (event, timer, wake) = (std::pin::pin!(event), std::pin::pin!(timer), woken.next());
            match select(event, select(timer, wake)).await {
                Either::Left((event, _)) => Happened::Socket(event),
                Either::Right((Either::Left(((), _)), _)) => Happened::Time,
                Either::Right((Either::Right((Some(()), _)), _)) => Happened::Woken,
                // The last handle is gone.
                Either::Right((Either::Right((None, _)), _)) => return,
            }
        };
        let Some(shared) = shared.upgrade() else { return };
        let mut inner = locked(&shared.inner);
        let now = transport.now();
        match happened {
            Happened::Socket(Event::Opened) => inner.session.opened(now),
            Happened::Socket(Event::Text(text)) => inner.session.received(&text, now),
            Happened::Socket(Event::Closed { code, reason }) => {
                link = None;
                inner.session.closed(code, &reason, now);
            }
            Happened::Time => inner.session.tick(now),
            Happened::Woken => {}
        }
    }
}

enum Happened {
    Socket(Event),
    Time,
    Woken,
}

async fn next_event(incoming: &mut (impl Stream<Item = Event> + Unpin)) -> Event {
    incoming
        .next()
        .await
        .unwrap_or(Event::Closed { code: 1006, reason: "the connection ended".to_owned() })
}
