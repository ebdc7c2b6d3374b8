//! The repository's commands. `cargo xtask help` lists them.

mod bench;
mod build;
mod dev;
mod fixture;
mod fuzz;
mod new;
mod size;
mod test;
mod tools;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use partysync_build::Profile;
use std::path::PathBuf;

const HELP: &str = "\
cargo xtask dev [FIXTURE] [--port N] [--data DIR] [--store STORE] [--release]
    Serves a fixture under workerd: todo-sync on http://127.0.0.1:8787 unless told otherwise. What
    is edited is built anew, and the page is loaded again; --release serves what is deployed.
    Its data stays in DIR, a folder under target/ by default. The fixture `streams` keeps its
    streams in STORE: memory, sqlite (as it is), d1, kv or r2.
cargo xtask new NAME --at DIR
    Writes a new application into DIR, which builds on this checkout.
cargo xtask test [STEP ...]
    Runs every check there is, or only the named steps; `cargo xtask test list` names them.
cargo xtask simulate [--seeds N] [--seed FIRST] [--livestore | --queries]
    Runs N random schedules of faults; one alone with only --seed, as a failure prints it.
cargo xtask simulate --mutations
    Takes each protection out in turn and says after how many schedules that was noticed.
cargo xtask fuzz [TARGET ...] [--seconds N]
    Fuzzes everything that reads bytes from outside, each for N seconds (60); wants nightly.
cargo xtask bench streams [STORE ...]
    How fast streams are on each store, and how many storage operations they take.
cargo xtask bench rooms [--pairs N] [--cases A,B] [--tracing | --no-tracing] [--json FILE]
                        [--svg FILE] [--write-docs] [--profile] [--smoke]
    The todo worker against a baseline in JavaScript on npm's `partyserver`, in N pairs (5) of
    each case; without wrangler's tracing and with it, or only one of the two. Figures go to
    FILE; --write-docs puts them into docs/performance.md. --profile shows where the time of
    one case (frames_of_32) goes; --smoke does everything once and small, and checks it.
cargo xtask bench client [--rounds N] [--json FILE] [--write-docs] [--smoke]
    A client in Chromium, with the processor as it is and made four times slower, and natively:
    loading, sending, taking over, memory, size. Medians of N rounds (5).
cargo xtask bench queries [--write-docs] [--smoke]
    Live queries over an issue tracker, natively and as wasm, beside TanStack DB and Rindle.
cargo xtask bench livestore [--pairs N] [--cases A,B] [--json FILE] [--write-docs] [--smoke]
    The LiveStore backend against LiveStore's own, in N pairs (5) of each case.
cargo xtask bench visible
    What it costs that each of 1, 100 and 1,000 connections sees other rows.
cargo xtask bench lighthouse
    What Lighthouse says of the pages of todo-sync and board: less than 95 is an error.
cargo xtask build [FIXTURE]
    Builds a fixture for `wrangler dev` and `wrangler deploy`.
cargo xtask size [FIXTURE] [--page] [--rows N]
    What a fixture's worker, or its page, is made of, in bytes: by section, by crate, and the N largest
    functions (30).
cargo xtask setup
    Installs what the other commands need, as they do themselves.
