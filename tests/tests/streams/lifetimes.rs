//! Lifetimes at the edges of time, and streams that cannot be read.

use super::support::ask;
use futures::executor::block_on;
use partysync::sql::{Row, Sql, Sqlite, Value};
use partysync::streams::{Change, Create, Lifetime, Options, SqlStore, Store, Stream, Streams};
use partysync::{Result, Timestamp, params};
use partysync_tests::bench::Bench;
use std::ops::ControlFlow;
use std::rc::Rc;

/// A database that gives numbers as JavaScript does: not all integers beyond 2^53 are there.
#[derive(Clone)]
struct Doubles(Rc<Sqlite>);

impl Sql for Doubles {
    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.0.scan(sql, params, &mut |row| {
            let mut cells = Vec::new();
            while let Ok(cell) = row.get::<Cell>(cells.len()) {
                cells.push(match cell.0 {
                    #[allow(clippy::cast_precision_loss)]
                    Value::Integer(n) if n.unsigned_abs() >= 1 << 53 => Value::Real(n as f64),
                    other => other,
                });
            }
            each(&Row::new(&cells))
        })
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.0.transaction(body)
    }
}

/// A cell of any type.
struct Cell(Value);

impl partysync::Column for Cell {
    const TYPE: partysync::sql::SqlType = partysync::sql::SqlType::Text;

    fn to_value(&self) -> Value {
        self.0.clone()
    }

    fn from_value(value: Value) -> Result<Self> {
        Ok(Self(value))
    }
}

struct Server {
    disk: Rc<Sqlite>,
    bench: Bench,
    streams: Streams<SqlStore<Doubles>, Bench>,
}

impl Server {
    fn new() -> Self {
        let disk = Rc::new(Sqlite::in_memory().unwrap());
        let bench = Bench::default();
        let store = SqlStore::new(Doubles(Rc::clone(&disk))).unwrap();
        let streams = Streams::new(store, bench.clone(), Options::default());
        Self { disk, bench, streams }
    }

    fn sql(&self) -> &dyn Sql {
        &*self.disk
    }

    fn status(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let text = [&[("content-type", "text/plain")], headers].concat();
        let body = if method == "POST" { "more" } else { "" };
        ask(&self.streams, method, path, &text, body).status.as_u16()
    }

    /// A stream that an older version of the server has let in.
    fn has_kept(&self, path: &str, lifetime: Lifetime, expires_at: i64) {
        let create = Create {
            content_type: Some("text/plain".into()),
            lifetime: None,
            closed: false,
            fork: None,
        };
        let made = block_on(self.streams.create(path, &create, Vec::new())).unwrap();
        let expires_at = Some(Timestamp::from_millis(expires_at));
        let stream = Stream { lifetime: Some(lifetime), expires_at, ..made.stream };
        self.streams.store().commit(vec![Change::Update(stream)]).unwrap();
    }
}

#[test]
fn a_lifetime_that_is_over_or_too_long_is_refused_and_the_next_best_is_not() {
    let server = Server::new();
    // The clock says 2027-01-15T08:00:00Z.
    for (name, value, status) in [
        ("stream-ttl", "9007199254740", 400),
        ("stream-ttl", "3155760000", 400),
        ("stream-ttl", "3000000000", 201),
        ("stream-ttl", "0", 201),
        ("stream-expires-at", "0001-01-01T00:00:00Z", 400),
        ("stream-expires-at", "2027-01-15T08:00:00Z", 400),
        ("stream-expires-at", "2027-01-15T08:00:00.001Z", 201),
        ("stream-expires-at", "2126-12-31T00:00:00Z", 201),
        ("stream-expires-at", "2127-12-31T00:00:00Z", 400),
        ("stream-expires-at", "9999-12-31T23:59:59Z", 400),
    ] {
        let path = format!("{name}/{}", value.replace(':', "-"));
        assert_eq!(server.status("PUT", &path, &[(name, value)]), status, "{name}: {value}");
        assert_eq!(server.status("PUT", "other", &[]) / 100, 2, "after {name}: {value}");
        assert_eq!(server.status("POST", "other", &[]), 204, "after {name}: {value}");
    }
}

#[test]
fn an_end_that_no_number_holds_can_be_read_and_deleted_and_fails_nobody_else() {
    let server = Server::new();
    server.has_kept("far", Lifetime::Ttl(9_007_199_254_740), 9_099_071_992_547_400 + 1);
    assert_eq!(server.status("PUT", "other", &[("stream-ttl", "60")]), 201);
    assert_eq!(server.status("POST", "other", &[]), 204);
    assert_eq!(server.status("GET", "far", &[]), 200);
    assert_eq!(server.status("POST", "far", &[]), 204);
    assert_eq!(server.status("DELETE", "far", &[]), 204);
    assert_eq!(server.status("GET", "far", &[]), 404);
}

#[test]
fn an_alarm_is_never_set_for_the_past() {
    let server = Server::new();
    server.has_kept("ancient", Lifetime::Until(Timestamp::from_millis(-1)), -1);
    assert_eq!(server.status("PUT", "short", &[("stream-ttl", "1")]), 201);
    assert_eq!(server.bench.alarm_in(), Some(0));
    block_on(server.streams.wake()).unwrap();
    assert_eq!(server.status("HEAD", "ancient", &[]), 404);
    assert_eq!(server.bench.alarm_in(), Some(1010));
}

#[test]
fn a_stream_that_cannot_be_read_keeps_no_other_from_ending() {
    let server = Server::new();
    for n in 0..20 {
        server.status("PUT", &format!("unreadable/{n}"), &[("stream-ttl", "1")]);
    }
    server.sql().execute("UPDATE _ds_streams SET known = '{'", params![]).unwrap();
    assert_eq!(server.status("PUT", "other", &[("stream-ttl", "2")]), 201);
    assert_eq!(server.status("POST", "other", &[]), 204);
    server.bench.wait(3_000);
    block_on(server.streams.wake()).unwrap();
    let left = server.sql().query_one(
        "SELECT count(*) FROM _ds_streams WHERE path = 'other'",
        params![],
        |row| row.get::<i64>(0),
    );
    assert_eq!(left.unwrap(), 0);
    // It is the one that is asked for that fails.
    assert_eq!(server.status("GET", "unreadable/0", &[]), 500);
}
