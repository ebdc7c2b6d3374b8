//! [`Host`]: one room with its server's hooks; what every host (Durable Object, native, test)
//! drives. Still no IO: it is given a database and gives back [`Output`]s.

use crate::room::{Connection, Engine, Incoming, Item, Outcome, Output, Work};
use crate::sql::Sql;
use crate::wire;
use crate::wire::v2::{ServerFrame, is_catch_up};
use crate::{Code, Error, Protocol, Result, Room, SyncServer, Timestamp};
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// A room: the engine, its connections, and the hooks around them.
pub struct Host<S: SyncServer> {
    name: String,
    engine: Engine<S::Action>,
    connections: BTreeMap<String, Connection>,
    out: Vec<Output>,
}

impl<S: SyncServer> std::fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A client's actions, on their way through the hooks.
#[derive(Debug)]
pub struct Batch<A> {
    /// The connection they came from.
    pub connection: Connection,
    /// The actions, in order.
    pub items: Vec<Item<A>>,
}

impl<S: SyncServer> Host<S> {
    /// Opens the room on its database and calls `on_start`. `connections` are those that an
    /// earlier life of the object left open.
    ///
    /// # Errors
    /// [`Code::Migration`], or what `on_start` returned.
    pub fn open(
        server: &S,
        sql: &dyn Sql,
        name: &str,
        now: Timestamp,
        fresh_epoch: &str,
        connections: Vec<Connection>,
    ) -> Result<Self> {
        let engine = Engine::open(sql, now, fresh_epoch, server.limits())?;
        let connections = connections.into_iter().map(|c| (c.id().to_owned(), c)).collect();
        let mut host = Self { name: name.to_owned(), engine, connections, out: Vec::new() };
        host.hook(sql, None, |room| server.on_start(room))?;
        host.flush(sql)?;
        Ok(host)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<S::Action> {
        &self.engine
    }

    /// A connection as it is now.
    pub fn connection(&self, id: &str) -> Option<&Connection> {
        self.connections.get(id)
    }

    /// What is to be sent and closed, in this order.
    pub fn take_output(&mut self) -> Vec<Output> {
        let limit = self.engine.limits().pending_bytes.max(4 * wire::READ_BYTES);
        let mut out = std::mem::take(&mut self.out);
        for output in &mut out {
            let Output::Send { to, text } = output else { continue };
            // v1 has no way to say what was read.
            let Some(connection) =
                self.connections.get_mut(to).filter(|c| c.protocol() == Protocol::V2)
            else {
                continue;
            };
            let size = text.len() as u64;
            if is_catch_up(text) {
                connection.catch_up += size;
            } else if connection.unread > limit + connection.catch_up && !connection.dropped {
                connection.dropped = true;
                let reason = Code::SlowReader.as_str().to_owned();
                *output = Output::Close { to: to.clone(), code: wire::CLOSE_BUSY, reason };
                continue;
            }
            connection.unread += size;
        }
        let dropped = |to: &String| self.connections.get(to).is_some_and(|c| c.dropped);
        out.retain(|output| !matches!(output, Output::Send { to, .. } if dropped(to)));
        out
    }

    /// The connections that changed since the last call, to be stored.
    pub fn take_changed(&mut self) -> Vec<Connection> {
        let changed = self.connections.values_mut().filter(|c| c.changed);
        let take = |connection: &mut Connection| {
            connection.changed = false;
            connection.clone()
        };
        changed.map(take).collect()
    }

    /// Moves the room's time on; first of all at each event.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn tick(&mut self, sql: &dyn Sql, now: Timestamp) -> Result<()> {
        self.engine.tick(sql, now)
    }

