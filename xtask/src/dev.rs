//! Serving a fixture under workerd until it is told to stop.

use crate::fixture::Fixture;
use crate::{build, target};
use anyhow::{Context, Result, bail};
use partysync_build::process::{Server, is_stopped, step};
use partysync_build::{Profile, Tools};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Builds and serves; returns when Ctrl-C or SIGTERM came, with all children ended.
pub(crate) fn dev(
    fixture: &Fixture,
    port: u16,
    data: Option<PathBuf>,
    vars: &[String],
    profile: Profile,
) -> Result<()> {
    let tools = build::build_as(fixture, profile)?;
    // Wrangler would take another port, and that is not the one that was asked for.
    drop(
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("port {port} is taken: choose another with --port"))?,
    );
    let data = match data {
        Some(data) => std::path::absolute(data)?,
        None => target()?.join("data").join(&fixture.name),
    };
    let mut command = wrangler(&tools, fixture, port, &data)?;
    for var in vars {
        command.args(["--var", var]);
    }
    match profile {
        Profile::Dev => command.arg("--live-reload"),
        Profile::Release | Profile::Names => command.env("PARTYSYNC_PROFILE", "release"),
    };
    let mut server = step("start workerd", || {
        let mut server = Server::start(&mut command)?;
        while !is_ready(port) {
            if is_stopped() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(50));
            if server.has_ended()? {
                bail!("wrangler ended: see what it printed above");
            }
        }
        Ok(Some(server))
    })?;
    let Some(server) = &mut server else { return Ok(()) };
    eprintln!("\n    {} is on http://127.0.0.1:{port}  (Ctrl-C stops it)\n", fixture.name);
    while !is_stopped() {
        std::thread::sleep(Duration::from_millis(100));
        if server.has_ended()? {
            bail!("wrangler ended by itself");
        }
    }
    eprintln!("stopping");
    Ok(())
}

/// `wrangler dev` of a fixture.
pub(crate) fn wrangler(
    tools: &Tools,
    fixture: &Fixture,
    port: u16,
    data: &Path,
) -> Result<Command> {
    let mut command = tools.script("wrangler/bin/wrangler.js")?;
    command
        .args(["dev", "--ip", "127.0.0.1", "--show-interactive-dev-session=false"])
        .args(["--port", &port.to_string(), "--inspector-port", "0", "--log-level", "warn"])
        .arg("--persist-to")
        .arg(data)
        .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
        .stdin(std::process::Stdio::null())
        .current_dir(&fixture.folder);
    Ok(command)
}

/// Whether a GET of `/` is answered with 200.
fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let request = "GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
    let mut answer = [0; 12];
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}
