//! [`SyncClient`]: what users hold of a client.

use crate::answer::{Answer, Outcome, Unread, closed};
use crate::devtools::Recorder;
use crate::driver;
use crate::endpoint::Endpoint;
use crate::peer::{Now, Output, Peer, Status, Timing};
use crate::query::{Live, LiveTotals, Wakers};
use crate::replica::{Changes, merge};
use crate::store::{Abandoned, MemoryStore, Store};
use crate::transport::Transport;
use crate::updates::{Listener, Updates};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::channel::oneshot;
use partysync::query::{Group, Query, Totals, Tuple};
use partysync::wire::snapshot::Snapshot;
use partysync::{Action, Code, Error, Key, Record, Result};
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

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
/// let notes: Vec<Note> = client.rows();
/// # let _ = notes; Ok(()) }
/// ```
pub struct SyncClient<A: Action> {
    pub(crate) shared: Arc<Shared<A>>,
    /// Wakes the driver, which ends when the last handle drops its own of these.
    wake: UnboundedSender<()>,
}

pub(crate) struct Shared<A> {
    inner: Mutex<Inner<A>>,
}

pub(crate) struct Inner<A> {
    pub(crate) peer: Peer<A>,
    now: Box<dyn Fn() -> Now + Send>,
    /// What the driver has to do.
    outputs: Vec<Output>,
    /// Who waits for results that have changed: to be woken without the lock.
    wakers: Wakers,
    answers: BTreeMap<u64, oneshot::Sender<Outcome>>,
    pub(crate) unread: Arc<Unread>,
    pub(crate) recorder: Recorder,
    listeners: Vec<Listener>,
    /// Told when what was done up to a mark is in the store.
    storing: Vec<(u64, oneshot::Sender<()>)>,
    /// What is kept is to be deleted when the client is closed.
    pub(crate) deletes: Option<oneshot::Sender<Result<()>>>,
    /// The driver ends: it takes nothing more.
    pub(crate) ended: bool,
    /// It has ended, and let go of the store.
    gone: bool,
    last_status: Option<Status>,
}

/// What happened to a client's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The keys whose row, or whose being pending, changed; by channel.
    pub changes: Arc<Changes>,
    /// Where the client stands.
    pub status: Status,
    /// Whether [others](SyncClient::others) have come, changed or gone.
    pub presence: bool,
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
    /// Rows to begin with, as of a page that a server has rendered
    /// ([`Room::snapshot`](partysync::Room::snapshot)). Where the store has newer ones, those.
    pub initial: Option<Snapshot>,
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
        Self { timing: Timing::default(), store: Box::new(store), initial: None }
    }

    /// With rows to begin with.
    ///
    /// ```
    /// use partysync::wire::snapshot::Snapshot;
    /// use partysync_client::Options;
    /// let options = Options::default().initial(Snapshot::default());
    /// assert!(options.initial.is_some());
    /// ```
    #[must_use]
    pub fn initial(mut self, snapshot: impl Into<Option<Snapshot>>) -> Self {
        self.initial = snapshot.into();
        self
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
        Self { shared: self.shared.clone(), wake: self.wake.clone() }
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
    pub async fn connect(endpoint: impl Into<Endpoint>) -> Result<Self> {
        Self::with(endpoint, Options::default()).await
    }

    /// Follows a room; returns when the store has been read, and connects in the background.
    ///
    /// # Errors
    /// [`Code::Store`] when the store cannot be read.
    pub async fn with(endpoint: impl Into<Endpoint>, options: Options) -> Result<Self> {
        let transport = crate::transport::NativeTransport::new();
        let (client, driver) = Self::make(endpoint.into(), options, transport);
        tokio::spawn(driver);
        client.loaded().await?;
        Ok(client)
    }
}

#[cfg(all(feature = "web", target_arch = "wasm32"))]
impl<A: Action> SyncClient<A> {
    /// Follows a room of the server that the page came from
    /// ([`room_url`](crate::transport::room_url)), with a replica in the browser's storage
    /// ([`IndexedDbStore`](crate::store::IndexedDbStore)).
    #[must_use]
    pub fn connect(place: &crate::Place) -> Self {
        let store = crate::store::IndexedDbStore::new(place);
        Self::with(crate::transport::page_endpoint(place), Options::new(store))
    }

