//! [`Handle`]: the room for what awaits. What it does is a turn of its own each time.

use super::Life;
use super::life::{Ask, Asked};
use crate::{Identity, Result, Room};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use std::fmt;
use std::rc::Rc;

/// A room, for hooks that await and what they begin: it outlives the hook that had it, and may be
/// cloned at will.
///
/// Nothing of the room is held between two calls of [`run`](Self::run): others act meanwhile, so
/// what was read before something was awaited may be another by now.
///
/// ```
/// use partysync::{Action, Connection, Error, Handle, Record, Result, Room, SyncServer, params};
///
/// #[derive(Record, Clone, Debug, PartialEq)]
/// #[record(table = "seats")]
/// struct Seat {
///     #[record(key)]
///     id: String,
///     taken: bool,
/// }
///
/// #[derive(Action, Clone, Debug)]
/// #[action(record = Seat)]
/// enum SeatAction {
///     #[action(insert)]
///     Add { id: String, taken: bool },
///     #[action(update)]
///     Take { id: String, taken: bool },
/// }
///
/// struct Hall;
///
/// impl Hall {
///     async fn pay(&self, seat: &str) -> Result<()> {
///         // ...
/// #       let _ = seat;
///         Ok(())
///     }
/// }
///
/// impl SyncServer for Hall {
///     type Action = SeatAction;
///
///     async fn before_action(
///         &self,
///         room: &Handle<Self>,
///         _: &Connection,
///         action: &SeatAction,
///     ) -> Result<()> {
///         let SeatAction::Take { id, .. } = action else { return Ok(()) };
///         let seat = id.clone();
///         let sql = "SELECT taken FROM seats WHERE id = ?";
///         let taken = room
///             .run(move |room| room.sql().query_one(sql, params![seat], |row| row.get::<bool>(0)))
///             .await?;
///         // Nobody pays for a seat that is gone already.
///         if taken {
///             return Err(Error::reject("somebody sits there"));
///         }
///         self.pay(id).await
///     }
///
///     fn on_action(&self, room: &mut Room<'_, Self>, action: SeatAction) -> Result<()> {
///         action.apply(room.sql())
///     }
/// }
///
/// # use partysync::testing::TestRoom;
/// let mut room = TestRoom::new(Hall)?;
/// room.act(SeatAction::Add { id: "a".into(), taken: false })?;
/// room.act(SeatAction::Take { id: "a".into(), taken: true })?;
/// assert!(room.act(SeatAction::Take { id: "a".into(), taken: true }).is_err());
/// # Ok::<(), Error>(())
/// ```
pub struct Handle<S> {
    asks: Rc<dyn Ask<S>>,
    name: Rc<str>,
    identity: Option<Identity>,
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        let Self { asks, name, identity } = self;
        Self { asks: asks.clone(), name: name.clone(), identity: identity.clone() }
    }
}

impl<S> fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: 'static> Handle<S> {
    pub(super) fn new(life: &Rc<Life<S>>, identity: Option<Identity>) -> Self {
        Self { asks: Rc::new(Rc::downgrade(life)), name: life.faults.room.clone(), identity }
    }

    /// The same room, for a server that asks for turns in another way.
    #[cfg(feature = "livestore")]
    pub(crate) fn map<R>(&self, asks: Rc<dyn Ask<R>>) -> Handle<R> {
        Handle { asks, name: self.name.clone(), identity: self.identity.clone() }
    }

    /// Has something done that this one's room is asked for.
    #[cfg(feature = "livestore")]
    pub(crate) fn ask(&self, asked: Asked<S>) {
        self.asks.ask(asked);
    }

    /// The room's name, the last part of its URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does this with the room, in the next turn: it is one transaction, and what it changes is sent,
    /// as for any hook. It has returned when that is written. [`Room::identity`] is who was behind the
    /// hook that this handle is of; [`Room::sender`] is nobody, as the connection may be gone by now.
    ///
    /// Dropped before that turn, it does nothing.
    ///
    /// # Errors
    /// What the closure returns: nothing was written then. [`Code::Unavailable`](crate::Code::Unavailable)
    /// when the room was closed or opened anew meanwhile, as when its storage failed: nothing was
    /// written, nor will it be by this handle.
    pub async fn run<T: 'static>(
        &self,
        work: impl FnOnce(&mut Room<'_, S>) -> Result<T> + 'static,
    ) -> Result<T> {
        let (asked, outcome) = Asked::new(self.identity.clone(), |_, room| work(room));
        self.asks.ask(asked);
        outcome.wait().await
    }
}

