//! Live queries: as an application writes them, and random ones (see the simulation).

mod listening;
mod refused;
mod typed;

use partysync_client::testing::{ClientId, World};
use partysync_simulation::queries::app::{AnyAction, CommentAction, IssueAction, Tracker};

#[test]
fn a_result_is_what_sqlite_finds_whatever_happens() {
    for seed in 0..200 {
        if let Err(violation) = partysync_simulation::queries::run(seed) {
            panic!("seed {seed}: {}", violation.what);
        }
    }
}

fn put(world: &mut World<Tracker>, client: ClientId, action: impl Into<AnyAction>) {
    world.act(client, action.into()).unwrap();
}

/// An issue of nobody.
fn issue(n: i64, rank: Option<f64>) -> IssueAction {
    let (id, title) = (format!("i{n}"), format!("issue {n}"));
    IssueAction::Put { id, author: None, title, open: true, rank, points: n }
}

/// A comment of nobody on an issue.
fn comment(n: i64, issue: i64) -> CommentAction {
    CommentAction::Put { id: format!("c{n}"), issue: format!("i{issue}"), by: None, note: None }
}
