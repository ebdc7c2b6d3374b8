//! What drives a client: stores its writes, then carries its frames; events in, effects out.
//! Beside its own session it runs one for each outbox that others left behind.

use crate::client::Shared;
use crate::replica::Replica;
use crate::session::{Effect, Phase, Session, Timing};
use crate::store::{Orphan, Store, Write};
use crate::transport::{Event, Link, Sleep, Transport};
use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use partysync::{Action, Result, Timestamp};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Weak;
use std::task::Poll;
use std::time::Duration;

/// Reads the store, and then carries effects out and events in until the client is closed or
/// dropped.
pub(crate) async fn drive<A: Action, T: Transport + Clone>(
    shared: Weak<Shared<A>>,
    mut woken: UnboundedReceiver<()>,
    url: String,
    timing: Timing,
    transport: T,
    store: Box<dyn Store>,
) {
    let loaded = store.load().await;
    let mut orphans = store.orphans();
    let mut wires = Wires { url, transport, store: Some(store), link: None };
    let id = format!("{:016x}{:016x}", wires.transport.random(), wires.transport.random());
    {
        let Some(shared) = shared.upgrade() else { return };
        let mut inner = shared.inner();
        let (replica, errors) = match &loaded {
            Ok(saved) => Replica::load(saved, id),
            Err(error) => {
                inner.session.warn(error);
                wires.store = None;
                orphans = Box::pin(futures::stream::pending());
                (Replica::new(id), Vec::new())
            }
        };
        errors.into_iter().for_each(|error| inner.session.report(error));
        inner.loaded(replica);
    }
    let mut couriers = FuturesUnordered::new();
    let mut adopted = 0;
    loop {
        let (batch, storing) = {
            let Some(shared) = shared.upgrade() else { return };
            let mut inner = shared.inner();
            (Batch::of(&mut inner.session), std::mem::take(&mut inner.storing))
        };
        let stored = wires.carry_out(batch).await;
        let wake_at = {
            let Some(shared) = shared.upgrade() else { return };
            let mut inner = shared.inner();
            if let Err(error) = stored {
                inner.session.warn(&error);
            }
            for waiting in storing {
                // Who has stopped waiting need not be told.
                let _ = waiting.send(());
            }
            inner.tell();
            if inner.session.status().phase == Phase::Closed {
                return;
            }
            inner.session.wake_at()
        };
        let happened = {
            let mut event = std::pin::pin!(wires.happens(wake_at));
            poll_fn(|context| {
                if let Poll::Ready(happened) = event.as_mut().poll(context) {
                    return Poll::Ready(Some(happened));
                }
                if let Poll::Ready(woken) = woken.poll_next_unpin(context) {
                    return Poll::Ready(woken.map(|()| Happened::Woken));
                }
                if let Poll::Ready(Some(orphan)) = orphans.poll_next_unpin(context) {
                    return Poll::Ready(Some(Happened::Orphan(orphan)));
                }
                while let Poll::Ready(Some(())) = couriers.poll_next_unpin(context) {}
                Poll::Pending
            })
            .await
        };
        // Without a word: the last handle is gone.
        let (Some(happened), Some(shared)) = (happened, shared.upgrade()) else { return };
        let mut inner = shared.inner();
        if let Happened::Orphan(orphan) = happened {
            adopted += 1;
            inner.session.adopt(adopted, &orphan.outbox);
            let shared = std::sync::Arc::downgrade(&shared);
            let (url, transport) = (wires.url.clone(), wires.transport.clone());
            couriers.push(bring_home(shared, adopted, orphan, url, timing, transport));
        } else {
            wires.feed(&mut inner.session, happened);
        }
    }
}

