//! Workers under real workerd, for tests of native clients.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// `wrangler dev` of a worker. All its processes end with it.
#[derive(Debug)]
pub struct Server {
    /// The fixture's folder.
    fixture: &'static str,
    /// The party of its rooms.
    party: &'static str,
    child: Option<Child>,
    port: u16,
    data: tempfile::TempDir,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A port below those that the system gives out: nobody gets it between here and its use.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 200).unwrap() * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// The todo app on a port and a data folder of its own.
    #[must_use]
    pub fn start() -> Self {
        Self::of("fixtures/todo-sync", "todos")
    }

    /// The tests' own worker.
    #[must_use]
    pub fn lab() -> Self {
        Self::of("tests/lab", "lab")
    }

    fn of(fixture: &'static str, party: &'static str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut server = Self { fixture, party, child: None, port: free_port(), data };
        server.up();
        server
    }

    /// The WebSocket URL of a room.
    #[must_use]
    pub fn url(&self, room: &str) -> String {
        format!("ws://127.0.0.1:{}/parties/{}/{room}", self.port, self.party)
    }

    /// Starts it again, on the data that it left.
    pub fn up(&mut self) {
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
            // What is deployed, and built already.
            .env("PARTYSYNC_PROFILE", "release")
            .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
            .current_dir(root().join(self.fixture))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.is_ready() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert_eq!(ended, None, "the server ended");
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

    /// Kills all its processes at once; the data stays.
    pub fn kill(&mut self) {
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
