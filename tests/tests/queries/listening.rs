//! Whoever listens to a result: it may ask as soon as it is woken, and be slow.

use super::{AnyAction, Tracker, comment, issue, put};
use futures::Stream;
use partysync::sql::{SqlType, Value};
use partysync::{Column, Record, Result};
use partysync_client::query::{Difference, Live, LiveChanges, LiveTotals, Total};
use partysync_client::testing::{ClientId, World};
use partysync_simulation::queries::app::{Comment, CommentAction, Issue, IssueAction};
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

fn world() -> (World<Tracker>, ClientId) {
    let mut world = World::new(Tracker).unwrap();
    let client = world.client();
    world.deliver().unwrap();
    (world, client)
}

/// What waits for itself never ends: it is given up.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        tell.send(()).unwrap();
    });
    match told.recv_timeout(Duration::from_secs(20)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it waits for a lock that it holds"),
        _ => thread.join().unwrap(),
    }
}

fn poll<S: Stream + Unpin>(stream: &mut S, waker: &Waker) -> Option<S::Item> {
    match Pin::new(stream).poll_next(&mut Context::from_waker(waker)) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

/// Asks when it is woken.
struct Asks {
    live: Live<Issue>,
    counted: LiveTotals<Issue>,
    seen: Mutex<Vec<(usize, u64)>>,
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let seen = (self.live.rows().len(), self.counted.count());
        self.seen.lock().unwrap().push(seen);
    }
}

#[test]
fn whoever_is_woken_may_ask_at_once_and_finds_all_results_as_they_are_now() {
    in_time(|| {
        let (mut world, client) = world();
        let live = world.query(client, &Issue::query()).unwrap();
        let counted = world.totals(client, &Issue::query().count()).unwrap();
        let (mut changes, mut counts) = (live.changes(), counted.changes());
        let asks = Arc::new(Asks { live, counted, seen: Mutex::default() });
        let waker = Waker::from(asks.clone());
        assert_eq!(poll(&mut changes, &waker), Some(vec![Difference::Reset(Vec::new())]));
        assert!(poll(&mut counts, &waker).is_some());
        assert!(poll(&mut changes, &waker).is_none() && poll(&mut counts, &waker).is_none());
        put(&mut world, client, AnyAction::Issue(issue(1, None)));
        assert_eq!(*asks.seen.lock().unwrap(), [(1, 1); 2]);
        // At the end, too.
        assert!(poll(&mut changes, &waker).is_some() && poll(&mut changes, &waker).is_none());
        world.restart(client).unwrap();
        assert_eq!(*asks.seen.lock().unwrap(), [(1, 1); 3]);
    });
}

/// What is dropped with its waker.
struct Holds {
    _changes: LiveChanges<Issue>,
}

impl Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_is_replaced_may_hold_the_last_of_a_listener() {
    in_time(|| {
        let (mut world, client) = world();
        let live = world.query(client, &Issue::query()).unwrap();
        let mut changes = live.changes();
        let holds = Waker::from(Arc::new(Holds { _changes: live.changes() }));
        assert!(poll(&mut changes, &holds).is_some() && poll(&mut changes, &holds).is_none());
        drop(holds);
        assert!(poll(&mut changes, Waker::noop()).is_none());
    });
}

thread_local! {
    static ASKED: RefCell<Option<LiveTotals<Titled, Title>>> = const { RefCell::new(None) };
}

/// Asks the result that it is read from.
#[derive(Clone, Debug, PartialEq)]
struct Title(String, usize);

impl Column for Title {
    const TYPE: SqlType = SqlType::Text;

    fn to_value(&self) -> Value {
        Value::Text(self.0.clone())
    }

    fn from_value(value: Value) -> Result<Self> {
        let asked = ASKED.take();
        let groups = asked.as_ref().map_or(0, |asked| asked.untyped().len());
        ASKED.set(asked);
        Ok(Self(String::from_value(value)?, groups))
    }
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "issues")]
struct Titled {
    #[record(key)]
    id: String,
    title: Title,
}

