//! Live queries: random ones, over random changes: actions that wait, are answered, rejected, done
//! again or adopted, rows of others, clients that begin anew, rooms that are others. After each step
//! every result is what SQLite finds in the rows that the client shows, and what was told of its
//! changes, put together in order, is that, too.

#[allow(missing_docs)]
pub mod app;
mod oracle;
mod random;
mod watched;

use crate::Violation;
use app::{AnyAction, Comment, Issue, IssueAction, SCHEMAS, Tracker, User};
use oracle::Oracle;
use partysync::query::{Totals, plan};
use partysync_client::query::LiveTotals;
use partysync_client::testing::{ClientId, World};
use random::Random;
use watched::{Watch, Watched};

/// The steps of a run.
const STEPS: usize = 60;
/// One of so many runs has many rows.
const LARGE: u64 = 400;
/// So many results are watched at once at most.
const WATCHED: usize = 8;

/// Counts and sums that are watched.
struct Summed {
    plan: plan::Totals,
    live: LiveTotals<Issue>,
}

/// Runs a seed; gives how many queries were asked.
///
/// # Errors
/// The violation.
pub fn run(seed: u64) -> Result<u64, Violation> {
    let mut run = Run::new(seed).map_err(|error| violation(&error))?;
    for step in 0..STEPS {
        run.step().map_err(|error| violation(&error))?;
        run.check().map_err(|what| Violation {
            what: format!("step {step}: {what}"),
            history: Vec::new(),
        })?;
    }
    Ok(run.asked)
}

fn violation(error: &partysync::Error) -> Violation {
    Violation { what: error.to_string(), history: Vec::new() }
}

struct Run {
    random: Random,
    world: World<Tracker>,
    /// The one whose results are watched, another tab of it, and another client.
    clients: [ClientId; 3],
    oracle: Oracle,
    views: Vec<Box<dyn Watch>>,
    sums: Vec<Summed>,
    asked: u64,
}

impl Run {
    fn new(seed: u64) -> partysync::Result<Self> {
        let mut world = World::new(Tracker)?;
        let watched = world.client();
        let clients = [watched, world.tab_of(watched), world.client()];
        world.set_offline(watched, true)?;
        world.deliver()?;
        let (mut issues, oracle) = (12, Oracle::new(SCHEMAS)?);
        // Some results are long.
        if seed % LARGE == LARGE - 1 {
            issues = 400;
            let fill = IssueAction::Fill { count: i64::try_from(issues).unwrap_or_default() };
            world.act(clients[2], AnyAction::Issue(fill))?;
            world.deliver()?;
        }
        let random = Random { rng: fastrand::Rng::with_seed(seed), issues };
        let (views, sums) = (Vec::new(), Vec::new());
        let mut run = Self { random, world, clients, oracle, views, sums, asked: 0 };
        // In half of the runs the first queries are asked before there are rows.
        for _ in 0..8 {
            run.world.act(clients[2], run.random.action())?;
        }
        run.world.deliver()?;
        if seed.is_multiple_of(2) {
            for _ in 0..3 {
                run.ask()?;
            }
        }
        run.world.set_offline(watched, false)?;
        run.world.reconnect(watched);
        run.world.deliver()?;
        Ok(run)
    }

    fn step(&mut self) -> partysync::Result<()> {
        let Self { random, world, clients: [watched, tab, other], .. } = self;
        match random.rng.usize(..31) {
            0..10 => drop(world.act(*watched, random.action())),
            10..13 => drop(world.act(*tab, random.action())),
            13..18 => drop(world.act(*other, random.action())),
            18..22 => world.deliver()?,
            22 => world.cut(random.of(&[*watched, *tab, *other]))?,
            23 => world.advance(random.rng.u64(..20_000))?,
            // Its outbox is adopted.
            24 => world.restart(*tab)?,
            25 if random.rng.u8(..4) == 0 => {
                // What it had is gone with it: it is asked again.
                world.restart(*watched)?;
                self.views.clear();
                self.sums.clear();
            }
            26 if !self.views.is_empty() => {
                let gone = random.rng.usize(..self.views.len());
                drop(self.views.swap_remove(gone));
            }
            _ if self.views.len() + self.sums.len() < WATCHED => self.ask()?,
            _ => {}
        }
        Ok(())
    }

    fn ask(&mut self) -> partysync::Result<()> {
        let Self { random, world, clients: [watched, ..], .. } = self;
        self.asked += 1;
        if random.rng.u8(..5) == 0 {
            let plan = plan::Totals {
                table: "issues".to_owned(),
                filter: random.filter("issues", 0),
                group: random.rng.bool().then(|| random.column("issues")),
                sum: random.rng.bool().then(|| "points".to_owned()),
            };
            let live = world.totals(*watched, &Totals::from_plan(plan.clone())?)?;
            self.sums.push(Summed { plan, live });
            return Ok(());
        }
        let table = random.of(&["users", "issues", "comments"]);
        let plan = random.plan(table, 0);
        self.views.push(match table {
            "users" => Watched::<User>::watch(world, *watched, plan)?,
            "issues" => Watched::<Issue>::watch(world, *watched, plan)?,
            _ => Watched::<Comment>::watch(world, *watched, plan)?,
        });
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        let (watched, error) = (self.clients[0], |error: partysync::Error| error.to_string());
        self.oracle.fill(&self.world.rows::<User>(watched).map_err(error)?).map_err(error)?;
        self.oracle.fill(&self.world.rows::<Issue>(watched).map_err(error)?).map_err(error)?;
        self.oracle.fill(&self.world.rows::<Comment>(watched).map_err(error)?).map_err(error)?;
        for view in &mut self.views {
            view.check(&self.oracle)?;
        }
        for Summed { plan, live } in &self.sums {
            let totals = live.untyped().into_iter();
            let totals: Vec<_> = totals
                .map(|t| (t.group, t.count.cast_signed(), i64::try_from(t.sum).unwrap_or(i64::MAX)))
                .collect();
            let expected = self.oracle.totals(plan).map_err(error)?;
            if totals != expected {
                return Err(format!("{plan:#?}\nis   {totals:?}\nisn't {expected:?}"));
            }
        }
        Ok(())
    }
}
