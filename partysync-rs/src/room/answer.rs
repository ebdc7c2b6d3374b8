//! What an action is answered with: given by its `on_action`, kept until its client has heard it.

use super::{Caller, HookOutput, Machine, Slot};
use crate::sql::Sql;
use crate::wire::v2::Ack;
use crate::{Code, Error, Result, Room, SyncServer, store, wire};
use serde_json::Value as Json;
use std::rc::Rc;

/// Lists and objects of a result lie in each other so deep at most: a client that could not read the
/// frame would be sent it again for ever.
const DEEPEST: usize = 64;

/// The result of an action: there while its `on_action` runs, and for no other hook.
#[derive(Debug)]
pub(crate) struct Answering {
    /// The largest result, in bytes of its JSON.
    most: usize,
    result: Option<Json>,
}

impl Answering {
    pub(super) fn new(most: usize) -> Self {
        Self { most, result: None }
    }

    pub(super) fn result(self) -> Option<Json> {
        self.result
    }

    fn give(&mut self, result: Json) -> Result<()> {
        if wire::depth(&result) > DEEPEST {
            let message = format!(
                "a result whose lists and objects lie more than {DEEPEST} deep in each other"
            );
            return Err(Error::new(Code::TooLarge, message));
        }
        let (bytes, most) = (result.to_string().len(), self.most);
        if bytes > most {
            let message = format!("a result of {bytes} bytes; the limit is {most}");
            return Err(Error::new(Code::TooLarge, message));
        }
        // `null` and no result are the same.
        self.result = Some(result).filter(|result| !result.is_null());
        Ok(())
    }
}

impl<S> Room<'_, S> {
    /// Answers the action with this, for the client that has made it: a number that the server has
    /// given, a link, whatever is no row that everybody is to see. There it is
    /// `client.send(action).result().await`.
    ///
    /// It is a part of the action's transaction: a refused action has no result. It is kept until the
    /// client has heard it, so that an action whose answer was lost is answered with the same when it
    /// is sent again. Given twice, the later counts. `None` and `()` are no result. A client of
    /// version 1 is sent the rows, as ever.
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer, params};
    /// # #[derive(Record, Clone, Debug, PartialEq)] #[record(table = "orders")]
    /// # struct Order { #[record(key)] id: String, number: i64 }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Order)]
    /// # enum OrderAction { #[action(custom)] Place { id: String } }
    /// # impl partysync::Reduce for OrderAction {
    /// #     fn reduce_custom(&self, _: &mut partysync::Draft<'_, Order>) -> Result<()> { Ok(()) }
    /// # }
    /// # struct Shop;
    /// # impl SyncServer for Shop {
    /// #     type Action = OrderAction;
    /// fn on_action(&self, room: &mut Room<'_, Self>, action: OrderAction) -> Result<()> {
    ///     let OrderAction::Place { id } = action;
    ///     let next = "SELECT coalesce(max(number), 0) + 1 FROM orders";
    ///     let number: i64 = room.sql().query_one(next, [], |row| row.get(0))?;
    ///     let place = "INSERT INTO orders (id, number) VALUES (?, ?)";
    ///     room.sql().execute(place, params![id, number])?;
    ///     room.answer(&number)
    /// }
    /// # }
    /// # let mut room = partysync::testing::TestRoom::new(Shop)?;
    /// let place = |id: &str| OrderAction::Place { id: id.into() };
    /// assert_eq!(room.act_for::<i64>(place("a"))?, 1);
    /// assert_eq!(room.act_for::<i64>(place("b"))?, 2);
    /// # Ok::<(), partysync::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Code::TooLarge`] when its JSON has more bytes than
    /// [`Limits::result_bytes`](crate::Limits::result_bytes), 64 KiB unless you say otherwise, or is
    /// nested more than 64 deep; [`Code::InvalidValue`] when it has no JSON form;
    /// [`Code::Internal`] in any hook but [`on_action`](SyncServer::on_action).
    pub fn answer<T: serde::Serialize + ?Sized>(&mut self, result: &T) -> Result<()> {
        let answering = self.output.answering.as_mut().ok_or_else(|| {
            Error::new(Code::Internal, "only `on_action` answers an action with something")
        })?;
        let json = serde_json::to_value(result)
            .map_err(|e| Error::new(Code::InvalidValue, format!("a result: {e}")))?;
        answering.give(json)
    }
}

/// Answers that are on their way out of a push.
#[derive(Debug, Default)]
pub(super) struct Acks {
    pub(super) list: Vec<Ack>,
    /// Bytes of their results.
    pub(super) bytes: usize,
}

