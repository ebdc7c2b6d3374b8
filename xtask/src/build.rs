//! Building a fixture, unless it is built already; its size.

use crate::fixture::{Fixture, Web};
use crate::tools::set_up;
use crate::{root, target};
use anyhow::{Result, bail, ensure};
use flate2::{Compression, write::GzEncoder};
use partysync_build::process::{run, step};
use partysync_build::{App, Crate, Profile, Tools, build_worker, npm_packages, page_wasm};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Builds the fixture for its deployment, unless nothing has changed since it was built.
pub(crate) fn build(fixture: &Fixture) -> Result<Tools> {
    build_as(fixture, Profile::Release)
}

/// Builds the fixture with the names of functions in its worker, for a profile; [`forget`] it
/// afterwards.
pub(crate) fn build_with_names(fixture: &Fixture) -> Result<Tools> {
    let tools = build(fixture)?;
    forget(fixture)?;
    worker_with_names(fixture)?;
    Ok(tools)
}

/// Builds only the worker, with the names of its functions. What is deployed has none: the next
/// build makes it anew.
pub(crate) fn worker_with_names(fixture: &Fixture) -> Result<()> {
    forget(fixture)?;
    let (tools, target) = (set_up()?, target()?);
    step(&format!("build the worker of {} with names", fixture.name), || {
        build_worker(&fixture.worker, &tools, &target, Profile::Names)
    })
}

/// Builds only the page, with the names of its functions, beside the one that is deployed; returns
/// its wasm.
pub(crate) fn page_with_names(fixture: &Fixture) -> Result<PathBuf> {
    let Some(Web::Rust(page)) = &fixture.web else {
        bail!("{} has no page in Rust", fixture.name);
    };
    let (tools, target) = (set_up()?, target()?);
    let out = target.join("names/page");
    step(&format!("build the page of {} with names", fixture.name), || {
        page_wasm(page, &tools, &target, &out, Profile::Names)
    })
}

/// Builds the page of `cargo xtask bench client`; returns the folder that it is in.
pub(crate) fn lab_page(tools: &Tools) -> Result<PathBuf> {
    let (page, out) = (Crate::open(root()?.join("tests/lab/page"))?, target()?.join("lab-page"));
    step("build the page of the lab", || {
        page_wasm(&page, tools, &target()?, &out, Profile::Release).map(drop)
    })?;
    Ok(out)
}

/// Builds what `cargo xtask bench queries` measures as wasm; returns the folder that it is in.
pub(crate) fn queries_page(tools: &Tools) -> Result<PathBuf> {
    let page = Crate::open(root()?.join("tests/bench/queries"))?;
    let out = target()?.join("queries-page");
    step("build the queries of the bench", || {
        page_wasm(&page, tools, &target()?, &out, Profile::Release)?;
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

/// Builds the fixture for `wrangler`, or for its deployment; an error of the compiler is as for
/// applications.
pub(crate) fn build_for_wrangler(fixture: &Fixture) -> Result<()> {
    let profile = Profile::of_wrangler();
    fixture.app()?.for_wrangler(profile, build_as(fixture, profile).map(drop))
}

/// Builds the fixture, unless nothing has changed since it was built so.
pub(crate) fn build_as(fixture: &Fixture, profile: Profile) -> Result<Tools> {
    let target = target()?;
    let tools = match profile {
        Profile::Dev => fixture.app()?.set_up_for_dev()?,
        Profile::Release | Profile::Names => set_up()?,
    };
    let stamp = target.join("stamps").join(&fixture.name);
    let how = format!("{profile:?}");
    let built = std::fs::read_to_string(&stamp).is_ok_and(|built| built == how);
    let built = std::fs::metadata(&stamp).and_then(|meta| meta.modified()).ok().filter(|_| built);
    let page = match &fixture.web {
        Some(Web::Rust(..)) => "app.js",
        _ => "index.html",
    };
    let outputs = [Some(fixture.worker.folder.join("build/index.js")), fixture.web_output(page)];
    let complete = outputs.iter().flatten().all(|path| path.is_file());
    // What is read before the build began, so that an edit during it is not missed.
    let began = SystemTime::now();
    if complete && built.is_some_and(|built| newest(fixture).is_ok_and(|newest| newest < built)) {
        return Ok(tools);
    }
    forget(fixture)?;
    fixture.app()?.build_with(&tools, profile)?;
    if let Some(Web::Npm(folder)) = &fixture.web {
        let what = format!("build the web app of {}", fixture.name);
        step(&what, || npm_web(folder, &tools))?;
    }
    if profile == Profile::Release {
        for (what, files) in fixture.weighed().into_iter().filter(|(_, files)| !files.is_empty()) {
            eprintln!("    {what}: {} KiB gzipped", compressed(&files)?);
        }
    }
    std::fs::create_dir_all(target.join("stamps"))?;
    std::fs::write(&stamp, how)?;
    std::fs::File::open(&stamp)?.set_modified(began)?;
    Ok(tools)
}

impl Fixture {
    fn app(&self) -> Result<App> {
        let page = match &self.web {
            Some(Web::Rust(page)) => Some(page.clone()),
            Some(Web::Npm(_)) | None => None,
        };
        Ok(App { root: root()?, target: target()?, worker: self.worker.clone(), page })
    }

    fn web_output(&self, name: &str) -> Option<PathBuf> {
        self.web.as_ref().map(|web| web.folder().join("dist").join(name))
    }

    /// What is sent to a server, and to a browser.
    fn weighed(&self) -> Vec<(&'static str, Vec<PathBuf>)> {
        let built = self.worker.folder.join("build");
        let worker = ["index_bg.wasm", "index.js"].map(|name| built.join(name)).to_vec();
        let page = match &self.web {
            Some(Web::Rust(page)) => {
                let dist = page.folder.join("dist");
                ["app_bg.wasm", "app.js"].map(|name| dist.join(name)).to_vec()
            }
            // What LiveStore's client weighs is not ours.
            _ => Vec::new(),
        };
        vec![("worker", worker), ("page", page)]
    }
}

/// When the newest of the files that go into a fixture was changed.
fn newest(fixture: &Fixture) -> Result<SystemTime> {
    let root = root()?;
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut folders = vec![fixture.folder.clone()];
    folders.extend(
        ["partysync-rs", "partysync-macros", "partysync-client", "partysync-build", "xtask"]
            .map(|f| root.join(f)),
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

/// Builds a page with what its `package.json` names: vite.
fn npm_web(folder: &Path, tools: &Tools) -> Result<()> {
    npm_packages(folder)?;
    let vite = folder.join("node_modules/vite/bin/vite.js");
    run(tools.command(tools.node())?.arg(vite).arg("build").current_dir(folder))
}

/// The size of these files when they are compressed, in KiB.
fn compressed(files: &[PathBuf]) -> Result<u64> {
    let bytes = files.iter().map(|path| gzipped(path)).sum::<Result<u64>>()?;
    Ok(bytes / 1024)
}

/// Looks whether the fixture's worker and page are as small as they are to be, in KiB.
pub(crate) fn within_budget(fixture: &Fixture, worker: u64, page: u64) -> Result<()> {
    for ((what, files), budget) in fixture.weighed().iter().zip([worker, page]) {
        let size = compressed(files)?;
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
