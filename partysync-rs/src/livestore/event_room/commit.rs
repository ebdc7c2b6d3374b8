//! What becomes of events: those that the room commits, and those that the backend sends.

use super::log::{self, Logged, State};
use super::{Event, EventServer, undo};
use crate::livestore::event::EVENT_BYTES;
use crate::livestore::json::unreadable;
use crate::record::Schema;
use crate::room::Level;
use crate::sql::Sql;
use crate::{Action, Code, Error, Result};
use std::ops::ControlFlow;

/// So many events are made rows of in a turn, while all rows are made anew.
const REBUILT_AT_ONCE: usize = 1_000;
/// And of about so many bytes.
const REBUILT_BYTES: usize = 8 * 1024 * 1024;
/// As many of the room's own are made rows of anew at once; more are made in parts.
const OWN_AT_ONCE: u64 = 1_000;

/// The session's id in the room's own events: an object has one.
const SESSION: &str = "object";

pub(super) type Logs = Vec<(Level, String)>;

fn schemas<S: EventServer>() -> &'static [&'static Schema] {
    S::Action::CHANNELS
}

/// What rows are made by: other rows are made by another text.
pub(super) fn made_by<S: EventServer>(server: &S) -> String {
    let mut text = String::new();
    for schema in schemas::<S>() {
        text.push_str(&format!("{} {}", schema.table, schema.version));
        for column in schema.columns {
            text.push_str(&format!(" {column:?}"));
        }
        text.push('\n');
    }
    format!("{}/{:08x}/{}", server.version(), crate::store::hash(&text), server.reset_persistence())
}

/// Opens the room's log: makes what is not there, and begins to make rows anew where they are not
/// what this server makes.
pub(super) fn open<S: EventServer>(server: &S, sql: &dyn Sql, client: &str) -> Result<()> {
    let made_by = made_by(server);
    if log::open(sql, &made_by, (client, SESSION))? {
        return schemas::<S>().iter().try_for_each(|schema| undo::open(sql, schema));
    }
    let mut state = log::state(sql)?;
    if state.made_by == made_by {
        return watch::<S>(sql, &mut state);
    }
    let reset = |made_by: &str| made_by.splitn(3, '/').nth(2).map(str::to_owned);
    if reset(&state.made_by) != reset(&made_by) {
        let last = log::last(sql, state.head)?;
        log::begin(sql, last, client)?;
        (state.backend_id, state.head) = (None, 0);
    }
    state.made_by = made_by;
    // Tables may have other columns by now.
    schemas::<S>().iter().try_for_each(|schema| undo::open(sql, schema))?;
    begin_rebuild::<S>(sql, &mut state)?;
    log::keep(sql, &state)
}

/// Sees to it that changes are noted: a migration of a record takes triggers of its table away.
fn watch<S: EventServer>(sql: &dyn Sql, state: &mut State) -> Result<()> {
    for schema in schemas::<S>() {
        if undo::is_open(sql, schema)? {
            continue;
        }
        undo::open(sql, schema)?;
        // What events that are not pushed yet have changed is not known any more.
        if log::last(sql, state.head)? > state.head {
            begin_rebuild::<S>(sql, state)?;
            log::keep(sql, state)?;
        }
    }
    Ok(())
}

/// Takes all rows out, to be made anew.
fn begin_rebuild<S: EventServer>(sql: &dyn Sql, state: &mut State) -> Result<()> {
    sql.exec("PRAGMA defer_foreign_keys = ON", &[])?;
    schemas::<S>().iter().try_for_each(|schema| undo::clear(sql, schema))?;
    state.rebuilt_to = Some(0);
    Ok(())
}

