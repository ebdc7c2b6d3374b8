//! Fuzzing of everything that reads bytes from outside: `tests/fuzz`, with cargo-fuzz on nightly.

use crate::{root, target};
use anyhow::{Context, Result, bail};
use partysync_build::process::{output, run, step};
use std::process::Command;

/// Runs one target, or each in turn, for so many seconds each. New inputs are kept under
/// `target/`; one that breaks something is written to `target/fuzz/found`.
pub(crate) fn fuzz(names: &[String], seconds: u32) -> Result<()> {
    let folder = root()?.join("tests/fuzz");
    let mut all: Vec<String> = std::fs::read_dir(folder.join("corpus"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    all.sort();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target `{unknown}`: it is one of {}", all.join(", "));
    }
    nightly(&["--version"]).context("fuzzing needs nightly: rustup toolchain install nightly")?;
    let program = cargo_fuzz()?;
    let targets = target()?.join("fuzz");
    for name in if names.is_empty() { &all } else { names } {
        let (grown, found) = (targets.join("corpus").join(name), targets.join("found"));
        std::fs::create_dir_all(&grown)?;
        std::fs::create_dir_all(&found)?;
        step(&format!("fuzz {name} for {seconds} s"), || {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly"]).arg(&program).args(["fuzz", "run", "--release"]);
            // The libraries hold no unsafe code: sanitizers would only cost time.
            command.args(["--sanitizer", "none", "--fuzz-dir"]).arg(&folder).arg(name);
            command.arg(&grown).arg(folder.join("corpus").join(name)).arg("--");
            command.arg(format!("-dict={}", folder.join("json.dict").display()));
            command.arg(format!("-artifact_prefix={}/{name}-", found.display()));
            command.args([&format!("-max_total_time={seconds}"), "-max_len=4096", "-timeout=20"]);
            // No input may make a room, or whatever reads it, large.
            command.args(["-rss_limit_mb=512", "-malloc_limit_mb=64"]);
            run(command.env("CARGO_TARGET_DIR", &targets).env_remove("RUSTFLAGS"))
        })?;
    }
    Ok(())
}

fn nightly(arguments: &[&str]) -> Result<String> {
    output(Command::new("rustup").args(["run", "nightly", "cargo"]).args(arguments))
}

/// cargo-fuzz: the one that is installed, or one under `target/`.
fn cargo_fuzz() -> Result<std::path::PathBuf> {
    if nightly(&["fuzz", "--version"]).is_ok() {
        return Ok("cargo-fuzz".into());
    }
    let tools = target()?.join("tools/cargo-fuzz");
    let program = tools.join("bin/cargo-fuzz");
    if !program.is_file() {
        step("install cargo-fuzz", || {
            let mut command = Command::new(env!("CARGO"));
            run(command.args(["install", "cargo-fuzz", "--root"]).arg(&tools))
        })?;
    }
    Ok(program)
}
