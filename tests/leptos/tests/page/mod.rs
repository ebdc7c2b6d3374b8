//! A page that is not shown, and the room that it follows.

use any_spawner::Executor;
use leptos::prelude::*;
use partysync::wire::snapshot::Snapshot;
use partysync::{
    Action, Column, Connection, Error, Handle, Presence, Record, Result, Room, SyncServer,
};
use partysync_client::Options;
use partysync_client::leptos::{Synced, use_sync_over};
use partysync_client::testing::Served;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::LocalSet;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "items")]
pub struct Item {
    #[record(key)]
    pub id: String,
    #[record(default = "")]
    pub text: String,
    #[record(default = false)]
    pub done: bool,
    #[record(default = "low")]
    pub level: String,
}

/// Of another server.
#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "others")]
pub struct Other {
    #[record(key)]
    pub id: String,
}

#[derive(Action, Clone, Debug, PartialEq)]
#[action(record = Item)]
pub enum ItemAction {
    #[action(upsert)]
    Put { id: String, text: String, done: bool },
    #[action(upsert)]
    Level { id: String, level: String },
    #[action(delete)]
    Delete { id: String },
    #[action(custom)]
    Tell { times: u64 },
}

impl partysync::Reduce for ItemAction {
    fn reduce_custom(&self, _: &mut partysync::Draft<'_, Item>) -> Result<()> {
        Ok(())
    }
}

/// What an older version of the application knows.
#[derive(Column, Clone, Copy, Debug, PartialEq)]
pub enum Level {
    Low,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "items")]
pub struct OlderItem {
    #[record(key)]
    pub id: String,
    #[record(default = "")]
    pub text: String,
    #[record(default = false)]
    pub done: bool,
    #[record(default = "low")]
    pub level: Level,
}

#[derive(Action, Clone, Debug, PartialEq)]
#[action(record = OlderItem)]
pub enum Older {
    #[action(delete)]
    Delete { id: String },
}

#[derive(Default)]
pub struct Items {
    refuses: Arc<AtomicBool>,
}

impl SyncServer for Items {
    type Action = ItemAction;

    fn on_connect(
        &self,
        _: &mut Room<'_, Self>,
        _: &mut Connection,
        _: &http::Request<()>,
    ) -> Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::new(partysync::Code::Forbidden, "not for you"));
        }
        Ok(())
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        _: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| {
            let snapshot = room.snapshot(&["items"])?;
            Ok(http::Response::new(serde_json::to_vec(&snapshot).unwrap()))
        })
        .await
    }

    fn presence(&self, _: &mut Room<'_, Self>, _: &str) -> Result<Presence> {
        Ok(Presence::shown())
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: ItemAction) -> Result<()> {
        match action {
            ItemAction::Put { text, .. } if text.is_empty() => {
                Err(Error::reject("write something"))
            }
            ItemAction::Tell { times } => (0..times).try_for_each(|n| room.broadcast(&n)),
            action => action.apply(room.sql()),
        }
    }
}

pub struct Page {
    served: Served<Items>,
    refuses: Arc<AtomicBool>,
}

impl Page {
    pub async fn test(body: impl AsyncFnOnce(&mut Self)) {
        // Another test of this process may have.
        let _ = Executor::init_tokio();
        let refuses = Arc::<AtomicBool>::default();
        let served = Served::new(Items { refuses: refuses.clone() }).unwrap();
        let mut page = Self { served, refuses };
        let owner = Owner::new();
        owner.set();
        LocalSet::new().run_until(body(&mut page)).await;
        owner.cleanup();
    }

    pub fn served(&mut self) -> &mut Served<Items> {
        &mut self.served
    }

    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    pub fn sync(&self) -> Synced<ItemAction> {
        self.sync_as(Options::default())
    }

    pub fn sync_as<A: Action + Send>(&self, options: Options) -> Synced<A> {
        use_sync_over(Served::<Items>::endpoint(), options, self.served.transport())
    }

    pub fn act(&mut self, action: ItemAction) {
        self.served.room().act(action).unwrap();
    }

    /// The rows, as a server puts them into a page.
    pub fn snapshot(&mut self) -> Snapshot {
        let response = self.served.room().request(http::Request::new(Vec::new())).unwrap();
        serde_json::from_slice(response.body()).unwrap()
    }

    /// Until the page has nothing to do; the room does nothing.
    pub async fn rest(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Until nothing moves any more.
    pub async fn settle(&mut self) {
        self.served.settle().await.unwrap();
    }
}