";

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    partysync_build::process::watch_for_stop()?;
    let mut arguments = lexopt::Parser::from_env();
    let command = match arguments.next()? {
        Some(Value(command)) => command.string()?,
        Some(Long("help") | Short('h')) | None => "help".to_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "help" => print!("{HELP}"),
        "dev" => {
            let (mut name, mut port, mut data) = ("todo-sync".to_owned(), 8787, None);
            let (mut vars, mut profile) = (Vec::new(), Profile::Dev);
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("port") => port = arguments.value()?.parse()?,
                    Long("release") => profile = Profile::Release,
                    Long("data") => data = Some(PathBuf::from(arguments.value()?)),
                    Long("store") => vars.push(store(&arguments.value()?.string()?)?),
                    Value(value) => name = value.string()?,
                    other => return Err(other.unexpected().into()),
                }
            }
            if name == "streams" {
                // Webhooks of what is developed here go to this machine.
                vars.push("LOCAL_WEBHOOKS:yes".to_owned());
            } else if !vars.is_empty() {
                bail!("only the fixture `streams` has stores to choose from");
            }
            dev::dev(&fixture::find(&name)?, port, data, &vars, profile)?;
        }
        "new" => {
            let (mut name, mut folder) = (None, None);
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("at") => folder = Some(PathBuf::from(arguments.value()?)),
                    Value(value) if name.is_none() => name = Some(value.string()?),
                    other => return Err(other.unexpected().into()),
                }
            }
            let (Some(name), Some(folder)) = (name, folder) else {
                bail!("what is it called, and where is it to be? `cargo xtask new NAME --at DIR`");
            };
            new::new(&name, &std::path::absolute(folder)?)?;
        }
        "bench" => match arguments.next()? {
            Some(Value(what)) if what == "streams" => bench::streams(&rest(&mut arguments)?)?,
            Some(Value(what)) if what == "rooms" => bench::rooms(arguments.raw_args()?)?,
            Some(Value(what)) if what == "client" => bench::client(arguments.raw_args()?)?,
            Some(Value(what)) if what == "livestore" => bench::livestore(arguments.raw_args()?)?,
            Some(Value(what)) if what == "queries" => bench::queries(arguments.raw_args()?)?,
            Some(Value(what)) if what == "visible" => bench::visible()?,
            Some(Value(what)) if what == "lighthouse" => bench::lighthouse()?,
            _ => bail!(
                "the benchmarks are `cargo xtask bench streams`, `rooms`, `client`, `livestore`, \
                 `queries`, `visible` and `lighthouse`"
            ),
        },
        "build" => {
            let name = rest(&mut arguments)?.into_iter().next().unwrap_or("todo-sync".to_owned());
            build::build_for_wrangler(&fixture::find(&name)?)?;
        }
        "size" => {
            let (mut name, mut page, mut rows) = ("todo-sync".to_owned(), false, 30);
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("page") => page = true,
                    Long("rows") => rows = arguments.value()?.parse()?,
                    Value(value) => name = value.string()?,
                    other => return Err(other.unexpected().into()),
                }
            }
            size::size(&fixture::find(&name)?, page, rows)?;
        }
        "setup" => tools::set_up().map(drop)?,
        "simulate" => test::simulate(
            arguments.raw_args()?.map(|a| a.string()).collect::<Result<Vec<_>, _>>()?,
        )?,
        "fuzz" => {
            let (mut names, mut seconds) = (Vec::new(), 60);
            while let Some(argument) = arguments.next()? {
                match argument {
                    Long("seconds") => seconds = arguments.value()?.parse()?,
                    Value(value) => names.push(value.string()?),
                    other => return Err(other.unexpected().into()),
                }
            }
            fuzz::fuzz(&names, seconds)?;
        }
        "test" => test::test(&rest(&mut arguments)?)?,
        other => bail!("there is no command `{other}`\n\n{HELP}"),
    }
    Ok(())
}

/// The variable that chooses a store of the fixture `streams`.
fn store(name: &str) -> Result<String> {
    const STORES: [&str; 5] = ["memory", "sqlite", "d1", "kv", "r2"];
    if !STORES.contains(&name) {
        bail!("there is no store `{name}`; there are: {}", STORES.join(", "));
    }
    Ok(format!("STORE:{name}"))
}

fn rest(arguments: &mut lexopt::Parser) -> Result<Vec<String>> {
    let mut values = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(value) => values.push(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(values)
}

/// The repository's folder.
fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
    Ok(PathBuf::from(manifest).parent().context("xtask has a folder above")?.to_owned())
}

/// The folder that everything is built into.
fn target() -> Result<PathBuf> {
    Ok(root()?.join("target"))
}
