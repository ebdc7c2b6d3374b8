//! Every check there is, in steps.

use crate::tools::{CHROMIUM, FIREFOX, livestore_packages, set_up};
use crate::{build, fixture, root};
use anyhow::{Context, Result, bail, ensure};
use partysync_build::process::{Server, output, run, step};
use partysync_build::{Tools, WASM, add_target};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

const WINDOWS: &str = "x86_64-pc-windows-gnu";

type Step = (&'static str, &'static str, fn(&Tools) -> Result<()>);

const STEPS: [Step; 10] = [
    ("fmt", "formatting", fmt),
    ("lint", "clippy: every crate, target and feature alone", lint),
    ("doc", "the documentation builds without warnings", doc),
    ("build", "fixtures build, and are as small as they are to be", build),
    ("deploy", "wrangler would deploy them", deploy),
    ("cargo", "cargo test: unit, doc, trybuild, property, native client", cargo),
    ("simulate", "10,000 schedules of faults: rooms, LiveStore's stores, live queries", |_| {
        run(mutable()?.args(["--seeds", "10000"]))?;
        run(mutable()?.args(["--livestore", "--seeds", "10000"]))?;
        // They ask more than 100,000 queries.
        run(mutable()?.args(["--queries", "--seeds", "12000"]))
    }),
    ("mutations", "the simulation notices each protection that is missing", |_| mutations()),
    ("e2e", "workerd, browser and TypeScript clients", e2e),
    ("streams", "the conformance suite of Durable Streams on every store", streams),
];

/// The steps that compute and nothing else: what waits for servers and browsers leaves them a
/// processor.
const ASIDE: [&str; 2] = ["simulate", "mutations"];

/// These steps, in a program of their own that gives way to others.
struct Aside {
    program: Server,
    printed: PathBuf,
}

impl Aside {
    fn start() -> Result<Self> {
        let printed = crate::target()?.join("aside.log");
        let file = std::fs::File::create(&printed)?;
        let this = std::env::current_exe()?;
        let mut command = if cfg!(unix) {
            let mut nice = Command::new("nice");
            nice.args(["-n", "19"]).arg(this);
            nice
        } else {
            Command::new(this)
        };
        command.arg("test").args(ASIDE).stdout(file.try_clone()?).stderr(file);
        eprintln!("==> beside what follows: {}", ASIDE.join(", "));
        Ok(Self { program: Server::start(&mut command)?, printed })
    }

    /// Waits for their end, and prints what they did.
    fn finish(mut self) -> Result<()> {
        let status = self.program.wait()?;
        eprint!("{}", std::fs::read_to_string(&self.printed)?);
        ensure!(status.success(), "{} ended with {status}", ASIDE.join(", "));
        Ok(())
    }
}

/// Runs the named steps; all of them without a name.
pub(crate) fn test(names: &[String]) -> Result<()> {
    if names.iter().any(|name| name == "list") {
        for (name, what, _) in STEPS {
            println!("{name:8}{what}");
        }
        return Ok(());
    }
    if let Some(unknown) = names.iter().find(|name| !STEPS.iter().any(|(step, ..)| step == name)) {
        bail!("there is no step `{unknown}`: `cargo xtask test list` names them");
    }
    let start = Instant::now();
    let tools = set_up()?;
    let (mut count, mut compiled, mut aside) = (0, None, None);
    for (name, what, body) in STEPS {
        let all = names.is_empty();
        if all && ASIDE.contains(&name) {
            continue;
        }
        if !all && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        if all && name == "build" {
            // What is linked for wasm leaves a processor to compile the tests.
            compiled = Some(std::thread::spawn(|| run(natively("test")?.arg("--no-run"))));
        }
        if all && name == "e2e" {
            aside = Some(Aside::start()?);
        }
        step(&format!("{name}: {what}"), || body(&tools))?;
        if all && name == "doc" && std::env::var_os("CI").is_some() {
            // It serves nothing else, and disks are small there.
            std::fs::remove_dir_all(crate::target()?.join("lint-wasm"))?;
        }
        if let Some(tests) = compiled.take() {
            tests.join().unwrap_or_else(|_| bail!("the thread that compiles has panicked"))?;
        }
        count += 1;
    }
    if let Some(aside) = aside {
        aside.finish()?;
        count += ASIDE.len();
    }
    eprintln!("all {count} steps passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

pub(crate) fn cargo_command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root()?);
    Ok(command)
}

