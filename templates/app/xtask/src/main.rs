//! The application's commands: `cargo xtask` lists them.

fn main() -> std::process::ExitCode {
    partysync_build::main()
}
