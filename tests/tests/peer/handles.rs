//! What holds a client: its end, its driver, its endpoint.

use super::*;
use partysync_client::transport::*;
use std::time::Duration;
#[derive(Clone, Default)]
struct Nowhere {
    /// A turn of the page, which ends when the test says so.
    turn: std::sync::Arc<std::sync::Mutex<Option<futures::channel::oneshot::Receiver<()>>>>,
}
impl Transport for Nowhere {
    fn shown(&self) -> Option<Sleep> {
        let turn = self.turn.lock().unwrap().take()?;
        Some(Box::pin(async { turn.await.unwrap() }))
    }

    fn open(&self, _: &Address) -> Link {
        let (outgoing, rx) = futures::channel::mpsc::unbounded();
        std::mem::forget(rx);
        let (tx, incoming) = futures::channel::mpsc::unbounded();
        std::mem::forget(tx);
        Link { outgoing, incoming }
    }
    fn sleep(&self, time: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(time))
    }
    fn now(&self) -> Now {
        Now { monotonic: 0, wall: Timestamp::from_millis(1) }
    }
    fn random(&self) -> u64 {
        use std::hash::*;
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }
}
fn kept(store: &MemoryStore) -> usize {
    store.kept().unwrap().outboxes.values().map(|o| o.pending.len()).sum()
}
/// A client without a network, its store, and what drives it.
fn client() -> (MemoryStore, SyncClient<NoteAction>, impl Future<Output = ()>) {
    client_on(Nowhere::default())
}
fn client_on(
    transport: Nowhere,
) -> (MemoryStore, SyncClient<NoteAction>, impl Future<Output = ()>) {
    let store = MemoryStore::new();
    let options = Options::new(store.clone());
    let (client, driver) = SyncClient::make("ws://x".into(), options, transport);
    (store, client, driver)
}
fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn what_an_action_changes_is_there_before_it_is_stored_and_a_page_may_show_it_first() {
    rt().block_on(async {
        let nowhere = Nowhere::default();
        let (store, client, driver) = client_on(nowhere.clone());
        let task = tokio::spawn(driver);
        client.loaded().await.unwrap();
        let (turn, turns) = futures::channel::oneshot::channel();
        *nowhere.turn.lock().unwrap() = Some(turns);
        drop(client.send(put("a", "1")));
        // The driver has taken its turn, and waits.
        while nowhere.turn.lock().unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(client.rows::<Row>().len(), 1);
        assert_eq!(kept(&store), 0);
        client.close();
        turn.send(()).unwrap();
        task.await.unwrap();
        assert_eq!(kept(&store), 1);
    });
}
#[test]
fn closing_keeps_pending_actions_in_the_store() {
    rt().block_on(async {
        let (store, client, driver) = client();
        let task = tokio::spawn(driver);
        client.loaded().await.unwrap();
        drop(client.send(put("a", "1")));
        drop(client.send(put("b", "2")));
        client.close();
        task.await.unwrap();
        assert_eq!(kept(&store), 2, "`close`: pending actions stay in the store");
    });
}
#[test]
fn closing_before_the_store_is_open_keeps_them_too() {
    rt().block_on(async {
        let (store, client, driver) = client();
        drop(client.send(put("a", "1")));
        client.close();
        tokio::spawn(driver).await.unwrap();
        assert_eq!(kept(&store), 1);
    });
}
#[test]
fn so_does_dropping_the_last_handle() {
    rt().block_on(async {
        let (store, client, driver) = client();
        let task = tokio::spawn(driver);
        client.loaded().await.unwrap();
        drop(client.send(put("a", "1")));
        drop(client);
        task.await.unwrap();
        assert_eq!(kept(&store), 1, "made by a client whose last handle is dropped");
    });
}
#[test]
fn the_function_that_gives_the_address_may_use_the_client() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        rt().block_on(async move {
            let slot = std::sync::Arc::new(std::sync::OnceLock::<SyncClient<NoteAction>>::new());
            let seen = slot.clone();
            let endpoint = Endpoint::new(move || {
                // It is asked for by the driver, when the client is there.
                let _ = seen.get().map(|client| client.status());
                let _ = tell.send(());
                async { Ok(Address::new("ws://x")) }
            });
            let (client, driver) =
                SyncClient::<NoteAction>::make(endpoint, Options::default(), Nowhere::default());
            let _ = slot.set(client.clone());
            driver.await;
        })
    });
    told.recv_timeout(Duration::from_secs(60))
        .expect("deadlock: the endpoint is asked under the lock");
}

#[test]
fn what_nobody_reads_is_put_together_and_nothing_of_it_is_lost() {
    rt().block_on(async {
        let (_, client, driver) = client();
        let task = tokio::spawn(driver);
        client.loaded().await.unwrap();
        let (mut updates, unread) = (client.updates(), client.updates());
        for n in 0..1_000 {
            drop(client.send(put(&n.to_string(), "1")));
        }
        client.close();
        task.await.unwrap();
        let (mut keys, mut count) = (std::collections::BTreeSet::new(), 0);
        let mut last = None;
        while let Some(update) = updates.next().await {
            count += 1;
            for changed in update.changes.values() {
                let Changed::Keys(changed) = changed else { panic!("{changed:?}") };
                keys.extend(changed.clone());
            }
            last = Some(update.status.phase);
        }
        assert_eq!((keys.len(), last), (1_000, Some(Phase::Closed)));
        assert_eq!(count, 64, "each of the first ones, and the rest as one");
        drop(unread);
    });
}

/// Uses the client when it is woken.
struct Uses {
    client: SyncClient<NoteAction>,
    live: partysync_client::query::Live<Row>,
    rows: std::sync::Mutex<Vec<usize>>,
}
impl std::task::Wake for Uses {
    fn wake(self: std::sync::Arc<Self>) {
        let (rows, live) = (self.client.rows::<Row>(), self.live.rows());
        assert!(live.iter().map(|found| &found.row).eq(&rows));
        self.rows.lock().unwrap().push(rows.len());
    }
}

#[test]
fn whoever_is_woken_by_a_result_may_use_the_client() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        rt().block_on(async move {
            let (_, client, driver) = client();
            let task = tokio::spawn(driver);
            client.loaded().await.unwrap();
            let live = client.query(&Row::query()).unwrap();
            let mut changes = live.changes();
            let rows = std::sync::Mutex::default();
            let uses = std::sync::Arc::new(Uses { client: client.clone(), live, rows });
            let waker = std::task::Waker::from(uses.clone());
            let mut waits = |first: bool| {
                let mut context = std::task::Context::from_waker(&waker);
                assert_eq!(changes.poll_next_unpin(&mut context).is_ready(), first);
            };
            waits(true);
            waits(false);
            drop(client.send(put("a", "1")));
            waits(true);
            waits(false);
            drop(client.send(put("b", "2")));
            waits(true);
            waits(false);
            // The end of the client is told, too.
            client.close();
            task.await.unwrap();
            tell.send(uses.rows.lock().unwrap().clone()).unwrap();
        })
    });
    let rows = told.recv_timeout(Duration::from_secs(60));
    assert_eq!(rows.expect("deadlock: it is woken under the lock"), [1, 2, 2]);
}
