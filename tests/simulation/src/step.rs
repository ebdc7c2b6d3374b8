//! Schedules: made from a seed, and shrunk.

use crate::app::AppAction;
use crate::run_schedule;

/// Tokens of the actions of version 1 are larger than this.
const V1_TOKENS: i64 = 1_000_000;
/// Tokens of what is done to notes and grants are larger than this.
pub(crate) const NOTE_TOKENS: i64 = 2_000_000;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A client makes an action; its token is given when it is made.
    Act(usize, AppAction),
    /// As [`Act`](Self::Act), and the client dies before the action is stored.
    ActAndDie(usize, AppAction),
    /// A client says that it is here with this state, or that it is no more.
    Here(usize, Option<i64>),
    /// The socket that a client asked for opens.
    Open(usize),
    /// A frame reaches the server.
    Up(usize),
    /// A frame reaches the client.
    Down(usize),
    /// All that is under way arrives, for all clients.
    Settle,
    /// A frame to the server comes twice.
    UpTwice(usize),
    /// A frame to the client comes twice.
    DownTwice(usize),
    /// A frame to the client is overtaken by the next one.
    DownSwap(usize),
    /// A frame to the client is lost on a connection that lives on.
    DownDrop(usize),
    /// The connection breaks; both sides notice when they notice.
    Cut(usize),
    /// The client notices that its connection is broken.
    Notice(usize),
    /// The client dies and comes back from its store.
    ClientCrash(usize),
    /// The tab is closed, or killed.
    CloseTab(usize),
    /// A tab is opened where there is none.
    OpenTab(usize),
    /// A tab hears what the others of its browser tell, and takes over what they left behind.
    Hear(usize),
    /// So many answers of a tab's store are failures; with `true`, what it says has failed was
    /// done.
    StoreFails(usize, u32, bool),
    /// A tab's store answers when it is told to.
    StoreSlow(usize),
    /// A tab's store answers.
    StoreAnswers(usize),
    /// A tab's store says that it broke.
    StoreBreaks(usize),
    /// What a tab's browser keeps is copied.
    StoreBackUp(usize),
    /// The power of a tab's browser fails, and it keeps what was copied.
    StoreSetBack(usize),
    /// Another tab may have a tab's outbox, though it lives.
    LoseLock(usize),
    /// A tab does nothing.
    Freeze(usize),
    /// A tab goes on.
    Thaw(usize),
    /// The clients' time of day is off by this, ms.
    WallSkew(i64),
    /// Something on the way closes the connection, or does not let it open.
    Refuse(usize, u8),
    /// The server dies between two events.
    ServerCrash,
    /// The server will die after this many statements.
    ServerDoom(u32),
    /// After this many statements, so many fail, and the process lives on.
    DiskFails(u32, u32),
    /// The database is kept as it is.
    BackUp,
    /// The database is set back to what was kept.
    Restore,
    /// A frame of each client reaches the server, all in one turn.
    UpAll,
    /// A client of nobody's breaks the rules in one of these ways.
    Evil(u8),
    /// The object is rebuilt with its sockets open.
    Hibernate,
    /// The application's next version is deployed, or rolled back.
    Upgrade,
    /// One of the hooks that are awaited returns.
    Resume(usize),
    /// The storage is wiped.
    Wipe,
    /// The server's alarm rings.
    Alarm,
    /// Time passes, ms.
    Wait(i64),
    /// The server's clock jumps, ms; it may go back.
    Skew(i64),
    /// Something happens to a client of version 1.
    V1(usize, V1Step),
}

/// What happens to a client of version 1.
#[derive(Clone, Debug, PartialEq)]
pub enum V1Step {
    /// It connects and asks for rows, if it has no connection that works.
    Open,
    /// A frame reaches the server.
    Up,
    /// A frame reaches it.
    Down,
    /// It calls an action.
    Call(AppAction),
    /// It asks for the rows of a channel; with `true` for all, otherwise for what is later than
    /// what it has.
    Sync(usize, bool),
    /// Its connection breaks.
    Cut,
    /// The room sends more of what it has to send.
    GoOn,
}

impl V1Step {
    fn random(random: &mut fastrand::Rng, token: &mut i64) -> Self {
        match random.u8(..16) {
            0 | 1 => Self::Open,
            2..=4 => Self::Up,
            5..=9 => Self::Down,
            10..=12 => {
                *token += 1;
                Self::Call(AppAction::random(random, *token))
            }
            13 => Self::Sync(random.usize(..3), random.bool()),
            14 => Self::Cut,
            _ => Self::GoOn,
        }
    }
}

