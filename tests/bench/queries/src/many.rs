//! A table of many rows with three views of it, as one page shows them: what an action costs until
//! the views were read, and what frames of the server do.

use crate::view::{Shown, View, now, open, take_outputs};
use futures::Stream;
use partysync::{Action, Draft, Record, Reduce, Result, Timestamp};
use partysync_client::query::{LiveTotals, TotalsChanges};
use partysync_client::{Input as Happens, Peer};
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "tasks")]
struct Task {
    #[record(key)]
    id: String,
    author: i64,
    title: String,
    open: bool,
    #[record(created_at)]
    created_at: Timestamp,
    #[record(updated_at)]
    updated_at: Timestamp,
}

#[derive(Action, Clone, Debug)]
#[action(record = Task)]
enum TaskAction {
    #[action(update)]
    Update { id: String, title: Option<String>, open: Option<bool> },
    /// Ten of them, by their keys.
    #[action(custom)]
    Close { ids: Vec<String> },
    /// Those of an author, who has ten.
    #[action(custom)]
    Clear { author: i64 },
}

impl Reduce for TaskAction {
    fn reduce_custom(&self, tasks: &mut Draft<'_, Task>) -> Result<()> {
        match self {
            Self::Close { ids } => {
                for id in ids {
                    tasks.update(id, |task| task.open = false)?;
                }
                Ok(())
            }
            Self::Clear { author } => tasks.delete_where(|task| task.author == *author),
            Self::Update { .. } => Ok(()),
        }
    }
}

const AUTHORS: usize = 1_000;
/// An author who has ten.
const FEW: i64 = -1;
const TITLES: [&str; 4] = [
    "It happens when the list is long, and somebody scrolls",
    "The second page shows a row of the first",
    "Two litres of oat milk, and bread",
    "A click on the last row does nothing",
];

/// A row as it travels.
struct Row {
    author: i64,
    title: String,
    open: bool,
    updated_at: i64,
}

/// What is measured next: what it is called, and what is done.
enum Step {
    Act(TaskAction),
    Frame(String),
}

/// A client of a room with so many tasks.
pub struct Many {
    peer: Peer<TaskAction>,
    rows: Vec<Row>,
    version: u64,
    seq: u64,
    /// The actions that have no answer, with what the server makes of them.
    pending: VecDeque<(u64, Json)>,
    shown: Vec<Box<dyn Shown>>,
    open: Option<(LiveTotals<Task>, TotalsChanges<Task>)>,
    steps: VecDeque<(&'static str, Step)>,
}

fn id(n: usize) -> String {
    format!("0199a2b4-7c31-7000-{:04x}-{n:012x}", n % 65_536)
}

fn created_at(n: usize) -> i64 {
    1_700_000_000_000 + 1_000 * n as i64
}

impl Many {
    /// A client that has so many rows.
    pub fn new(count: usize) -> Self {
        let row = |n: usize| Row {
            author: if n % (count / 10) == 7 { FEW } else { (n * 7_919 % AUTHORS) as i64 },
            title: TITLES[n / 7 % 4].to_owned(),
            open: n.is_multiple_of(2),
            updated_at: created_at(n),
        };
        let mut many = Self {
            peer: open(),
            rows: (0..count).map(row).collect(),
            version: 1,
            seq: 0,
            pending: VecDeque::new(),
            shown: Vec::new(),
            open: None,
            steps: VecDeque::new(),
        };
        for from in (0..count).step_by(500) {
            let to = (from + 500).min(count);
            let rows: Vec<_> = (from..to).map(|n| many.row(n)).collect();
            let frame = json!({"type": "catch_up", "channel": "tasks", "from": null, "to": 1,
                "rows": rows, "gone": [], "sent": to, "total": count, "more": to < count});
            many.happens(Happens::Frame(&frame.to_string()));
        }
        assert_eq!(many.peer.replica().keys("tasks").len(), count);
        many
    }

