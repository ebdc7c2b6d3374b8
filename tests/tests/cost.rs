//! What an event costs: statements, and rows written as a Durable Object bills them.

use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Event, Incoming, Opening, Slot};
use partysync::sql::{Sql, Sqlite};
use partysync::wire::v2::ServerFrame;
use partysync::{Action, Limits, Protocol, Record, Result, Room, SyncServer, Timestamp, params};
use partysync_tests::watched::Watched;
use std::cell::Cell;
use std::rc::Rc;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
    text: String,
    completed: bool,
    #[record(created_at)]
    created_at: Timestamp,
    #[record(updated_at)]
    updated_at: Timestamp,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Todo)]
enum TodoAction {
    #[action(insert)]
    Create { id: String, text: String, completed: bool },
    #[action(update)]
    Update { id: String, text: Option<String>, completed: Option<bool> },
}

struct Todos;

impl SyncServer for Todos {
    type Action = TodoAction;

    fn limits(&self) -> Limits {
        Limits { actions_burst: 1_000_000, ..Limits::default() }
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: TodoAction) -> Result<()> {
        if matches!(&action, TodoAction::Create { completed: true, .. }) {
            room.answer(&7)?;
        }
        action.apply(room.sql())
    }
}

struct Bench {
    db: Watched,
    statements: Rc<Cell<usize>>,
    room: Local<Todos>,
    now: Timestamp,
}

/// What an event has cost.
#[derive(Debug, PartialEq)]
struct Cost {
    statements: usize,
    rows: i64,
    effects: usize,
}

impl Bench {
    fn new() -> Self {
        let (statements, sqlite) = (Rc::<Cell<usize>>::default(), Sqlite::in_memory().unwrap());
        let counted = statements.clone();
        let db = Watched::new(&Rc::new(sqlite), move |_, _| {
            counted.set(counted.get() + 1);
            Ok(())
        });
        let room = Local::new(Todos);
        let mut bench = Self { db, statements, room, now: Timestamp::from_millis(1_000) };
        for id in ["a", "b"] {
            let request = http::Request::new(());
            bench.event(Event::Connect {
                wanted: Some(id.into()),
                fresh_id: id.into(),
                protocol: Protocol::V2,
                request: &request,
            });
        }
        let hello = bench.hello("one", "null", "null");
        bench.frame(0, &hello);
        bench
    }

    fn hello(&self, client: &str, epoch: &str, since: &str) -> String {
        let schema = Todo::SCHEMA.hash();
        format!(
            r#"{{"type":"hello","client":"{client}","epoch":{epoch},"channels":[{{"channel":"todos","since":{since},"schema":"{schema}"}}]}}"#
        )
    }

    /// Rows written: each row of a table, and each entry of a key's index of its own.
    fn written(&self) -> i64 {
        let sql: &dyn Sql = &*self.db.db;
        let total = "SELECT total_changes() + (SELECT count(*) FROM todos)";
        sql.query_one(total, params![], |row| row.get(0)).unwrap_or_default()
    }

    fn event(&mut self, event: Event<'_, TodoAction>) -> (Cost, Vec<Effect<TodoAction>>) {
        self.now = self.now.plus_millis(10);
        let before = self.written();
        self.statements.set(0);
        let turn = self.room.turn(&self.db, self.now, Self::opening, [event]).unwrap();
        self.cost(before, turn)
    }