fn fmt(_: &Tools) -> Result<()> {
    run(&mut cargo_command(&["fmt", "--all", "--check"])?)
}

/// Clippy with these arguments and variables; a warning is an error.
fn clippy(arguments: &[&str], variables: &[(&str, &PathBuf)]) -> Result<()> {
    let mut command = cargo_command(&["clippy", "--quiet"])?;
    command.envs(variables.iter().copied());
    run(command.args(arguments).args(["--", "-D", "warnings"]))
}

fn lint(_: &Tools) -> Result<()> {
    // A crate is linted by one thread: two at a time, in folders of their own, take half as long.
    std::thread::scope(|scope| {
        let wasm = scope.spawn(lint_wasm);
        let native = lint_native();
        wasm.join().unwrap_or_else(|_| bail!("the thread that lints for wasm has panicked"))?;
        native
    })
}

/// Packages that users have, with their features.
const LIBRARIES: [&str; 3] = ["partysync-rs", "partysync-client", "partysync-macros"];
/// Features that are there only together.
const TOGETHER: &str = "livestore,streams,worker";

/// What is for browsers only.
const PAGES: [&str; 5] = ["board-web", "todo-web", "todo-yew", "login-web", "rendered-web"];

fn lint_native() -> Result<()> {
    let pages = PAGES.map(|page| ["--exclude", page]).concat();
    clippy(&[&["--workspace", "--all-targets"], &pages[..]].concat(), &[])?;
    for package in LIBRARIES {
        for feature in features_alone(package)? {
            clippy(&library(package, &feature), &[])?;
        }
    }
    clippy(&library("partysync-rs", TOGETHER), &[])?;
    // What builds applications does so on Windows, too.
    add_target(WINDOWS)?;
    clippy(&["--target", WINDOWS, "--package", "partysync-build", "--package", "xtask"], &[])
}

/// What a Durable Object or a page is made of.
fn lint_wasm() -> Result<()> {
    let folder = crate::target()?.join("lint-wasm");
    let wasm = |arguments: &[&str]| {
        clippy(&[&["--target", WASM], arguments].concat(), &[("CARGO_TARGET_DIR", &folder)])
    };
    let workers = [
        "todo-worker",
        "board-worker",
        "lab-worker",
        "login-worker",
        "streams-worker",
        "livestore-sync-worker",
        "rendered-worker",
        "versions-web",
        "versions-worker",
        "bench-livestore-worker",
        "bench-queries",
    ];
    wasm(&workers.map(|worker| ["--package", worker]).concat())?;
    for page in PAGES {
        wasm(&["--package", page])?;
    }
    for package in LIBRARIES.iter().filter(|package| **package != "partysync-macros") {
        for feature in features_alone(package)? {
            if !matches!(&*feature, "native" | "sqlite" | "testing" | "axum") {
                wasm(&library(package, &feature))?;
            }
        }
    }
    wasm(&library("partysync-rs", TOGETHER))
}

/// The arguments for a library with these features and no others.
fn library<'a>(package: &'a str, features: &'a str) -> [&'a str; 6] {
    ["--package", package, "--lib", "--no-default-features", "--features", features]
}

/// No feature of a package, and each of them.
fn features_alone(package: &str) -> Result<Vec<String>> {
    let features = features(package)?.into_iter().filter(|name| name != "default");
    Ok(std::iter::once(String::new()).chain(features).collect())
}

/// The features of a package of the workspace.
fn features(package: &str) -> Result<Vec<String>> {
    let json = output(&mut cargo_command(&["metadata", "--no-deps", "--format-version", "1"])?)?;
    let metadata: serde_json::Value = serde_json::from_str(&json)?;
    let packages = metadata.get("packages").and_then(|packages| packages.as_array());
    let found =
        packages.into_iter().flatten().find(|p| p.get("name").is_some_and(|n| n == package));
    let features = found.and_then(|p| p.get("features")).and_then(|f| f.as_object());
    Ok(features.with_context(|| format!("no package `{package}`"))?.keys().cloned().collect())
}

