//! What a client costs natively: sending with few and with many actions pending, taking over an
//! outbox, memory for each row. Prints one JSON object; `cargo xtask bench client` runs it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod counting;

use partysync::{Action, Record, Timestamp};
use partysync_client::store::{Outbox, Saved, SavedAction, StoreEvent};
use partysync_client::{Input, Now, Output, Peer, Timing};
use serde_json::json;
use std::time::Instant;

#[derive(Record, Clone, Debug, PartialEq)]
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
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum TodoAction {
    #[action(insert)]
    Create { id: String, text: String, completed: bool },
    #[action(update)]
    Update { id: String, text: Option<String>, completed: Option<bool> },
}

const TEXT: &str = "Two litres of oat milk, and bread";

fn now() -> Now {
    Now { monotonic: 0, wall: Timestamp::from_millis(1_800_000_000_000) }
}

fn create(n: usize) -> TodoAction {
    TodoAction::Create { id: format!("todo-{n:020}"), text: TEXT.to_owned(), completed: false }
}

fn drain(peer: &mut Peer<TodoAction>) {
    while let Some(output) = peer.poll_output() {
        if matches!(output, Output::Store(_)) {
            peer.handle(Input::Stored(Ok(())), now());
        }
    }
}

fn opened() -> Peer<TodoAction> {
    let mut peer = Peer::new([1, 2], Timing::default(), now());
    drain(&mut peer);
    peer.handle(Input::Opened(Ok(Saved::default())), now());
    drain(&mut peer);
    peer
}

/// Microseconds for each of `count` times.
fn micros(count: usize, body: impl FnOnce()) -> f64 {
    let start = Instant::now();
    body();
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

/// Sending, and drawing one row, with so many actions pending.
fn send(pending: usize, count: usize) -> f64 {
    let mut peer = opened();
    for n in 0..pending {
        peer.act(create(n), now()).unwrap();
        drain(&mut peer);
    }
    micros(count, || {
        for n in pending..pending + count {
            // A new row, and a change to one that is pending.
            peer.act(create(n), now()).unwrap();
            let id = format!("todo-{:020}", n - pending.min(10));
            let change = TodoAction::Update { id, text: None, completed: Some(true) };
            peer.act(change, now()).unwrap();
            drain(&mut peer);
        }
    }) / 2.0
}

/// Taking over an outbox of so many actions, each on a row of its own, or all on one.
fn adopt(count: usize, one_row: bool) -> f64 {
    let mut peer = opened();
    let mut outbox = Outbox::new("gone");
    for n in 0..count {
        let action = match one_row && n > 0 {
            true => {
                let (id, text) = (format!("todo-{:020}", 0), Some(format!("{TEXT} {n}")));
                TodoAction::Update { id, text, completed: None }
            }
            false => create(n),
        };
        let saved = SavedAction {
            channel: "todos".to_owned(),
            action: action.to_json().unwrap(),
            made_at: now().wall,
            suspicion: Default::default(),
        };
        outbox.pending.insert(n as u64 + 1, saved);
    }
    micros(1, || {
        peer.handle(Input::Store(StoreEvent::Orphan(outbox)), now());
        drain(&mut peer);
    }) / 1e3
}

/// A first load of so many rows: milliseconds, bytes of memory a row, bytes of JSON a row.
fn load(count: usize) -> (f64, f64, f64) {
    let mut peer = opened();
    peer.handle(Input::Connected, now());
    let welcome = r#"{"type":"welcome","epoch":"e","version":1,"connection":"c","now":0}"#;
    peer.handle(Input::Frame(welcome), now());
    drain(&mut peer);
    let rows: Vec<_> = (0..count)
        .map(|n| {
            json!([format!("todo-{n:020}"), TEXT, 0, 1_800_000_000_000_u64, 1_800_000_000_000_u64])
        })
        .collect();
    let page = 500;
    let frames: Vec<String> = rows
        .chunks(page)
        .enumerate()
        .map(|(at, rows)| {
            let sent = at * page + rows.len();
            json!({
                "type": "catch_up", "channel": "todos", "from": null, "to": 1, "rows": rows,
                "gone": [], "sent": sent, "total": count, "more": sent < count,
            })
            .to_string()
        })
        .collect();
    let json: usize = rows.iter().map(|row| row.to_string().len()).sum();
    drop(rows);
    let before = counting::in_use();
    let time = micros(1, || {
        for frame in &frames {
            peer.handle(Input::Frame(frame), now());
            drain(&mut peer);
        }
    });
    let memory = counting::in_use() - before;
    assert_eq!(peer.replica().keys("todos").len(), count);
    (time / 1e3, memory as f64 / count as f64, json as f64 / count as f64)
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--smoke");
    let (many, rows) = if small { (100, 500) } else { (10_000, 50_000) };
    // Once for nothing: the allocator and the caches are cold.
    let _ = (send(10, many / 10), load(rows / 10));
    let (load_ms, row_bytes, row_json) = load(rows);
    let figures = json!({
        "send_10_us": send(10, many / 5),
        "send_many_us": send(many, many / 5),
        "pending": many,
        "adopt_ms": adopt(many, false),
        "adopt_one_row_ms": adopt(many, true),
        "rows": rows,
        "load_ms": load_ms,
        "row_bytes": row_bytes,
        "row_json_bytes": row_json,
    });
    println!("{figures}");
}
