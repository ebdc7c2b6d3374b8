//! The tests of `docs/guide/src/testing.md`, as they stand there.

include!(concat!(env!("OUT_DIR"), "/testing.rs"));
