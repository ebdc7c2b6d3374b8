//! Faults on real processes: workerd is killed under the load of eight clients, whose sockets
//! break at random bytes and which are themselves dropped and started anew.

use partysync::{Code, Result};
use partysync_client::store::SqliteStore;
use partysync_client::{Options, Place, SyncClient, User};
use partysync_tests::workerd::Server;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use todo_shared::{Todo, TodoAction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const KILLS: u32 = 50;
const CLIENTS: usize = 8;

type Client = SyncClient<TodoAction>;

/// What became of the actions, by number.
#[derive(Default)]
struct Answers {
    committed: AtomicU64,
    /// Answers that were no.
    refused: Mutex<Vec<(String, Code)>>,
}

/// A client that never stops making actions, each of which is noted.
struct Actor {
    name: String,
    url: String,
    store: PathBuf,
    random: fastrand::Rng,
    answers: Arc<Answers>,
    /// How many rows it has made.
    rows: u64,
    /// The last number that it wrote into its own row.
    count: u64,
    restarts: u64,
}

impl Actor {
    async fn client(&self) -> Result<Client> {
        let store = loop {
            // The one before may not have let go of it yet.
            let place = Place::new("todos", &self.name, User::anyone());
            match SqliteStore::open(&self.store, &place) {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut options = Options::new(store);
        options.timing.retry_ms = 20;
        options.timing.retry_max_ms = 200;
        Client::with(&self.url, options).await
    }

    fn send(&self, client: &Client, what: String, action: TodoAction) {
        let (answer, answers) = (client.send(action), self.answers.clone());
        tokio::spawn(async move {
            match answer.await {
                Ok(()) => drop(answers.committed.fetch_add(1, Ordering::Relaxed)),
                // Its client was dropped: the next one pushes it.
                Err(error) if error.code() == Code::Closed => {}
                Err(error) => answers.refused.lock().unwrap().push((what, error.code())),
            }
        });
    }

    fn act(&mut self, client: &Client) {
        if self.count == 0 || self.random.bool() {
            self.rows += 1;
            let id = format!("{} {}", self.name, self.rows);
            let create = TodoAction::Create {
                id: id.clone(),
                text: "x".into(),
                completed: false,
                position: None,
            };
            self.send(client, id, create);
        }
        self.count += 1;
        let (id, text) = (self.name.clone(), self.count.to_string());
        let what = format!("{id} = {text}");
        let action = match self.count {
            1 => TodoAction::Create { id, text, completed: false, position: None },
            _ => TodoAction::Update { id, text: Some(text), completed: None },
        };
        self.send(client, what, action);
    }

    async fn run(mut self, over: Arc<AtomicBool>) -> Result<(Self, Client)> {
        let mut client = self.client().await?;
        while !over.load(Ordering::Relaxed) {
            self.act(&client);
            // As fast as it can, but not without end while the server is down.
            client.until(|client| client.status().pending < 40).await?;
            if self.random.u32(..200) == 0 {
                client.stored().await?;
                drop(client);
                self.restarts += 1;
                client = self.client().await?;
            }
            tokio::time::sleep(Duration::from_millis(self.random.u64(..10))).await;
        }
        Ok((self, client))
    }
}

/// Passes bytes on until a connection has carried as many as it may; then it breaks.
async fn proxy(listener: TcpListener, upstream: String, cuts: Arc<AtomicU64>) {
    let mut random = fastrand::Rng::with_seed(7);
    while let Ok((client, _)) = listener.accept().await {
        let (upstream, cuts) = (upstream.clone(), cuts.clone());
        let budget = Arc::new(AtomicU64::new(random.u64(300..60_000)));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::select! {
                cut = pass(from_client, to_server, &budget) => cuts.fetch_add(cut, Ordering::Relaxed),
                cut = pass(from_server, to_client, &budget) => cuts.fetch_add(cut, Ordering::Relaxed),
            };
        });
    }
}

/// 1 when the budget is used up, 0 when a side has closed.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    budget: &AtomicU64,
) -> u64 {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return 0 };
        let left = budget.load(Ordering::Relaxed);
        let some = read.min(usize::try_from(left).unwrap());
        budget.store(left - some as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..some]).await.is_err() {
            return 0;
        }
        if some < read {
            return 1;
        }
    }
}

