//! What a build needs beside a Rust toolchain and Node, installed where it is missing: the wasm
//! target, npm's packages, `wasm-bindgen` and `worker-build`.

use crate::process::{output, run, step};
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target of workers and pages.
pub const WASM: &str = "wasm32-unknown-unknown";

/// Where the tools are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The program `wasm-bindgen`.
    pub wasm_bindgen: PathBuf,
    /// The program `worker-build`.
    pub worker_build: PathBuf,
    /// `node_modules`.
    pub modules: PathBuf,
}

impl Tools {
    /// Finds the tools of the workspace in this folder, and installs those that are missing:
    /// `wasm-bindgen` and `worker-build`, of the versions that `Cargo.lock` wants, into
    /// `target/tools`, and npm's packages as `package-lock.json` says.
    ///
    /// # Errors
    /// Node is missing or too old, or something cannot be installed.
    pub fn set_up(root: &Path, target: &Path) -> Result<Self> {
        add_target(WASM)?;
        node()?;
        let tools = target.join("tools");
        let bindgen = locked_version(root, "wasm-bindgen")?;
        let build = locked_version(root, "worker")?;
        std::thread::scope(|scope| {
            // It waits for the network while the others compile.
            let modules = scope.spawn(|| npm_packages(root));
            let wasm_bindgen = cargo_tool(&tools, "wasm-bindgen-cli", "wasm-bindgen", &bindgen);
            let worker_build = cargo_tool(&tools, "worker-build", "worker-build", &build);
            let stopped = |_| bail!("the thread that installs npm's packages has panicked");
            let modules = modules.join().unwrap_or_else(stopped)?;
            Ok(Self { wasm_bindgen: wasm_bindgen?, worker_build: worker_build?, modules })
        })
    }

    /// Node: npm's package where it is installed, as a machine's own may be too old for wrangler.
    pub fn node(&self) -> PathBuf {
        let name = format!("node{}", std::env::consts::EXE_SUFFIX);
        let package = self.modules.join("node/bin").join(name);
        if package.is_file() { package } else { "node".into() }
    }

    /// A command that runs a script of npm's packages in Node, such as `wrangler/bin/wrangler.js`.
    ///
    /// # Errors
    /// `PATH` cannot be written.
    pub fn script(&self, path: &str) -> Result<Command> {
        let mut command = self.command(self.node())?;
        command.arg(self.modules.join(path));
        Ok(command)
    }

    /// A command whose `PATH` begins with npm's programs: they want the `node` that is there.
    ///
    /// # Errors
    /// `PATH` cannot be written.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        let wasm_opt = if cfg!(windows) { "wasm-opt.cmd" } else { "wasm-opt" };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let first = [self.modules.join("node/bin"), self.modules.join(".bin")];
        command
            .env(
                "PATH",
                std::env::join_paths(first.into_iter().chain(std::env::split_paths(&path)))?,
            )
            .env("WRANGLER_SEND_METRICS", "false")
            .env("WASM_BINDGEN_BIN", &self.wasm_bindgen)
            .env("WASM_OPT_BIN", self.modules.join(".bin").join(wasm_opt));
        if let Some(esbuild) = self.esbuild() {
            command.env("ESBUILD_BIN", esbuild);
        }
        Ok(command)
    }

    /// The program `esbuild` for this machine: what lies in `.bin` is a script on some systems.
    fn esbuild(&self) -> Option<PathBuf> {
        let platforms = std::fs::read_dir(self.modules.join("@esbuild")).ok()?;
        let programs = platforms.filter_map(|entry| {
            let folder = entry.ok()?.path();
            [folder.join("bin/esbuild"), folder.join("esbuild.exe")]
                .into_iter()
                .find(|p| p.is_file())
        });
        programs.min()
    }

    /// Makes a wasm smaller and faster, in place, by these arguments of `wasm-opt`.
    pub(crate) fn wasm_opt(&self, wasm: &Path, arguments: &[&str]) -> Result<()> {
        /// What wasm-bindgen writes and `wasm-opt` has to be told of.
        const FEATURES: [&str; 7] = [
            "--enable-bulk-memory",
            "--enable-reference-types",
            "--enable-mutable-globals",
            "--enable-nontrapping-float-to-int",
            "--enable-sign-ext",
            "--enable-multivalue",
            "--enable-exception-handling",
        ];
        let mut command = self.script("binaryen/bin/wasm-opt")?;
        command.arg("--strip-producers").args(arguments).args(FEATURES);
        run(command.arg(wasm).arg("-o").arg(wasm))
    }
}