/// As docs.rs builds it: every feature, and what is for browsers.
fn doc(_: &Tools) -> Result<()> {
    let doc = |arguments: &[&str]| -> Result<Command> {
        let mut command = cargo_command(&["doc", "--quiet", "--no-deps", "--all-features"])?;
        command.args(arguments).env("RUSTDOCFLAGS", "-D warnings");
        Ok(command)
    };
    let build = ["--package", "partysync-build"];
    let packages = LIBRARIES.map(|package| ["--package", package]).concat();
    run(&mut doc(&[&packages[..], &build].concat())?)?;
    let mut command = doc(&["--package", "partysync-client", "--target", WASM])?;
    // What the lints have checked is there already.
    run(command.env("CARGO_TARGET_DIR", crate::target()?.join("lint-wasm")))
}

/// What a fixture's worker and page may weigh, KiB gzipped: a few percent above what they do.
const BUDGETS: [(&str, u64, u64); 3] =
    [("todo-sync", 344, 478), ("livestore-sync", 492, 0), ("board", 694, 694)];

/// The fixtures that are deployed.
const FIXTURES: [&str; 4] = ["todo-sync", "streams", "livestore-sync", "board"];

fn build(_: &Tools) -> Result<()> {
    build::build(&fixture::find("lab")?)?;
    build::build(&fixture::find("login")?)?;
    build::build(&fixture::find("rendered")?)?;
    build::build(&fixture::find("versions")?)?;
    for name in FIXTURES {
        let fixture = fixture::find(name)?;
        build::build(&fixture)?;
        if let Some((_, worker, page)) = BUDGETS.iter().find(|(budget, ..)| *budget == name) {
            build::within_budget(&fixture, *worker, *page)?;
        }
    }
    Ok(())
}

fn deploy(tools: &Tools) -> Result<()> {
    for name in FIXTURES {
        let fixture = fixture::find(name)?;
        build::build(&fixture)?;
        // As a user would: npx in the fixture's folder. It prints the size.
        run(tools
            .command("npx")?
            .args(["wrangler", "deploy", "--dry-run", "--outdir"])
            .arg(crate::target()?.join("dry-run").join(name))
            .current_dir(&fixture.folder))?;
    }
    Ok(())
}

fn cargo(_: &Tools) -> Result<()> {
    run(&mut natively("test")?)?;
    // Of its own: Leptos has other features where it renders on a server.
    run(cargo_command(&["test", "--quiet", "--package", "leptos-tests"])?
        .env("RUST_BACKTRACE", "0"))
}

/// A command for all that is tested natively, with all features at once: what one package is built
/// of is not built again for the next.
fn natively(command: &str) -> Result<Command> {
    let packages = [
        "partysync-macros",
        "partysync-rs",
        "partysync-client",
        "partysync-build",
        "partysync-simulation",
        "board-worker",
        "login-worker",
        "todo-terminal",
        "todo-worker",
        "partysync-tests",
        "guide-tests",
        "xtask",
    ];
    let features = [
        "partysync-rs/worker",
        "partysync-rs/testing",
        "partysync-rs/axum",
        "partysync-rs/livestore",
        "partysync-rs/chrono",
        "partysync-rs/time",
        "partysync-rs/decimal",
        "partysync-rs/cron",
        "partysync-client/devtools",
        "partysync-client/native",
        "partysync-client/leptos",
    ];
    let mut command = cargo_command(&[command, "--quiet", "--features", &features.join(",")])?;
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    Ok(command)
}

/// The simulation with nothing missing, from which a variable takes one protection.
fn mutable() -> Result<Command> {
    let mut command = cargo_command(&SIMULATION)?;
    // A folder of its own: the flag would have everything else built anew.
    command.env("CARGO_TARGET_DIR", crate::target()?.join("mutations"));
    command.env("RUSTFLAGS", "--cfg partysync_mutations").env_remove("PARTYSYNC_MUTATION");
    Ok(command)
}

const SIMULATION: [&str; 7] =
    ["run", "--quiet", "--profile", "simulation", "--package", "partysync-simulation", "--"];

/// Runs the simulation with these arguments.
pub(crate) fn simulate(arguments: impl IntoIterator<Item = String>) -> Result<()> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    if arguments == ["--mutations"] {
        return mutations();
    }
    run(cargo_command(&SIMULATION)?.args(arguments))
}