fn actor(name: usize, url: String, folder: &Path, answers: &Arc<Answers>) -> Actor {
    Actor {
        name: format!("client {name}"),
        url,
        store: folder.join(format!("{name}.sqlite")),
        random: fastrand::Rng::with_seed(name as u64),
        answers: answers.clone(),
        rows: 0,
        count: 0,
        restarts: 0,
    }
}

/// Every number that a row shows is at least the one before: versions are seen in order.
async fn watch(client: Client) {
    let mut updates = client.updates();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    while futures::StreamExt::next(&mut updates).await.is_some() {
        for todo in client.rows::<Todo>() {
            if let Ok(number) = todo.text.parse::<u64>() {
                let before = seen.insert(todo.id.clone(), number).unwrap_or(0);
                assert!(before <= number, "{} went from {before} to {number}", todo.id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workerd_is_killed_fifty_times_and_nothing_is_lost_or_done_twice() -> Result<()> {
    let mut server = Server::start();
    let (direct, folder) = (server.url("faults"), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = listener.local_addr().unwrap().to_string();
    let upstream = direct.split('/').nth(2).unwrap().to_owned();
    let broken = direct.replace(&upstream, &through);
    let (cuts, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let proxy = tokio::spawn(proxy(listener, upstream, cuts.clone()));
    let answers = Arc::new(Answers::default());
    let actors: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let url = if n < 5 { broken.clone() } else { direct.clone() };
            tokio::spawn(actor(n, url, folder.path(), &answers).run(over.clone()))
        })
        .collect();
    let watcher = Client::connect(&direct).await?;
    let watching = tokio::spawn(watch(watcher.clone()));

    let mut random = fastrand::Rng::with_seed(50);
    let committed = || answers.committed.load(Ordering::Relaxed);
    for kill in 0..KILLS {
        // In the midst of the work: some answers after it has come back.
        let enough = committed() + random.u64(1..60);
        let killed = tokio::time::timeout(Duration::from_secs(60), async {
            while committed() < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        killed.await.unwrap_or_else(|_| panic!("no answers before kill {kill}"));
        server.kill();
        server = tokio::task::spawn_blocking(move || {
            server.up();
            server
        })
        .await
        .unwrap();
    }
    over.store(true, Ordering::Relaxed);

    let mut clients = Vec::new();
    for actor in actors {
        clients.push(actor.await.unwrap()?);
    }
    // No more cuts: a long catch-up may take more bytes than a connection lasts.
    proxy.abort();
    let mut rows = Vec::new();
    let (mut made, mut restarts) = (0, 0);
    for (actor, client) in clients {
        client.stored().await?;
        drop(client);
        let client = Actor { url: direct.clone(), ..actor };
        made += client.rows + client.count;
        restarts += client.restarts;
        let (actor, client) = (&client, client.client().await?);
        tokio::time::timeout(Duration::from_secs(60), client.ready()).await.expect("it heals")?;
        rows.push((actor.name.clone(), actor.rows, actor.count, client));
    }
    tokio::time::timeout(Duration::from_secs(60), watcher.ready()).await.expect("it heals")?;

    let refused = answers.refused.lock().unwrap().clone();
    println!(
        "{KILLS} kills, {} cuts, {restarts} restarts of clients: {made} actions, {} answers, refused: {refused:?}",
        cuts.load(Ordering::Relaxed),
        committed(),
    );
    // One version for each action: each was done once, or its caller was told.
    let done = made - refused.len() as u64;
    assert_eq!(watcher.version::<Todo>(), Some(done));
    assert!(refused.iter().all(|(_, code)| *code == Code::Abandoned), "{refused:?}");
    let agreed = watcher.rows::<Todo>();
    for (name, made, count, client) in &rows {
        assert_eq!(client.version::<Todo>(), Some(done), "{name}");
        assert_eq!(client.rows::<Todo>(), agreed, "{name}");
        for n in 1..=*made {
            let id = format!("{name} {n}");
            let told = refused.iter().any(|(what, _)| *what == id);
            assert_eq!(client.get::<Todo>(id.as_str())?.is_none(), told, "{id}");
        }
        let last = client.get::<Todo>(name.as_str())?.map(|todo| todo.text);
        let told = refused.iter().any(|(what, _)| *what == format!("{name} = {count}"));
        assert!(told || last == Some(count.to_string()), "{name}: {last:?}, not {count}");
    }
    assert!(cuts.load(Ordering::Relaxed) > 0 && restarts > 0);
    drop((rows, watcher));
    watching.abort();
    match watching.await {
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => Ok(()),
    }
}
