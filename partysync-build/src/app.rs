//! An application's folders, and its build as a whole.

use crate::process::{Failed, Server, step};
use crate::{Profile, Tools, WASM, add_target, build_page, build_worker, page};
use anyhow::{Context, Result};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A crate that is built for wasm.
#[derive(Clone, Debug)]
pub struct Crate {
    /// Its folder.
    pub folder: PathBuf,
    /// The name of its package.
    pub package: String,
}

impl Crate {
    /// The crate in this folder.
    ///
    /// # Errors
    /// There is no `Cargo.toml` that names a package.
    pub fn open(folder: PathBuf) -> Result<Self> {
        let path = folder.join("Cargo.toml");
        let manifest =
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let names = manifest.lines().filter_map(|line| line.strip_prefix("name = \""));
        let package = names.filter_map(|name| name.strip_suffix('"')).next();
        let package = package.with_context(|| format!("{} names no package", path.display()))?;
        Ok(Self { package: package.to_owned(), folder })
    }

    /// Has cargo build it.
    pub(crate) fn cargo(&self, target: &Path, profile: Profile) -> Result<()> {
        crate::process::run_and_listen(&mut self.cargo_command(target, profile))
    }

    fn cargo_command(&self, target: &Path, profile: Profile) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--lib", "--target", WASM]);
        command.env("CARGO_TARGET_DIR", target).current_dir(&self.folder);
        match profile {
            Profile::Dev if self.has_devtools() => command.args(["--features", "devtools"]),
            Profile::Dev => &mut command,
            Profile::Release | Profile::Names => command.arg("--release"),
        };
        if profile == Profile::Names {
            command.env("RUSTFLAGS", NAMES);
        }
        command
    }

    /// Whether it has a feature for what only its developers see.
    fn has_devtools(&self) -> bool {
        let manifest = std::fs::read_to_string(self.folder.join("Cargo.toml"));
        manifest.is_ok_and(|text| text.lines().any(|line| line.starts_with("devtools = ")))
    }

    /// What tells what cargo has built from what it had built before.
    pub(crate) fn made_of(&self, target: &Path, profile: Profile) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        std::fs::read(self.wasm(target, profile))?.hash(&mut hasher);
        Ok(hasher.finish().to_string())
    }

    /// What cargo builds.
    pub(crate) fn wasm(&self, target: &Path, profile: Profile) -> PathBuf {
        let name = self.package.replace('-', "_");
        target.join(WASM).join(profile.folder()).join(name).with_extension("wasm")
    }
}

/// Names that say which types a generic function is for. Other flags build everything anew.
pub(crate) const NAMES: &str = "-Csymbol-mangling-version=v0";

/// An application: a worker, maybe with a page.
#[derive(Clone, Debug)]
pub struct App {
    /// The folder of `Cargo.lock` and `package.json`.
    pub root: PathBuf,
    /// The folder that cargo builds into.
    pub target: PathBuf,
    /// The worker; what is built is in its folder `build`.
    pub worker: Crate,
    /// The page; what is built is in its folder `dist`.
    pub page: Option<Crate>,
}

impl App {
    /// The application in this folder: the crates in its `worker` and `web`.
    ///
    /// # Errors
    /// There is no crate in `worker`.
    pub fn open(root: PathBuf) -> Result<Self> {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => std::path::absolute(target)?,
            None => root.join("target"),
        };
        let worker = Crate::open(root.join("worker"))?;
        let web = root.join("web");
        let page = web.join("Cargo.toml").is_file().then(|| Crate::open(web)).transpose()?;
        Ok(Self { root, target, worker, page })
    }

    /// Sets the tools up for development. Meanwhile cargo compiles the crates: the first time both
    /// take minutes, and neither has work for all processors all the time. What does not compile is
    /// told by the build.
    ///
    /// # Errors
    /// A tool cannot be installed.
    pub fn set_up_for_dev(&self) -> Result<Tools> {
        // Later there is nothing to install, and the build is enough.
        if self.root.join("node_modules").is_dir() {
            return Tools::set_up(&self.root, &self.target);
        }
        add_target(WASM)?;
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for part in std::iter::once(&self.worker).chain(&self.page) {
                    let mut command = part.cargo_command(&self.target, Profile::Dev);
                    command.stdout(Stdio::null()).stderr(Stdio::null());
                    // The build begins with the same, and says what is wrong.
                    let wanted = || !failed.load(Relaxed);
                    let _ = Server::start(&mut command).and_then(|mut it| it.wait_while(wanted));
                }
            });
            let tools = Tools::set_up(&self.root, &self.target);
            failed.store(tools.is_err(), Relaxed);
            tools
        })
    }

    /// Builds worker and page, with the tools that it installs where they are missing.
    ///
    /// # Errors
    /// A tool cannot be installed, or as for [`build_with`](Self::build_with).
    pub fn build(&self, profile: Profile) -> Result<()> {
        self.build_with(&Tools::set_up(&self.root, &self.target)?, profile)
    }

    /// Builds for `wrangler`, which has asked for it: under `wrangler dev` an error of the compiler
    /// is shown in the page, and is none for wrangler, which would not load the page again.
    ///
    /// # Errors
    /// As for [`build`](Self::build); with an error of the compiler only where nothing runs yet.
    pub fn build_for_wrangler(&self) -> Result<()> {
        let profile = Profile::of_wrangler();
        self.for_wrangler(profile, self.build(profile))
    }

    /// What wrangler is told of a build that it has asked for.
    ///
    /// # Errors
    /// That of the build, unless it is the compiler's, in development, and what was built before goes
    /// on: the page shows it.
    pub fn for_wrangler(&self, profile: Profile, built: Result<()>) -> Result<()> {
        let runs = self.page.is_some() && self.worker.folder.join("build/index.js").is_file();
        match built {
            Err(error) if profile == Profile::Dev && runs && error.is::<Failed>() => {
                eprintln!("    what was built before goes on: {error:#}");
                Ok(())
            }
            built => built,
        }
    }

    /// Builds worker and page. In the profile [`Dev`](Profile::Dev) what has not changed is left
    /// as it is, and an error of the compiler takes the page's place until it is mended.
    ///
    /// # Errors
    /// A crate does not compile, or a tool fails.
    pub fn build_with(&self, tools: &Tools, profile: Profile) -> Result<()> {
        let Self { target, worker, page, .. } = self;
        let worker_is_built = step(&format!("build {}", worker.package), || {
            build_worker(worker, tools, target, profile)
        });
        let Some(page) = page else { return worker_is_built };
        // Both, or what runs is of two versions of the types that they share.
        let built = worker_is_built.and_then(|()| {
            step(&format!("build {}", page.package), || build_page(page, tools, target, profile))
        });
        if let (Err(error), Profile::Dev) = (&built, profile)
            && let Some(failed) = error.downcast_ref::<Failed>()
        {
            page::show_failure(page, &failed.output)?;
        }
        built
    }
}
