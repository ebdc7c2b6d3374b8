//! Live queries: as an application writes them, and random ones (see the simulation).

mod refused;
mod typed;

#[test]
fn a_result_is_what_sqlite_finds_whatever_happens() {
    for seed in 0..200 {
        if let Err(violation) = partysync_simulation::queries::run(seed) {
            panic!("seed {seed}: {}", violation.what);
        }
    }
}
