//! Turns of a store whose log is in the database of its object, or of a test. Every driver of one
//! goes through here.

use super::context;
use super::io::{Effect, HookDone, Input};
use super::kept::Kept;
use super::log::Log;
use super::machine::Machine;
use super::server::LiveStoreServer;
use super::table::Context;
use crate::room::turn::Running;
use crate::sql::Sql;
use crate::{Code, Error, Result, Timestamp};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use std::rc::Rc;

/// A store that is open: its machine and its log.
#[derive(Debug)]
pub struct Open {
    machine: Machine,
    place: Place,
    kept: Kept,
}

/// Where the log is.
#[derive(Debug)]
enum Place {
    Here(Log),
    /// Its driver reads and appends; this is what is kept of its context.
    Elsewhere(Context),
}

/// What a turn leaves to its driver.
#[derive(Default)]
pub struct Turn {
    /// To be carried out, in this order.
    pub effects: Vec<Effect>,
    /// Hooks that wait: what one returns is an input.
    pub hooks: Vec<LocalBoxFuture<'static, HookDone>>,
    /// Hooks that nobody waits for, to begin when what the turn has written is kept.
    pub after: Vec<LocalBoxFuture<'static, HookDone>>,
    /// Whether the storage failed: nothing of the turn has happened, and the machine and all
    /// sockets are to be dropped.
    pub aborted: Option<Error>,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("effects", &self.effects)
            .field("hooks", &self.hooks.len())
            .field("after", &self.after.len())
            .field("aborted", &self.aborted)
            .finish()
    }
}

impl Turn {
    fn abort(&mut self, error: Error) {
        self.effects.retain(|effect| matches!(effect, Effect::Log(..)));
        self.hooks.clear();
        self.after.clear();
        self.aborted = Some(error);
    }
}

impl Open {
    /// Opens a store, with the attachments of the sockets that an earlier life has left open.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn new<S: LiveStoreServer>(
        server: &S,
        sql: &dyn Sql,
        store: &str,
        fresh_backend_id: &str,
        now: Timestamp,
        sockets: Vec<Option<String>>,
    ) -> Result<Self> {
        let (log, context, slept_at) = Log::open(sql, store, fresh_backend_id)?;
        Self::with(server, sql, store, (context, slept_at), Place::Here(log), now, sockets)
    }

    /// Opens a store whose log is elsewhere, and ends with the event of this number: turns leave
    /// [`Effect::Append`], [`Effect::Read`] and [`Effect::Load`] to their driver.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn elsewhere<S: LiveStoreServer>(
        server: &S,
        sql: &dyn Sql,
        store: &str,
        fresh_backend_id: &str,
        head: u64,
        now: Timestamp,
        sockets: Vec<Option<String>>,
    ) -> Result<Self> {
        let (context, slept_at) = context::open(sql, store, fresh_backend_id, head)?;
        let place = Place::Elsewhere(context.clone());
        Self::with(server, sql, store, (context, slept_at), place, now, sockets)
    }

    /// What is kept of a store whose log is elsewhere, before that is opened.
    ///
    /// # Errors
    /// What SQLite says; [`Code::Forbidden`] where the object holds another store.
    pub fn known(sql: &dyn Sql, store: &str) -> Result<Option<Context>> {
        context::known(sql, store)
    }

    /// The store that this object holds, if it holds one.
    #[must_use]
    pub fn kept_store(sql: &dyn Sql) -> Option<String> {
        context::any(sql).ok().flatten()
    }

    fn with<S: LiveStoreServer>(
        server: &S,
        sql: &dyn Sql,
        store: &str,
        (context, slept_at): (Context, Option<u64>),
        place: Place,
        now: Timestamp,
        sockets: Vec<Option<String>>,
    ) -> Result<Self> {
        let (kept, known) = Kept::open(sql)?;
        let (store, limits) = (store.to_owned(), server.limits());
        let mut machine = Machine::new(store, context, limits, now, (sockets, slept_at), known);
        machine.trace(server.traces());
        Ok(Self { machine, place, kept })
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Takes the store through a turn.
    pub fn turn<'i, S: LiveStoreServer>(
        &mut self,
        server: &Rc<S>,
        sql: &dyn Sql,
        now: Timestamp,
        inputs: impl IntoIterator<Item = Input<'i>>,
    ) -> Turn {
        let mut turn = Turn::default();
        self.machine.go_on_hungry();
        self.drain(server, sql, now, &mut turn);
        for input in inputs {
            if turn.aborted.is_some() {
                return turn;
            }
            self.machine.handle(now, input);
            self.drain(server, sql, now, &mut turn);
        }
        if turn.aborted.is_some() {
            return turn;
        }
        self.machine.end_turn();
        self.drain(server, sql, now, &mut turn);
        self.keep_context(sql, &mut turn);
        turn
    }

    /// Keeps what is new in the context of a log that is elsewhere.
    fn keep_context(&mut self, sql: &dyn Sql, turn: &mut Turn) {
        let context = self.machine.context();
        if let Place::Elsewhere(known) = &mut self.place
            && known != context
            && turn.aborted.is_none()
        {
            known.clone_from(context);
            if let Err(error) = context::set(sql, self.machine.store(), context) {
                turn.abort(error);
            }
        }
    }

    fn drain<S: LiveStoreServer>(
        &mut self,
        server: &Rc<S>,
        sql: &dyn Sql,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        while let Some(effect) = self.machine.poll_effect() {
            let here = match &self.place {
                Place::Here(log) => Some(log),
                Place::Elsewhere(_) => None,
            };
            let input = match (effect, here) {
                (Effect::Append(push, created_at), Some(log)) => {
                    Input::Appended(log.append(sql, &push.events, &created_at))
                }
                (Effect::Read(reading), Some(log)) => {
                    let limits = self.machine.limits().page();
                    let page = log.page(sql, (reading.after(), reading.upto()), limits);
                    Input::Read(reading, page)
                }
                (Effect::Load, Some(_)) => {
                    let fresh = self.machine.context().backend_id.clone();
                    let opened = Log::open(sql, self.machine.store(), &fresh);
                    Input::Loaded(opened.map(|(_, context, _)| context))
                }
                (Effect::Empty(fresh), Some(log)) => Input::Emptied(log.empty(sql, &fresh)),
                (Effect::Keep(whom, reached), _) => match self.kept.keep(sql, &whom, reached) {
                    Ok(()) => continue,
                    Err(error) => return turn.abort(error),
                },
                (Effect::Span(span), _) => {
                    server.on_span(span);
                    continue;
                }
                (Effect::RunHook(hook), _) => {
                    let (own, awaited) = (server.clone(), hook.is_awaited());
                    let future = async move { hook.run(&*own).await }.boxed_local();
                    let mut running = Running::new(future).boxed_local();
                    if !awaited {
                        turn.after.push(running);
                        continue;
                    }
                    match (&mut running).now_or_never() {
                        Some(done) => Input::HookDone(done),
                        None => {
                            turn.hooks.push(running);
                            continue;
                        }
                    }
                }
                (effect, _) => {
                    turn.effects.push(effect);
                    continue;
                }
            };
            // What was not appended leaves nothing: a full log can still be read.
            if let Input::Read(_, Err(error)) | Input::Loaded(Err(error)) = &input
                && error.code() == Code::Storage
            {
                return turn.abort(error.clone());
            }
            self.machine.handle(now, input);
        }
    }
}
