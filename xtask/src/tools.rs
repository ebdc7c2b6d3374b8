//! What the commands need: what an application's build needs, the packages of LiveStore's clients, and
//! browsers to test with.

use crate::{root, target};
use anyhow::{Context, Result, bail};
use partysync_build::process::{output, run, step};
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

/// A browser to test with: what the variable of its name says, one on the PATH or where its installer
/// puts it, Debian's package where we are root, or what `playwright-core` installs.
pub(crate) struct Browser {
    pub(crate) variable: &'static str,
    programs: &'static [&'static str],
    /// Where it is on macOS and Windows.
    places: &'static [&'static str],
    package: &'static str,
    /// Its name for `playwright-core`, whose build of it the tests can drive.
    playwright: Option<&'static str>,
}

pub(crate) const CHROMIUM: Browser = Browser {
    variable: "CHROMIUM",
    programs: &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"],
    places: &[
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    ],
    package: "chromium",
    playwright: Some("chromium"),
};
pub(crate) const FIREFOX: Browser = Browser {
    variable: "FIREFOX",
    programs: &["firefox", "firefox-esr"],
    places: &[
        "/Applications/Firefox.app/Contents/MacOS/firefox",
        r"C:\Program Files\Mozilla Firefox\firefox.exe",
    ],
    package: "firefox-esr",
    // Its build is for its own protocol.
    playwright: None,
};

impl Browser {
    /// The program.
    pub(crate) fn find(&self, tools: &Tools) -> Result<PathBuf> {
        let Self { variable, programs, places, package, playwright } = self;
        if let Some(path) = std::env::var_os(variable) {
            return Ok(path.into());
        }
        let find = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let on_path = programs.iter().find_map(|name| {
                std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
            });
            on_path.or_else(|| places.iter().map(PathBuf::from).find(|p| p.is_file()))
        };
        if let Some(path) = find() {
            return Ok(path);
        }
        let missing = format!(
            "the browser tests need one of {programs:?}: install the package `{package}`, or set \
             {variable} to the program"
        );
        if !is_root() || !Path::new("/usr/bin/apt-get").is_file() {
            let Some(name) = playwright else { bail!(missing) };
            return self.by_playwright(tools, name).context(missing);
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

impl Browser {
    /// Has `playwright-core` install its build of this browser, unless it is there.
    fn by_playwright(&self, tools: &Tools, name: &str) -> Result<PathBuf> {
        let folder = target()?.join("browsers");
        let where_is = format!("console.log(require('playwright-core').{name}.executablePath())");
        let find = || -> Result<PathBuf> {
            let mut command = tools.command(tools.node())?;
            command.args(["-e", &where_is]).current_dir(root()?);
            let path = output(command.env("PLAYWRIGHT_BROWSERS_PATH", &folder))?;
            Ok(path.trim().into())
        };
        if !find()?.is_file() {
            step(&format!("install {name} by playwright-core"), || {
                let mut command = tools.script("playwright-core/cli.js")?;
                run(command.args(["install", name]).env("PLAYWRIGHT_BROWSERS_PATH", &folder))
            })?;
        }
        find()
    }
}

fn is_root() -> bool {
    #[cfg(unix)]
    return nix::unistd::geteuid().is_root();
    #[cfg(not(unix))]
    false
}