/// Goes on with making rows anew. Whether there is more to do.
pub(super) fn rebuild<S: EventServer>(server: &S, sql: &dyn Sql, logs: &mut Logs) -> Result<bool> {
    let mut state = log::state(sql)?;
    let Some(to) = state.rebuilt_to else { return Ok(false) };
    let (mut done, mut bytes, mut last) = (0, 0, to);
    log::each_after(sql, to, &mut |event| {
        if done == REBUILT_AT_ONCE || bytes > REBUILT_BYTES {
            return Ok(ControlFlow::Break(()));
        }
        (done, bytes) = (done + 1, bytes + event.args().map_or(0, str::len));
        last = event.seq_num;
        apply(server, sql, &event, event.seq_num > state.head, logs)?;
        Ok(ControlFlow::Continue(()))
    })?;
    let more = log::last(sql, last)? > last;
    state.rebuilt_to = Some(last).filter(|_| more);
    log::keep(sql, &state)?;
    Ok(more)
}

/// Commits an event of this room's own.
pub(super) fn commit<S: EventServer>(server: &S, sql: &dyn Sql, event: &S::Event) -> Result<()> {
    let (name, args) = (event.name(), event.args()?);
    if let Some(number) = args.as_ref().and_then(log::inexact) {
        let message = format!(
            "`{name}` holds {number}, which JavaScript does not hold exactly: make it a text"
        );
        return Err(Error::new(Code::InvalidValue, message));
    }
    let args = args.map(|args| args.to_string());
    if let Some(why) = args.as_deref().and_then(unreadable) {
        return Err(Error::new(Code::InvalidValue, format!("the arguments of `{name}` {why}")));
    }
    let bytes = args.as_ref().map_or(0, String::len);
    if bytes > EVENT_BYTES {
        let message = format!(
            "`{name}` has {bytes} bytes of arguments, and {EVENT_BYTES} is the most that can be pulled"
        );
        return Err(Error::new(Code::TooLarge, message));
    }
    // What comes out of the log again has gone through JSON.
    let read = S::Event::from_parts(name, args.as_deref())?;
    let event = read.ok_or_else(|| Error::new(Code::Internal, "an event has no name"))?;
    // Whoever goes on after an error has written nothing.
    sql.transaction(&mut || {
        let state = log::state(sql)?;
        let seq = log::last(sql, state.head)? + 1;
        log::add_own(sql, seq, name, args.as_deref())?;
        if state.rebuilt_to.is_some() {
            // It is made rows of in its turn.
            return Ok(());
        }
        log::set_applying(sql, Some(seq))?;
        server.materialize(sql, &event)?;
        log::set_applying(sql, None)
    })
}

/// Makes rows of an event of the log. One that cannot be made rows of has no effect.
fn apply<S: EventServer>(
    server: &S,
    sql: &dyn Sql,
    event: &Logged,
    own: bool,
    logs: &mut Logs,
) -> Result<()> {
    let Logged { seq_num, name, .. } = event;
    let why = match S::Event::from_parts(name, event.args()) {
        Ok(None) => "the application does not know it".to_owned(),
        Err(error) => error.to_string(),
        Ok(Some(known)) => {
            let done = sql.transaction(&mut || {
                if own {
                    log::set_applying(sql, Some(*seq_num))?;
                }
                server.materialize(sql, &known)?;
                if own { log::set_applying(sql, None) } else { Ok(()) }
            });
            match done {
                Ok(()) => return Ok(()),
                // The storage has failed, and not the event.
                Err(error) if error.code() == Code::Storage => return Err(error),
                Err(error) => error.to_string(),
            }
        }
    };
    // What it says of a field begins with the event's name again.
    let why: String = why.chars().take(500).collect();
    let name = crate::wire::clip(name);
    logs.push((Level::Warn, format!("event {seq_num}, `{name}`, has no effect here: {why}")));
    log::set_failed(sql, *seq_num, &why)
}

/// What came of events that the backend has sent.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// They follow what is here, or were here.
    Followed,
    /// Events between are missing.
    Gap,
}

