//! End-to-end and property tests: see `tests/`, `e2e/`, ``lab/` and `fuzz/`.

pub mod bench;
pub mod crowd;
pub mod decoders;
mod livestore_decoders;
pub mod watched;
pub mod workerd;