    /// Follows a room. A store that cannot be read is told by [`Status::warning`].
    #[must_use]
    pub fn with(endpoint: impl Into<Endpoint>, options: Options) -> Self {
        let (client, driver) = Self::make(endpoint.into(), options, crate::transport::WebTransport);
        wasm_bindgen_futures::spawn_local(driver);
        client
    }
}

impl<A: Action> Shared<A> {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner<A>> {
        // A reducer that panicked leaves the replica as it was.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<A: Action> SyncClient<A> {
    /// A client over any transport, and the future that drives it: spawn it.
    pub fn make<T: Transport + Clone + Send>(
        endpoint: Endpoint,
        options: Options,
        transport: T,
    ) -> (Self, impl Future<Output = ()>) {
        let Options { timing, store, initial } = options;
        let random = [transport.random(), transport.random()];
        let mut peer = Peer::new(random, timing, transport.now());
        if let Some(snapshot) = initial {
            peer.begin_with(snapshot);
        }
        let client = peer.replica().client().to_owned();
        let (wake, woken) = unbounded();
        let clock = transport.clone();
        let inner = Inner {
            peer,
            now: Box::new(move || clock.now()),
            outputs: Vec::new(),
            wakers: Wakers::default(),
            answers: BTreeMap::new(),
            unread: Arc::default(),
            recorder: Recorder::default(),
            listeners: Vec::new(),
            storing: Vec::new(),
            deletes: None,
            ended: false,
            gone: false,
            last_status: None,
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner) });
        let driver = driver::drive(shared.clone(), woken, endpoint, transport, store, client);
        (Self { shared, wake }, driver)
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner<A>> {
        self.shared.inner()
    }

    fn wake(&self) {
        // A driver that has ended has nothing left to do.
        let _ = self.wake.unbounded_send(());
    }

    /// Does something to the machine, tells users what came of it and has the driver go on.
    pub(crate) fn with_peer<T>(&self, act: impl FnOnce(&mut Inner<A>, Now) -> T) -> T {
        let mut inner = self.inner();
        let now = (inner.now)();
        let done = act(&mut inner, now);
        inner.tell();
        let wakers = inner.take_wakers();
        drop(inner);
        wakers.wake();
        self.wake();
        done
    }

    /// Does an action: its effect is shown at once, and it is sent, now or when there is a
    /// connection. The answer resolves when the server has committed or rejected it; it need not
    /// be awaited. Offline, and after a refusal, it does not resolve. [`Answer::result`] has what the
    /// server has answered the action with.
    ///
    /// The action outlives the program when it is stored: [`stored`](Self::stored) says when, and
    /// so does [`close`](Self::close) with [`closed`](Self::closed) behind it.
    pub fn send(&self, action: A) -> Answer {
        self.with_peer(|inner, now| {
            let made = inner.peer.act(action, now);
            inner.answer(made)
        })
    }

