//! What connections may see: [`SyncServer::visible`] is asked when they say what they follow, and
//! again when rows have changed that it has read. A connection whose view is another then comes again,
//! and begins that channel anew.

use super::project::Followed;
use super::sight::{Filtered, Reading, Seen, sight, token};
use super::view::{Changed, ChannelView, ViewId};
use super::{Caller, Handles, HookOutput, Machine, Protocol, Slot, event};
use crate::sql::{Sql, Value};
use crate::store::Plan;
use crate::{Action, Code, Error, Identity, Result, Room, SyncServer, wire};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What views hear of some changes: by view and channel, the version of each change that it has to hear
/// of, and whether the row is there; else it is gone.
pub(crate) type Heard = BTreeMap<(ViewId, usize), BTreeMap<u64, bool>>;

/// Parameters that are handed to one statement, bytes.
const PARAMS: usize = 256 * 1024;

/// Some who see by the same condition, and their parameters.
struct Group {
    plan: Rc<Plan>,
    place: usize,
    views: Vec<ViewId>,
    params: String,
}

impl<S: SyncServer> Machine<S> {
    /// What somebody sees of a channel.
    ///
    /// # Errors
    /// Of the storage. What `visible` returns is inside.
    pub(super) fn see(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        caller: Caller<'_>,
        place: usize,
    ) -> Result<Result<Seen>> {
        let Some(schema) = Self::SCHEMAS.get(place).copied() else { return Ok(Ok(None)) };
        let reading = Reading::new(sql, Self::SCHEMAS);
        let mut output = HookOutput::default();
        let visible =
            server.visible(&self.room(server, &reading, caller, &mut output), schema.table);
        if let Some(error) = reading.failed.into_inner() {
            return Err(error);
        }
        self.rights.extend(reading.named.into_inner());
        let page_bytes = self.limits.page_bytes;
        let seen =
            visible.and_then(|visible| sight(schema, visible, page_bytes, &mut self.filtered, sql));
        match seen {
            Err(error) if error.code() == Code::Storage => Err(error),
            seen => Ok(seen),
        }
    }

    /// The view that follows these channels and sees these rows of them.
    pub(super) fn intern(&mut self, followed: &[Followed], seen: &[Seen]) -> ViewId {
        if self.views.is_full() {
            let mut used = BTreeSet::new();
            used.extend(self.slots.iter().filter_map(|(_, entry)| entry.view));
            self.views.retain(&used);
        }
        self.views.intern(Self::SCHEMAS, followed, seen)
    }

    /// What a connection sees of some channels; `None` where it has been closed, as that could not be
    /// told.
    pub(super) fn see_all(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        slot: Slot,
        places: impl IntoIterator<Item = usize>,
    ) -> Result<Option<Vec<Seen>>> {
        let mut all = Vec::new();
        for place in places {
            match self.see(server, sql, Caller::Connection(slot), place)? {
                Ok(seen) => all.push(seen),
                Err(error) => {
                    self.blind(slot, error);
                    return Ok(None);
                }
            }
        }
        Ok(Some(all))
    }

    /// What a connection may see cannot be told: it is closed, as one that is not let in.
    fn blind(&mut self, slot: Slot, error: Error) {
        let error = self.public(error, "visible");
        let (code, reason) = event::refusal(&error);
        self.tell(slot, &error);
        self.close(slot, code, &reason);
    }

    /// Asks again what open connections see. Whoever sees something else than before comes again.
    pub(super) fn review(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        let open: Vec<_> = self.slots.iter().filter(|(_, entry)| !entry.closing).collect();
        let open: Vec<_> = open.iter().filter_map(|(slot, e)| Some((*slot, e.view?))).collect();
        for (slot, view) in open {
            let view = self.views.get(view);
            let places = view.iter().map(|followed| followed.channel);
            let Some(seen) = self.see_all(server, sql, slot, places)? else { continue };
            if crate::__mutated("visible_review") {
                continue;
            }
            let before = view.iter().map(|followed| &followed.seen);
            if !before.eq(&seen) {
                self.close(slot, wire::CLOSE_RESTART, "restart");
            }
        }
        self.review_present(server, sql)
    }

