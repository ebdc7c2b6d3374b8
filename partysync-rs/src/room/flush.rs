//! What goes out after a commit: patches and answers (v2), results and broadcasts (v1), and the
//! first frames of a connection.

use super::catch_up::{self, After, Changed, PAGE_BYTES};
use super::engine::Call;
use super::project::{self, Followed};
use super::{Connection, Engine, Output, Protocol, log};
use crate::record::{Role, Schema};
use crate::sql::Sql;
use crate::wire::v1;
use crate::wire::v2::{Ack, Hello, Reset, ServerFrame};
use crate::{Action, Result};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

type Changes = Vec<(&'static Schema, Vec<Changed>)>;

impl<A: Action> Engine<A> {
    /// Sends every connection what changed since the last flush, and answers with it.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn flush<'c>(
        &mut self,
        sql: &dyn Sql,
        connections: impl Iterator<Item = &'c Connection>,
        out: &mut Vec<Output>,
    ) -> Result<()> {
        let (from, to) = (self.flushed, self.meta.version);
        let acks = std::mem::take(&mut self.acks);
        let call = self.call.take();
        if from == to && acks.is_empty() && call.is_none() {
            return Ok(());
        }
        let mut changes: Changes = Vec::new();
        if to > from {
            for schema in A::CHANNELS {
                let changed = catch_up::changed(sql, schema, After::Version(from))?;
                if changed.iter().any(|c| c.row.is_none()) {
                    log::plan_trim(sql, self.meta.now.plus_millis(self.limits.retention_ms))?;
                }
                if !changed.is_empty() {
                    changes.push((schema, changed));
                }
            }
        }
        self.flushed = to;
        let v1_frames = OnceCell::new();
        let mut shared: Vec<(&[Followed], Vec<Rc<str>>)> = Vec::new();
        for connection in connections {
            match connection.protocol() {
                Protocol::V1 => {
                    let call = call.as_ref().filter(|call| call.connection == connection.id());
                    let frames = v1_frames.get_or_init(|| V1Frames::new(&changes));
                    frames.send(connection, call, out);
                }
                // Before `hello` it is sent nothing.
                Protocol::V2 if connection.client.is_none() => {}
                Protocol::V2 => match acks.get(connection.id()) {
                    Some(acks) => {
                        let frames = patch(&changes, &connection.channels, from, to, acks)?;
                        out.extend(frames.into_iter().map(|f| Output::send(connection.id(), f)));
                    }
                    None if from == to => {}
                    None => {
                        let channels = connection.channels.as_slice();
                        let known = shared.iter().position(|(c, _)| *c == channels);
                        let index = match known {
                            Some(index) => index,
                            None => {
                                shared.push((channels, patch(&changes, channels, from, to, &[])?));
                                shared.len() - 1
                            }
                        };
                        if let Some((_, frames)) = shared.get(index) {
                            let send = |f: &Rc<str>| Output::send(connection.id(), f.clone());
                            out.extend(frames.iter().map(send));
                        }
                    }
                },
            }
        }
        Ok(())
    }

    /// What a connection lacks when it has said `hello`.
    pub(super) fn catch_up(
        &self,
        sql: &dyn Sql,
        connection: &Connection,
        hello: &Hello,
        schemas: &[(&'static Schema, Option<u64>)],
        out: &mut Vec<Output>,
    ) -> Result<()> {
        let reset = if hello.epoch.is_none() {
            None
        } else if hello.epoch.as_ref() != Some(&self.meta.epoch) {
            Some("epoch")
        } else if schemas.iter().any(|(_, since)| since.is_some_and(|v| v > self.meta.version)) {
            Some("future")
        } else if schemas.iter().any(|(_, since)| since.is_some_and(|v| v < self.meta.trimmed_to)) {
            Some("trimmed")
        } else {
            None
        };
        if let Some(reason) = reset {
            let frame = ServerFrame::Reset(Reset { reason: reason.to_owned() });
            out.push(Output::send(connection.id(), frame.to_text()));
        }
        for ((schema, since), followed) in schemas.iter().zip(&connection.channels) {
            let since = since.filter(|_| reset.is_none() && hello.epoch.is_some());
            let columns = followed.columns.as_deref();
            match since {
                Some(since) => self.delta(sql, connection, (schema, columns), since, out)?,
                None => self.snapshot(sql, connection, (schema, columns), out)?,
            }
        }
        Ok(())
    }

    fn snapshot(
        &self,
        sql: &dyn Sql,
        connection: &Connection,
        (schema, columns): (&Schema, Option<&[u16]>),
        out: &mut Vec<Output>,
    ) -> Result<()> {
        let (channel, to) = (Json::from(schema.table), self.meta.version);
        catch_up::snapshot(sql, schema, |page| {
            let catch_up::Page { rows, sent, total, more } = page;
            let rows = project::rows(&rows, columns)?;
            out.push(Output::send(
                connection.id(),
                format!(
                    r#"{{"type":"catch_up","channel":{channel},"from":null,"to":{to},"rows":{rows},"gone":[],"sent":{sent},"total":{total},"more":{more}}}"#
                ),
            ));
            Ok(())
        })
    }

    fn delta(
        &self,
        sql: &dyn Sql,
        connection: &Connection,
        (schema, columns): (&'static Schema, Option<&[u16]>),
        since: u64,
        out: &mut Vec<Output>,
    ) -> Result<()> {
        let (channel, to) = (Json::from(schema.table), self.meta.version);
        let changed = catch_up::changed(sql, schema, After::Version(since))?;
        let total = changed.len();
        let mut sent = 0;
        let pages = pages(vec![(schema, changed.as_slice(), columns)])?;
        for page in &pages {
            let (rows, gone) = page.iter().fold((String::new(), String::new()), |acc, part| {
                sent += part.count;
                (acc.0 + &part.rows, acc.1 + &part.gone)
            });
            let more = sent < total;
            out.push(Output::send(
                connection.id(),
                format!(
                    r#"{{"type":"catch_up","channel":{channel},"from":{since},"to":{to},"rows":[{rows}],"gone":[{gone}],"sent":{sent},"total":{total},"more":{more}}}"#
                ),
            ));
        }
        Ok(())
    }

    /// The answer to a v1 sync: live rows first, and then the deletions as a broadcast, which is
    /// what makes a TypeScript client drop them.
    pub(super) fn sync_v1(
        &self,
        sql: &dyn Sql,
        connection: &Connection,
        schema: &'static Schema,
        from: Option<i64>,
        out: &mut Vec<Output>,
    ) -> Result<()> {
        let channel = schema.table;
        // Deletions from before were forgotten: start over.
        let stale =
            from.is_some_and(|from| self.meta.trimmed_to > 0 && from <= self.meta.trimmed_at);
        if stale {
            out.push(Output::send(connection.id(), v1::delete_all(channel)));
        }
        let after = After::Time(from.filter(|_| !stale).unwrap_or(i64::MIN));
        let changed = catch_up::changed(sql, schema, after)?;
        let rows = |gone: bool| v1_rows(schema, changed.iter().filter(|c| c.gone == gone));
        out.push(Output::send(connection.id(), v1::sync(channel, &rows(false))));
        if from.is_some() && !stale && changed.iter().any(|c| c.gone) {
            out.push(Output::send(connection.id(), v1::update(channel, &rows(true))));
        }
        Ok(())
    }
}

/// A row as v1 carries it: its last value says whether it is deleted.
fn v1_row(schema: &Schema, changed: &Changed) -> String {
    let soft = schema.role(Role::DeletedAt).is_some();
    match &changed.row {
        Some(row) if soft => row.clone(),
        Some(row) => format!("{},null]", row.strip_suffix(']').unwrap_or(row)),
        None => {
            let nulls = schema.columns.len() - if soft { 2 } else { 1 };
            format!("[{}{},{}]", changed.key, ",null".repeat(nulls), changed.at)
        }
    }
}

/// A JSON array of rows as v1 carries them.
fn v1_rows<'c>(schema: &Schema, changed: impl Iterator<Item = &'c Changed>) -> String {
    let rows: Vec<_> = changed.map(|c| v1_row(schema, c)).collect();
    format!("[{}]", rows.join(","))
}

/// The v1 frames of a flush, made once for all connections.
struct V1Frames {
    channels: Vec<V1Channel>,
}

struct V1Channel {
    table: &'static str,
    /// A JSON array of rows.
    rows: String,
    /// The broadcast of these rows.
    update: Rc<str>,
}

impl V1Frames {
    fn new(changes: &Changes) -> Self {
        let channel = |(schema, changed): &(&'static Schema, Vec<Changed>)| {
            let rows = v1_rows(schema, changed.iter());
            let update = v1::update(schema.table, &rows).into();
            V1Channel { table: schema.table, rows, update }
        };
        Self { channels: changes.iter().map(channel).collect() }
    }

    fn send(&self, connection: &Connection, call: Option<&Call>, out: &mut Vec<Output>) {
        if let Some(call) = call {
            let text = match &call.outcome {
                Ok(()) => {
                    let own = self.channels.iter().find(|own| own.table == call.channel);
                    let rows = own.map_or("[]", |own| &own.rows);
                    v1::success(&call.channel, &call.id, rows)
                }
                Err(error) => v1::error(&call.channel, &call.id, error),
            };
            out.push(Output::send(connection.id(), text));
        }
        for V1Channel { table, update, .. } in &self.channels {
            if call.is_none_or(|call| call.outcome.is_err() || call.channel != *table) {
                out.push(Output::send(connection.id(), update.clone()));
            }
        }
    }
}

/// One channel's part of a page.
struct Part {
    channel: &'static str,
    rows: String,
    gone: String,
    count: usize,
}

/// Changes of a table, for clients with these columns.
type View<'c> = (&'static Schema, &'c [Changed], Option<&'c [u16]>);

/// Cuts changes into pages that stay under the frame limit. There is always one page.
fn pages(changes: Vec<View<'_>>) -> Result<Vec<Vec<Part>>> {
    let mut pages = vec![Vec::new()];
    let mut size = 0;
    for (schema, changed, columns) in changes {
        let mut part = Part::new(schema.table);
        for change in changed {
            let text = match &change.row {
                Some(row) if !change.gone => match columns {
                    None => Cow::Borrowed(row),
                    Some(_) => Cow::Owned(project::row(row, columns)?),
                },
                _ => Cow::Borrowed(&change.key),
            };
            if size + text.len() > PAGE_BYTES && size > 0 {
                let full = std::mem::replace(&mut part, Part::new(schema.table));
                if let Some(page) = pages.last_mut() {
                    page.push(full);
                }
                pages.push(Vec::new());
                size = 0;
            }
            size += text.len() + 1;
            part.add(&text, change.gone);
        }
        if let (Some(page), true) = (pages.last_mut(), part.count > 0) {
            page.push(part);
        }
    }
    Ok(pages)
}

impl Part {
    fn new(channel: &'static str) -> Self {
        Self { channel, rows: String::new(), gone: String::new(), count: 0 }
    }

    fn add(&mut self, text: &str, gone: bool) {
        let list = if gone { &mut self.gone } else { &mut self.rows };
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(text);
        self.count += 1;
    }
}

/// The frames of a patch for a connection that follows these channels.
fn patch(
    changes: &Changes,
    channels: &[Followed],
    from: u64,
    to: u64,
    acks: &[Ack],
) -> Result<Vec<Rc<str>>> {
    let mut views = Vec::new();
    for (schema, changed) in changes {
        if let Some(followed) = channels.iter().find(|f| f.channel == schema.table) {
            views.push((*schema, changed.as_slice(), followed.columns.as_deref()));
        }
    }
    let pages = pages(views)?;
    let count = pages.len();
    let acks = serde_json::to_string(acks).unwrap_or_else(|_| "[]".to_owned());
    let frames = pages
        .into_iter()
        .enumerate()
        .map(|(index, page)| {
            let more = index + 1 < count;
            let parts: Vec<_> = page
                .into_iter()
                .filter(|part| part.count > 0)
                .map(|Part { channel, rows, gone, .. }| {
                    let channel = Json::from(channel);
                    format!(r#"{{"channel":{channel},"rows":[{rows}],"gone":[{gone}]}}"#)
                })
                .collect();
            let (changes, acks) = (parts.join(","), if more { "[]" } else { &acks });
            format!(
                r#"{{"type":"patch","from":{from},"to":{to},"changes":[{changes}],"acks":{acks},"more":{more}}}"#
            )
            .into()
        })
        .collect();
    Ok(frames)
}
