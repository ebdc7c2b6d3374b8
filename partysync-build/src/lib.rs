//! Builds the worker and the page of an application of partysync.
//!
//! An application has a command of its own, `xtask`, which is what `wrangler` builds it with:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     partysync_build::main()
//! }
//! ```
//!
//! `cargo xtask build` builds the crate in `worker/` with `worker-build`, and the crate in `web/`
//! with `wasm-bindgen`; it installs what of them is missing. Under `wrangler dev` it builds for
//! development: fast, only what has changed, with the page's feature `devtools` if it has one, and
//! an error of the compiler is shown in the page. For `wrangler deploy` it builds what is small and
//! fast. Files in `web/static` are copied, and `__BUILD__` in its `index.html` and `sw.js` becomes
//! the build's name.

mod app;
mod cli;
mod page;
pub mod process;
mod tools;
mod worker;

pub use app::{App, Crate};
pub use cli::main;
pub use page::{build_page, page_wasm};
pub use tools::{Tools, WASM, add_target, npm_packages};
pub use worker::build_worker;

/// What a build is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Changes are to be seen soon: cargo's profile `dev`.
    Dev,
    /// It is deployed: cargo's profile `release`, and `wasm-opt`.
    Release,
    /// As [`Release`](Self::Release), with the names of functions, for a profiler; built in a
    /// folder of its own.
    Names,
}

impl Profile {
    /// What `wrangler` asks for: [`Dev`](Self::Dev) under `wrangler dev`, unless the variable
    /// `PARTYSYNC_PROFILE` is `release`.
    pub fn of_wrangler() -> Self {
        let is = |name, value| std::env::var(name).is_ok_and(|is| is == value);
        match is("WRANGLER_COMMAND", "dev") && !is("PARTYSYNC_PROFILE", "release") {
            true => Self::Dev,
            false => Self::Release,
        }
    }

    /// The folder of `target/wasm32-unknown-unknown` that cargo builds into.
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release | Self::Names => "release",
        }
    }

    /// What `wasm-opt` does with names.
    fn names(self) -> &'static str {
        match self {
            Self::Names => "--debuginfo",
            Self::Dev | Self::Release => "--strip-debug",
        }
    }
}