    /// Asks for the views, and reads them.
    pub fn ask(&mut self) {
        let newest = Task::query().order_by(Task::created_at.desc()).limit(50);
        let open = newest.clone().filter(Task::open.eq(true));
        let found = newest.filter(Task::author.eq(self.found()).and(Task::title.contains("list")));
        for query in [open, found] {
            self.shown.push(Box::new(View::new(self.peer.query(&query).expect("a query"))));
        }
        let open = Task::query().filter(Task::open.eq(true)).count();
        let open = self.peer.totals(&open).expect("totals");
        self.open = Some((open.clone(), open.changes()));
        self.hear();
    }

    /// The author of whom the third view is.
    fn found(&self) -> i64 {
        self.rows.last().map_or(0, |row| row.author)
    }

    fn happens(&mut self, input: Happens<'_>) {
        self.peer.handle(input, now());
        take_outputs(&mut self.peer);
    }

    fn hear(&mut self) {
        self.shown.iter_mut().for_each(|shown| shown.hear());
        if let Some((live, changes)) = &mut self.open {
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(told)) = Pin::new(&mut *changes).poll_next(&mut context) {
                told.expect("totals");
            }
            std::hint::black_box(live.totals().expect("totals"));
        }
    }

    fn row(&self, n: usize) -> Json {
        let Row { author, title, open, updated_at } = &self.rows[n];
        json!([id(n), author, title, open, created_at(n), updated_at])
    }

    /// Some row of the table, another one for each number.
    fn some(&self, n: usize) -> usize {
        (n * 48_271 + 11) % (self.rows.len() - 200)
    }

    /// One of the fifty that the first view shows.
    fn newest(&self, n: usize) -> usize {
        self.rows.len() - 2 * (n % 50 + 1)
    }

    /// What an app does to one row: it is renamed, or closed, or opened again; every second one is
    /// among those that are shown.
    fn update(&mut self, n: usize) -> (TaskAction, Json) {
        let place = match n % 4 {
            0 => self.newest(n),
            1 => self.some(n),
            _ => self.newest(n / 4),
        };
        let (title, open) = match n % 4 {
            0 | 1 => (Some(format!("{} ({n})", TITLES[n % 4])), None),
            other => (None, Some(other == 3)),
        };
        let row = &mut self.rows[place];
        row.title = title.clone().unwrap_or_else(|| row.title.clone());
        row.open = open.unwrap_or(row.open);
        row.updated_at += 1;
        let change = json!({"channel": "tasks", "rows": [self.row(place)], "gone": []});
        (TaskAction::Update { id: id(place), title, open }, change)
    }

    fn act(&mut self, name: &'static str, (action, change): (TaskAction, Json)) {
        self.seq += 1;
        self.pending.push_back((self.seq, change));
        self.steps.push_back((name, Step::Act(action)));
    }

    /// A frame that changes rows, and answers these actions.
    fn patch(&mut self, name: &'static str, change: &Json, acks: &Json) {
        let (from, to) = (self.version, self.version + 1);
        self.version = to;
        let frame =
            json!({"type": "patch", "from": from, "to": to, "changes": [change], "acks": acks});
        self.steps.push_back((name, Step::Frame(frame.to_string())));
    }

    /// The oldest action that has no answer is given one.
    fn answer(&mut self, name: &'static str) {
        let (seq, change) = self.pending.pop_front().expect("an action");
        self.patch(name, &change, &json!([{"seq": seq}]));
    }

    /// Another client has renamed a row.
    fn foreign(&mut self, name: &'static str, place: usize) {
        let row = &mut self.rows[place];
        row.updated_at += 1;
        row.title = format!("{} [{}]", TITLES[place % 4], row.updated_at);
        let change = json!({"channel": "tasks", "rows": [self.row(place)], "gone": []});
        self.patch(name, &change, &json!([]));
    }