    /// Sends a message of the application's own; `false` when there is no live connection.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn message<T: Serialize>(&self, message: &T) -> Result<bool> {
        let json = serde_json::to_value(message)
            .map_err(|e| Error::new(Code::InvalidValue, format!("message: {e}")))?;
        Ok(self.with_peer(|inner, _| inner.peer.message(json)))
    }

    /// Who the client is to the room, as its worker has found out
    /// ([`Router::identify`](partysync::Identity)); kept in the store, so that it is known without a
    /// connection. `None` before the first one, and where nobody was asked.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it is not of this type.
    pub fn identity<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        self.inner().peer.replica().identity().map(partysync::Identity::read).transpose()
    }

    /// Actions that were given up, by an id: nobody knows whether the room has done them; or the room
    /// does not know them, as one of another version of the application
    /// ([`Code::Outdated`]), and they may be done after a reload. They stay until they are done again ([`retry`](Self::retry)) or let go
    /// ([`discard`](Self::discard)).
    #[must_use]
    pub fn abandoned(&self) -> BTreeMap<String, Abandoned> {
        self.inner().peer.abandoned().clone()
    }

    /// Does an action that was given up as a new one.
    ///
    /// # Errors
    /// The answer is [`Code::NotFound`] when there is none with this id, and says what is wrong
    /// with it when this version of the application cannot read it.
    pub fn retry(&self, id: &str) -> Answer {
        self.with_peer(|inner, now| {
            let made = inner.peer.retry(id, now);
            inner.answer(made)
        })
    }

    /// Lets go of an action that was given up.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none with this id.
    pub fn discard(&self, id: &str) -> Result<Abandoned> {
        self.with_peer(|inner, now| inner.peer.discard(id, now))
    }

    /// The rows that a query finds, kept up to date: see [`query`](crate::query). Equal queries
    /// share what is kept.
    ///
    /// ```no_run
    /// # use partysync::{Action, Record};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String, text: String, created_at: i64 }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String, text: String, created_at: i64 } }
    /// # async fn example(client: partysync_client::SyncClient<NoteAction>) -> partysync::Result<()> {
    /// use futures::StreamExt;
    ///
    /// let newest = client.query(&Note::query().order_by(Note::created_at.desc()).limit(10))?;
    /// for note in newest.rows() {
    ///     println!("{}", note.text);
    /// }
    /// let mut changes = newest.changes();
    /// while let Some(differences) = changes.next().await {
    ///     println!("{differences:?}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Code::UnknownChannel`] for a record that is none of this client's; [`Code::InvalidValue`]
    /// where a value that something is compared with has no form in SQL.
    pub fn query<R: Record, W: Tuple>(&self, query: &Query<R, W>) -> Result<Live<R, W>> {
        self.inner().peer.query(query)
    }

    /// How many rows a query finds and what they sum up to, kept up to date.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn totals<R: Record, G: Group>(&self, totals: &Totals<R, G>) -> Result<LiveTotals<R, G>> {
        self.inner().peer.totals(totals)
    }

    /// All rows as they are shown, by key, without those that are
    /// [unreadable](Self::unreadable).
    #[must_use]
    pub fn rows<R: Record>(&self) -> Vec<R> {
        self.inner().peer.replica().readable()
    }

    /// The rows of a record that this version of the application cannot read, and why: of a newer
    /// one, say, whose enum has another variant. They are not among [`rows`](Self::rows), nor in the
    /// results of queries; the status [counts](Status::unreadable) them, and an error of
    /// [`Code::Outdated`] tells once that there are some.
    #[must_use]
    pub fn unreadable<R: Record>(&self) -> Vec<(Key, Error)> {
        let inner = self.inner();
        let unreadable = inner.peer.replica().unreadable(R::SCHEMA.table);
        unreadable.map(|(key, error)| (key.clone(), error.clone())).collect()
    }

    /// A row as it is shown.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the row does not fit the type.
    pub fn get<R: Record>(&self, key: impl Into<Key>) -> Result<Option<R>> {
        self.inner().peer.replica().get(&key.into())
    }

    /// The keys of all rows of a channel as they are shown, in order.
    #[must_use]
    pub fn keys(&self, channel: &str) -> Vec<Key> {
        self.inner().peer.replica().keys(channel)
    }

    /// Whether the row's shown state is not the server's word yet.
    #[must_use]
    pub fn is_pending<R: Record>(&self, key: impl Into<Key>) -> bool {
        self.inner().peer.replica().is_pending(R::SCHEMA.table, &key.into())
    }

    /// Whether the rows of a channel are here, as they are or were at an earlier time: from the
    /// store, or from the server. Until then a row that is not found may be there nonetheless.
    #[must_use]
    pub fn is_complete(&self, channel: &str) -> bool {
        self.inner().peer.replica().is_complete(channel)
    }

    /// Where the client stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner().peer.status()
    }

    /// The version of the room that the confirmed rows of a record are of.
    #[must_use]
    pub fn version<R: Record>(&self) -> Option<u64> {
        self.inner().peer.replica().version(R::SCHEMA.table)
    }

    /// All that happens from now on; it ends with the client.
    #[must_use]
    pub fn updates(&self) -> Updates {
        let (listener, updates) = Updates::new();
        let mut inner = self.inner();
        inner.listeners.retain(Listener::is_heard);
        inner.listeners.push(listener);
        drop(inner);
        updates
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
    /// [`Code::Store`] when the store does not work, [`Code::Closed`] when the client has ended
    /// before.
    pub async fn stored(&self) -> Result<()> {
        let receiver = self.with_peer(|inner, _| {
            let (sender, receiver) = oneshot::channel();
            let mark = inner.peer.mark();
            inner.storing.push((mark, sender));
            receiver
        });
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

    /// Tries to connect at once instead of waiting for the next attempt; after a refusal, too.
    pub fn reconnect(&self) {
        self.with_peer(|inner, now| inner.peer.reconnect(now));
    }

    /// Closes the connection for good. Pending actions stay in the store. What is on its way there
    /// still gets there: [`closed`](Self::closed) waits for that.
    pub fn close(&self) {
        self.with_peer(|inner, _| {
            inner.peer.close();
        });
    }

    /// Waits until the client has ended and let go of its store, as after [`close`](Self::close):
    /// then another one may open the same file.
    pub async fn closed(&self) {
        let mut updates = self.updates();
        while !self.inner().gone && updates.next().await.is_some() {}
    }

    /// Closes the client and deletes all that its store keeps of the room, as when a user logs
    /// out: rows and actions that were not sent. It shows nothing any more, and other clients of
    /// the same place end, too. To be called instead of [`close`](Self::close): a client that has
    /// ended has no store.
    ///
    /// # Errors
    /// [`Code::Store`] when it cannot be deleted, [`Code::Closed`] when the client has ended
    /// before: nothing was deleted.
    pub async fn forget(&self) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut inner = self.inner();
            if inner.ended {
                return Err(closed());
            }
            inner.deletes = Some(sender);
        }
        self.close();
        receiver.await.map_err(|_| closed())?
    }
}

