//! Building a fixture: its worker with `worker-build`, its web app with `wasm-bindgen`.

use crate::fixture::{Fixture, Web};
use crate::process::{run, step};
use crate::tools::{Tools, npm_packages, set_up};
use crate::{root, target};
use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, write::GzEncoder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Builds the fixture, unless nothing has changed since it was built.
pub(crate) fn build(fixture: &Fixture) -> Result<Tools> {
    build_as(fixture, false)
}

/// Builds the fixture with the names of functions in its worker, for a profile; [`forget`] it
/// afterwards.
pub(crate) fn build_with_names(fixture: &Fixture) -> Result<Tools> {
    forget(fixture)?;
    build_as(fixture, true)
}

/// Builds only the worker, with the names of its functions. What is deployed has none: the next
/// build makes it anew.
pub(crate) fn worker_with_names(fixture: &Fixture) -> Result<()> {
    forget(fixture)?;
    let tools = set_up()?;
    step(&format!("build the worker of {} with names", fixture.name), || {
        worker(fixture, &tools, true)
    })
}

/// Builds only the page, with the names of its functions, beside the one that is deployed; returns
/// its wasm.
pub(crate) fn page_with_names(fixture: &Fixture) -> Result<PathBuf> {
    let Some(Web::Rust(folder, package)) = &fixture.web else {
        bail!("{} has no page in Rust", fixture.name);
    };
    let (tools, out) = (set_up()?, target()?.join("names/page"));
    step(&format!("build the page of {} with names", fixture.name), || {
        page_wasm(folder, package, &tools, &out, true)
    })
}

/// Builds the page of `cargo xtask bench client`; returns the folder that it is in.
pub(crate) fn lab_page(tools: &Tools) -> Result<PathBuf> {
    let (source, out) = (root()?.join("tests/lab/page"), target()?.join("lab-page"));
    step("build the page of the lab", || {
        page_wasm(&source, "lab-page", tools, &out, false).map(drop)
    })?;
    Ok(out)
}

/// Builds what `cargo xtask bench queries` measures as wasm; returns the folder that it is in.
pub(crate) fn queries_page(tools: &Tools) -> Result<PathBuf> {
    let (source, out) = (root()?.join("tests/bench/queries"), target()?.join("queries-page"));
    step("build the queries of the bench", || {
        page_wasm(&source, "bench-queries", tools, &out, false)?;
        // Node reads it as a module.
        Ok(std::fs::write(out.join("package.json"), "{\"type\":\"module\"}\n")?)
    })?;
    Ok(out)
}

/// Has the fixture built anew the next time.
pub(crate) fn forget(fixture: &Fixture) -> Result<()> {
    let stamp = target()?.join("stamps").join(&fixture.name);
    if stamp.is_file() {
        std::fs::remove_file(&stamp)?;
    }
    Ok(())
}

fn build_as(fixture: &Fixture, names: bool) -> Result<Tools> {
    let tools = set_up()?;
    let stamp = target()?.join("stamps").join(&fixture.name);
    let built = std::fs::metadata(&stamp).and_then(|meta| meta.modified()).ok();
    let page = match &fixture.web {
        Some(Web::Rust(..)) => "app.js",
        _ => "index.html",
    };
    let outputs = [Some(fixture.worker.join("build/index.js")), fixture.web_output(page)];
    let complete = outputs.iter().flatten().all(|path| path.is_file());
    // What is read before the build began, so that an edit during it is not missed.
    let began = SystemTime::now();
    if complete && built.is_some_and(|built| newest(fixture).is_ok_and(|newest| newest < built)) {
        return Ok(tools);
    }
    step(&format!("build the worker of {}", fixture.name), || worker(fixture, &tools, names))?;
    let what = format!("build the web app of {}", fixture.name);
    match &fixture.web {
        Some(Web::Rust(folder, package)) => step(&what, || web(folder, package, &tools))?,
        Some(Web::Npm(folder)) => step(&what, || npm_web(fixture, folder, &tools))?,
        None => {}
    }
    std::fs::create_dir_all(target()?.join("stamps"))?;
    std::fs::write(&stamp, "")?;
    std::fs::File::open(&stamp)?.set_modified(began)?;
    Ok(tools)
}

impl Fixture {
    fn web_output(&self, name: &str) -> Option<PathBuf> {
        self.web.as_ref().map(|web| web.folder().join("dist").join(name))
    }
}

/// When the newest of the files that go into a fixture was changed.
fn newest(fixture: &Fixture) -> Result<SystemTime> {
    let root = root()?;
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut folders = vec![fixture.folder.clone()];
    folders.extend(
        ["partysync-rs", "partysync-macros", "partysync-client", "xtask"].map(|f| root.join(f)),
    );
    let mut files =
        vec![root.join("Cargo.toml"), root.join("Cargo.lock"), root.join("package-lock.json")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ["build", "dist", "target", "node_modules", ".wrangler"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        newest = newest.max(std::fs::metadata(&file)?.modified()?);
    }
    Ok(newest)
}

/// What wasm-bindgen writes and `wasm-opt` has to be told of.
const WASM_FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-reference-types",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-multivalue",
];

/// Names that say which types a generic function is for. Other flags build everything anew.
const NAMES: &str = "-Csymbol-mangling-version=v0";

