//! The commands of an application's `cargo xtask`.

use crate::process::{Server, step, watch_for_stop};
use crate::{App, Profile, Tools};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask build [--dev | --release]
    Builds worker and page, and installs what that needs. `wrangler` calls it: under
    `wrangler dev` it is --dev, otherwise --release.
cargo xtask dev [ARGUMENTS of `wrangler dev`]
    Installs what is needed, and serves the application on http://127.0.0.1:8787. What is edited
    is built anew, and the page is loaded again.
cargo xtask setup
    Installs what is needed, for `npx wrangler`.
";

/// Runs the command that the program's arguments name, for the application in the folder above
/// the program's own crate.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    watch_for_stop()?;
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<_> = arguments.collect();
    let rest: Vec<_> = rest.iter().map(|argument| &**argument).collect();
    match (&*command, &*rest) {
        ("help" | "--help" | "-h", _) => print!("{HELP}"),
        ("build", []) => here()?.build_for_wrangler()?,
        ("build", ["--dev"]) => here()?.build(Profile::Dev)?,
        ("build", ["--release"]) => here()?.build(Profile::Release)?,
        ("setup", []) => set_up(&here()?).map(drop)?,
        ("dev", arguments) => {
            let app = here()?;
            let tools = step("look for the tools, and compile", || app.set_up_for_dev())?;
            let mut command = tools.script("wrangler/bin/wrangler.js")?;
            // `cargo xtask` has one `--` already.
            let arguments = arguments.iter().filter(|argument| **argument != "--");
            command.args(["dev", "--live-reload"]).args(arguments).current_dir(&app.root);
            // It ends with us; what it prints is what there is to say.
            let status = Server::start(&mut command)?.wait();
            if status.is_ok_and(|status| !status.success()) {
                bail!("wrangler ended: see what it printed above");
            }
        }
        _ => bail!("there is no such command\n\n{HELP}"),
    }
    Ok(())
}

fn set_up(app: &App) -> Result<Tools> {
    step("look for the tools", || Tools::set_up(&app.root, &app.target))
}

fn here() -> Result<App> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
    let root = PathBuf::from(manifest).parent().map(PathBuf::from);
    App::open(root.context("the crate `xtask` has a folder above it")?)
}
