//! Turns: what happens to a room before it waits for anything. Every driver goes through here.

use super::life::Reply;
use super::{Answered, Asked, Effect, Event, HookDone, Machine, Opening, request};
use crate::sql::{Sql, Turns};
use crate::{Code, Error, Result, Room, SyncServer, Timestamp};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use futures::task::AtomicWaker;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// What a turn leaves to its driver.
pub struct Turn<S: SyncServer> {
    /// To be carried out, in this order, once what the turn has written is kept.
    pub effects: Vec<Effect<S::Action>>,
    /// Hooks that wait: when one returns, it is an event.
    pub hooks: Vec<LocalBoxFuture<'static, HookDone<S::Action>>>,
    /// Hooks and [others](crate::Room::spawn) that nobody waits for, to begin when what the turn has written is kept.
    pub after: Vec<LocalBoxFuture<'static, ()>>,
    /// Answers to handles, for when what the turn has written is kept.
    pub(crate) replies: Vec<Reply>,
    /// Whether the storage failed: the machine is of no use any more, and neither are sockets.
    pub aborted: Option<Error>,
    /// Whether the machine is to be dropped, with its sockets kept, and opened anew by what happens
    /// next: it [migrates](Machine::is_migrating) rows.
    pub reopens: bool,
}

impl<S: SyncServer> std::fmt::Debug for Turn<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("effects", &self.effects)
            .field("hooks", &self.hooks.len())
            .field("after", &self.after.len())
            .field("aborted", &self.aborted)
            .field("reopens", &self.reopens)
            .finish()
    }
}

impl<S: SyncServer> Turn<S> {
    fn aborted(error: Option<Error>) -> Self {
        Self {
            effects: Vec::new(),
            hooks: Vec::new(),
            after: Vec::new(),
            replies: Vec::new(),
            aborted: error,
            reopens: false,
        }
    }

    /// What the turn has written is kept: who has asked for it hears so.
    pub(crate) fn kept(&mut self) {
        self.replies.drain(..).for_each(Reply::send);
    }
}

/// Takes a room through a turn: what handles have asked for, and then these events. Hooks that return
/// at once are part of it.
pub fn turn<'e, S: SyncServer>(
    machine: &mut Machine<S>,
    server: &Rc<S>,
    sql: &dyn Sql,
    now: Timestamp,
    events: impl IntoIterator<Item = Event<'e, S::Action>>,
) -> Turn<S> {
    let mut turn = Turn::aborted(None);
    machine.handle_asked(server, sql, now);
    drain(machine, server, sql, now, &mut turn);
    for event in events {
        machine.handle(server, sql, now, event);
        drain(machine, server, sql, now, &mut turn);
    }
    machine.end_turn(server, sql);
    drain(machine, server, sql, now, &mut turn);
    if turn.aborted.is_none() {
        let begun = std::mem::take(&mut machine.begun.0).into_iter();
        turn.after.extend(begun.map(|future| Running::new(future).boxed_local()));
        turn.replies = std::mem::take(&mut machine.replies);
    }
    turn.reopens = machine.is_migrating();
    turn
}

fn drain<S: SyncServer>(
    machine: &mut Machine<S>,
    server: &Rc<S>,
    sql: &dyn Sql,
    now: Timestamp,
    turn: &mut Turn<S>,
) {
    while let Some(effect) = machine.poll_effect() {
        match effect {
            Effect::RunHook(hook) => {
                let own = server.clone();
                let room = machine.room_handle(hook.identity().cloned());
                if !hook.is_awaited() {
                    let future = async move { drop(hook.run(&*own, &room).await) }.boxed_local();
                    turn.after.push(Running::new(future).boxed_local());
                    continue;
                }
                let future = async move { hook.run(&*own, &room).await }.boxed_local();
                let mut running = Running::new(future).boxed_local();
                match (&mut running).now_or_never() {
                    Some(done) => machine.handle(server, sql, now, Event::HookDone(done)),
                    None => turn.hooks.push(running),
                }
            }
            Effect::Abort(error) => {
                // Nothing of this turn has happened.
                turn.effects.retain(Effect::is_told);
                turn.hooks.clear();
                turn.after.clear();
                turn.aborted = Some(error);
            }
            effect => turn.effects.push(effect),
        }
    }
}

/// A hook that is polled in its turn first, and by whatever its driver has later. It sees one
/// waker all the time: there are futures that keep the first that they get.
pub(crate) struct Running<T> {
    future: LocalBoxFuture<'static, T>,
    relay: Arc<Relay>,
}

