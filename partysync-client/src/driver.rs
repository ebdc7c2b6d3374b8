//! What drives a client: carries out what its machine wants done, and tells it what happens.

use crate::answer::Unread;
use crate::client::Shared;
use crate::endpoint::{Address, Endpoint};
use crate::peer::{Cause, Input, Now, Output, Peer};
use crate::store::{Events, Saved, Store, StoreEvent, Stored};
use crate::transport::{Event, Link, Nudges, Sleep, Transport};
use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::Fuse;
use futures::{FutureExt, StreamExt};
use partysync::{Action, Result};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Drives a client until it is closed, or its last handle is dropped, and what it has written is
/// stored.
pub(crate) async fn drive<A: Action, T: Transport>(
    shared: Arc<Shared<A>>,
    woken: UnboundedReceiver<()>,
    endpoint: Endpoint,
    transport: T,
    store: Box<dyn Store>,
    client: String,
) {
    let ending = Ending(shared.clone());
    let unread = shared.inner().unread.clone();
    let mut io = Io {
        unread: &unread,
        events: store.events().fuse(),
        store: &*store,
        client: &client,
        woken: Some(woken),
        nudges: transport.nudges(),
        endpoint: &endpoint,
        transport,
        address: None,
        link: None,
        socket: 0,
        opening: None,
        writing: None,
    };
    let deletes = loop {
        let (outputs, wakers, timeout, done) = {
            let mut inner = shared.inner();
            let outputs = inner.told();
            let wakers = inner.take_wakers();
            let done = inner.deletes.is_some() || inner.peer.is_done();
            inner.ended = done;
            io.socket = inner.peer.socket();
            (outputs, wakers, inner.peer.timeout(), done.then(|| inner.deletes.take()))
        };
        // Without the lock: a store and an endpoint may take their time, or use the client, as
        // whoever is woken may.
        wakers.wake();
        outputs.into_iter().for_each(|output| io.carry_out(output));
        if let Some(deletes) = done {
            break deletes;
        }
        let happened = io.happens(timeout).await;
        if matches!(happened, Happened::Woken)
            && let Some(shown) = io.transport.shown()
        {
            shown.await;
        }
        let now = io.transport.now();
        let mut inner = shared.inner();
        // A user may have asked for another socket since this was heard.
        let late = matches!(happened, Happened::Socket(_)) && inner.peer.socket() != io.socket;
        if !late {
            if let Happened::Socket(event) = &happened {
                inner.recorder.hears(event, now);
            }
            happened.tell(&mut inner.peer, now);
        }
    };
    drop(io);
    if let Some(told) = deletes {
        let deleted = store.delete().await;
        if deleted.is_ok() {
            let mut inner = shared.inner();
            inner.clear();
            let wakers = inner.take_wakers();
            drop(inner);
            wakers.wake();
        }
        // Who has stopped waiting need not be told.
        let _ = told.send(deleted);
    }
    // Who waits for its end may open the same store.
    drop(store);
    drop(ending);
}

/// Ends the client when its driver ends, also by being dropped or by a panic: nobody is to wait
/// for what nobody does any more.
struct Ending<A: Action>(Arc<Shared<A>>);

impl<A: Action> Drop for Ending<A> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.end();
        let wakers = inner.take_wakers();
        drop(inner);
        wakers.wake();
    }
}

/// A client's store, socket and timer.
struct Io<'a, T> {
    store: &'a dyn Store,
    client: &'a str,
    unread: &'a Unread,
    events: Fuse<Events>,
    /// `None` when the last handle is gone.
    woken: Option<UnboundedReceiver<()>>,
    nudges: Nudges,
    endpoint: &'a Endpoint,
    transport: T,
    /// The address is asked for.
    address: Option<Stored<'a, Address>>,
    link: Option<Link>,
    /// Which of the sockets that were asked for `link` is.
    socket: u64,
    opening: Option<Stored<'a, Saved>>,
    writing: Option<Stored<'a, ()>>,
}

/// What happened.
enum Happened {
    Woken,
    /// The last handle is gone.
    Dropped,
    Time,
    Opened(Result<Saved>),
    Stored(Result<()>),
    Store(StoreEvent),
    Socket(Event),
    Nudge,
}

