//! The apps that can be served: where each one's crates are.

use crate::root;
use anyhow::{Result, bail};
use partysync_build::Crate;
use std::path::PathBuf;

/// A runnable app: a worker, maybe with a web app.
pub(crate) struct Fixture {
    pub(crate) name: String,
    /// The folder of `wrangler.toml`.
    pub(crate) folder: PathBuf,
    /// The worker's crate.
    pub(crate) worker: Crate,
    /// The web app.
    pub(crate) web: Option<Web>,
}

/// A web app, in its folder.
pub(crate) enum Web {
    /// In Rust.
    Rust(Crate),
    /// In JavaScript, which its own packages of npm build.
    Npm(PathBuf),
}

impl Web {
    pub(crate) fn folder(&self) -> &PathBuf {
        match self {
            Self::Rust(page) => &page.folder,
            Self::Npm(folder) => folder,
        }
    }
}

/// The fixture of this name: a folder under `fixtures`, or one of the tests' own.
pub(crate) fn find(name: &str) -> Result<Fixture> {
    let root = root()?;
    let folder = match name {
        "lab" | "rendered" | "versions" => root.join("tests").join(name),
        "bench-livestore" => root.join("tests/bench/livestore"),
        _ => root.join("fixtures").join(name),
    };
    if !folder.join("wrangler.toml").is_file() {
        let names: Vec<_> = std::fs::read_dir(root.join("fixtures"))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        bail!("there is no fixture `{name}`; there are: {}", names.join(", "));
    }
    let worker = Crate::open(folder.join("worker"))?;
    let web = folder.join("web");
    let web = match () {
        () if web.join("Cargo.toml").is_file() => Some(Web::Rust(Crate::open(web)?)),
        () if web.join("package.json").is_file() => Some(Web::Npm(web)),
        () => None,
    };
    Ok(Fixture { name: name.to_owned(), folder, worker, web })
}
