//! Runs many seeds: `simulate --seeds N [--seed FIRST] [--livestore | --queries]`. A failure prints its seed, the
//! shortest schedule found that still fails, and the history.

use lexopt::prelude::*;
use partysync_simulation::{
    Schedule, Stats, Violation, livestore, queries, run, run_schedule, shrink,
};
use std::fmt::Debug;
use std::io::IsTerminal;
use std::ops::AddAssign;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

fn main() -> ExitCode {
    match arguments() {
        Ok((first, count, What::Rooms)) => simulate::<Stats>(first, count, run, report),
        Ok((first, count, What::LiveStore)) => {
            simulate::<u64>(first, count, livestore::run, report_livestore)
        }
        Ok((first, count, What::Queries)) => {
            simulate::<u64>(first, count, queries::run, report_queries)
        }
        Err(error) => {
            eprintln!(
                "{error}\nusage: simulate --seeds N [--seed FIRST] [--livestore | --queries]"
            );
            ExitCode::from(2)
        }
    }
}

/// What is run.
enum What {
    Rooms,
    LiveStore,
    Queries,
}

/// The first seed, how many, and what they are of.
fn arguments() -> Result<(u64, u64, What), lexopt::Error> {
    let (mut first, mut count, mut what) = (0, None, What::Rooms);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("seeds") => count = Some(arguments.value()?.parse()?),
            Long("seed") => {
                first = arguments.value()?.parse()?;
                count = count.or(Some(1));
            }
            Long("livestore") => what = What::LiveStore,
            Long("queries") => what = What::Queries,
            other => return Err(other.unexpected()),
        }
    }
    Ok((first, count.unwrap_or(10_000), what))
}

fn simulate<T: AddAssign + Debug + Default + Send>(
    first: u64,
    count: u64,
    run: fn(u64) -> Result<T, Violation>,
    report: fn(u64, &str),
) -> ExitCode {
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let total = Mutex::new(T::default());
    let start = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || failed.load(Ordering::Relaxed) {
                return;
            }
            match run(seed) {
                Ok(stats) => {
                    if let Ok(mut total) = total.lock() {
                        *total += stats;
                    }
                }
                Err(violation) => {
                    if !failed.swap(true, Ordering::Relaxed) {
                        report(seed, &violation.what);
                    }
                }
            }
            let done = seed - first + 1;
            if terminal && done.is_multiple_of(500) {
                bar(done, count);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    if failed.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    let seconds = start.elapsed().as_secs_f64();
    let total = total.into_inner().unwrap_or_default();
    println!("{count} seeds from {first} hold in {seconds:.1} s: {total:?}");
    println!("{count} passed, 0 failed");
    ExitCode::SUCCESS
}

fn bar(done: u64, count: u64) {
    let filled = usize::try_from(done * 40 / count).unwrap_or(40).min(40);
    eprint!("\r[{}{}] {done}/{count}", "#".repeat(filled), " ".repeat(40 - filled));
}

fn report(seed: u64, what: &str) {
    let schedule = Schedule::of(seed);
    println!("\nseed {seed} fails: {what}");
    println!("shrinking {} steps ...", schedule.steps.len());
    let short = shrink(&schedule);
    let Err(violation) = run_schedule(&short) else { return };
    let Schedule { clients, tabs, watchers, slow_hooks, small_pages, store_faults, steps } = &short;
    println!(
        "{clients} clients and {watchers} of v1 ({tabs} tabs a browser, slow hooks: {slow_hooks}, \
         small pages: {small_pages}, \
         store faults: {store_faults}), {} steps:",
        steps.len()
    );
    tell(&short.steps, &violation);
    println!("replay: cargo xtask simulate --seed {seed}");
}

fn report_livestore(seed: u64, what: &str) {
    let schedule = livestore::Schedule::of(seed);
    println!("\nseed {seed} fails: {what}");
    println!("shrinking {} steps ...", schedule.steps.len());
    let short = schedule.shrunk();
    let Err(violation) = livestore::run_schedule(&short) else { return };
    let livestore::Schedule { sockets, objects, rooms, elsewhere, slow_hooks, steps } = &short;
    println!(
        "{sockets} clients with a socket and {objects} objects (rooms: {rooms}, log elsewhere: \
         {elsewhere}, slow hooks: {slow_hooks}), {} steps:",
        steps.len()
    );
    tell(steps, &violation);
    println!("replay: cargo xtask simulate --livestore --seed {seed}");
}

fn report_queries(seed: u64, what: &str) {
    println!("\nseed {seed} fails: {what}");
    println!("replay: cargo xtask simulate --queries --seed {seed}");
}

fn tell(steps: &[impl Debug], violation: &Violation) {
    for step in steps {
        println!("    {step:?}");
    }
    println!("{}\nhistory:", violation.what);
    for line in &violation.history {
        println!("{line}");
    }
}