/// Where a hook's handles come from.
pub(crate) trait Handles<S> {
    /// A handle for whoever is behind the hook.
    fn handle(&self, identity: Option<Identity>) -> Handle<S>;
}

impl<S: 'static> Handles<S> for Rc<Life<S>> {
    fn handle(&self, identity: Option<Identity>) -> Handle<S> {
        Handle::new(self, identity)
    }
}

impl<S> Room<'_, S> {
    /// The room for what awaits, with whoever is behind this hook: to be moved into what is
    /// [begun](Self::spawn).
    #[must_use]
    pub fn handle(&self) -> Handle<S> {
        self.handles.handle(self.who().cloned())
    }

    /// Begins something that may await, when what this hook writes is committed; if the hook fails,
    /// it does not begin. Nobody waits for it, and it is run at most once: not to its end if the
    /// process ends before. A Durable Object stays awake for it.
    ///
    /// With a [job](Self::schedule) that is [finished](Self::finish) on success, what happens outside of
    /// the room happens at least once: here the job is [put off](Self::put_off) for a minute before it is
    /// tried.
    ///
    /// ```
    /// use partysync::{Action, Job, Record, Result, Room, SyncServer};
    /// # use std::{cell::Cell, rc::Rc};
    ///
    /// #[derive(Record, Clone, Debug, PartialEq)]
    /// #[record(table = "orders")]
    /// struct Order {
    ///     #[record(key)]
    ///     id: String,
    /// }
    ///
    /// #[derive(Action, Clone, Debug)]
    /// #[action(record = Order)]
    /// enum OrderAction {
    ///     #[action(insert)]
    ///     Place { id: String },
    /// }
    ///
    /// #[derive(Clone)]
    /// struct Shop {
    ///     // ...
    /// #   down: Rc<Cell<bool>>,
    /// #   told: Rc<Cell<u32>>,
    /// }
    ///
    /// impl Shop {
    ///     /// Tells another service of an order.
    ///     async fn tell(&self, order: &str) -> Result<()> {
    ///         // ...
    /// #       if self.down.get() { return Err(partysync::Error::retry(order)); }
    /// #       self.told.set(self.told.get() + 1);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl SyncServer for Shop {
    ///     type Action = OrderAction;
    ///
    ///     fn on_action(&self, room: &mut Room<'_, Self>, action: OrderAction) -> Result<()> {
    ///         let OrderAction::Place { id } = &action;
    ///         room.schedule(room.now(), &format!("tell {id}"), id)?;
    ///         action.apply(room.sql())
    ///     }
    ///
    ///     fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
    ///         let order: String = job.payload()?;
    ///         // If it is not told by then, or the process has ended.
    ///         let again = room.put_off(job, room.now().plus_millis(60_000))?;
    ///         let (shop, handle) = (self.clone(), room.handle());
    ///         room.spawn(async move {
    ///             if shop.tell(&order).await.is_ok() {
    ///                 // If this fails, it is told once more.
    ///                 let _ = handle.run(move |room| room.finish(&again)).await;
    ///             }
    ///         });
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// # let shop = Shop { down: Rc::new(Cell::new(true)), told: Rc::default() };
    /// # let mut room = partysync::testing::TestRoom::new(shop.clone())?;
    /// room.act(OrderAction::Place { id: "a".into() })?;
    /// room.run_for(0)?;
    /// // The other service did not answer.
    /// assert_eq!(room.jobs()?.len(), 1);
    /// # shop.down.set(false);
    /// room.run_for(60_000)?;
    /// assert_eq!(room.jobs()?, []);
    /// # assert_eq!(shop.told.get(), 1);
    /// # Ok(()) }
    /// ```
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        self.output.begun.0.push(future.boxed_local());
    }
}

/// What hooks have begun: it is run when what they have written is kept.
#[derive(Default)]
pub(crate) struct Begun(pub(super) Vec<LocalBoxFuture<'static, ()>>);

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Begun").field(&self.0.len()).finish()
    }
}