    /// Runs a hook in a transaction; what it sends goes out only if it returns `Ok`.
    fn hook<T>(
        &mut self,
        sql: &dyn Sql,
        sender: Option<&Connection>,
        hook: impl FnOnce(&mut Room<'_, S>) -> Result<T>,
    ) -> Result<T> {
        let Self { name, engine, connections, out } = self;
        let (now, version) = (engine.now(), engine.version());
        let sent = out.len();
        let (mut hook, mut value) = (Some(hook), None);
        let result = engine.transact(sql, &mut || {
            let mut room =
                Room { sql, name, now, version, sender, connections, out, server: PhantomData };
            if let Some(hook) = hook.take() {
                value = Some(hook(&mut room)?);
            }
            Ok(())
        });
        if result.is_err() {
            out.truncate(sent);
        }
        result?;
        value.ok_or_else(|| Error::new(Code::Internal, "the hook did not run"))
    }

    /// A client connects.
    ///
    /// # Errors
    /// [`Code::TooManyConnections`], or what `on_connect` returned: [`refusal`] says how to close
    /// it.
    pub fn connect(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        mut connection: Connection,
        request: &http::Request<()>,
    ) -> Result<Connection> {
        let limit = self.engine.limits().connections;
        if self.connections.len() >= limit {
            let message = format!("the room has {limit} connections already");
            return Err(Error::new(Code::TooManyConnections, message));
        }
        self.hook(sql, None, |room| server.on_connect(room, &mut connection, request))?;
        self.connections.insert(connection.id().to_owned(), connection.clone());
        self.flush(sql)?;
        Ok(connection)
    }

    /// A frame came. What needs no hook is done; the actions to be done come back.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn receive(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        id: &str,
        frame: &Incoming<'_>,
    ) -> Result<Option<Batch<S::Action>>> {
        // A push that still awaits its hooks may have committed in part: a `hello` has to begin
        // where the next patch goes on.
        self.flush(sql)?;
        let Some(mut connection) = self.connections.get(id).cloned() else { return Ok(None) };
        let work = self.engine.receive(sql, &mut connection, frame, &mut self.out)?;
        let mut batch = None;
        match work {
            Work::None => {}
            Work::Actions(items) => batch = Some(Batch { connection: connection.clone(), items }),
            Work::Message(message) => {
                let sender = connection.clone();
                let result = self.hook(sql, Some(&sender), |room| {
                    server.on_message(room, &mut connection, message)
                });
                if let Err(error) = result {
                    let text = ServerFrame::error(&error).to_text();
                    self.out.push(Output::send(id, text));
                }
                self.flush(sql)?;
            }
        }
        // A hook may have changed the one in the map instead.
        if connection.changed {
            self.connections.insert(id.to_owned(), connection);
        } else if let Some(known) = self.connections.get_mut(id) {
            known.used = connection.used;
            known.unread = connection.unread;
        }
        Ok(batch)
    }

    /// Commits one action with `on_action`.
    ///
    /// # Errors
    /// What SQLite says of the framework's own statements.
    pub fn commit(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        connection: &Connection,
        item: Item<S::Action>,
    ) -> Result<Outcome> {
        let Self { name, engine, connections, out } = self;
        let (now, version) = (engine.now(), engine.version());
        let mut sent = Vec::new();
        let outcome = engine.commit(sql, connection, item, out, &mut |action| {
            let mut room = Room {
                sql,
                name,
                now,
                version,
                sender: Some(connection),
                connections,
                out: &mut sent,
                server: PhantomData,
            };
            server.on_action(&mut room, action)
        })?;
        if outcome == Outcome::Committed {
            out.append(&mut sent);
        }
        if connection.protocol() == Protocol::V1 {
            self.flush(sql)?;
        }
        Ok(outcome)
    }

    /// Whether an item had its answer before.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn is_duplicate(&self, sql: &dyn Sql, item: &Item<S::Action>) -> Result<bool> {
        self.engine.is_duplicate(sql, item)
    }

    /// Sends what changed.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn flush(&mut self, sql: &dyn Sql) -> Result<()> {
        let Self { engine, connections, out, .. } = self;
        engine.flush(sql, connections.values(), out)
    }

    /// A client's socket has closed.
    ///
    /// # Errors
    /// What `on_close` returned, or SQLite says.
    pub fn close(&mut self, server: &S, sql: &dyn Sql, id: &str) -> Result<()> {
        let Some(connection) = self.connections.remove(id) else { return Ok(()) };
        self.hook(sql, Some(&connection), |room| server.on_close(room, &connection))?;
        self.flush(sql)
    }

    /// The alarm rang.
    ///
    /// # Errors
    /// What `on_alarm` returned, or SQLite says.
    pub fn alarm(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        if self.engine.alarm(sql)? {
            self.hook(sql, None, |room| server.on_alarm(room))?;
            self.flush(sql)?;
        }
        Ok(())
    }

    /// When the host has to call [`alarm`](Self::alarm) next.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn next_alarm(&self, sql: &dyn Sql) -> Result<Option<Timestamp>> {
        self.engine.next_alarm(sql)
    }

    /// An HTTP request.
    ///
    /// # Errors
    /// What `on_request` returned, or SQLite says.
    pub fn request(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        let response = self.hook(sql, None, |room| server.on_request(room, request))?;
        self.flush(sql)?;
        Ok(response)
    }
}

/// The close code and reason for a connection that [`Host::connect`] refused.
#[must_use]
pub fn refusal(error: &Error) -> (u16, String) {
    if error.code() == Code::TooManyConnections {
        return (wire::CLOSE_BUSY, error.code().as_str().to_owned());
    }
    // A close reason holds 123 bytes.
    let mut reason: String = error.message().to_owned();
    while reason.len() > 123 {
        reason.pop();
    }
    (wire::CLOSE_REFUSED, reason)
}
