//! Schedules of a store: made from a seed, and shrunk.

use super::run_schedule;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// A client commits so many events.
    Commit(usize, usize),
    /// A client does what it does next: it connects, pulls, pushes.
    Go(usize),
    /// A frame of a client reaches the server.
    Up(usize),
    /// A frame reaches a client.
    Down(usize),
    /// A client's connection breaks; an object is rebuilt.
    Cut(usize),
    /// The server notices connections that are broken.
    Notice,
    /// The first hook that waits returns; with `false` it refuses.
    Hook(bool),
    /// An operation on the database beside the object is done.
    Remote(usize, RemoteFault),
    /// The first call under way reaches its object, or fails.
    Called(bool),
    /// The store's object sleeps, if nothing keeps it awake.
    Sleep,
    /// The process is killed.
    Kill,
    /// After so many statements the disk fails, so many times.
    DiskFails(u32, u32),
    /// So many milliseconds pass.
    Wait(i64),
    /// The log is emptied.
    Empty,
    /// The database beside the object is set back by so many events, while nobody runs.
    Lose(u64),
    /// The object loses what it has; the database beside it stays.
    Wipe,
}

/// How the database beside the object fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RemoteFault {
    /// It works.
    None,
    /// Nothing is done.
    Fails,
    /// It is done, and said to have failed.
    Lies,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Clients with a socket.
    pub sockets: usize,
    /// Clients that are objects, behind them.
    pub objects: usize,
    /// Whether those are event-sourced rooms.
    pub rooms: bool,
    /// Whether the log is in a database beside the object.
    pub elsewhere: bool,
    /// Whether hooks wait.
    pub slow_hooks: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (sockets, objects) = (random.usize(1..4), random.usize(0..3));
        let (elsewhere, slow_hooks) = (random.bool(), random.u8(0..4) == 0);
        // Afterwards nothing is known of what was acknowledged.
        let empties = random.u8(0..5) == 0;
        let steps = (0..random.usize(10..120))
            .map(|_| {
                let client = random.usize(0..sockets + objects);
                match random.u8(0..100) {
                    0..14 => Step::Commit(client, random.usize(1..6)),
                    14..36 => Step::Go(client),
                    36..52 => Step::Up(client),
                    52..68 => Step::Down(client),
                    68..71 => Step::Cut(client),
                    71..73 => Step::Notice,
                    73..76 => Step::Hook(random.u8(0..5) > 0),
                    76..84 => Step::Remote(
                        random.usize(0..3),
                        match random.u8(0..8) {
                            0 => RemoteFault::Fails,
                            1 => RemoteFault::Lies,
                            _ => RemoteFault::None,
                        },
                    ),
                    84..89 => Step::Called(random.u8(0..4) > 0),
                    89..91 => Step::Sleep,
                    91..93 => Step::Kill,
                    93..94 => Step::DiskFails(random.u32(0..12), random.u32(0..3)),
                    94..98 => Step::Wait([10, 300, 5_000, 40_000][random.usize(0..4)]),
                    98 if empties && random.bool() => Step::Empty,
                    98 if empties => Step::Lose(random.u64(1..8)),
                    _ => Step::Wipe,
                }
            })
            .collect();
        let rooms = random.bool();
        Self { sockets, objects, rooms, elsewhere, slow_hooks, steps }
    }

    /// The shortest schedule found that still fails.
    #[must_use]
    pub fn shrunk(&self) -> Self {
        let mut short = self.clone();
        let mut size = short.steps.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < short.steps.len() {
                let mut less = short.clone();
                less.steps.drain(at..(at + size).min(short.steps.len()));
                if run_schedule(&less).is_err() { short = less } else { at += size }
            }
            size /= 2;
        }
        short
    }
}