impl Acks {
    pub(super) fn add(&mut self, seq: u64, outcome: &Result<()>, result: Option<(Json, usize)>) {
        let mut ack = Ack::new(seq, outcome);
        if let Some((json, bytes)) = result {
            self.bytes += bytes;
            ack.result = Some(json);
        }
        self.list.push(ack);
    }
}

impl<S: SyncServer> Machine<S> {
    /// Does an action in a transaction of its own, and gives its result.
    ///
    /// # Errors
    /// Of the storage. What the hook returns is inside.
    pub(super) fn do_one(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        action: S::Action,
    ) -> Result<Result<Option<Json>>> {
        let output = HookOutput { answering: Some(self.answering()), ..HookOutput::default() };
        let caller = Caller::Connection(slot);
        self.hook_with(server, sql, caller, output, |room| {
            server.on_action(room, action)?;
            Ok(room.output.answering.take().and_then(Answering::result))
        })
    }

    pub(super) fn answering(&self) -> Answering {
        Answering::new(self.limits.result_bytes)
    }

    /// Keeps the result of an action that was done, until its client has heard it; its size.
    pub(super) fn keep_result(
        &mut self,
        sql: &dyn Sql,
        client: &Rc<str>,
        seq: u64,
        result: &Json,
    ) -> Result<usize> {
        if !self.meta.has_results {
            store::make_results(sql)?;
            self.meta.has_results = true;
        }
        let text = result.to_string();
        if !crate::__mutated("result") {
            store::add_result(sql, client, seq, &text)?;
        }
        self.clients.entry(client.clone()).or_default().results = Some(seq);
        Ok(text.len())
    }

    /// The client has heard the results up to this seq: they are kept no longer. Where none are, the
    /// database is not asked.
    pub(super) fn forget_results(
        &mut self,
        sql: &dyn Sql,
        client: &Rc<str>,
        upto: u64,
    ) -> Result<()> {
        if !self.meta.has_results || upto == 0 {
            return Ok(());
        }
        let known = self.clients.entry(client.clone()).or_default();
        let last = match known.results {
            Some(last) => last,
            None => store::last_result(sql, client)?,
        };
        let upto = if crate::__mutated("result_heard") { last } else { upto };
        known.results = Some(if last <= upto { 0 } else { last });
        if last > 0 { store::forget_results(sql, client, upto) } else { Ok(()) }
    }

    /// What an action that was answered before was answered.
    pub(super) fn answer_again(
        &self,
        sql: &dyn Sql,
        client: &str,
        seq: u64,
        acks: &mut Acks,
    ) -> Result<()> {
        let outcome = store::outcome(sql, client, seq)?;
        let result = match &outcome {
            Ok(()) if self.meta.has_results => store::result(sql, client, seq)?,
            _ => None,
        };
        acks.add(seq, &outcome, result);
        Ok(())
    }

    /// Has these answers sent with the turn's changes.
    pub(super) fn answer(&mut self, slot: Slot, client: &Rc<str>, acks: &mut Acks) {
        let Acks { mut list, bytes } = std::mem::take(acks);
        let Some(entry) = self.slots.get_mut(slot) else { return };
        if entry.connection.client.as_deref() != Some(&**client) {
            list.iter_mut().for_each(|ack| ack.client = Some(client.to_string()));
        }
        entry.acks.append(&mut list);
        entry.ack_bytes += bytes;
        self.acked.insert(slot);
    }

    /// Results are large: a part of a push is answered before the rest is done, so that no frame holds
    /// them all. `false` when the connection does not read them; it comes again for the rest.
    pub(super) fn answer_early(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        client: &Rc<str>,
        acks: &mut Acks,
    ) -> Result<bool> {
        if acks.bytes <= self.limits.page_bytes {
            return Ok(true);
        }
        self.answer(slot, client, acks);
        self.flush(server, sql, None)?;
        Ok(!self.is_overdue(slot))
    }

    /// Whether a connection leaves so many answers unread that it is closed.
    pub(super) fn is_overdue(&mut self, slot: Slot) -> bool {
        let (most, bytes) = (2 * self.limits.push_actions, self.unread_limit());
        let Some(entry) = self.slots.get(slot) else { return true };
        let overdue = entry.acks.len() > most || entry.ack_bytes as u64 > bytes;
        if overdue {
            let error = Error::new(Code::SlowReader, "read what there is before you push more");
            self.tell_and_close(slot, wire::CLOSE_BUSY, &error);
        }
        overdue
    }
}