/// Takes in events of this backend, in their order.
pub(super) fn receive<S: EventServer>(
    server: &S,
    sql: &dyn Sql,
    (backend_id, events): (&str, &[Logged]),
    client: &str,
    logs: &mut Logs,
) -> Result<Received> {
    let mut state = log::state(sql)?;
    if state.backend_id.as_deref().is_some_and(|known| known != backend_id) {
        start_over::<S>(sql, &mut state, client)?;
    }
    if state.backend_id.is_none() {
        state.backend_id = Some(backend_id.to_owned());
        log::keep(sql, &state)?;
    }
    let head = state.head;
    let ordered = events.is_sorted_by(|one, two| one.seq_num < two.seq_num);
    if !ordered || events.iter().any(|event| event.seq_num > log::SAFE) {
        return Ok(Received::Gap);
    }
    // Those up to where others are missing.
    let mut before = head;
    let whole = events.iter().take_while(|event| {
        let follows = event.parent_seq_num.is_none_or(|parent| parent <= before);
        before = before.max(event.seq_num);
        follows || crate::__mutated("livestore_room_gap")
    });
    let whole = whole.count();
    let gap = whole < events.len();
    let mut new = events.iter().take(whole).filter(|event| event.seq_num > head).peekable();
    // Those that were committed here, and have come back.
    let mut confirmed = head;
    if !crate::__mutated("livestore_room_own") {
        log::each_after(sql, head, &mut |own| {
            let back = own.was.is_none() && new.next_if(|event| event.is(&own)).is_some();
            if !back {
                return Ok(ControlFlow::Break(()));
            }
            confirmed = own.seq_num;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    confirm::<S>(sql, &mut state, confirmed)?;
    let foreign: Vec<_> = new.collect();
    if let Some(last) = foreign.last() {
        go_before::<S>(server, sql, &mut state, &foreign, last.seq_num, logs)?;
    }
    Ok(if gap { Received::Gap } else { Received::Followed })
}

/// The backend has all events up to this one, as they are here.
pub(super) fn confirm<S: EventServer>(sql: &dyn Sql, state: &mut State, upto: u64) -> Result<()> {
    if upto <= state.head {
        return Ok(());
    }
    state.head = upto;
    log::keep(sql, state)?;
    schemas::<S>().iter().try_for_each(|schema| undo::forget(sql, schema, upto))
}

/// Takes in events of others that come before those of this room that are not pushed yet.
fn go_before<S: EventServer>(
    server: &S,
    sql: &dyn Sql,
    state: &mut State,
    foreign: &[&Logged],
    last: u64,
    logs: &mut Logs,
) -> Result<()> {
    let own = log::last(sql, state.head)? > state.head;
    if own {
        if undo_own::<S>(sql).is_err() {
            // Two rows have changed something unique between them, as can only be done one by one.
            begin_rebuild::<S>(sql, state)?;
        }
        state.rebuilt_to = state.rebuilt_to.map(|to| to.min(state.head));
    }
    let rebuilding = state.rebuilt_to.is_some();
    if own && !crate::__mutated("livestore_room_known") {
        log::forget_known(sql, state.head, foreign)?;
    }
    log::move_own(sql, state.head, last)?;
    for event in foreign {
        log::add(sql, event)?;
        if !rebuilding {
            apply(server, sql, event, false, logs)?;
        }
    }
    state.head = last;
    log::keep(sql, state)?;
    if own && !rebuilding {
        if log::last(sql, last)? - last > OWN_AT_ONCE {
            state.rebuilt_to = Some(last);
            return log::keep(sql, state);
        }
        log::each_after(sql, last, &mut |event| {
            apply(server, sql, &event, true, logs)?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

/// Takes back what events have changed that are not pushed yet.
fn undo_own<S: EventServer>(sql: &dyn Sql) -> Result<()> {
    sql.exec("PRAGMA defer_foreign_keys = ON", &[])?;
    if crate::__mutated("livestore_room_undo") {
        return Ok(());
    }
    sql.transaction(&mut || schemas::<S>().iter().try_for_each(|schema| undo::undo(sql, schema)))
}

/// The backend has begun another log: what is left is what it has not taken yet.
pub(super) fn start_over<S: EventServer>(
    sql: &dyn Sql,
    state: &mut State,
    client: &str,
) -> Result<()> {
    log::begin(sql, state.head, client)?;
    (state.backend_id, state.head) = (None, 0);
    begin_rebuild::<S>(sql, state)?;
    log::keep(sql, state)
}
