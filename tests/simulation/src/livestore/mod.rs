//! A LiveStore store and its clients under seeded faults: lost connections, a process that is killed
//! or sleeps, a disk that fails, a database beside it that answers late, not at all or wrongly,
//! hooks that wait and refuse, objects that are called and fail. Clients behave as LiveStore's do:
//! one push at a time, behind what they have; what others have pushed before goes under theirs. In
//! half of the runs the objects are the event-sourced rooms that ship.
//! Afterwards the faults stop: there is one log, with everything that was acknowledged, and each
//! client has exactly that.

mod client;
mod deliver;
pub mod made;
mod remote;
mod room;
mod step;
mod world;

pub use step::{Schedule, Step};
pub use world::World;

use crate::Violation;

/// Runs the schedule of a seed; gives how many events were stored.
///
/// # Errors
/// The violation, with the history that led to it.
pub fn run(seed: u64) -> Result<u64, Violation> {
    run_schedule(&Schedule::of(seed))
}

/// Runs a schedule.
///
/// # Errors
/// The violation, with the history that led to it.
pub fn run_schedule(schedule: &Schedule) -> Result<u64, Violation> {
    let mut world = World::new(schedule);
    for step in &schedule.steps {
        world.step(step)?;
    }
    world.heal()
}
