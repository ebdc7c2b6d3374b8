//! [`Answer`]: what becomes of an action.

use futures::channel::oneshot;
use futures::future::FutureExt;
use futures::task::AtomicWaker;
use partysync::wire::v2::read_result;
use partysync::{Code, Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

pub(crate) fn closed() -> Error {
    Error::new(Code::Closed, "the client is closed")
}

/// What the room has answered: that the action was done, with its result if it gave any, or why not.
pub(crate) type Outcome = Result<Option<Json>>;

/// What becomes of an action. One that is stored is not lost with its answer: it is sent by the
/// next client of the same place, though nobody hears of it here, nor of its result.
///
/// When it is dropped, a rejection that was not read is told to all
/// ([`Update::errors`](crate::Update::errors)).
pub struct Answer<T = ()> {
    waiting: Waiting,
    read: fn(Option<Json>) -> Result<T>,
}

/// An answer that has not come yet, or was not read.
#[derive(Debug)]
struct Waiting {
    receiver: oneshot::Receiver<Outcome>,
    unread: Option<Arc<Unread>>,
}

/// Rejections whose answers were dropped before they were read.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    errors: Mutex<Vec<Error>>,
    /// Wakes the driver.
    pub(crate) waker: AtomicWaker,
}

impl Unread {
    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Error> {
        std::mem::take(&mut self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Answer {
    pub(crate) fn new(receiver: oneshot::Receiver<Outcome>, unread: Arc<Unread>) -> Self {
        Self { waiting: Waiting { receiver, unread: Some(unread) }, read: |_| Ok(()) }
    }

    /// That of a client that is gone.
    #[cfg(feature = "leptos")]
    pub(crate) fn closed() -> Self {
        let waiting = Waiting { receiver: oneshot::channel().1, unread: None };
        Self { waiting, read: |_| Ok(()) }
    }

    /// The answer with what the action was answered with ([`Room::answer`](partysync::Room::answer)):
    /// any type of serde's. An action that gave no result is `None` of an `Option`, and an error for
    /// a type that has no such value.
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
    /// #     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    /// #         action.apply(room.sql())?;
    /// #         room.answer(&room.sql().query_one("SELECT count(*) FROM notes", [], |row| row.get::<i64>(0))?)
    /// #     }
    /// # }
    /// # use partysync_client::SyncClient;
    /// async fn create(client: &SyncClient<NoteAction>, id: &str) -> Result<String> {
    ///     let create = NoteAction::Create { id: id.into() };
    ///     let count: i64 = client.send(create).result().await?;
    ///     Ok(format!("{count} notes"))
    /// }
    /// # #[cfg(feature = "testing")] {
    /// # use futures::{executor::LocalPool, task::LocalSpawnExt};
    /// # use partysync_client::{Options, testing::Served};
    /// # let mut served = Served::new(Notes)?;
    /// # let (client, driver) = SyncClient::make(
    /// #     Served::<Notes>::endpoint(), Options::default(), served.transport());
    /// # let mut pool = LocalPool::new();
    /// # pool.spawner().spawn_local(driver).unwrap();
    /// # let own = client.clone();
    /// # let task = async move { create(&own, "a").await };
    /// # let created = pool.spawner().spawn_local_with_handle(task).unwrap();
    /// # pool.run_until_stalled();
    /// # while served.deliver()? { pool.run_until_stalled(); }
    /// # assert_eq!(pool.run_until(created)?, "1 notes");
    /// # }
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// As without it; and [`Code::ResultMismatch`] when the result is not of this type: the action was
    /// done.
    #[must_use]
    pub fn result<T: DeserializeOwned>(self) -> Answer<T> {
        Answer { waiting: self.waiting, read: read_result }
    }
}

impl<T> std::fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // One that was read is empty.
        if let Ok(Some(Err(error))) = self.receiver.try_recv()
            && let Some(unread) = &self.unread
        {
            unread.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
            unread.waker.wake();
        }
    }
}

impl<T> Future for Answer<T> {
    /// `Ok` when the server has committed it, `Err` with why it rejected it, or
    /// [`Code::Closed`] when the client was closed before.
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let read = self.read;
        self.waiting
            .receiver
            .poll_unpin(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(closed())).and_then(read))
    }
}
