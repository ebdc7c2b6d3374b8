//! Running other programs: steps that say what they do and how long it took, and programs that end
//! with their handle.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Does something and says so on standard error, with the time it took.
///
/// # Errors
/// That of the body, with what was done as its context.
pub fn step<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
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
///
/// # Errors
/// The handler is set already, or cannot be.
pub fn watch_for_stop() -> Result<()> {
    ctrlc::set_handler(|| STOPPED.store(true, Ordering::SeqCst))?;
    Ok(())
}

/// Whether Ctrl-C or SIGTERM came since [`watch_for_stop`].
pub fn is_stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}

/// Runs a command to its end; it must succeed.
///
/// # Errors
/// It could not start, did not succeed, or we were told to stop.
pub fn run(command: &mut Command) -> Result<()> {
    let status = Server::start(command)?.wait()?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end, and shows what it printed only if it does not succeed.
///
/// # Errors
/// It could not start, or did not succeed.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} could not start"))?;
    if !output.status.success() {
        for said in [&output.stdout, &output.stderr] {
            std::io::stderr().write_all(said)?;
        }
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(())
}

/// What a compiler said before it failed.
#[derive(Debug)]
pub struct Failed {
    /// Its standard error, without colours.
    pub output: String,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it does not compile: see above")
    }
}

impl std::error::Error for Failed {}

/// Runs a command to its end, and shows its standard error as it comes.
///
/// # Errors
/// As for [`run`]; where it did not succeed, a [`Failed`] with what it printed.
pub fn run_and_listen(command: &mut Command) -> Result<()> {
    let mut server = Server::start(command.stderr(Stdio::piped()))?;
    let stderr = server.child.stderr.take();
    let listener = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut lines = BufReader::new(stderr?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // Who listens to us may be gone.
            let _ = std::io::stderr().write_all(&line);
            all.append(&mut line);
        }
        Some(all)
    });
    let status = server.wait()?;
    // A process that it started may hold the pipe: they end with the group.
    drop(server);
    let said = listener.join().ok().flatten().unwrap_or_default();
    if !status.success() {
        return Err(Failed { output: without_colours(&String::from_utf8_lossy(&said)) }.into());
    }
    Ok(())
}

/// A text without the escape sequences that colour it.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain + part.get(end..).unwrap_or_default()
    })
}

/// Runs a command to its end and returns what it printed; it must succeed.
///
/// # Errors
/// It could not start, or did not succeed.
pub fn output(command: &mut Command) -> Result<String> {
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
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it in a process group of its own, so that a Ctrl-C reaches it through us.
    ///
    /// # Errors
    /// It could not start.
    pub fn start(command: &mut Command) -> Result<Self> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let child = command.spawn().with_context(|| format!("{command:?} could not start"))?;
        Ok(Self { child })
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// The system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// We were told to stop, or the system does not say.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.wait_while(|| true)
    }

    /// Waits for its end, for as long as it is wanted.
    ///
    /// # Errors
    /// It is not wanted any more, we were told to stop, or the system does not say.
    pub fn wait_while(&mut self, wanted: impl Fn() -> bool) -> Result<ExitStatus> {
        loop {
            if is_stopped() || !wanted() {
                bail!("stopped");
            }
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
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
        // There a program's own children do not end with it.
        #[cfg(windows)]
        let _ = Command::new("taskkill")
            .args(["/T", "/F", "/PID", &self.child.id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_said_has_no_colours() {
        let said = "\x1b[1m\x1b[38;5;9merror\x1b[0m: no `x`\n\x1b[1m --> \x1b[0ma.rs:1\x1b[";
        assert_eq!(without_colours(said), "error: no `x`\n --> a.rs:1");
    }

    #[test]
    fn a_command_that_fails_says_what_it_said() {
        let mut command = Command::new(env!("CARGO"));
        let error = run_and_listen(command.arg("no-such-command-at-all")).unwrap_err();
        let failed = error.downcast_ref::<Failed>().unwrap();
        assert!(failed.output.contains("no-such-command-at-all"), "{}", failed.output);
    }
}