/// Pushes what a client that is gone left behind, under its own id, on a connection that follows
/// no rows.
async fn bring_home<A: Action, T: Transport>(
    main: Weak<Shared<A>>,
    id: u64,
    orphan: Orphan,
    url: String,
    timing: Timing,
    transport: T,
) {
    let (seed, now) = (transport.random(), transport.now());
    let mut session = Session::<A>::courier(&orphan.outbox, timing, seed, now);
    let mut wires = Wires { url, transport, store: Some(orphan.store), link: None };
    loop {
        let stored = wires.carry_out(Batch::of(&mut session)).await;
        {
            let Some(main) = main.upgrade() else { return };
            let mut inner = main.inner();
            if let Err(error) = stored {
                inner.session.warn(&error);
            }
            inner.session.hear(id, &mut session, wires.transport.now());
            inner.tell();
            drop(inner);
            // What is told has to be stored, too.
            main.wake();
        }
        if session.replica().pending() == 0 {
            if let Some(store) = &wires.store {
                let removed = store.remove();
                // Where that fails it is found again, empty.
                let _ = removed.await;
            }
            return;
        }
        if matches!(session.status().phase, Phase::Refused(_)) {
            return;
        }
        let happened = wires.happens(session.wake_at()).await;
        wires.feed(&mut session, happened);
    }
}

/// What a session wants done.
struct Batch {
    client: String,
    writes: Vec<Write>,
    effects: Vec<Effect>,
}

impl Batch {
    fn of<A: Action>(session: &mut Session<A>) -> Self {
        Self {
            client: session.replica().client().to_owned(),
            writes: session.take_writes(),
            effects: session.take_effects(),
        }
    }
}

/// A session's store and socket.
struct Wires<T> {
    url: String,
    transport: T,
    /// `None` when it has failed.
    store: Option<Box<dyn Store>>,
    link: Option<Link>,
}

enum Happened {
    Socket(Event),
    Time,
    Woken,
    Orphan(Orphan),
}

impl<T: Transport> Wires<T> {
    /// First stored, then sent: what the server may see is never forgotten here. A store that
    /// fails is not asked again.
    async fn carry_out(&mut self, batch: Batch) -> Result<()> {
        let mut result = Ok(());
        if !batch.writes.is_empty()
            && let Some(store) = &self.store
        {
            let stored = store.write(&batch.client, batch.writes);
            result = stored.await;
        }
        if result.is_err() {
            self.store = None;
        }
        for effect in batch.effects {
            match effect {
                Effect::Connect => self.link = Some(self.transport.open(&self.url)),
                Effect::Disconnect => self.link = None,
                Effect::Send(text) => {
                    if let Some(link) = &self.link {
                        // A socket that is gone tells so itself.
                        let _ = link.outgoing.unbounded_send(text);
                    }
                }
            }
        }
        result
    }

    /// The socket says something, or it is time.
    fn happens(&mut self, wake_at: Option<Timestamp>) -> impl Future<Output = Happened> {
        let now = self.transport.now().as_millis();
        let wait = wake_at.map(|at| u64::try_from(at.as_millis() - now).unwrap_or(0));
        let mut timer: Option<Sleep> =
            wait.map(|wait| self.transport.sleep(Duration::from_millis(wait)));
        let link = &mut self.link;
        poll_fn(move |context| {
            if let Some(link) = link
                && let Poll::Ready(event) = Pin::new(&mut link.incoming).poll_next(context)
            {
                let gone = Event::Closed { code: 1006, reason: "the connection ended".to_owned() };
                return Poll::Ready(Happened::Socket(event.unwrap_or(gone)));
            }
            match &mut timer {
                Some(timer) => timer.poll_unpin(context).map(|()| Happened::Time),
                None => Poll::Pending,
            }
        })
    }

    fn feed<A: Action>(&mut self, session: &mut Session<A>, happened: Happened) {
        let now = self.transport.now();
        match happened {
            Happened::Socket(Event::Opened) => session.opened(now),
            Happened::Socket(Event::Text(text)) => session.received(&text, now),
            Happened::Socket(Event::Closed { code, reason }) => {
                self.link = None;
                session.closed(code, &reason, now);
            }
            Happened::Time => session.tick(now),
            Happened::Woken | Happened::Orphan(_) => {}
        }
    }
}
