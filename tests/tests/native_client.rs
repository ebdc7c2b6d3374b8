//! The Rust client against the todo app under real workerd: the browser test's scenario.

use partysync::{Code, Result};
use partysync_client::store::{MemoryStore, SqliteStore, Store};
use partysync_client::{Options, Phase, Place, SyncClient, Update, User};
use partysync_tests::workerd::Server;
use std::time::Duration;
use todo_shared::{Todo, TodoAction};

type Client = SyncClient<TodoAction>;

fn create(id: &str, text: &str) -> TodoAction {
    TodoAction::Create { id: id.into(), text: text.into(), completed: false, position: None }
}

fn texts(client: &Client) -> Vec<String> {
    client.rows::<Todo>().into_iter().map(|todo| todo.text).collect()
}

/// The deadline is for failing tests only.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = tokio::time::timeout(Duration::from_secs(240), future).await;
    limit.unwrap_or_else(|_| panic!("did not happen: {what}"))
}

async fn shows(client: &Client, wanted: &[&str]) {
    within(&format!("{wanted:?}"), client.until(|client| texts(client) == wanted)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_tests_scenario() -> Result<()> {
    let mut server = Server::start();
    let a = Client::connect(&server.url("native")).await?;
    let b = Client::connect(&server.url("native")).await?;
    within("both are live", async { a.ready().await.and(b.ready().await) }).await?;

    // What one does appears in the other, and is shown at once where it was done.
    let answer = a.send(create("1", "Buy milk"));
    assert!(a.is_pending::<Todo>("1"));
    assert_eq!(texts(&a), ["Buy milk"]);
    within("an answer", answer).await?;
    within("the end of pending", a.until(|a| !a.is_pending::<Todo>("1"))).await?;
    shows(&b, &["Buy milk"]).await;
    within(
        "an answer",
        b.send(TodoAction::Update { id: "1".into(), text: None, completed: Some(true) }),
    )
    .await?;
    within("it is done", a.until(|a| a.get::<Todo>("1").unwrap().unwrap().completed)).await?;
    assert_eq!(a.get::<Todo>("1")?, b.get::<Todo>("1")?);

    // What is rejected goes back, and the caller hears why.
    let answer =
        a.send(TodoAction::Update { id: "1".into(), text: Some(" ".into()), completed: None });
    assert_eq!(texts(&a), [" "]);
    let error = within("an answer", answer).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Rejected, "A todo needs some text"));
    shows(&a, &["Buy milk"]).await;

    // A custom action, shown by its reducer and done by the server's SQL.
    within("an answer", a.send(TodoAction::ClearCompleted)).await?;
    shows(&b, &[]).await;

    // An optimistic row never flickers: from its sending on, it is there in every update.
    let mut updates = a.updates();
    let answer = a.send(create("2", "Steady"));
    within("an answer", answer).await?;
    within("live", a.ready()).await?;
    while let Some(Update { changes, .. }) = updates.try_recv() {
        if changes.contains_key("todos") {
            assert_eq!(texts(&a), ["Steady"]);
        }
    }

    // The server is killed and comes back: both recover by themselves.
    server.kill();
    let offline = |client: &Client| matches!(client.status().phase, Phase::Offline { .. });
    within("both are offline", async { a.until(offline).await.and(b.until(offline).await) })
        .await?;
    let waiting = [a.send(create("3", "From A")), b.send(create("4", "From B"))];
    assert_eq!((a.status().pending, b.status().pending), (1, 1));
    server.up();
    for answer in waiting {
        within("an answer after the restart", answer).await?;
    }
    shows(&a, &["Steady", "From A", "From B"]).await;
    shows(&b, &["Steady", "From A", "From B"]).await;
    assert_eq!(a.rows::<Todo>(), b.rows::<Todo>());
    assert_eq!(a.version::<Todo>(), b.version::<Todo>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_actions_at_once_arrive_in_order_and_in_few_frames() -> Result<()> {
    let server = Server::start();
    let a = Client::connect(&server.url("many")).await?;
    let b = Client::connect(&server.url("many")).await?;
    within("both are live", async { a.ready().await.and(b.ready().await) }).await?;
    let mut updates = b.updates();
    let answers: Vec<_> =
        (0..1_000).map(|n| a.send(create(&format!("{n:04}"), &n.to_string()))).collect();
    for answer in answers {
        within("an answer", answer).await?;
    }
    within("all are there", b.until(|b| b.keys("todos").len() == 1_000)).await?;
    let mut patches = 0;
    while let Some(update) = updates.try_recv() {
        patches += usize::from(update.changes.contains_key("todos"));
    }
    assert!(patches <= 20, "{patches} patches for 1,000 actions");
    assert_eq!(a.rows::<Todo>(), b.rows::<Todo>());
    assert_eq!(a.version::<Todo>(), Some(1_000));
    Ok(())
}

/// What a client leaves in its store another one takes up, before it has a connection and after.
async fn goes_on<S: Store + 'static>(
    room: &str,
    store: impl Fn() -> S,
    free: impl Fn() -> bool,
) -> Result<()> {
    let mut server = Server::start();
    let url = server.url(room);
    let first = Client::with(&url, Options::new(store())).await?;
    within("live", first.ready()).await?;
    within("an answer", first.send(create("1", "answered"))).await?;
    within("live", first.ready()).await?;
    server.kill();
    let offline = |client: &Client| matches!(client.status().phase, Phase::Offline { .. });
    within("offline", first.until(offline)).await?;
    drop(first.send(create("2", "never sent")));
    drop(first.send(create("3", "  ")));
    within("stored", first.stored()).await?;
    assert!(!free());
    // No close: as if the program had been killed.
    drop(first);
    within("the store is let go", async {
        while !free() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let second = Client::with(&url, Options::new(store())).await?;
    // Rows and pending actions are there before the socket is.
    assert_eq!(texts(&second), ["answered", "never sent", "  "]);
    assert!(second.is_pending::<Todo>("2") && !second.is_pending::<Todo>("1"));
    let mut updates = second.updates();
    server.up();
    within("live", second.ready()).await?;
    // Who made it is gone: its rejection is told to all.
    let mut errors = Vec::new();
    while let Some(update) = updates.try_recv() {
        errors.extend(update.errors);
    }
    assert_eq!(errors.iter().map(|e| e.code()).collect::<Vec<_>>(), [Code::Rejected]);
    assert_eq!(texts(&second), ["answered", "never sent"]);
    assert_eq!(second.version::<Todo>(), Some(2));
    Ok(())
}

/// Whether no client has what is kept here.
fn is_free(store: &MemoryStore) -> bool {
    store.clone().open_now("nobody").unwrap().others.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_from_a_store_in_memory() -> Result<()> {
    let store = MemoryStore::new();
    let free = || is_free(&store);
    goes_on("memory", || store.clone(), free).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_from_a_sqlite_file() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replica.sqlite");
    let open = || SqliteStore::open(&path, &Place::new("todos", "sqlite", User::anyone()));
    goes_on("sqlite", || open().unwrap(), || open().is_ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_client_takes_over_what_others_left_behind() -> Result<()> {
    let mut server = Server::start();
    let url = server.url("orphans");
    let store = MemoryStore::new();
    let client = async || Client::with(&url, Options::new(store.clone())).await;
    let (first, second, third) = (client().await?, client().await?, client().await?);
    within("live", async { first.ready().await.and(second.ready().await) }).await?;
    within("live", third.ready()).await?;
    server.kill();
    let offline = |client: &Client| matches!(client.status().phase, Phase::Offline { .. });
    within("offline", async { first.until(offline).await.and(second.until(offline).await) })
        .await?;
    for n in 1..=3 {
        drop(first.send(create(&format!("first {n}"), "of the first")));
        drop(second.send(create(&format!("second {n}"), "of the second")));
    }
    drop(second.send(TodoAction::Update {
        id: "second 1".into(),
        text: Some("  ".into()),
        completed: None,
    }));
    within("stored", async { first.stored().await.and(second.stored().await) }).await?;
    drop((first, second));
    // What the two made is shown here, and pushed when there is a server.
    within("adopted", third.until(|third| third.status().pending == 7)).await?;
    assert_eq!(third.keys("todos").len(), 6);
    assert!(third.is_pending::<Todo>("first 2") && third.is_pending::<Todo>("second 3"));
    let mut updates = third.updates();
    server.up();
    within("answered", third.ready()).await?;
    assert_eq!(third.keys("todos").len(), 6);
    assert_eq!(third.version::<Todo>(), Some(6));
    assert_eq!(third.get::<Todo>("second 1")?.unwrap().text, "of the second");
    // Nothing flickered, and the one that was rejected is reported.
    let mut errors = Vec::new();
    while let Some(update) = updates.try_recv() {
        errors.extend(update.errors);
    }
    assert_eq!(errors.iter().map(|e| e.code()).collect::<Vec<_>>(), [Code::Rejected]);
    within("stored", third.stored()).await?;
    drop(third);
    assert_eq!(store.kept()?.outboxes.len(), 0, "an answered action is still there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_traps_is_given_up_and_the_queue_goes_on() -> Result<()> {
    use lab_shared::{Item, ItemAction, ItemId, LabAction};
    let server = Server::lab();
    let mut options = Options::default();
    options.timing.answer_ms = 1_000;
    options.timing.retry_ms = 50;
    options.timing.give_up_ms = 1_000;
    let client = SyncClient::<LabAction>::with(&server.url("trap"), options).await?;
    within("live", client.ready()).await?;
    let create = |id: &str| {
        LabAction::Items(ItemAction::Create { id: ItemId(id.into()), name: Some(id.into()) })
    };
    within("an answer", client.send(create("before"))).await?;
    let trap = client.send(LabAction::Items(ItemAction::Trap { id: "half".into() }));
    let behind = client.send(create("behind"));
    let error = within("it is given up", trap).await.unwrap_err();
    assert_eq!(error.code(), Code::Abandoned);
    within("the next is done", behind).await?;
    // Nothing of it was written.
    let other = SyncClient::<LabAction>::connect(&server.url("trap")).await?;
    within("live", other.ready()).await?;
    for client in [&client, &other] {
        let ids: Vec<_> = client.rows::<Item>().into_iter().map(|item| item.id.0).collect();
        assert_eq!(ids, ["before", "behind"]);
    }
    Ok(())
}
