//! The benchmarks: streams on their stores, rooms and LiveStore's backends against others, a client,
//! views, and pages.

use crate::test::cargo_command;
use crate::tools::{CHROMIUM, livestore_packages, set_up};
use crate::{build, fixture, root, target};
use anyhow::Result;
use partysync_build::npm_packages;
use partysync_build::process::run;
use std::ffi::OsString;

/// Measures streams on these stores, or on all, and counts storage operations.
pub(crate) fn streams(stores: &[String]) -> Result<()> {
    let tools = set_up()?;
    build::build(&fixture::find("streams")?)?;
    let native = ["build", "--quiet", "--release", "--package", "partysync-rs"];
    run(cargo_command(&native)?.args(["--features", "axum", "--example", "streams"]))?;
    let count = ["run", "--quiet", "--package", "partysync-tests", "--bin", "count-streams"];
    run(&mut cargo_command(&count)?)?;
    let script = root()?.join("tests/bench/streams.mjs");
    let mut command = tools.command(tools.node())?;
    command.arg(script).args(stores).env("STREAMS_PROFILE", "release");
    run(command.current_dir(root()?))
}

/// Measures rooms; the script reads the arguments, so that files are where the caller is.
pub(crate) fn rooms(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let fixture = fixture::find("todo-sync")?;
    // A profile wants the names of functions, which are not deployed.
    let profile = arguments.iter().any(|argument| argument == "--profile");
    let tools = match profile {
        true => build::build_with_names(&fixture)?,
        false => build::build(&fixture)?,
    };
    let script = root()?.join("tests/bench/rooms.mjs");
    let measured = run(tools.command(tools.node())?.arg(script).args(arguments));
    if profile {
        build::forget(&fixture)?;
    }
    measured
}

/// Measures a LiveStore backend beside LiveStore's own.
pub(crate) fn livestore(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let tools = build::build(&fixture::find("bench-livestore")?)?;
    livestore_packages()?;
    let script = root()?.join("tests/bench/livestore.mjs");
    run(tools.command(tools.node())?.arg(script).args(arguments))
}

/// Measures live queries beside those of other libraries.
pub(crate) fn queries(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let tools = set_up()?;
    npm_packages(&root()?.join("tests/bench/queries"))?;
    let page = build::queries_page(&tools)?;
    // What is run a million times is built to be fast; the page is built as pages are.
    let native = ["build", "--quiet", "--profile", "simulation", "--package", "bench-queries"];
    run(&mut cargo_command(&native)?)?;
    let script = root()?.join("tests/bench/queries.mjs");
    let mut command = tools.command(tools.node())?;
    command.arg(script).args(arguments).env("BENCH_PAGE", page);
    command.env("BENCH_MANY", target()?.join("simulation/bench-many"));
    command.env(CHROMIUM.variable, CHROMIUM.find(&tools)?);
    run(command.env("BENCH_NATIVE", target()?.join("simulation/bench-queries")))
}

/// Measures a client, in a browser and natively.
pub(crate) fn client(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let tools = build::build(&fixture::find("todo-sync")?)?;
    let page = build::lab_page(&tools)?;
    // The profile of what is run a million times: a release build is made to be small.
    let native = ["build", "--quiet", "--profile", "simulation"];
    let package = ["--package", "partysync-tests", "--bin", "bench-client"];
    run(cargo_command(&native)?.args(package))?;
    let script = root()?.join("tests/bench/client.mjs");
    let mut command = tools.command(tools.node())?;
    command.arg(script).args(arguments).env("BENCH_PAGE", page);
    command.env(CHROMIUM.variable, CHROMIUM.find(&tools)?);
    run(command.env("BENCH_NATIVE", target()?.join("simulation/bench-client")))
}

/// Measures what it costs that each of many sees other rows.
pub(crate) fn visible() -> Result<()> {
    let package = ["--package", "partysync-tests", "--bin", "bench-visible"];
    let native = ["run", "--quiet", "--profile", "simulation"];
    run(cargo_command(&native)?.args(package))
}

/// Asks Lighthouse what it says of the pages.
pub(crate) fn lighthouse() -> Result<()> {
    build::build(&fixture::find("board")?)?;
    let tools = build::build(&fixture::find("todo-sync")?)?;
    let script = root()?.join("tests/bench/lighthouse.mjs");
    let mut command = tools.command(tools.node())?;
    command.env(CHROMIUM.variable, CHROMIUM.find(&tools)?);
    run(command.arg(script))
}