fn worker(fixture: &Fixture, tools: &Tools, names: bool) -> Result<()> {
    let mut command = tools.command(&tools.worker_build)?;
    command.arg("--release").current_dir(&fixture.worker).env("CARGO_TARGET_DIR", target()?);
    if names {
        command.env("RUSTFLAGS", NAMES).env("CARGO_TARGET_DIR", target()?.join("names"));
    }
    run(&mut command)?;
    let wasm = fixture.worker.join("build/index_bg.wasm");
    // `worker-build` keeps the names of functions, which are a ninth of what is deployed.
    let kept = if names { "--debuginfo" } else { "--strip-debug" };
    run(tools
        .command(tools.npm("wasm-opt"))?
        .args(["-O3", "--strip-producers", kept])
        .args(WASM_FEATURES)
        .arg(&wasm)
        .arg("-o")
        .arg(&wasm))?;
    if !names {
        report("worker", &[wasm, fixture.worker.join("build/index.js")])?;
    }
    Ok(())
}

fn web(folder: &Path, package: &str, tools: &Tools) -> Result<()> {
    let dist = folder.join("dist");
    let wasm = page_wasm(folder, package, tools, &dist, false)?;
    for entry in std::fs::read_dir(folder.join("static"))? {
        let path = entry?.path();
        std::fs::copy(&path, dist.join(path.file_name().context("a file has a name")?))?;
    }
    name_build(&dist)?;
    report("web app", &[wasm, dist.join("app.js")])
}

/// Puts a name, which is another when any file is, for `__BUILD__` into the page and its service
/// worker: so that a browser never shows files of two builds together.
fn name_build(dist: &Path) -> Result<()> {
    let entries = std::fs::read_dir(dist)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file)?.hash(&mut hasher);
    }
    let name = format!("{:016x}", hasher.finish());
    // A page that its Worker renders has neither.
    let paths = ["index.html", "sw.js"].map(|file| dist.join(file));
    for path in paths.into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(path, text.replace("__BUILD__", &name))?;
    }
    Ok(())
}

/// Builds a page with what its `package.json` names: vite.
fn npm_web(fixture: &Fixture, folder: &Path, tools: &Tools) -> Result<()> {
    let place = format!("fixtures/{}/web", fixture.name);
    npm_packages(&place, &format!("{}-package-lock.json", fixture.name))?;
    let vite = folder.join("node_modules/vite/bin/vite.js");
    let mut command = tools.command(tools.npm("node"))?;
    run(command.arg(vite).arg("build").current_dir(folder))
}

/// Builds a page's wasm, and what loads it, in `out`.
fn page_wasm(
    folder: &Path,
    package: &str,
    tools: &Tools,
    out: &Path,
    names: bool,
) -> Result<PathBuf> {
    let (wasm, target) = ("wasm32-unknown-unknown", target()?);
    let target = if names { target.join("names") } else { target };
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--quiet", "--release", "--target", wasm, "--package", package])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(folder);
    if names {
        command.env("RUSTFLAGS", NAMES);
    }
    run(&mut command)?;
    if out.is_dir() {
        std::fs::remove_dir_all(out)?;
    }
    std::fs::create_dir_all(out)?;
    let module =
        target.join(wasm).join("release").join(package.replace('-', "_")).with_extension("wasm");
    run(Command::new(&tools.wasm_bindgen)
        .args(["--target", "web", "--no-typescript", "--out-name", "app", "--out-dir"])
        .arg(out)
        .arg(&module))?;
    let wasm = out.join("app_bg.wasm");
    let kept = if names { "--debuginfo" } else { "--strip-debug" };
    run(tools
        .command(tools.npm("wasm-opt"))?
        .args(["-Oz", "--strip-producers", kept])
        .args(WASM_FEATURES)
        .arg(&wasm)
        .arg("-o")
        .arg(&wasm))?;
    Ok(wasm)
}

/// Says how large these files are when they are compressed.
fn report(what: &str, files: &[PathBuf]) -> Result<()> {
    eprintln!("    {what}: {} KiB gzipped", compressed(files)?);
    Ok(())
}

/// The size of these files when they are compressed, in KiB.
fn compressed(files: &[PathBuf]) -> Result<u64> {
    let bytes = files.iter().map(|path| gzipped(path)).sum::<Result<u64>>()?;
    Ok(bytes / 1024)
}

/// Looks whether the fixture's worker and page are as small as they are to be, in KiB.
pub(crate) fn within_budget(fixture: &Fixture, worker: u64, page: u64) -> Result<()> {
    let built = fixture.worker.join("build");
    let of_worker = [built.join("index_bg.wasm"), built.join("index.js")];
    let of_page: Vec<_> = match &fixture.web {
        Some(Web::Rust(folder, _)) => {
            ["app_bg.wasm", "app.js"].map(|name| folder.join("dist").join(name)).to_vec()
        }
        // What LiveStore's client weighs is not ours.
        _ => Vec::new(),
    };
    let sizes =
        [("worker", compressed(&of_worker)?, worker), ("page", compressed(&of_page)?, page)];
    for (what, size, budget) in sizes {
        ensure!(
            size <= budget,
            "the {what} of {} is {size} KiB gzipped, and {budget} are its budget: \
             `cargo xtask size` says what is in it",
            fixture.name
        );
    }
    Ok(())
}

/// A file's size when it is compressed.
fn gzipped(path: &Path) -> Result<u64> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&std::fs::read(path)?)?;
    Ok(encoder.finish()?.len() as u64)
}
