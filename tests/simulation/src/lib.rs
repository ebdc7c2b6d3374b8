//! One room and many clients on a virtual clock, under seeded faults: delays, lost connections,
//! frames that come twice, in another order or not at all, crashes of either side at any write,
//! tabs that share a store and inherit from each other, hooks that take time, hibernation, a clock
//! that jumps, trimming, a new version of the application, a disk that is full for a while, storage
//! that is set back or wiped, clients that break every rule, clients of version 1. Afterwards the
//! faults stop, and the invariants have to hold.
//!
//! A run is a schedule: a list of steps made from a seed. Each step means something in any state,
//! so a schedule that finds a violation can be shrunk by leaving steps out.

pub mod app;
mod check;
mod disk;
pub mod livestore;
mod network;
mod presence;
pub mod queries;
pub mod server;
mod sight;
pub mod step;
mod tab;
mod tabs;
mod v1;
pub mod world;

pub use step::{Schedule, Step, V1Step, shrink};
pub use world::{Violation, World};

/// Runs the schedule of a seed.
///
/// # Errors
/// The violation, with the history that led to it.
pub fn run(seed: u64) -> Result<Stats, Violation> {
    run_schedule(&Schedule::of(seed))
}

/// Runs a schedule.
///
/// # Errors
/// The violation, with the history that led to it.
pub fn run_schedule(schedule: &Schedule) -> Result<Stats, Violation> {
    let mut world = World::new(schedule);
    for step in &schedule.steps {
        world.step(step)?;
    }
    world.heal()?;
    Ok(world.stats)
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Actions that clients made.
    pub actions: u64,
    /// Of these, rejected.
    pub rejected: u64,
    /// Of these, with an unknown end: the room had forgotten their client.
    pub forgotten: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Crashes of the server.
    pub server_crashes: u64,
    /// Crashes of clients.
    pub client_crashes: u64,
    /// Connections made.
    pub connections: u64,
    /// Resets that clients were told.
    pub resets: u64,
    /// Outboxes that one tab took over from another.
    pub adopted: u64,
    /// Actions whose client has heard their result.
    pub results: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.actions += other.actions;
        self.rejected += other.rejected;
        self.forgotten += other.forgotten;
        self.frames += other.frames;
        self.server_crashes += other.server_crashes;
        self.client_crashes += other.client_crashes;
        self.connections += other.connections;
        self.resets += other.resets;
        self.adopted += other.adopted;
        self.results += other.results;
    }
}
