//! The room's connections by slot, and the changes that a hook makes to them.

use super::feed::Feed;
use super::rate::Rate;
use super::view::ViewId;
use super::{Connection, Protocol, Slot};
use crate::Timestamp;
use crate::wire::v2::Ack;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A connection with what the room keeps of it in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) connection: Connection,
    /// Tells it from others that have had its slot.
    pub(crate) serial: u64,
    /// What it follows, from `hello` on; of v1 all channels.
    pub(crate) view: Option<ViewId>,
    /// What it lacks and is being sent; `None` when it has all that was committed.
    pub(crate) feed: Option<Feed>,
    /// Answers that go out with its next patch.
    pub(crate) acks: Vec<Ack>,
    /// Bytes of the results among them.
    pub(crate) ack_bytes: usize,
    /// Clients that the room did not know and that it has pushed for.
    pub(crate) strangers: u32,
    /// Bytes that it was sent and has not read, as far as it has said. Forgotten in hibernation,
    /// when nothing is under way.
    pub(crate) unread: u64,
    pub(crate) rate: Rate,
    /// When it last sent something to the room itself.
    pub(crate) heard: Timestamp,
    /// Whether a hook is awaited for it: frames wait, so that its actions stay in order.
    pub(crate) awaits: bool,
    pub(crate) waiting: VecDeque<String>,
    pub(crate) waiting_bytes: usize,
    /// Whether its close is on its way: it is heard no more, and sent nothing.
    pub(crate) closing: bool,
    /// What is kept with its socket.
    pub(crate) attachment: Option<String>,
}

impl Entry {
    /// The answers, which go out now.
    pub(crate) fn take_acks(&mut self) -> Vec<Ack> {
        self.ack_bytes = 0;
        std::mem::take(&mut self.acks)
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    ids: HashMap<String, Slot>,
    serial: u64,
}

impl Slots {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, connection: Connection) -> Slot {
        let slot = self.free.pop().map_or_else(|| self.reserve(), Slot);
        self.put(slot, connection);
        slot
    }

    /// The next slot of all, without a connection.
    pub(crate) fn reserve(&mut self) -> Slot {
        let slot = Slot(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push(None);
        slot
    }

    /// Puts a connection into a slot that was reserved.
    pub(crate) fn put(&mut self, slot: Slot, connection: Connection) {
        self.serial += 1;
        if !connection.id().is_empty() {
            self.ids.insert(connection.id().to_owned(), slot);
        }
        let entry = Entry {
            connection,
            serial: self.serial,
            view: None,
            feed: None,
            acks: Vec::new(),
            ack_bytes: 0,
            strangers: 0,
            unread: 0,
            rate: Rate::default(),
            heard: Timestamp::default(),
            awaits: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            closing: false,
            attachment: None,
        };
        if let Some(place) = self.entries.get_mut(slot.0 as usize) {
            *place = Some(entry);
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.entries.get_mut(slot.0 as usize)?.take()?;
        self.ids.remove(entry.connection.id());
        self.free.push(slot.0);
        Some(entry)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.0 as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.0 as usize)?.as_mut()
    }

    pub(crate) fn find(&self, id: &str) -> Option<Slot> {
        self.ids.get(id).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        (0..).map(Slot).zip(&self.entries).filter_map(|(slot, e)| Some((slot, e.as_ref()?)))
    }

    /// Those of one protocol that are sent something.
    pub(crate) fn open(&self, protocol: Protocol) -> impl Iterator<Item = (Slot, &Entry)> {
        self.iter().filter(move |(_, e)| !e.closing && e.connection.protocol() == protocol)
    }
}

/// The connections as a hook has changed them: kept if it returns `Ok`, and forgotten otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) changed: BTreeMap<Slot, Connection>,
}

impl Overlay {
    /// A connection as the hook sees it.
    pub(crate) fn get<'o>(&'o self, slots: &'o Slots, slot: Slot) -> Option<&'o Connection> {
        self.changed.get(&slot).or_else(|| slots.get(slot).map(|entry| &entry.connection))
    }

    /// A connection that the hook changes.
    pub(crate) fn get_mut(&mut self, slots: &Slots, slot: Slot) -> Option<&mut Connection> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.changed.entry(slot) {
            Occupied(changed) => Some(changed.into_mut()),
            Vacant(place) => Some(place.insert(slots.get(slot)?.connection.clone())),
        }
    }
}