    /// Sets what connections see that an earlier life of the room has left open.
    pub(super) fn see_again(&mut self, server: &S, sql: &dyn Sql) -> Result<()> {
        let open = self.slots.iter().filter(|(_, entry)| !entry.closing);
        let known = open.filter(|(_, entry)| entry.connection.is_known());
        let follows = known.map(|(slot, entry)| {
            let connection = &entry.connection;
            (slot, connection.protocol() == Protocol::V1, connection.channels.clone())
        });
        for (slot, v1, known) in follows.collect::<Vec<_>>() {
            let mut followed = if v1 { Self::v1_channels() } else { known.clone() };
            // One that is in no type any more is not followed.
            followed.retain(|followed| Self::place(&followed.channel).is_ok());
            let places = followed.iter().filter_map(|f| Self::place(&f.channel).ok());
            let Some(seen) = self.see_all(server, sql, slot, places)? else { continue };
            let view = |channel: &str| {
                let known = known.iter().find(|known| known.channel == channel);
                known.and_then(|known| known.view.as_deref())
            };
            if followed.iter().zip(&seen).any(|(f, seen)| view(&f.channel) != token(seen)) {
                self.close(slot, wire::CLOSE_RESTART, "restart");
                continue;
            }
            let view = self.intern(&followed, &seen);
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.view = Some(view);
            }
        }
        Ok(())
    }

    /// What all views of open connections hear of some changes.
    pub(super) fn heard(
        &mut self,
        sql: &dyn Sql,
        (from, to): (u64, u64),
        changed: &Changed,
    ) -> Result<Heard> {
        let mut heard = Heard::new();
        for mut group in self.groups(changed) {
            group.params.push(']');
            let Some(filter) = &group.plan.filter else { continue };
            let done = filter.see(sql, &group.params, (from, to), &mut |index, version, there| {
                if let Some(view) = group.views.get(index) {
                    heard.entry((*view, group.place)).or_default().insert(version, there);
                }
            });
            match done {
                Ok(()) => {}
                Err(error) if error.code() == Code::Storage => return Err(error),
                // A condition that fails for a row, or a parameter.
                Err(error) => {
                    let error = error.context("a condition of `visible`, for a row");
                    self.blind_all(&group.views, &error);
                }
            }
        }
        Ok(heard)
    }

    /// Those who see some of these channels, by condition.
    fn groups(&self, changed: &Changed) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        if self.filtered.is_empty() {
            return groups;
        }
        let open = self.slots.iter().filter(|(_, entry)| !entry.closing);
        let views: BTreeSet<ViewId> = open.filter_map(|(_, entry)| entry.view).collect();
        for id in views {
            for ChannelView { channel: place, seen, .. } in self.views.get(id).iter() {
                let is_changed = changed.iter().any(|(other, _)| other == place);
                let Some(sight) = seen.as_ref().filter(|_| is_changed) else { continue };
                let is_one = |group: &&mut Group| {
                    Rc::ptr_eq(&group.plan, &sight.plan) && group.params.len() < PARAMS
                };
                let known = groups.iter_mut().rev().find(is_one);
                let Value::Text(params) = &sight.params else { continue };
                if let Some(group) = known {
                    group.views.push(id);
                    group.params.push(',');
                    group.params.push_str(params);
                    continue;
                }
                let (plan, params) = (sight.plan.clone(), format!("[{params}"));
                groups.push(Group { plan, place: *place, views: vec![id], params });
            }
        }
        groups
    }

    fn blind_all(&mut self, views: &[ViewId], error: &Error) {
        let is_one = |view: Option<ViewId>| view.is_some_and(|view| views.contains(&view));
        let slots: Vec<_> = self.slots.iter().filter(|(_, e)| is_one(e.view)).collect();
        let slots: Vec<_> = slots.iter().map(|(slot, _)| *slot).collect();
        for slot in slots {
            self.blind(slot, error.clone());
        }
    }

    /// A connection that is fed cannot be: its condition fails for a row.
    pub(super) fn blind_one(&mut self, slot: Slot, error: Error) -> Result<()> {
        match error.code() {
            Code::Storage => Err(error),
            _ => {
                self.blind(slot, error.context("a condition of `visible`, for a row"));
                Ok(())
            }
        }
    }

    /// Whether whoever makes this request sees all rows of all channels, as the history holds them.
    ///
    /// # Errors
    /// [`Code::Forbidden`] if not; what `visible` returns.
    pub fn sees_all(
        &mut self,
        server: &S,
        sql: &dyn Sql,
        request: &http::Request<()>,
    ) -> Result<()> {
        for place in 0..Self::SCHEMAS.len() {
            let caller = Caller::Request(Identity::of(request));
            match self.see(server, sql, caller, place)? {
                Ok(None) => {}
                Ok(Some(_)) => {
                    let message = "the history holds rows that you may not see";
                    return Err(Error::new(Code::Forbidden, message));
                }
                Err(error) => return Err(self.public(error, "visible")),
            }
        }
        Ok(())
    }
}