impl<T> Running<T> {
    pub(crate) fn new(future: LocalBoxFuture<'static, T>) -> Self {
        Self { future, relay: Arc::default() }
    }
}

#[derive(Default)]
struct Relay(AtomicWaker);

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

impl<T> Future for Running<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.relay.0.register(context.waker());
        let waker = Waker::from(self.relay.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// A room on a database with transactions of its own: opened when something happens, dropped when
/// the storage fails, and opened again.
pub struct Local<S: SyncServer> {
    server: Rc<S>,
    machine: Option<Machine<S>>,
}

impl<S: SyncServer> std::fmt::Debug for Local<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl<S: SyncServer> Local<S> {
    /// A room that is not open yet.
    pub fn new(server: S) -> Self {
        Self { server: Rc::new(server), machine: None }
    }

    /// The server whose room it is.
    pub fn server(&self) -> &Rc<S> {
        &self.server
    }

    /// The machine, while it is open.
    pub fn machine(&self) -> Option<&Machine<S>> {
        self.machine.as_ref()
    }

    /// Whether handles have asked for something: it is done in the next turn.
    pub fn is_asked(&self) -> bool {
        self.machine.as_ref().is_some_and(Machine::is_asked)
    }

    /// Answers a request. It is to be polled outside of turns; what it asks for is done in them.
    pub fn answer(&self, request: http::Request<Vec<u8>>) -> LocalBoxFuture<'static, Answered> {
        request::answer(self.machine.as_ref(), &self.server, request)
    }

    /// Takes the room through a turn in one transaction, opening it first if need be.
    ///
    /// # Errors
    /// Why it cannot be opened. A storage that fails is an aborted [`Turn`].
    pub fn turn<'e>(
        &mut self,
        db: &impl Turns,
        now: Timestamp,
        opening: impl FnOnce() -> Opening,
        events: impl IntoIterator<Item = Event<'e, S::Action>>,
    ) -> Result<Turn<S>> {
        self.turn_with(db, now, opening, None, events)
    }

    /// Takes the room through a turn in which this is done with it, as by a
    /// [handle](crate::Handle); and what came of it. Its failure is logged as `what`, if that is
    /// given, and then it is what clients are told.
    ///
    /// # Errors
    /// As for [`turn`](Self::turn).
    pub fn run<T: 'static>(
        &mut self,
        db: &impl Turns,
        now: Timestamp,
        opening: impl FnOnce() -> Opening,
        what: Option<&'static str>,
        work: impl FnOnce(&S, &mut Room<'_, S>) -> Result<T> + 'static,
    ) -> Result<(Turn<S>, Result<T>)> {
        let (asked, outcome) = Asked::new(None, work);
        let turn = self.turn_with(db, now, opening, Some(asked.logged_as(what)), [])?;
        Ok((turn, outcome.take()))
    }

    fn turn_with<'e>(
        &mut self,
        db: &impl Turns,
        now: Timestamp,
        opening: impl FnOnce() -> Opening,
        first: Option<Asked<S>>,
        events: impl IntoIterator<Item = Event<'e, S::Action>>,
    ) -> Result<Turn<S>> {
        let turn = db.begin().and_then(|()| {
            let machine = match self.machine.take() {
                Some(machine) => machine,
                None => Machine::open(&*self.server, db, now, opening())?,
            };
            let machine = self.machine.insert(machine);
            first.into_iter().for_each(|asked| machine.put_first(asked));
            Ok(turn(machine, &self.server, db, now, events))
        });
        match turn {
            Ok(mut turn) if turn.aborted.is_none() || crate::__mutated("abort") => {
                match db.commit() {
                    Ok(()) => {
                        turn.kept();
                        if turn.reopens {
                            self.machine = None;
                        }
                        Ok(turn)
                    }
                    Err(error) => {
                        let _ = db.roll_back();
                        Ok(self.abort(error))
                    }
                }
            }
            Ok(turn) => {
                // A database that is gone has nothing to take back.
                let _ = db.roll_back();
                self.machine = None;
                Ok(turn)
            }
            Err(error) => {
                let _ = db.roll_back();
                match error.code() {
                    Code::Storage => Ok(self.abort(error)),
                    _ => Err(error),
                }
            }
        }
    }

    fn abort(&mut self, error: Error) -> Turn<S> {
        self.machine = None;
        Turn::aborted(Some(error))
    }

    /// The process ends, or the object goes to sleep.
    pub fn close(&mut self) {
        self.machine = None;
    }
}