/// What happens in a run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// How many clients there are.
    pub clients: usize,
    /// How many of them share a browser's storage, as tabs do.
    pub tabs: usize,
    /// How many clients of version 1 there are beside them.
    pub watchers: usize,
    /// Whether the server's hooks take time.
    pub slow_hooks: bool,
    /// Whether the server's pages hold a row or two.
    pub small_pages: bool,
    /// Whether the clients' stores have faults. A store that has lost count of what was sent and a
    /// room that has forgotten the client are too much for anybody: then rooms forget none.
    pub store_faults: bool,
    /// What happens, in this order.
    pub steps: Vec<Step>,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let clients = random.usize(1..=4);
        // Each run has its own character: some are calm, some are all faults.
        let faults = random.u32(0..=30);
        let wipes = random.u8(..10) == 0;
        let tabs = random.usize(1..=clients);
        let slow_hooks = random.u8(..3) == 0;
        let small_pages = random.u8(..2) == 0;
        let store_faults = random.bool();
        let length = random.usize(20..160);
        let mut token = 0;
        let mut steps = Vec::with_capacity(length);
        while steps.len() < length {
            let client = random.usize(..clients);
            if random.u32(..100) < faults {
                let kinds = if store_faults { 34 } else { 29 };
                steps.push(match random.u8(..kinds) {
                    22 => Step::Freeze(client),
                    23 => Step::Thaw(client),
                    24 => Step::WallSkew(random.i64(-400_000..400_000)),
                    25 | 26 => Step::Refuse(client, random.u8(..)),
                    27 | 28 => Step::StoreSlow(client),
                    29 | 30 => Step::StoreFails(client, random.u32(1..4), random.bool()),
                    31 => Step::StoreBreaks(client),
                    32 if random.bool() => Step::StoreBackUp(client),
                    32 => Step::StoreSetBack(client),
                    33 if random.u8(..4) == 0 => Step::LoseLock(client),
                    33 => Step::StoreAnswers(client),
                    18 | 19 => Step::DiskFails(random.u32(0..25), random.u32(1..4)),
                    20 if random.u8(..4) == 0 => Step::Restore,
                    20 => Step::BackUp,
                    21 => Step::Evil(random.u8(..)),
                    0 | 1 => Step::Cut(client),
                    2 => Step::ClientCrash(client),
                    3 => Step::ServerCrash,
                    4 | 5 => Step::ServerDoom(random.u32(0..25)),
                    6 => Step::Hibernate,
                    7 => Step::UpTwice(client),
                    8 => Step::DownTwice(client),
                    9 => Step::DownSwap(client),
                    10 => Step::DownDrop(client),
                    11 => Step::Skew(random.i64(-20_000..400_000)),
                    12 if wipes => Step::Wipe,
                    12 => Step::Alarm,
                    13 => Step::CloseTab(client),
                    14 | 15 => Step::OpenTab(client),
                    16 if random.u8(..4) == 0 => Step::Upgrade,
                    16 => Step::Hear(client),
                    _ => {
                        token += 1;
                        Step::ActAndDie(client, AppAction::random(&mut random, token))
                    }
                });
                continue;
            }
            steps.push(match random.u8(..27) {
                25 => Step::StoreAnswers(client),
                26 => Step::Thaw(client),
                24 => Step::UpAll,
                0..=5 => {
                    token += 1;
                    Step::Act(client, AppAction::random(&mut random, token))
                }
                6 | 7 => Step::Open(client),
                8..=10 => Step::Up(client),
                11..=14 => Step::Down(client),
                15 => Step::Notice(client),
                16 | 17 => Step::Wait(random.i64(1..2_000)),
                18 => Step::Wait(random.i64(1..2 * crate::app::RETENTION)),
                19 => Step::Alarm,
                20 if tabs > 1 => Step::Hear(client),
                21 | 22 if slow_hooks => Step::Resume(client),
                21 | 22 => Step::Up(client),
                _ => Step::Settle,
            });
        }
        let watchers = 0;
        let schedule =
            Self { clients, tabs, watchers, slow_hooks, small_pages, store_faults, steps };
        schedule.with_notes(seed).with_presence(seed).with_watchers(seed)
    }

    /// With what is done to notes and grants in between.
    fn with_notes(mut self, seed: u64) -> Self {
        // Numbers of their own, as for version 1.
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6e6f_7465);
        let often = [0, 2, 3, 6][random.usize(..4)];
        let (mut token, mut steps) = (NOTE_TOKENS, Vec::new());
        for step in self.steps {
            if often > 0 && random.u8(..often) == 0 {
                token += 1;
                let action = AppAction::random_note(&mut random, token);
                steps.push(Step::Act(random.usize(..self.clients), action));
            }
            steps.push(step);
        }
        self.steps = steps;
        self
    }

    /// With what clients say of themselves in between.
    fn with_presence(mut self, seed: u64) -> Self {
        // Numbers of their own, as for notes.
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6865_7265);
        let often = [0, 3, 6, 12][random.usize(..4)];
        let mut steps = Vec::new();
        for step in self.steps {
            if often > 0 && random.u8(..often) == 0 {
                let state = (random.u8(..5) > 0).then(|| random.i64(0..1_000));
                steps.push(Step::Here(random.usize(..self.clients), state));
            }
            steps.push(step);
        }
        self.steps = steps;
        self
    }

    /// Without clients of version 1.
    #[must_use]
    pub fn without_v1(mut self) -> Self {
        self.watchers = 0;
        self.steps.retain(|step| !matches!(step, Step::V1(..)));
        self
    }

    /// With what clients of version 1 do in between.
    fn with_watchers(mut self, seed: u64) -> Self {
        // Numbers of their own, so that the other steps of a seed stay what they are.
        let mut random = fastrand::Rng::with_seed(!seed);
        self.watchers = [0, 0, 1, 2][random.usize(..4)];
        if self.watchers == 0 {
            return self;
        }
        let mut token = V1_TOKENS;
        let mut steps = Vec::new();
        for step in self.steps {
            while random.u8(..3) == 0 {
                let which = random.usize(..self.watchers);
                steps.push(Step::V1(which, V1Step::random(&mut random, &mut token)));
            }
            steps.push(step);
        }
        self.steps = steps;
        self
    }
}

/// The shortest schedule found that still violates: steps are left out as long as it does.
#[must_use]
pub fn shrink(schedule: &Schedule) -> Schedule {
    let mut best = schedule.clone();
    let mut size = best.steps.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.drain(start..(start + size).min(best.steps.len()));
            if run_schedule(&shorter).is_err() {
                best = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    best
}
