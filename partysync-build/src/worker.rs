//! A worker: a wasm module, and what loads it, made by `worker-build`.

use crate::app::NAMES;
use crate::process::{run_and_listen, run_quietly};
use crate::{Crate, Profile, Tools};
use anyhow::Result;
use std::path::Path;

/// Builds a worker into its folder `build`.
///
/// # Errors
/// It does not compile, or a tool fails.
pub fn build_worker(worker: &Crate, tools: &Tools, target: &Path, profile: Profile) -> Result<()> {
    let names = target.join("names");
    let target = if profile == Profile::Names { &names } else { target };
    let (script, wasm) =
        (worker.folder.join("build/index.js"), worker.folder.join("build/index_bg.wasm"));
    let stamp = worker.folder.join("build/.made-of");
    let mut command = tools.command(&tools.worker_build)?;
    command.current_dir(&worker.folder).env("CARGO_TARGET_DIR", target);
    match profile {
        Profile::Dev => {
            worker.cargo(target, profile)?;
            // workerd is not started anew for what is as it was.
            let made_of = worker.made_of(target, profile)?;
            if script.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|was| was == made_of) {
                return Ok(());
            }
            // A build that is stopped half-way leaves nothing that could be taken for this.
            let _ = std::fs::remove_file(&stamp);
            run_quietly(command.args(["--dev", "--no-opt"]).env("NO_MINIFY", "1"))?;
            Ok(std::fs::write(stamp, made_of)?)
        }
        Profile::Release | Profile::Names => {
            // It may be there no more.
            let _ = std::fs::remove_file(stamp);
            if profile == Profile::Names {
                command.env("RUSTFLAGS", NAMES);
            }
            run_and_listen(command.args(["--release", "--no-opt"]))?;
            // `worker-build` keeps the names of functions, which are a ninth of what is deployed.
            tools.wasm_opt(&wasm, &["-O3", profile.names()])
        }
    }
}
