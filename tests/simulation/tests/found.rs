//! Schedules that once found a fault hold.

use partysync_simulation::run;

#[test]
fn schedules_that_found_a_fault_hold() {
    for (seed, fault) in [
        (17_633, "a lost `welcome` let actions be pushed without their epoch, and be done twice"),
        (1_033_599, "a lost `reset` let rows of an older epoch be believed"),
        (1_431_221, "an action told as unknown was expected in view: the simulation's own fault"),
        (1_498, "a page that was lost on a connection that lived on was not missed"),
        (5_535, "a client of storage that was set back was taken for one of other storage"),
        (1_593_567, "an action whose hook outlived its client's memory was done twice"),
    ] {
        if let Err(violation) = run(seed) {
            panic!("seed {seed}: {}. It once showed that {fault}.", violation.what);
        }
    }
}