impl Happened {
    fn tell<A: Action>(self, peer: &mut Peer<A>, now: Now) {
        let input = match self {
            Self::Woken => return,
            Self::Dropped => return peer.close(),
            Self::Time => Input::Time,
            Self::Opened(opened) => Input::Opened(opened),
            Self::Stored(stored) => Input::Stored(stored),
            Self::Store(event) => Input::Store(event),
            Self::Nudge => Input::Nudge,
            Self::Socket(Event::Opened) => Input::Connected,
            Self::Socket(Event::Text(text)) => return peer.handle(Input::Frame(&text), now),
            Self::Socket(Event::Closed(cause)) => Input::Disconnected(cause),
        };
        peer.handle(input, now);
    }
}

impl<T: Transport> Io<'_, T> {
    fn carry_out(&mut self, output: Output) {
        match output {
            Output::OpenStore(_) => self.opening = Some(self.store.open(self.client)),
            Output::Store(writes) => self.writing = Some(self.store.write(writes)),
            Output::Tell(note) => self.store.tell(&note),
            Output::TakeOver(others) => self.store.take_over(others),
            Output::Connect => {
                self.link = None;
                self.address = Some(self.endpoint.address());
            }
            Output::Disconnect => (self.address, self.link) = (None, None),
            Output::Send(text) => {
                if let Some(link) = &self.link {
                    // A socket that is gone tells so itself.
                    let _ = link.outgoing.unbounded_send(text);
                }
            }
            // Told to users.
            Output::Changed(_)
            | Output::Wake(_)
            | Output::Answer(..)
            | Output::Presence
            | Output::Message(_)
            | Output::Error(_) => {}
        }
    }

    /// Waits until something happens.
    async fn happens(&mut self, timeout: Option<u64>) -> Happened {
        let now = self.transport.now().monotonic;
        let wait = timeout.map(|at| at.saturating_sub(now));
        let mut timer = wait.map(|wait| self.transport.sleep(Duration::from_millis(wait)));
        poll_fn(|context| self.poll(&mut timer, context)).await
    }

    fn poll(&mut self, timer: &mut Option<Sleep>, context: &mut Context<'_>) -> Poll<Happened> {
        let (mut woken, mut dropped) = (false, false);
        while let Some(wakes) = self.woken.as_mut().filter(|_| !dropped)
            && let Poll::Ready(heard) = wakes.poll_next_unpin(context)
        {
            // All that was done meanwhile is one thing to look at.
            woken |= heard.is_some();
            dropped = heard.is_none();
        }
        if woken {
            return Poll::Ready(Happened::Woken);
        }
        if dropped {
            self.woken = None;
            return Poll::Ready(Happened::Dropped);
        }
        self.unread.waker.register(context.waker());
        if !self.unread.is_empty() {
            return Poll::Ready(Happened::Woken);
        }
        if let Some(opened) = ready(&mut self.opening, context) {
            return Poll::Ready(Happened::Opened(opened));
        }
        if let Some(stored) = ready(&mut self.writing, context) {
            return Poll::Ready(Happened::Stored(stored));
        }
        if let Poll::Ready(Some(event)) = self.events.poll_next_unpin(context) {
            return Poll::Ready(Happened::Store(event));
        }
        if let Some(address) = ready(&mut self.address, context) {
            match address {
                Ok(address) => self.link = Some(self.transport.open(&address)),
                Err(error) => {
                    let closed = Event::Closed(Cause::Provider(error));
                    return Poll::Ready(Happened::Socket(closed));
                }
            }
        }
        if let Some(link) = &mut self.link
            && let Poll::Ready(event) = link.incoming.poll_next_unpin(context)
        {
            let event = event.unwrap_or_else(|| Event::Closed(Cause::gone()));
            if matches!(event, Event::Closed(_)) {
                self.link = None;
            }
            return Poll::Ready(Happened::Socket(event));
        }
        if let Poll::Ready(Some(())) = self.nudges.poll_next_unpin(context) {
            return Poll::Ready(Happened::Nudge);
        }
        match timer {
            Some(timer) => timer.poll_unpin(context).map(|()| Happened::Time),
            None => Poll::Pending,
        }
    }
}

/// What came of something that is waited for; it is waited for no longer then.
fn ready<T>(waiting: &mut Option<Stored<'_, T>>, context: &mut Context<'_>) -> Option<Result<T>> {
    match waiting.as_mut()?.poll_unpin(context) {
        Poll::Ready(result) => {
            *waiting = None;
            Some(result)
        }
        Poll::Pending => None,
    }
}
