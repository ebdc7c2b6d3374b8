//! End-to-end and property tests: see `tests/`, `e2e/` and `lab/`.
