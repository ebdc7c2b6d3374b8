//! Schedules that once found a fault hold.

use partysync_simulation::{Schedule, run_schedule};

#[test]
fn schedules_that_found_a_fault_hold() {
    for (seed, fault) in [
        (373, "what died with a tab before it was stored was shown in another for ever"),
        (2_428, "a store that was given all again lost what another client had put there"),
        (3_903, "what was told before a store failed was told again when it was open"),
        (6_169_070, "a slow store let others read what had its answer"),
        (9_049_087, "what a client had made was shown beside what was taken over from it"),
        (8_009_896, "a store that had been slow was not waited for"),
        (7_006_105, "a tab that was gone before a store was read was shown after it"),
        (
            22_157_183,
            "a room's clock that jumped made a push seem new that it had done and forgotten",
        ),
        (26_104_964, "what was handed back was shown behind what came after it, and never ended"),
        (
            30_541_965,
            "what was taken over, and had been done before, was shown in a third for ever",
        ),
    ] {
        // They were found when there were no clients of version 1.
        if let Err(violation) = run_schedule(&Schedule::of(seed).without_v1()) {
            panic!("seed {seed}: {}. It once showed that {fault}.", violation.what);
        }
    }
}
