//! A room and its clients in one process, for the tests of an application: [`World`], in which time
//! and frames are moved by hand, and [`Served`] for clients of the kind that an application makes.

mod served;
#[cfg(test)]
mod tests;

pub use served::{Served, ServedTransport};

use crate::Other;
use crate::peer::{Cause, Input, Now, Output, Peer, Phase, Status, Timing};
use crate::query::{Live, LiveTotals};
use crate::store::{Abandoned, Events, MemoryStore, Saved, Write};
use futures::{FutureExt, StreamExt};
use partysync::query::{Group, Query, Totals, Tuple};
use partysync::testing::TestRoom;
use partysync::wire::v2::read_result;
use partysync::{Code, Error, Key, Protocol, Record, Result, SyncServer, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::collections::{BTreeMap, VecDeque};

/// A room and its clients. Nothing moves by itself: frames arrive when they are
/// [delivered](Self::deliver), time passes when it is [advanced](Self::advance).
///
/// ```
/// # use partysync::{Action, Error, Record, Result, Room, SyncServer};
/// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
/// # struct Note { #[record(key)] id: String, text: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
/// # enum NoteAction { #[action(upsert)] Put { id: String, text: String } }
/// # struct Notes;
/// # impl SyncServer for Notes {
/// #     type Action = NoteAction;
/// #     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
/// #         if matches!(&action, NoteAction::Put { text, .. } if text.is_empty()) {
/// #             return Err(Error::reject("write something"));
/// #         }
/// #         action.apply(room.sql())
/// #     }
/// # }
/// use partysync_client::testing::World;
///
/// let mut world = World::new(Notes)?;
/// let (ada, bob) = (world.client(), world.client());
/// world.deliver()?;
/// world.cut(ada)?;
/// let seq = world.act(ada, NoteAction::Put { id: "1".into(), text: "hi".into() })?;
/// assert!(world.is_pending::<Note>(ada, "1"));
/// world.advance(60_000)?; // it comes back
/// world.deliver()?;
/// assert_eq!(world.answer(ada, seq), Some(&Ok(())));
/// assert_eq!(world.rows::<Note>(bob)?, world.rows::<Note>(ada)?);
/// # Ok::<(), partysync::Error>(())
/// ```
pub struct World<S: SyncServer> {
    room: TestRoom<S>,
    clients: Vec<Client<S>>,
    now: Now,
    timing: Timing,
    lives: u64,
    sockets: u64,
}

/// One of the clients of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId(usize);

struct Client<S: SyncServer> {
    peer: Peer<S::Action>,
    /// What it connects with.
    request: http::Request<()>,
    store: MemoryStore,
    events: Events,
    fails: bool,
    offline: bool,
    /// The socket's id in the room, once it is open.
    socket: Option<String>,
    connects: bool,
    up: VecDeque<String>,
    down: VecDeque<String>,
    answers: BTreeMap<u64, (Result<()>, Option<Json>)>,
    errors: Vec<Error>,
    messages: Vec<Json>,
}

impl<S: SyncServer> std::fmt::Debug for World<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

impl<S: SyncServer> World<S> {
    /// A new room, without clients.
    ///
    /// # Errors
    /// As [`TestRoom::new`].
    pub fn new(server: S) -> Result<Self> {
        Self::with(server, Timing::default())
    }

    /// A new room whose clients wait as long as this.
    ///
    /// # Errors
    /// As [`TestRoom::new`].
    pub fn with(server: S, timing: Timing) -> Result<Self> {
        let now = Now { monotonic: 0, wall: Timestamp::from_millis(1_000_000) };
        let (lives, sockets) = (0, 0);
        Ok(Self { room: TestRoom::new(server)?, clients: Vec::new(), now, timing, lives, sockets })
    }

    /// The room. What [`TestRoom::act`] or [`TestRoom::request`] does in it reaches the clients when
    /// frames are [delivered](Self::deliver); frames that other calls return are not delivered.
    pub fn room(&mut self) -> &mut TestRoom<S> {
        &mut self.room
    }

    /// Another client, with a store of its own. It connects when frames are delivered, by an empty
    /// request.
    pub fn client(&mut self) -> ClientId {
        self.client_with(MemoryStore::new(), http::Request::new(()))
    }

    /// Another client, which connects by this request: where `on_connect` wants to know who comes.
    pub fn client_by(&mut self, request: http::Request<()>) -> ClientId {
        self.client_with(MemoryStore::new(), request)
    }

    /// A client connects by this request from here on, as with credentials that were renewed.
    pub fn set_request(&mut self, client: ClientId, request: http::Request<()>) {
        if let Some(client) = self.clients.get_mut(client.0) {
            client.request = request;
        }
    }

    /// Another client that shares its store with this one, as two tabs of a browser do.
    pub fn tab_of(&mut self, client: ClientId) -> ClientId {
        let of = self.clients.get(client.0);
        let of = of.map(|client| (client.store.clone(), client.request.clone()));
        let (store, request) = of.unwrap_or_default();
        self.client_with(store, request)
    }

    fn client_with(&mut self, store: MemoryStore, request: http::Request<()>) -> ClientId {
        let client = Client { request, ..self.life(store) };
        self.clients.push(client);
        let id = ClientId(self.clients.len() - 1);
        self.outputs(id.0);
        id
    }

    fn life(&mut self, store: MemoryStore) -> Client<S> {
        use crate::store::Store as _;
        self.lives += 1;
        Client {
            peer: Peer::new([self.lives, 0x5eed], self.timing, self.now),
            request: http::Request::new(()),
            events: store.events(),
            store,
            fails: false,
            offline: false,
            socket: None,
            connects: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            answers: BTreeMap::new(),
            errors: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Whether a client has no network: it is cut off, and does not come back before it has, and
    /// [`advance`](Self::advance) or [`reconnect`](Self::reconnect) has it try again.
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver).
    pub fn set_offline(&mut self, client: ClientId, offline: bool) -> Result<()> {
        if let Some(client) = self.clients.get_mut(client.0) {
            client.offline = offline;
        }
        if offline { self.cut(client) } else { Ok(()) }
    }

    /// The program or page of a client ends and begins anew, with what its store holds. Answers
    /// to what it made before are told by [`errors`](Self::errors) only, if they are rejections.
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver).
    pub fn restart(&mut self, client: ClientId) -> Result<()> {
        self.disconnect(client.0)?;
        let Some(old) = self.clients.get_mut(client.0) else { return Ok(()) };
        // It lets go of what it has before the next one looks.
        let store = old.store.clone();
        drop(std::mem::replace(&mut old.store, store.clone()));
        let (fails, offline, request) = (old.fails, old.offline, old.request.clone());
        let life = Client { fails, offline, request, ..self.life(store) };
        if let Some(client) = self.clients.get_mut(client.0) {
            *client = life;
        }
        self.outputs(client.0);
        Ok(())
    }

    /// Does an action; see [`SyncClient::send`](crate::SyncClient::send). Returns its seq, for
    /// [`answer`](Self::answer).
    ///
    /// # Errors
    /// As [`Peer::act`].
    pub fn act(&mut self, client: ClientId, action: S::Action) -> Result<u64> {
        let now = self.now;
        let peer = self.clients.get_mut(client.0).ok_or_else(nobody)?;
        let seq = peer.peer.act(action, now)?;
        self.outputs(client.0);
        Ok(seq)
    }

    /// Sends a message of the application's own; `false` when the client is not live. See
    /// [`SyncClient::message`](crate::SyncClient::message).
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn message<T: serde::Serialize>(&mut self, client: ClientId, message: &T) -> Result<bool> {
        let json = serde_json::to_value(message)
            .map_err(|e| Error::new(Code::InvalidValue, format!("message: {e}")))?;
        let peer = self.clients.get_mut(client.0).ok_or_else(nobody)?;
        let sent = peer.peer.message(json);
        self.outputs(client.0);
        Ok(sent)
    }

    /// The messages of the application's own that a client was sent, since the last call.
    pub fn messages(&mut self, client: ClientId) -> Vec<Json> {
        self.clients.get_mut(client.0).map(|c| std::mem::take(&mut c.messages)).unwrap_or_default()
    }

    /// Says that a client is here, with this state, or `None` that it is no more; see
    /// [`SyncClient::set_presence`](crate::SyncClient::set_presence).
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn set_presence<P: serde::Serialize>(
        &mut self,
        client: ClientId,
        state: impl Into<Option<P>>,
    ) -> Result<()> {
        self.set_presence_at(client, "", state)
    }

    /// As [`set_presence`](Self::set_presence), at a topic; see
    /// [`SyncClient::set_presence_at`](crate::SyncClient::set_presence_at).
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when it has no JSON form.
    pub fn set_presence_at<P: serde::Serialize>(
        &mut self,
        client: ClientId,
        topic: &str,
        state: impl Into<Option<P>>,
    ) -> Result<()> {
        let state = state.into().map(|state| crate::presence::state(&state)).transpose()?;
        let now = self.now;
        let peer = self.clients.get_mut(client.0).ok_or_else(nobody)?;
        peer.peer.set_presence(state.map(|state| (topic.to_owned(), state)), now);
        self.outputs(client.0);
        Ok(())
    }

    /// The others who are here, as a client knows them; see
    /// [`SyncClient::others`](crate::SyncClient::others).
    #[must_use]
    pub fn others<W: DeserializeOwned, P: DeserializeOwned>(
        &self,
        client: ClientId,
    ) -> Vec<Other<W, P>> {
        self.clients.get(client.0).map(|c| Other::all(c.peer.others())).unwrap_or_default()
    }

    /// How many connections the room has, as a client knows; see
    /// [`SyncClient::connections`](crate::SyncClient::connections).
    #[must_use]
    pub fn connections(&self, client: ClientId) -> u64 {
        self.clients.get(client.0).map_or(0, |c| c.peer.connections())
    }

    /// Tries again at once, after a refusal, too; see
    /// [`SyncClient::reconnect`](crate::SyncClient::reconnect).
    pub fn reconnect(&mut self, client: ClientId) {
        let now = self.now;
        if let Some(client) = self.clients.get_mut(client.0) {
            client.peer.reconnect(now);
        }
        self.outputs(client.0);
    }

    /// Actions of a client that were given up, by an id; see
    /// [`SyncClient::abandoned`](crate::SyncClient::abandoned).
    #[must_use]
    pub fn abandoned(&self, client: ClientId) -> BTreeMap<String, Abandoned> {
        self.clients.get(client.0).map(|c| c.peer.abandoned().clone()).unwrap_or_default()
    }

    /// Does an action that was given up as a new one. Returns its seq.
    ///
    /// # Errors
    /// As [`Peer::retry`].
    pub fn retry(&mut self, client: ClientId, id: &str) -> Result<u64> {
        let now = self.now;
        let peer = self.clients.get_mut(client.0).ok_or_else(nobody)?;
        let seq = peer.peer.retry(id, now)?;
        self.outputs(client.0);
        Ok(seq)
    }

    /// Lets go of an action that was given up.
    ///
    /// # Errors
    /// As [`Peer::discard`].
    pub fn discard(&mut self, client: ClientId, id: &str) -> Result<Abandoned> {
        let now = self.now;
        let peer = self.clients.get_mut(client.0).ok_or_else(nobody)?;
        let discarded = peer.peer.discard(id, now)?;
        self.outputs(client.0);
        Ok(discarded)
    }

    /// Everything that is under way arrives, for all clients: connections open, frames reach the
    /// room and its answers the clients, stores answer.
    ///
    /// # Errors
    /// When the room's storage fails, or a hook waits for [too long](TestRoom::set_patience); a client or a frame that the room refuses is told so.
    pub fn deliver(&mut self) -> Result<()> {
        loop {
            let mut moved = false;
            let later = self.room.go_on()?;
            for (to, text) in self.room.take_sent().into_iter().chain(later) {
                self.send_down(&to, text);
            }
            for index in 0..self.clients.len() {
                moved |= self.step(index)?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn step(&mut self, index: usize) -> Result<bool> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(false) };
        if let Some(event) = client.events.next().now_or_never().flatten() {
            self.handle(index, Input::Store(event));
            return Ok(true);
        }
        if !client.offline && std::mem::take(&mut client.connects) {
            self.sockets += 1;
            let socket = format!("socket-{}", self.sockets);
            client.socket = Some(socket.clone());
            let request = client.request.clone();
            match self.room.connect_with(&socket, Protocol::V2, &request) {
                Ok(()) => self.handle(index, Input::Connected),
                // As the Durable Object closes it.
                Err(error) => {
                    self.refuse(index, &error);
                }
            }
            return Ok(true);
        }
        if let Some(socket) = client.socket.clone()
            && let Some(text) = client.up.pop_front()
        {
            for (to, text) in self.room.frame(&socket, &text)? {
                self.send_down(&to, text);
            }
            return Ok(true);
        }
        let Some(text) = client.down.pop_front() else { return Ok(false) };
        match closing(&text) {
            Some(cause) => {
                self.disconnect(index)?;
                self.handle(index, Input::Disconnected(cause));
            }
            None => self.handle(index, Input::Frame(&text)),
        }
        Ok(true)
    }

    /// The room did not let a client in.
    fn refuse(&mut self, index: usize, error: &Error) {
        if let Some(client) = self.clients.get_mut(index) {
            client.socket = None;
        }
        let (code, reason) = partysync::room::refusal(error);
        self.handle(index, Input::Disconnected(Cause::Code { code, reason }));
    }

    fn send_down(&mut self, to: &str, text: String) {
        let to = |client: &&mut Client<S>| client.socket.as_deref() == Some(to);
        if let Some(client) = self.clients.iter_mut().find(to) {
            client.down.push_back(text);
        }
    }

    fn disconnect(&mut self, index: usize) -> Result<()> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        client.up.clear();
        client.down.clear();
        client.connects = false;
        match client.socket.take() {
            Some(socket) => self.room.disconnect(&socket).map(drop),
            None => Ok(()),
        }
    }

    /// The connection of a client breaks: what is under way is lost. It comes back when time is
    /// advanced.
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver).
    pub fn cut(&mut self, client: ClientId) -> Result<()> {
        self.disconnect(client.0)?;
        self.handle(client.0, Input::Disconnected(Cause::gone()));
        Ok(())
    }

    /// So many milliseconds pass, for the room and its clients: timers ring when they are due, and so
    /// does the room's alarm, so that [jobs](partysync::Job) are done. Frames that are under way stay
    /// there.
    ///
    /// # Errors
    /// When the room's storage fails.
    pub fn advance(&mut self, millis: u64) -> Result<()> {
        let end = self.now.monotonic.saturating_add(millis);
        for _ in 0..10_000 {
            let alarm = self.room.next_alarm().map(|at| {
                let wait = at.as_millis().saturating_sub(self.room.now().as_millis());
                self.now.monotonic.saturating_add(u64::try_from(wait).unwrap_or(0))
            });
            let timers = self.clients.iter().filter_map(|client| client.peer.timeout());
            let Some(at) = timers.chain(alarm).min().filter(|at| *at <= end) else { break };
            self.set_time(at.max(self.now.monotonic));
            if alarm.is_some_and(|alarm| alarm <= at) {
                for (to, text) in self.room.alarm()? {
                    self.send_down(&to, text);
                }
            }
            for index in 0..self.clients.len() {
                let due = self.clients.get(index).and_then(|client| client.peer.timeout());
                if due.is_some_and(|due| due <= self.now.monotonic) {
                    self.handle(index, Input::Time);
                }
            }
        }
        self.set_time(end);
        Ok(())
    }

    /// Delivers frames, and lets time pass, until all clients that have a network are live with nothing
    /// pending, or refused: as after rights have changed, when clients come again.
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver), and [`Code::Internal`] when they do not come to rest in some
    /// minutes.
    pub fn settle(&mut self) -> Result<()> {
        for _ in 0..100 {
            self.deliver()?;
            let rests = |client: &Client<S>| {
                let status = client.peer.status();
                let live = status.phase == Phase::Live && status.pending == 0;
                client.offline || live || matches!(status.phase, Phase::Refused(_) | Phase::Closed)
            };
            if self.clients.iter().all(rests) {
                return Ok(());
            }
            self.advance(2_000)?;
        }
        let status: Vec<_> = self.clients.iter().map(|client| client.peer.status()).collect();
        Err(Error::new(Code::Internal, format!("the clients do not come to rest: {status:?}")))
    }

    fn set_time(&mut self, monotonic: u64) {
        let passed = monotonic.saturating_sub(self.now.monotonic);
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        self.now = Now { monotonic, wall: self.now.wall.plus_millis(passed) };
        self.room.advance_millis(passed);
    }

    /// Whether the store of a client fails, whatever it is asked for.
    pub fn store_fails(&mut self, client: ClientId, fails: bool) {
        if let Some(client) = self.clients.get_mut(client.0) {
            client.fails = fails;
        }
    }

    /// The rows that a query finds at a client, kept up to date.
    ///
    /// # Errors
    /// As [`SyncClient::query`](crate::SyncClient::query).
    pub fn query<R: Record, W: Tuple>(
        &mut self,
        client: ClientId,
        query: &Query<R, W>,
    ) -> Result<Live<R, W>> {
        self.clients.get_mut(client.0).ok_or_else(nobody)?.peer.query(query)
    }

    /// How many rows a query finds at a client and what they sum up to, kept up to date.
    ///
    /// # Errors
    /// As [`SyncClient::query`](crate::SyncClient::query).
    pub fn totals<R: Record, G: Group>(
        &mut self,
        client: ClientId,
        totals: &Totals<R, G>,
    ) -> Result<LiveTotals<R, G>> {
        self.clients.get_mut(client.0).ok_or_else(nobody)?.peer.totals(totals)
    }

    /// All rows as a client shows them.
    ///
    /// # Errors
    /// As [`SyncClient::rows`](crate::SyncClient::rows).
    pub fn rows<R: Record>(&self, client: ClientId) -> Result<Vec<R>> {
        self.clients.get(client.0).ok_or_else(nobody)?.peer.replica().rows()
    }

    /// Whether a row that a client shows is not the room's word yet.
    #[must_use]
    pub fn is_pending<R: Record>(&self, client: ClientId, key: impl Into<Key>) -> bool {
        let client = self.clients.get(client.0);
        client.is_some_and(|c| c.peer.replica().is_pending(R::SCHEMA.table, &key.into()))
    }

    /// Where a client stands.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a client of another world.
    pub fn status(&self, client: ClientId) -> Result<Status> {
        Ok(self.clients.get(client.0).ok_or_else(nobody)?.peer.status())
    }

    /// What an action of a client was answered; `None` as long as it was not.
    #[must_use]
    pub fn answer(&self, client: ClientId, seq: u64) -> Option<&Result<()>> {
        self.clients.get(client.0)?.answers.get(&seq).map(|(outcome, _)| outcome)
    }

    /// What an action of a client was answered, with its result; `None` as long as it was not. See
    /// [`Answer::result`](crate::Answer::result).
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Create { id: String } }
    /// # struct Notes;
    /// # impl SyncServer for Notes {
    /// #     type Action = NoteAction;
    /// fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    ///     action.apply(room.sql())?;
    ///     room.answer("done")
    /// }
    /// # }
    /// # let mut world = partysync_client::testing::World::new(Notes)?;
    /// # let ada = world.client();
    /// let seq = world.act(ada, NoteAction::Create { id: "a".into() })?;
    /// assert_eq!(world.result::<String>(ada, seq), None);
    /// world.deliver()?;
    /// assert_eq!(world.result(ada, seq), Some(Ok("done".to_owned())));
    /// # Ok::<(), partysync::Error>(())
    /// ```
    #[must_use]
    pub fn result<T: DeserializeOwned>(&self, client: ClientId, seq: u64) -> Option<Result<T>> {
        let (outcome, result) = self.clients.get(client.0)?.answers.get(&seq)?;
        Some(outcome.clone().and_then(|()| read_result(result.clone())))
    }

    /// Errors that no action's answer told, since the last call.
    pub fn errors(&mut self, client: ClientId) -> Vec<Error> {
        self.clients.get_mut(client.0).map(|c| std::mem::take(&mut c.errors)).unwrap_or_default()
    }

    fn handle(&mut self, index: usize, input: Input<'_>) {
        let now = self.now;
        if let Some(client) = self.clients.get_mut(index) {
            client.peer.handle(input, now);
        }
        self.outputs(index);
        // What it puts off is done at once: nobody waits for a page here.
        while let Some(client) = self.clients.get_mut(index)
            && client.peer.timeout() == Some(0)
        {
            client.peer.handle(Input::Time, now);
            self.outputs(index);
        }
    }

    fn outputs(&mut self, index: usize) {
        use crate::store::Store as _;
        let now = self.now;
        let Some(client) = self.clients.get_mut(index) else { return };
        while let Some(output) = client.peer.poll_output() {
            match output {
                Output::OpenStore(id) => {
                    let opened = client.open(&id);
                    client.peer.handle(Input::Opened(opened), now);
                }
                Output::Store(writes) => {
                    let stored = client.store(writes);
                    client.peer.handle(Input::Stored(stored), now);
                }
                Output::Tell(note) => client.store.tell(&note),
                Output::TakeOver(others) => client.store.take_over(others),
                Output::Connect => client.connects = true,
                Output::Send(text) => client.up.push_back(text),
                // The room notices when the next one connects, or never, as it does.
                Output::Disconnect => {
                    client.connects = false;
                    client.up.clear();
                    client.down.clear();
                    if let Some(socket) = client.socket.take() {
                        // What fails here fails the next turn of the room, which says so.
                        let _ = self.room.disconnect(&socket);
                    }
                }
                Output::Answer(seq, answer) => {
                    let answer = match answer {
                        Ok(result) => (Ok(()), result),
                        Err(error) => (Err(error), None),
                    };
                    client.answers.insert(seq, answer);
                }
                Output::Error(error) => client.errors.push(error),
                Output::Wake(wakers) => wakers.wake(),
                Output::Message(message) => client.messages.push(message),
                Output::Changed(_) | Output::Presence => {}
            }
        }
    }
}

impl<S: SyncServer> Client<S> {
    fn open(&self, id: &str) -> Result<Saved> {
        if self.fails { Err(failed()) } else { self.store.open_now(id) }
    }

    fn store(&self, writes: Vec<Write>) -> Result<()> {
        if self.fails { Err(failed()) } else { self.store.write_now(writes) }
    }
}

fn failed() -> Error {
    Error::new(Code::Store, "the store fails, as the test wants it to")
}

fn nobody() -> Error {
    Error::new(Code::NotFound, "this client is of another world")
}

/// Why a socket is closed, if that is what a [`TestRoom`] says.
fn closing(text: &str) -> Option<Cause> {
    let (code, reason) = text.strip_prefix("close ")?.split_once(' ')?;
    Some(Cause::Code { code: code.parse().ok()?, reason: reason.to_owned() })
}
