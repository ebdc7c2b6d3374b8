//! What the commands need beside a Rust toolchain and Node, installed where it is missing: the
//! wasm target, npm's packages, `wasm-bindgen` and `worker-build` under `target/`, a browser.

use crate::process::{output, run, step};
use crate::{root, target};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const WASM: &str = "wasm32-unknown-unknown";

/// Where the tools are.
pub(crate) struct Tools {
    pub(crate) wasm_bindgen: PathBuf,
    pub(crate) worker_build: PathBuf,
    /// `node_modules/.bin`.
    pub(crate) npm_bin: PathBuf,
}

impl Tools {
    /// A program of npm's packages.
    pub(crate) fn npm(&self, name: &str) -> PathBuf {
        self.npm_bin.join(name)
    }

    /// A command whose PATH begins with npm's programs: they want the `node` that is there.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.npm_bin.clone()).chain(std::env::split_paths(&path));
        command
            .env("PATH", std::env::join_paths(paths)?)
            .env("WRANGLER_SEND_METRICS", "false")
            .env("WASM_BINDGEN_BIN", &self.wasm_bindgen)
            .env("ESBUILD_BIN", self.npm("esbuild"))
            .env("WASM_OPT_BIN", self.npm("wasm-opt"));
        Ok(command)
    }
}

/// Finds the tools, and installs those that are missing.
pub(crate) fn set_up() -> Result<Tools> {
    wasm_target()?;
    let npm_bin = npm()?;
    let tools = target()?.join("tools");
    let bindgen = locked_version("wasm-bindgen")?;
    let build = locked_version("worker")?;
    Ok(Tools {
        wasm_bindgen: cargo_tool(&tools, "wasm-bindgen-cli", "wasm-bindgen", &bindgen)?,
        worker_build: cargo_tool(&tools, "worker-build", "worker-build", &build)?,
        npm_bin,
    })
}

fn wasm_target() -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(WASM).is_dir() {
        return Ok(());
    }
    step("add the wasm target to the toolchain", || {
        run(Command::new("rustup").args(["target", "add", WASM]))
    })
}

/// npm's packages, as `package-lock.json` says.
fn npm() -> Result<PathBuf> {
    let version = output(Command::new("node").arg("--version"))
        .context("Node 20 or later is needed: https://nodejs.org")?;
    let major = version.trim().trim_start_matches('v').split('.').next();
    if major.and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 20) {
        bail!("Node {} is too old: 20 or later is needed", version.trim());
    }
    npm_packages("", "package-lock.json")
}

/// The packages of LiveStore's clients, which only their tests need.
pub(crate) fn livestore_packages() -> Result<()> {
    npm_packages("tests/livestore", "livestore-package-lock.json").map(drop)
}

/// Installs what a folder's `package-lock.json` says, unless the stamp says that it is there.
pub(crate) fn npm_packages(folder: &str, stamp: &str) -> Result<PathBuf> {
    let root = root()?.join(folder);
    let (lock, stamp) = (root.join("package-lock.json"), target()?.join("tools").join(stamp));
    let modules = root.join("node_modules");
    let current = std::fs::read(&stamp).ok() == Some(std::fs::read(&lock)?);
    if !current || !modules.is_dir() {
        step("install npm's packages", || {
            run(Command::new("npm")
                .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
                .current_dir(&root))
        })?;
        std::fs::create_dir_all(target()?.join("tools"))?;
        std::fs::copy(&lock, &stamp)?;
    }
    Ok(modules.join(".bin"))
}

/// The version of a package in `Cargo.lock`.
fn locked_version(package: &str) -> Result<String> {
    let lock = std::fs::read_to_string(root()?.join("Cargo.lock"))?;
    let name = format!("name = \"{package}\"");
    let version = lock
        .lines()
        .skip_while(|line| *line != name)
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \""))
        .and_then(|line| line.strip_suffix('"'));
    Ok(version.with_context(|| format!("`{package}` is not in Cargo.lock"))?.to_owned())
}

/// A program from crates.io at one version, in a folder of its own.
fn cargo_tool(tools: &Path, package: &str, program: &str, version: &str) -> Result<PathBuf> {
    let folder = tools.join(format!("{package}-{version}"));
    let path = folder.join("bin").join(program);
    if !path.is_file() {
        let install = || {
            let mut command = Command::new(env!("CARGO"));
            // Tools that share a folder share what they compiled.
            command.env("CARGO_TARGET_DIR", tools.join("build"));
            command
                .args(["install", "--quiet", package, "--version", version, "--root"])
                .arg(&folder);
            command
        };
        step(&format!("build {package} {version} (once)"), || {
            run(install().arg("--locked")).or_else(|_| {
                // A registry's mirror can lag behind what the tool's own lock file names.
                eprintln!("    again, with the newest versions that the registry has");
                run(&mut install())
            })
        })?;
    }
    Ok(path)
}

/// A browser to test with: what the variable of its name says, one on the PATH, or Debian's
/// package where we are root.
pub(crate) struct Browser {
    pub(crate) variable: &'static str,
    programs: &'static [&'static str],
    package: &'static str,
}

pub(crate) const CHROMIUM: Browser = Browser {
    variable: "CHROMIUM",
    programs: &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"],
    package: "chromium",
};
pub(crate) const FIREFOX: Browser =
    Browser { variable: "FIREFOX", programs: &["firefox", "firefox-esr"], package: "firefox-esr" };

impl Browser {
    /// The program.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let Self { variable, programs, package } = self;
        if let Some(path) = std::env::var_os(variable) {
            return Ok(path.into());
        }
        let find = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            programs.iter().find_map(|name| {
                std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
            })
        };
        if let Some(path) = find() {
            return Ok(path);
        }
        let missing = format!(
            "the browser tests need one of {programs:?}: install the package `{package}`, or set \
             {variable} to the program"
        );
        if !is_root() || !Path::new("/usr/bin/apt-get").is_file() {
            bail!(missing);
        }
        step(&format!("install {package} from Debian's packages"), || {
            run(Command::new("apt-get").args(["update", "-qq"]))?;
            run(Command::new("apt-get")
                .args(["install", "-y", "-qq", "--no-install-recommends", package])
                .env("DEBIAN_FRONTEND", "noninteractive"))
        })?;
        find().context(missing)
    }
}

fn is_root() -> bool {
    #[cfg(unix)]
    return nix::unistd::geteuid().is_root();
    #[cfg(not(unix))]
    false
}