impl<A: Action> Inner<A> {
    /// The answer to an action that was made, or not.
    fn answer(&mut self, made: Result<u64>) -> Answer {
        let (sender, receiver) = oneshot::channel();
        match made {
            Ok(seq) => drop(self.answers.insert(seq, sender)),
            // The receiver is here.
            Err(error) => drop(sender.send(Err(error))),
        }
        Answer::new(receiver, self.unread.clone())
    }

    /// Tells users what came of what was done, and gives the driver its part.
    pub(crate) fn told(&mut self) -> Vec<Output> {
        self.tell();
        std::mem::take(&mut self.outputs)
    }

    /// Who is to be woken when the lock is free.
    pub(crate) fn take_wakers(&mut self) -> Wakers {
        std::mem::take(&mut self.wakers)
    }

    /// What was kept is deleted: nothing of it is shown any more.
    pub(crate) fn clear(&mut self) {
        self.peer.clear();
        self.tell();
    }

    /// The driver has ended, whatever has ended it: so has the client.
    pub(crate) fn end(&mut self) {
        (self.ended, self.gone) = (true, true);
        self.deletes = None;
        self.peer.close();
        // Nothing happens any more.
        self.peer.end();
        self.tell();
        self.listeners.clear();
    }

    fn tell(&mut self) {
        let (mut changes, mut answered) = (Changes::new(), Vec::new());
        let mut update = Update {
            changes: Arc::default(),
            presence: false,
            messages: Vec::new(),
            errors: Vec::new(),
            status: self.peer.status(),
        };
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Changed(more) => merge(&mut changes, more),
                Output::Presence => update.presence = true,
                Output::Message(message) => update.messages.push(message),
                Output::Error(error) => update.errors.push(error),
                Output::Answer(seq, outcome) => match self.answers.remove(&seq) {
                    Some(sender) if !sender.is_canceled() => answered.push((sender, outcome)),
                    // What nobody waits for is told to all.
                    _ => update.errors.extend(outcome.err()),
                },
                Output::Wake(wakers) => self.wakers.append(wakers),
                output => {
                    self.recorder.wants(&output, &*self.now);
                    self.outputs.push(output);
                }
            }
        }
        update.errors.append(&mut self.unread.take());
        update.changes = Arc::new(changes);
        let peer = &self.peer;
        if self.ended {
            // What nobody will store any more: who waits for it hears that the client is closed.
            self.storing.clear();
        }
        for (_, waiting) in self.storing.extract_if(.., |(mark, _)| peer.is_stored(*mark)) {
            // Who has stopped waiting need not be told.
            let _ = waiting.send(());
        }
        if update.status.phase == crate::Phase::Closed {
            // No answer comes any more.
            self.answers.clear();
        }
        let quiet = update.changes.is_empty()
            && !update.presence
            && update.messages.is_empty()
            && update.errors.is_empty()
            && self.last_status.as_ref() == Some(&update.status);
        if !quiet {
            self.last_status = Some(update.status.clone());
            self.listeners.retain(|listener| listener.tell(&update));
        }
        // Whoever waits for an answer finds all that came with it.
        for (sender, outcome) in answered {
            // Who has stopped waiting need not be told.
            let _ = sender.send(outcome);
        }
    }
}