    /// Makes so many actions, each on a row of its own, which stay without an answer: others come
    /// for those that are answered.
    pub fn fill(&mut self, count: usize) {
        for n in 0..count {
            let place = 101 * n % (self.rows.len() - 200);
            let row = &mut self.rows[place];
            row.title = format!("Pending {n}");
            row.updated_at += 1;
            let change = json!({"channel": "tasks", "rows": [self.row(place)], "gone": []});
            let title = Some(format!("Pending {n}"));
            self.act("", (TaskAction::Update { id: id(place), title, open: None }, change));
        }
        while self.step().is_some() {}
    }

    /// Makes ready what one round of these measures; returns how many steps it has.
    pub fn prepare(&mut self, round: &str, n: usize) -> usize {
        match round {
            "update" => {
                let update = self.update(n);
                self.act("send", update);
                self.answer("answer");
                self.foreign(
                    "foreign",
                    if n.is_multiple_of(2) { self.newest(n) } else { self.some(n) },
                );
            }
            // A row that an action has changed which has no answer.
            "conflict" => {
                let update = self.update(4 * n);
                let place = self.newest(4 * n);
                self.act("", update);
                self.foreign("conflict", place);
                self.answer("");
            }
            "custom" => {
                let places: Vec<_> = (0..10).map(|k| self.some(10 * n + k)).collect();
                for place in &places {
                    self.rows[*place].open = false;
                    self.rows[*place].updated_at += 1;
                }
                let rows: Vec<_> = places.iter().map(|place| self.row(*place)).collect();
                let change = json!({"channel": "tasks", "rows": rows, "gone": []});
                let ids = places.iter().map(|place| id(*place)).collect();
                self.act("custom", (TaskAction::Close { ids }, change));
                self.answer("custom_answer");
            }
            _ => {
                let few = (0..self.rows.len()).filter(|n| self.rows[*n].author == FEW);
                let few: Vec<_> = few.collect();
                let ids: Vec<_> = few.iter().map(|n| id(*n)).collect();
                let gone = json!({"channel": "tasks", "rows": [], "gone": ids});
                self.act("clear", (TaskAction::Clear { author: FEW }, gone));
                self.foreign("clear_foreign", self.newest(n));
                while self.pending.len() > 1 {
                    self.answer("");
                }
                self.answer("clear_answer");
                let rows: Vec<_> = few.iter().map(|n| self.row(*n)).collect();
                let back = json!({"channel": "tasks", "rows": rows, "gone": []});
                self.patch("", &back, &json!([]));
            }
        }
        self.steps.len()
    }

    /// What the next step measures; nothing if it has no name.
    pub fn name(&self) -> &'static str {
        self.steps.front().map_or("", |(name, _)| name)
    }

    /// The next step, until what it changes has been read.
    pub fn step(&mut self) -> Option<()> {
        let (_, step) = self.steps.pop_front()?;
        match step {
            Step::Act(action) => {
                self.peer.act(action, now()).expect("an action");
                take_outputs(&mut self.peer);
            }
            Step::Frame(frame) => self.happens(Happens::Frame(&frame)),
        }
        self.hear();
        Some(())
    }

    /// What this takes itself for all rows, beside the client.
    pub fn own_bytes(&self) -> usize {
        let titles: usize = self.rows.iter().map(|row| row.title.capacity()).sum();
        titles + self.rows.capacity() * size_of::<Row>()
    }

    /// About how many bytes a row is as JSON.
    pub fn row_json_bytes(&self) -> f64 {
        let bytes: usize =
            (0..1_000).map(|n| self.row(n % self.rows.len()).to_string().len()).sum();
        bytes as f64 / 1e3
    }

    /// What is shown, and how many actions have no answer: the same natively and as wasm.
    pub fn result(&self) -> Json {
        let open =
            self.open.as_ref().and_then(|(live, _)| live.totals().ok()?.first()?.count.into());
        let shown: Vec<_> = self.shown.iter().map(|shown| shown.result()).collect();
        json!([shown, open, self.peer.replica().pending()])
    }
}