    /// What a handle does costs.
    fn run(
        &mut self,
        work: impl FnOnce(&mut Room<'_, Todos>) -> Result<()> + 'static,
    ) -> (Cost, Vec<Effect<TodoAction>>) {
        self.now = self.now.plus_millis(10);
        let before = self.written();
        self.statements.set(0);
        let work = |_: &_, room: &mut Room<'_, _>| work(room);
        let done = self.room.run(&self.db, self.now, Self::opening, None, work);
        let (turn, done) = done.unwrap();
        done.unwrap();
        self.cost(before, turn)
    }

    fn opening() -> Opening {
        Opening { fresh_epoch: "epoch".into(), ..Opening::default() }
    }

    fn cost(&self, before: i64, turn: Turn<Todos>) -> (Cost, Vec<Effect<TodoAction>>) {
        assert_eq!(turn.aborted, None);
        let statements = self.statements.get();
        let (rows, effects) = (self.written() - before, turn.effects.len());
        (Cost { statements, rows, effects }, turn.effects)
    }

    fn frame(&mut self, slot: u32, text: &str) -> Cost {
        self.event(Event::Frame(Slot(slot), Incoming::Text(text))).0
    }

    fn push(&mut self, from: usize, count: usize, action: impl Fn(usize) -> String) -> Cost {
        self.push_behind(0, from, count, action)
    }

    /// A push that says up to which seq its client has heard its answers.
    fn push_behind(
        &mut self,
        answered: usize,
        from: usize,
        count: usize,
        action: impl Fn(usize) -> String,
    ) -> Cost {
        let action = |n: usize| {
            let (seq, action) = (from + n, action(n));
            format!(r#"{{"seq":{seq},"channel":"todos","action":{action}}}"#)
        };
        let actions: Vec<_> = (0..count).map(action).collect();
        let push =
            format!(r#"{{"type":"push","answered":{answered},"actions":[{}]}}"#, actions.join(","));
        let (cost, effects) = self.event(Event::Frame(Slot(0), Incoming::Text(&push)));
        let acks = effects.iter().filter_map(|effect| match effect {
            Effect::Send { frame, .. } => ServerFrame::parse(frame).unwrap(),
            _ => None,
        });
        let acks: usize = acks
            .filter_map(|frame| match frame {
                ServerFrame::Patch(patch) => {
                    assert!(patch.acks.iter().all(|ack| ack.code.is_none()), "{patch:?}");
                    Some(patch.acks.len())
                }
                _ => None,
            })
            .sum();
        assert_eq!(acks, count);
        cost
    }
}

fn create(n: usize) -> String {
    format!(r#"{{"type":"create","payload":{{"id":"{n}","text":"milk","completed":0}}}}"#)
}

fn update(n: usize) -> String {
    format!(r#"{{"type":"update","payload":{{"id":"{n}","completed":1}}}}"#)
}

#[test]
fn a_push_of_n_actions_takes_n_and_four_statements_and_three_rows_each() {
    for n in [1, 32, 128] {
        let mut bench = Bench::new();
        // The first change plans when deletions are forgotten.
        bench.push(1, 1, |_| create(1_000));
        let rows = i64::try_from(n).unwrap();
        let cost = bench.push(2, n, create);
        assert_eq!((cost.statements, cost.rows), (n + 4, 3 * rows + 2), "{n} creates");
        let cost = bench.push(2 + n, n, update);
        assert_eq!((cost.statements, cost.rows), (n + 4, 2 * rows + 2), "{n} updates");
    }
}

/// One that is answered with something.
fn answered(n: usize) -> String {
    format!(r#"{{"type":"create","payload":{{"id":"{n}","text":"milk","completed":1}}}}"#)
}

#[test]
fn a_result_takes_a_statement_and_a_row_and_those_without_take_none() {
    let mut bench = Bench::new();
    // The table is made, and it is planned when deletions are forgotten.
    bench.push(1, 1, answered);
    let cost = bench.push_behind(1, 2, 32, |n| answered(100 + n));
    // Those that were heard are forgotten at once.
    assert_eq!((cost.statements, cost.rows), (2 * 32 + 5, 4 * 32 + 2 + 1));
    // In a room that has results, too, once those of the client are heard.
    let cost = bench.push_behind(33, 34, 1, |n| create(200 + n));
    assert_eq!(cost.statements, 1 + 5);
    let cost = bench.push_behind(34, 35, 32, |n| create(300 + n));
    assert_eq!((cost.statements, cost.rows), (32 + 4, 3 * 32 + 2));
}

#[test]
fn an_event_that_changes_nothing_writes_nothing_and_reads_only_what_it_asks_for() {
    let mut bench = Bench::new();
    bench.push(1, 1, |_| create(1));
    let nothing = Cost { statements: 0, rows: 0, effects: 0 };
    assert_eq!(bench.frame(0, r#"{"type":"read","bytes":1}"#), nothing);
    assert_eq!(bench.frame(0, "ping"), Cost { effects: 1, ..nothing });
    assert_eq!(bench.frame(0, "{"), Cost { effects: 1, ..nothing });
    // What was answered is answered again, from what is noted of refusals.
    let again = r#"{"type":"push","actions":[{"seq":1,"channel":"todos","action":null}]}"#;
    assert_eq!(bench.frame(0, again), Cost { statements: 1, rows: 0, effects: 1 });
    // A client that comes back and lacks nothing: a welcome, a page, an attachment.
    let hello = bench.hello("one", r#""epoch""#, "1");
    let cost = bench.frame(1, &hello);
    assert_eq!((cost.rows, cost.effects), (0, 3), "{cost:?}");
    assert_eq!(cost.statements, 0, "{cost:?}");
    let (cost, _) = bench.event(Event::Closed(Slot(1)));
    assert_eq!(cost, nothing);
    let (cost, _) = bench.run(|_| Ok(()));
    assert_eq!(cost, nothing);
}
