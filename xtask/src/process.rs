//! Running other programs: steps that say what they do and how long it took, and servers that
//! end with their handle.

use anyhow::{Context, Result, bail};
use std::io::IsTerminal;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Does something and says so, with the time it took.
pub(crate) fn step<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let (bold, dim, plain) = if std::io::stderr().is_terminal() {
        ("\x1b[1m", "\x1b[2m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    eprintln!("{bold}==> {what}{plain}");
    let start = Instant::now();
    let result = body().with_context(|| what.to_owned());
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(_) => eprintln!("{dim}    done: {what} ({seconds:.1} s){plain}"),
        Err(_) => eprintln!("    failed: {what} ({seconds:.1} s)"),
    }
    result
}

/// Set when Ctrl-C or SIGTERM came.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and SIGTERM end what is running, with all that it started.
pub(crate) fn watch_for_stop() -> Result<()> {
    ctrlc::set_handler(|| STOPPED.store(true, Ordering::SeqCst))?;
    Ok(())
}

/// Whether we were told to stop.
pub(crate) fn is_stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// Runs a command to its end; it must succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let mut server = Server::start(command)?;
    let status = loop {
        if is_stopped() {
            bail!("stopped");
        }
        if let Some(status) = server.child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end and returns what it printed; it must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{command:?} could not start"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program with all the processes it starts. They end when it is dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts it in a process group of its own, so that a Ctrl-C reaches it through us.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let child = command.spawn().with_context(|| format!("{command:?} could not start"))?;
        Ok(Self { child })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    #[cfg(unix)]
    fn signal(&self, signal: nix::sys::signal::Signal) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        // The group may be gone already.
        let _ = nix::sys::signal::killpg(group, signal);
    }

    fn stop(&mut self) {
        #[cfg(unix)]
        {
            self.signal(nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Whatever of the group is left.
            self.signal(nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
