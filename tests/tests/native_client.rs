//! The Rust client against the todo app under real workerd: the browser test's scenario.

use partysync::{Code, Result};
use partysync_client::store::{MemoryStore, SqliteStore, Store};
use partysync_client::{Options, Phase, SyncClient, Update};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use todo_shared::{Todo, TodoAction};

/// `wrangler dev` of the todo app. All its processes end with it.
struct Server {
    child: Option<Child>,
    port: u16,
    data: tempfile::TempDir,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut server = Self { child: None, port, data: tempfile::tempdir().unwrap() };
        server.up();
        server
    }

    fn url(&self, room: &str) -> String {
        format!("ws://127.0.0.1:{}/parties/todos/{room}", self.port)
    }

    fn up(&mut self) {
        let bin = root().join("node_modules/.bin");
        assert!(bin.is_dir(), "npm's packages are missing: run `cargo xtask setup` first");
        let path = std::env::var_os("PATH").unwrap();
        let paths = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
        let mut command = Command::new(bin.join("wrangler"));
        command
            .args(["dev", "--ip", "127.0.0.1", "--inspector-port", "0", "--log-level", "error"])
            .args(["--show-interactive-dev-session=false", "--port", &self.port.to_string()])
            .arg("--persist-to")
            .arg(self.data.path())
            .env("PATH", std::env::join_paths(paths).unwrap())
            .env("WRANGLER_SEND_METRICS", "false")
            .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
            .current_dir(root().join("fixtures/todo-sync"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "the server did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return false;
        };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answer = [0; 12];
        stream.write_all(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").is_ok()
            && std::io::Read::read_exact(&mut stream, &mut answer).is_ok()
            && answer.ends_with(b"200")
    }

    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

type Client = SyncClient<TodoAction>;

fn create(id: &str, text: &str) -> TodoAction {
    TodoAction::Create { id: id.into(), text: text.into(), completed: false }
}

fn texts(client: &Client) -> Vec<String> {
    client.rows::<Todo>().unwrap().into_iter().map(|todo| todo.text).collect()
}

/// The deadline is for failing tests only.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = tokio::time::timeout(Duration::from_secs(60), future).await;
    limit.unwrap_or_else(|_| panic!("did not happen: {what}"))
}

async fn shows(client: &Client, wanted: &[&str]) {
    within(&format!("{wanted:?}"), client.until(|client| texts(client) == wanted)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_tests_scenario() -> Result<()> {
    let mut server = Server::start();
    let a = Client::connect(&server.url("native"))?;
    let b = Client::connect(&server.url("native"))?;
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
    while let Ok(Update { changes, .. }) = updates.try_recv() {
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
    assert_eq!(a.rows::<Todo>()?, b.rows::<Todo>()?);
    assert_eq!(a.version::<Todo>(), b.version::<Todo>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_actions_at_once_arrive_in_order_and_in_few_frames() -> Result<()> {
    let server = Server::start();
    let a = Client::connect(&server.url("many"))?;
    let b = Client::connect(&server.url("many"))?;
    within("both are live", async { a.ready().await.and(b.ready().await) }).await?;
    let mut updates = b.updates();
    let answers: Vec<_> =
        (0..1_000).map(|n| a.send(create(&format!("{n:04}"), &n.to_string()))).collect();
    for answer in answers {
        within("an answer", answer).await?;
    }
    within("all are there", b.until(|b| b.keys("todos").len() == 1_000)).await?;
    let mut patches = 0;
    while let Ok(update) = updates.try_recv() {
        patches += usize::from(update.changes.contains_key("todos"));
    }
    assert!(patches <= 20, "{patches} patches for 1,000 actions");
    assert_eq!(a.rows::<Todo>()?, b.rows::<Todo>()?);
    assert_eq!(a.version::<Todo>(), Some(1_000));
    Ok(())
}

/// What a client leaves in its store another one takes up, before it has a connection and after.
async fn goes_on<S: Store + Send + 'static>(room: &str, store: impl Fn() -> S) -> Result<()> {
    let mut server = Server::start();
    let with = |url: &str| Client::with(url, Options::new(store()));
    let first = with(&server.url(room))?;
    within("live", first.ready()).await?;
    within("an answer", first.send(create("1", "answered"))).await?;
    within("live", first.ready()).await?;
    server.kill();
    let offline = |client: &Client| matches!(client.status().phase, Phase::Offline { .. });
    within("offline", first.until(offline)).await?;
    drop(first.send(create("2", "never sent")));
    within("stored", async {
        while store().load().unwrap().is_none_or(|saved| saved.pending.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // No close: as if the program had been killed.
    drop(first);

    let second = with(&server.url(room))?;
    // Rows and pending actions are there before the socket is.
    assert_eq!(texts(&second), ["answered", "never sent"]);
    assert!(second.is_pending::<Todo>("2") && !second.is_pending::<Todo>("1"));
    server.up();
    within("live", second.ready()).await?;
    assert_eq!(texts(&second), ["answered", "never sent"]);
    assert_eq!(second.version::<Todo>(), Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_from_a_store_in_memory() -> Result<()> {
    let store = MemoryStore::new();
    goes_on("memory", || store.clone()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_from_a_sqlite_file() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replica.sqlite");
    goes_on("sqlite", || SqliteStore::open(&path).unwrap()).await
}