impl<S: SyncServer> Room<'_, S> {
    /// Asks [`SyncServer::visible`] again what each connection may see, when the hook has returned
    /// `Ok`: whoever may see something else comes again, and is sent it. Needed where rights have
    /// changed in what the framework does not watch: tables of the application's own, the state of
    /// connections, the time.
    ///
    /// ```
    /// # use partysync::{Action, Record, Result, Room, SyncServer, Visible, params};
    /// # #[derive(Record, Clone, Debug)] #[record(table = "notes")]
    /// # struct Note { #[record(key)] id: String, #[record(scope)] owner: String }
    /// # #[derive(Action, Clone, Debug)] #[action(record = Note)]
    /// # enum NoteAction { #[action(insert)] Put { id: String, owner: String }, #[action(custom)] Publish }
    /// # impl partysync::Reduce for NoteAction {
    /// #     fn reduce_custom(&self, _: &mut partysync::Draft<'_, Note>) -> Result<()> { Ok(()) }
    /// # }
    /// # struct Notes;
    /// # const PUBLIC: &str = "CREATE TABLE IF NOT EXISTS public (yes)";
    /// impl SyncServer for Notes {
    ///     // ...
    /// #   type Action = NoteAction;
    /// #   fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
    /// #       room.sql().execute(PUBLIC, []).map(drop)
    /// #   }
    ///     fn visible(&self, room: &Room<'_, Self>, _channel: &str) -> Result<Visible> {
    ///         let public = room.sql().query_opt("SELECT 1 FROM public", [], |_| Ok(()))?;
    ///         let user = room.identity::<String>()?;
    ///         Ok(if public.is_some() { Visible::all() } else { Visible::rows("owner = ?", params![user]) })
    ///     }
    ///
    ///     fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
    ///         match action {
    ///             NoteAction::Publish => {
    ///                 room.sql().execute("INSERT INTO public VALUES (1)", [])?;
    ///                 room.review();
    ///                 Ok(())
    ///             }
    ///             other => other.apply(room.sql()),
    ///         }
    ///     }
    /// }
    /// # let mut room = partysync::testing::TestRoom::new(Notes)?;
    /// # room.login("ada", "ada")?;
    /// # room.take_sent();
    /// # room.act(NoteAction::Publish)?;
    /// # let sent = room.take_sent();
    /// # assert!(sent.iter().any(|(to, frame)| to == "ada" && frame == "close 1012 restart"), "{sent:?}");
    /// # Ok::<(), partysync::Error>(())
    /// ```
    pub fn review(&mut self) {
        self.output.review = true;
    }

    /// Shows the room, as this hook has it, to somebody who changes nothing.
    pub(crate) fn show<T, V>(
        &self,
        sql: &dyn Sql,
        handles: &dyn Handles<T>,
        server: &T,
        look: impl FnOnce(&Room<'_, T>) -> V,
    ) -> V {
        let overlay = self.output.overlay.clone();
        let mut output = HookOutput { overlay, ..HookOutput::default() };
        look(&Room {
            sql,
            name: self.name,
            now: self.now,
            version: self.version,
            epoch: self.epoch,
            plans: self.plans,
            has_jobs: self.has_jobs,
            caller: self.caller,
            slots: self.slots,
            handles,
            output: &mut output,
            server,
        })
    }

    /// What the caller of this hook sees of a channel; the room itself sees everything.
    pub(super) fn sees(&self, plan: &Plan) -> Result<Seen> {
        if matches!(self.caller, Caller::Room) {
            return Ok(None);
        }
        let reading = Reading::new(self.sql, S::Action::CHANNELS);
        let visible = self.show(&reading, self.handles, self.server, |room| {
            self.server.visible(room, plan.schema.table)
        })?;
        sight(plan.schema, visible, self.server.limits().page_bytes, &mut Filtered::new(), self.sql)
    }
}