/// Adds a target to the toolchain, unless it is there.
///
/// # Errors
/// `rustup` cannot add it.
pub fn add_target(target: &str) -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).is_dir() {
        return Ok(());
    }
    step(&format!("add the target {target} to the toolchain"), || {
        run(Command::new("rustup").args(["target", "add", target]))
    })
}

/// Looks whether there is a Node to install packages with.
fn node() -> Result<()> {
    let version = output(Command::new("node").arg("--version"))
        .context("Node 20 or later is needed: https://nodejs.org")?;
    let major = version.trim().trim_start_matches('v').split('.').next();
    if major.and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 20) {
        bail!("Node {} is too old: 20 or later is needed", version.trim());
    }
    Ok(())
}

/// Installs npm's packages into a folder's `node_modules`, which is returned, as its
/// `package-lock.json` says; a lock file that is missing is made. What is installed is left.
///
/// # Errors
/// npm fails, or a file cannot be written.
pub fn npm_packages(folder: &Path) -> Result<PathBuf> {
    let (lock, modules) = (folder.join("package-lock.json"), folder.join("node_modules"));
    // npm removes it with all else.
    let stamp = modules.join(".installed-package-lock.json");
    let locked = lock.is_file();
    if !locked || std::fs::read(&stamp).ok() != Some(std::fs::read(&lock)?) {
        step("install npm's packages", || {
            let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
            let how = if locked { "ci" } else { "install" };
            run(Command::new(npm)
                .args([how, "--no-audit", "--no-fund", "--loglevel=error"])
                .current_dir(folder))
        })?;
        std::fs::copy(&lock, stamp)?;
    }
    Ok(modules)
}

/// The version of a package in `Cargo.lock`.
fn locked_version(root: &Path, package: &str) -> Result<String> {
    let lock = std::fs::read_to_string(root.join("Cargo.lock"))?;
    let name = format!("name = \"{package}\"");
    let version = lock
        .lines()
        .skip_while(|line| *line != name)
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \""))
        .and_then(|line| line.strip_suffix('"'));
    Ok(version.with_context(|| format!("`{package}` is not in Cargo.lock"))?.to_owned())
}

/// A program from crates.io at one version: what is on the `PATH`, or in a folder of its own.
fn cargo_tool(tools: &Path, package: &str, program: &str, version: &str) -> Result<PathBuf> {
    if is_version(program.as_ref(), version) {
        return Ok(program.into());
    }
    let folder = tools.join(format!("{package}-{version}"));
    let path = folder.join("bin").join(format!("{program}{}", std::env::consts::EXE_SUFFIX));
    if !path.is_file() {
        step(&format!("install {package} {version} (once)"), || {
            if prebuilt(&folder, package, version) && is_version(path.as_os_str(), version) {
                return Ok(());
            }
            let install = || {
                let mut command = Command::new(env!("CARGO"));
                // Tools that share a folder share what they compiled.
                command.env("CARGO_TARGET_DIR", tools.join("build"));
                // They run for a second in each build, and would compile for minutes.
                let cheap =
                    [("OPT_LEVEL", "0"), ("LTO", "off"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0")];
                for (name, value) in cheap {
                    command.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
                }
                command.args([
                    "install",
                    "--quiet",
                    package,
                    "--version",
                    version,
                    "--bin",
                    program,
                ]);
                // It fetches nothing.
                command.args((package == "wasm-bindgen-cli").then_some("--no-default-features"));
                command.arg("--root").arg(&folder);
                command
            };
            run(install().arg("--locked")).or_else(|_| {
                // A registry's mirror can lag behind what the tool's own lock file names.
                eprintln!("    again, with the newest versions that the registry has");
                run(&mut install())
            })
        })?;
    }
    Ok(path)
}

/// Whether a program says that it is of this version.
fn is_version(program: &OsStr, version: &str) -> bool {
    let mut command = Command::new(program);
    let said = command.arg("--version").stderr(Stdio::null()).output();
    said.is_ok_and(|said| {
        said.status.success()
            && String::from_utf8_lossy(&said.stdout).split_whitespace().any(|word| word == version)
    })
}

/// Installs what its makers have built, where `cargo binstall` is there and finds it.
fn prebuilt(folder: &Path, package: &str, version: &str) -> bool {
    let quiet = |command: &mut Command| {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    quiet(Command::new(env!("CARGO")).args(["binstall", "-V"]))
        && quiet(
            Command::new(env!("CARGO"))
                .args(["binstall", "--no-confirm", "--disable-strategies", "compile", "--root"])
                .arg(folder)
                .arg(format!("{package}@{version}")),
        )
}
