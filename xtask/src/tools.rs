//! What the commands need: what an application's build needs, the packages of LiveStore's clients, and
//! browsers to test with.

use crate::{root, target};
use anyhow::{Context, Result, bail};
use partysync_build::process::{run, step};
use partysync_build::{Tools, npm_packages};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds what builds need, and installs what is missing.
pub(crate) fn set_up() -> Result<Tools> {
    Tools::set_up(&root()?, &target()?)
}

/// The packages of LiveStore's clients, which only their tests need.
pub(crate) fn livestore_packages() -> Result<()> {
    npm_packages(&root()?.join("tests/livestore")).map(drop)
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
