//! [`Served`]: a room for clients of the kind that an application makes, in this process.

use crate::peer::{Cause, Now};
use crate::transport::{Event, Link, Sleep, Transport};
use crate::{Address, Endpoint};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use partysync::testing::TestRoom;
use partysync::{Code, Error, Identity, Protocol, Result, SyncServer, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// A room that clients reach by a [`transport`](Self::transport): for tests of what has a
/// [`SyncClient`](crate::SyncClient), as components do. Frames arrive when they are
/// [delivered](Self::deliver). Time stands still, at the 1 s at which a [`TestRoom`] begins, but for
/// the moments after which the room does [what it has put off](TestRoom::catch_up): a connection that
/// was lost does not come back, and nothing is given up.
///
/// ```
/// # use partysync::{Action, Record, Result, Room, SyncServer};
/// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "notes")]
/// # struct Note { #[record(key)] id: String, text: String }
/// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
/// # enum NoteAction { #[action(upsert)] Put { id: String, text: String } }
/// # struct Notes;
/// # impl SyncServer for Notes {
/// #     type Action = NoteAction;
/// #     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
/// #         action.apply(room.sql())
/// #     }
/// # }
/// use futures::FutureExt;
/// use partysync_client::testing::Served;
/// use partysync_client::{Options, Phase, SyncClient};
///
/// let mut served = Served::new(Notes)?;
/// let transport = served.transport();
/// let (client, driver) =
///     SyncClient::<NoteAction>::make(Served::<Notes>::endpoint(), Options::default(), transport);
/// let mut driver = Box::pin(driver);
/// let answer = client.send(NoteAction::Put { id: "1".into(), text: "hi".into() });
/// while (&mut driver).now_or_never().is_none() && served.deliver()? {}
/// assert_eq!(client.status().phase, Phase::Live);
/// assert_eq!(answer.now_or_never(), Some(Ok(())));
/// # Ok::<(), partysync::Error>(())
/// ```
pub struct Served<S: SyncServer> {
    room: TestRoom<S>,
    arrive: UnboundedSender<FarEnd>,
    arriving: UnboundedReceiver<FarEnd>,
    sockets: Vec<Socket>,
    opened: u64,
    randoms: Arc<AtomicU64>,
}

/// The room's end of a socket.
struct FarEnd {
    incoming: UnboundedReceiver<String>,
    told: UnboundedSender<Event>,
    request: http::Request<()>,
}

struct Socket {
    id: String,
    link: FarEnd,
}

/// How clients reach a [`Served`] room.
#[derive(Clone, Debug)]
pub struct ServedTransport {
    arrive: UnboundedSender<FarEnd>,
    randoms: Arc<AtomicU64>,
    identity: Arc<Mutex<Option<Identity>>>,
}

impl ServedTransport {
    /// From its next connection on, whoever uses this transport is this user: as the worker's router
    /// would find out who it is.
    ///
    /// # Errors
    /// [`Code::InvalidValue`](partysync::Code::InvalidValue) when the user has no JSON form.
    pub fn login<T: serde::Serialize + ?Sized>(&self, user: &T) -> Result<()> {
        let identity = Identity::new(user)?;
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        Ok(())
    }
}

impl std::fmt::Debug for FarEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FarEnd").finish_non_exhaustive()
    }
}

impl<S: SyncServer> std::fmt::Debug for Served<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("sockets", &self.sockets.len()).finish_non_exhaustive()
    }
}

impl<S: SyncServer> Served<S> {
    /// A new room.
    ///
    /// # Errors
    /// As [`TestRoom::new`].
    pub fn new(server: S) -> Result<Self> {
        let (arrive, arriving) = unbounded();
        Ok(Self {
            room: TestRoom::new(server)?,
            arrive,
            arriving,
            sockets: Vec::new(),
            opened: 0,
            randoms: Arc::default(),
        })
    }

    /// The room.
    pub fn room(&mut self) -> &mut TestRoom<S> {
        &mut self.room
    }

    /// How clients reach it.
    #[must_use]
    pub fn transport(&self) -> ServedTransport {
        let (arrive, randoms) = (self.arrive.clone(), self.randoms.clone());
        ServedTransport { arrive, randoms, identity: Arc::default() }
    }