/// What the simulation has to notice the lack of.
const PROTECTIONS: [&str; 60] = [
    // The client's and the room's.
    "dedupe",
    "version",
    "outbox",
    "tombstones",
    "transaction",
    // The room's machine: an action that failed when it had written is taken back, also one of
    // several in a transaction; a turn that failed is; a client's seq is written; a snapshot is
    // followed by what changed meanwhile; a page that is lost is missed; the log keeps the last
    // change of a row; a migration goes on where it was; a job is done once, and known after a sleep;
    // a handle says that something is written when it is, and what a hook begins waits for its commit;
    // the result of an action is kept, and only forgotten when its client has heard it.
    "compact",
    "group",
    "abort",
    "seq",
    "floor",
    "page",
    "forgotten",
    "pushed_at",
    "stored",
    "reopen",
    "footprint",
    "migration",
    "settled",
    "job",
    "job_asleep",
    "begun",
    "kept",
    "result",
    "result_heard",
    // Who is here: it is said again on a new connection, and known after a sleep; whoever goes, or is
    // silent, is told of; a client that comes again is one still.
    "presence_again",
    "presence_gone",
    "presence_replace",
    "presence_silent",
    "presence_wake",
    // Who sees what: a key is told to those who saw its row, whenever that was since they have rows;
    // the log keeps who did; what was seen by another view is no use; and views are looked at again.
    "visible_before",
    "visible_compact",
    "visible_since",
    "visible_token",
    "visible_review",
    // LiveStore's: an event is sent once; a push goes on from the head; the log is looked at when
    // a push may be in it; what sleeps, or is called, goes on where it was.
    "livestore_ahead",
    "livestore_behind",
    "livestore_grace",
    "livestore_load",
    "livestore_lost",
    "livestore_once",
    "livestore_pushing",
    "livestore_slept",
    "livestore_subscriber",
    "livestore_upto",
    // An event-sourced room's: what is missing is pulled; its own events are known when they come
    // back, also in a log that goes on under another id; what comes before them has them taken back.
    "livestore_room_gap",
    "livestore_room_known",
    "livestore_room_own",
    "livestore_room_undo",
    // A live query's: what is known of a result has a bound, and is filled up; rows that are related
    // are looked at when what they are related to changes, once; indexes, counts and sums forget.
    "query_after",
    "query_bound",
    "query_count",
    "query_fresh",
    "query_index",
    "query_moved",
    "query_part",
    "query_refill",
    "query_reset",
    "query_show",
    "query_totals",
    "query_touched",
];

/// Runs the simulation once for each protection, built without it: each run has to fail.
fn mutations() -> Result<()> {
    for protection in PROTECTIONS {
        let mut command = mutable()?;
        command
            .args(["--seeds", "20000"])
            .args(protection.starts_with("livestore").then_some("--livestore"))
            .args(protection.starts_with("query").then_some("--queries"))
            .env("PARTYSYNC_MUTATION", protection);
        let result = command.output()?;
        let printed = String::from_utf8_lossy(&result.stdout);
        let seed = printed.split_once("\nseed ").and_then(|(_, rest)| rest.split_once(" fails: "));
        match seed {
            Some((seed, why)) if !result.status.success() => {
                let why = why.lines().next().unwrap_or_default();
                let why: String = why.chars().take(100).collect();
                eprintln!("    without {protection}: seed {seed} fails: {why}");
            }
            _ => {
                let errors = String::from_utf8_lossy(&result.stderr);
                bail!("without {protection} 20,000 schedules notice nothing\n{printed}{errors}");
            }
        }
    }
    Ok(())
}

fn streams(tools: &Tools) -> Result<()> {
    native_examples()?;
    let script = root()?.join("tests/e2e/conformance/run.mjs");
    run(tools.command(tools.node())?.arg(script).current_dir(root()?))
}

/// Builds the native server of streams, and the codec, that tests start.
fn native_examples() -> Result<()> {
    run(natively("build")?.args(["--example", "streams", "--example", "msgpack"]))
}

fn e2e(tools: &Tools) -> Result<()> {
    native_examples()?;
    livestore_packages()?;
    let mut files = Vec::new();
    for folder in ["tests/e2e", "tests/livestore"] {
        let all = std::fs::read_dir(root()?.join(folder))?;
        files.extend(all.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.retain(|path| path.to_string_lossy().ends_with(".test.mjs"));
    files.sort();
    run(tools
        .command(tools.node())?
        // The files share fixtures and a machine: one at a time.
        .args(["--test", "--test-concurrency=1", "--test-reporter=spec"])
        .args(files)
        .env(CHROMIUM.variable, CHROMIUM.find(tools)?)
        .env(FIREFOX.variable, FIREFOX.find(tools)?)
        .current_dir(root()?))
}