#[test]
fn a_type_may_ask_the_result_that_it_is_read_from() {
    in_time(|| {
        let (mut world, client) = world();
        (1..3).for_each(|n| put(&mut world, client, AnyAction::Issue(issue(n, None))));
        let totals = world.totals(client, &Titled::query().count().by(Titled::title)).unwrap();
        ASKED.set(Some(totals.clone()));
        let groups = |totals: Vec<Total<Title>>| {
            totals.into_iter().map(|total| total.group.1).collect::<Vec<_>>()
        };
        assert_eq!(groups(totals.totals().unwrap()), [2, 2]);
        let told = poll(&mut totals.changes(), Waker::noop()).unwrap();
        assert_eq!(groups(told.unwrap()), [2, 2]);
        ASKED.take();
        let _ = Titled { id: String::new(), title: Title(String::new(), 0) }.id;
    });
}

#[test]
fn whoever_is_further_behind_than_there_are_rows_is_given_all_anew() {
    let (mut world, client) = world();
    let behind = |world: &mut World<Tracker>, rows: i64, changes: i64| {
        (0..rows).for_each(|n| put(world, client, AnyAction::Issue(issue(n, None))));
        let live = world.query(client, &Issue::query().with(Comment::issue, |all| all)).unwrap();
        let mut told = live.changes();
        assert!(poll(&mut told, Waker::noop()).is_some());
        for n in 0..changes {
            put(world, client, AnyAction::Comment(comment(n, 0)));
        }
        let told = poll(&mut told, Waker::noop()).unwrap();
        let all = live.rows();
        (0..rows).for_each(|n| {
            put(world, client, AnyAction::Issue(IssueAction::Delete { id: format!("i{n}") }));
        });
        (0..changes).for_each(|n| put(world, client, delete(n)));
        match told.as_slice() {
            [Difference::Reset(rows)] => assert_eq!(*rows, all),
            told => assert_eq!(told.len(), usize::try_from(changes).unwrap()),
        }
        told.len()
    };
    // A few may always wait, and as many as there are rows.
    assert_eq!(behind(&mut world, 2, 64), 64);
    assert_eq!(behind(&mut world, 2, 65), 1);
    assert_eq!(behind(&mut world, 80, 80), 80);
    assert_eq!(behind(&mut world, 80, 81), 1);
}

#[test]
fn the_first_rows_are_looked_up_at_once_also_while_an_action_waits() {
    let (mut world, other) = world();
    put(&mut world, other, AnyAction::Issue(IssueAction::Fill { count: 500 }));
    world.deliver().unwrap();
    let client = world.client();
    put(&mut world, client, AnyAction::Issue(issue(1_000, None)));
    let few = Issue::query().filter(Issue::points.eq(1_000));
    let live = world.query(client, &few).unwrap();
    let pages = Issue::query().order_by(Issue::points.desc()).limit(4);
    let page = world.query(client, &pages.with_count(Comment::issue, |all| all)).unwrap();
    let mut told = live.changes();
    assert!(poll(&mut told, Waker::noop()).is_some());
    world.deliver().unwrap();
    let told = poll(&mut told, Waker::noop()).unwrap();
    assert!(matches!(told.last(), Some(Difference::Reset(rows)) if rows.len() == 1), "{told:?}");
    let rows = page.rows();
    let rows: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.related.0)).collect();
    assert_eq!(rows, [("i1000", 0), ("i103", 0), ("i116", 0), ("i12", 11)]);
    // A single row is told as it is.
    put(&mut world, other, AnyAction::Issue(IssueAction::Delete { id: "i1000".into() }));
    let mut told = live.changes();
    assert!(poll(&mut told, Waker::noop()).is_some());
    world.deliver().unwrap();
    assert_eq!(poll(&mut told, Waker::noop()), Some(vec![Difference::Removed(0)]));
}

fn delete(n: i64) -> AnyAction {
    let id = format!("c{n}");
    AnyAction::Comment(CommentAction::Delete { id })
}
