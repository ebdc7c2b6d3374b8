//! Every statement of a request may fail: an answer that says it failed means that nothing was
//! done, and an answer that says it was done means that everything follows.

use super::support::{Chunks, ask};
use futures::executor::block_on;
use partysync::sql::Sqlite;
use partysync::streams::{Options, Sealed, Streams};
use partysync::{Code, Error, Result};
use partysync_tests::bench::Bench;
use partysync_tests::watched::Watched;
use std::cell::Cell;
use std::rc::Rc;

/// Which statements fail.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// None of them.
    None,
    /// The one behind so many others.
    Once(u32),
    /// All behind so many others.
    From(u32),
}

/// The faults of a database.
#[derive(Clone)]
struct Faults {
    next: Rc<Cell<Fault>>,
    /// How many statements have failed.
    failed: Rc<Cell<u32>>,
}

impl Faults {
    /// One more statement.
    fn step(&self) -> Result<()> {
        let (fails, next) = match self.next.get() {
            Fault::None => (false, Fault::None),
            Fault::Once(0) => (true, Fault::None),
            Fault::Once(n) => (false, Fault::Once(n - 1)),
            Fault::From(0) => (true, Fault::From(0)),
            Fault::From(n) => (false, Fault::From(n - 1)),
        };
        self.next.set(next);
        if fails {
            self.failed.set(self.failed.get() + 1);
            return Err(Error::new(Code::Internal, "the disk does not answer"));
        }
        Ok(())
    }
}

struct Server {
    faults: Faults,
    bench: Bench,
    streams: Streams<Sealed<Watched, Chunks>, Bench>,
}

const TEXT: (&str, &str) = ("content-type", "text/plain");

impl Server {
    /// One with a stream that is followed by a webhook, and about to be sealed.
    fn new() -> Self {
        let faults = Faults { next: Rc::new(Cell::new(Fault::None)), failed: Rc::default() };
        let (step, sqlite) = (faults.clone(), Rc::new(Sqlite::in_memory().unwrap()));
        let disk = Watched::new(&sqlite, move |_, _| step.step());
        let store = Sealed::new(disk, Chunks::default(), "object").unwrap();
        let bench = Bench::default();
        let streams = Streams::new(store, bench.clone(), Options::default());
        let server = Self { faults, bench, streams };
        let lives = [TEXT, ("stream-ttl", "600")];
        assert_eq!(ask(&server.streams, "PUT", "a", &lives, &"x".repeat(60)).status, 201);
        let subscription =
            r#"{"type":"webhook","pattern":"**","webhook":{"url":"https://worker.example/"}}"#;
        let json = [("content-type", "application/json")];
        let path = "__ds/subscriptions/s";
        assert_eq!(ask(&server.streams, "PUT", path, &json, subscription).status, 201);
        server.bench.run_tasks();
        server.bench.set_answer(Some((200, r#"{"done":true}"#)));
        server
    }

    /// What a reader sees of both streams.
    fn seen(&self) -> Vec<(u16, String)> {
        let read = |path: &&str| ask(&self.streams, "GET", path, &[], "");
        ["a", "b"].iter().map(read).map(|answer| (answer.status.as_u16(), answer.text())).collect()
    }
}

/// Does a request once for each statement that can fail in it; returns how many these were.
fn with_faults(fault: fn(u32) -> Fault, method: &str, path: &str, body: &str) -> u32 {
    let expected = {
        let server = Server::new();
        let status = ask(&server.streams, method, path, &[TEXT], body).status;
        assert!(status.is_success());
        server.seen()
    };
    for n in 0.. {
        let server = Server::new();
        let before = server.seen();
        server.faults.next.set(fault(n));
        let answer = ask(&server.streams, method, path, &[TEXT], body);
        let done = answer.status.is_success();
        let reached = server.faults.failed.get() > 0;
        let alarm = server.bench.alarm_in();
        let reports = server.bench.take_reports();
        server.faults.next.set(Fault::None);
        let what = format!("{method} {path}, {:?}: {} {}", fault(n), answer.status, answer.text());
        assert_eq!(server.seen(), if done { expected.clone() } else { before }, "{what}");
        if done && !body.is_empty() {
            // What follows is not lost: an alarm is set, and then it is done.
            assert!(alarm.is_some_and(|millis| millis <= 60_000), "{what}: {alarm:?}");
            server.bench.run_tasks();
            server.bench.wait(60_000);
            block_on(server.streams.wake()).unwrap();
            server.bench.run_tasks();
            assert_eq!(server.bench.take_posts().len(), 1, "{what}");
        }
        // A fault is in the answer, or it is reported.
        assert_eq!(reports.is_empty(), !(reached && done), "{what}: {reports:?}");
        if !reached {
            return n;
        }
    }
    unreachable!("a request has an end")
}

#[test]
fn a_request_that_is_answered_with_an_error_was_not_done() {
    for fault in [Fault::Once as fn(u32) -> Fault, Fault::From] {
        for (method, path, body) in
            [("POST", "a", "and more"), ("PUT", "b", "new"), ("DELETE", "a", "")]
        {
            let statements = with_faults(fault, method, path, body);
            assert!(statements > 3, "{method} {path} takes {statements} statements");
        }
    }
}