    /// An address for clients. Any other does as well: `on_connect` is given its query and headers.
    #[must_use]
    pub fn endpoint() -> Endpoint {
        Endpoint::from("ws://room.test/parties/test/room")
    }

    /// How many sockets were opened so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Delivers what clients have sent, and what the room answers. `false` when there was nothing;
    /// clients go on when they are polled.
    ///
    /// # Errors
    /// When the room's storage fails.
    pub fn deliver(&mut self) -> Result<bool> {
        let mut moved = false;
        while let Ok(link) = self.arriving.try_recv() {
            moved = true;
            self.opened += 1;
            let id = format!("socket-{}", self.opened);
            match self.room.connect_with(&id, Protocol::V2, &link.request) {
                Ok(()) => {
                    tell(&link, Event::Opened);
                    self.sockets.push(Socket { id, link });
                }
                Err(error) => {
                    let (code, reason) = partysync::room::refusal(&error);
                    tell(&link, Event::Closed(Cause::Code { code, reason }));
                }
            }
        }
        let mut index = 0;
        while let Some(socket) = self.sockets.get_mut(index) {
            match socket.link.incoming.try_recv() {
                Ok(text) => {
                    moved = true;
                    let id = socket.id.clone();
                    for (to, text) in self.room.frame(&id, &text)? {
                        self.send(&to, text);
                    }
                }
                Err(error) if error.is_closed() => {
                    moved = true;
                    let socket = self.sockets.remove(index);
                    self.room.disconnect(&socket.id)?;
                }
                Err(_) => index += 1,
            }
        }
        let mut sent = self.room.take_sent();
        if !moved && sent.is_empty() {
            sent = self.room.catch_up()?;
        }
        for (to, text) in sent {
            moved = true;
            self.send(&to, text);
        }
        Ok(moved)
    }

    /// Delivers until there is nothing to deliver, and lets what hears of it run in between: for tests
    /// of components, whose executor runs on the same thread.
    ///
    /// # Errors
    /// When the room's storage fails.
    pub async fn settle(&mut self) -> Result<()> {
        /// So many turns of an executor are enough for what wakes each other.
        const TURNS: usize = 32;
        loop {
            for _ in 0..TURNS {
                turn().await;
            }
            if !self.deliver()? {
                return Ok(());
            }
        }
    }

    fn send(&mut self, to: &str, text: String) {
        let Some(index) = self.sockets.iter().position(|socket| socket.id == to) else { return };
        match super::closing(&text) {
            Some(cause) => {
                let socket = self.sockets.remove(index);
                tell(&socket.link, Event::Closed(cause));
            }
            None => {
                if let Some(socket) = self.sockets.get(index) {
                    tell(&socket.link, Event::Text(text));
                }
            }
        }
    }
}

/// Lets others run.
async fn turn() {
    let mut passed = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut passed, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The request by which a client would connect.
fn request(address: &Address) -> std::result::Result<http::Request<()>, http::Error> {
    let mut request = http::Request::get(address.url());
    for (name, value) in &address.headers {
        request = request.header(name, value);
    }
    request.body(())
}

/// A client that is gone hears nothing.
fn tell(link: &FarEnd, event: Event) {
    let _ = link.told.unbounded_send(event);
}

impl Transport for ServedTransport {
    fn open(&self, address: &Address) -> Link {
        let (outgoing, incoming) = unbounded();
        let (told, hears) = unbounded();
        // Without a room nobody answers.
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match request(address) {
            Ok(mut request) => {
                identity.into_iter().for_each(|identity| identity.put(&mut request));
                let _ = self.arrive.unbounded_send(FarEnd { incoming, told, request });
            }
            Err(error) => {
                let error = Error::new(Code::InvalidValue, format!("no address: {error}"));
                let _ = told.unbounded_send(Event::Closed(Cause::Address(error)));
            }
        }
        Link { outgoing, incoming: hears }
    }

    fn sleep(&self, time: Duration) -> Sleep {
        match time.is_zero() {
            // There is more to do at once.
            true => Box::pin(std::future::ready(())),
            false => Box::pin(std::future::pending()),
        }
    }

    fn now(&self) -> Now {
        // That of a new `TestRoom`.
        Now { monotonic: 0, wall: Timestamp::from_millis(1_000) }
    }

    fn random(&self) -> u64 {
        self.randoms.fetch_add(1, Ordering::Relaxed)
    }
}
