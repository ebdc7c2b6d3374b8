//! What connections follow: each different set of channels and columns is kept once, and what is
//! sent is written once for all connections that follow the same.

use super::project::{self, Followed};
use super::seeing::Heard;
use super::sight::Seen;
use crate::Result;
use crate::record::Schema;
use crate::store::Change;
use crate::wire::pages::{Changes, Rows};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// A view's number in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ViewId(usize);

/// The columns that a client knows, as places among the room's; `None` for all of them.
pub(crate) type Columns = Option<Rc<[u16]>>;

/// One channel of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChannelView {
    /// The channel's place among the room's.
    pub(crate) channel: usize,
    /// Its name: the record's table.
    pub(crate) name: &'static str,
    pub(crate) columns: Columns,
    /// Which of its rows.
    pub(crate) seen: Seen,
}

/// What a connection follows.
pub(crate) type View = Rc<[ChannelView]>;

/// The views of a room's connections.
#[derive(Debug, Default)]
pub(crate) struct Views {
    /// `None` where a view was forgotten.
    views: Vec<Option<View>>,
    /// The place of each.
    known: HashMap<View, usize>,
    /// Places where one was forgotten.
    free: Vec<usize>,
    /// How many were followed when others were forgotten last.
    used: usize,
}

impl Views {
    /// The view that follows these channels, and sees these rows of them.
    pub(crate) fn intern(
        &mut self,
        schemas: &[&'static Schema],
        channels: &[Followed],
        seen: &[Seen],
    ) -> ViewId {
        let place = |(followed, seen): (&Followed, &Seen)| {
            let channel = schemas.iter().position(|schema| schema.table == followed.channel)?;
            let (name, seen) = (schemas.get(channel)?.table, seen.clone());
            let columns = followed.columns.as_deref().map(Rc::from);
            Some(ChannelView { channel, name, columns, seen })
        };
        let view: View = channels.iter().zip(seen).filter_map(place).collect();
        if let Some(known) = self.known.get(&view) {
            return ViewId(*known);
        }
        let place = self.free.pop().unwrap_or(self.views.len());
        self.known.insert(view.clone(), place);
        match self.views.get_mut(place) {
            Some(free) => *free = Some(view),
            None => self.views.push(Some(view)),
        }
        ViewId(place)
    }

    pub(crate) fn get(&self, id: ViewId) -> View {
        self.views.get(id.0).cloned().flatten().unwrap_or_else(|| Rc::from([]))
    }

    /// Whether there are so many views that those that nobody follows are to be forgotten.
    pub(crate) fn is_full(&self) -> bool {
        const MANY: usize = 64;
        self.known.len() >= MANY.max(self.used * 2)
    }

    /// Forgets the views that nobody follows.
    pub(crate) fn retain(&mut self, used: &BTreeSet<ViewId>) {
        for (place, view) in self.views.iter_mut().enumerate() {
            if !used.contains(&ViewId(place))
                && let Some(view) = view.take()
            {
                self.known.remove(&view);
                self.free.push(place);
            }
        }
        self.used = used.len();
    }

    /// Forgets all views when nobody follows any.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What changed, by the place of its channel.
pub(crate) type Changed = Vec<(usize, Vec<Change>)>;

/// What changed, as one view sees it.
pub(crate) fn render(
    (id, view): (ViewId, &View),
    changed: &Changed,
    heard: &Heard,
) -> Result<Changes> {
    let mut changes = Changes::default();
    for (channel, list) in changed {
        let Some(followed) = view.iter().find(|f| f.channel == *channel) else { continue };
        let mut rows = Rows::default();
        for change in list {
            let there = match &followed.seen {
                None => !change.gone,
                Some(_) => match heard.get(&(id, *channel)).and_then(|h| h.get(&change.version)) {
                    Some(there) => *there,
                    None => continue,
                },
            };
            add(&mut rows, change, there, &followed.columns)?;
        }
        if followed.seen.is_none() || rows.len() > 0 {
            changes.add(followed.name, &rows);
        }
    }
    Ok(changes)
}

/// Puts a change into the rows that are sent.
pub(crate) fn add(rows: &mut Rows, change: &Change, there: bool, columns: &Columns) -> Result<()> {
    match &change.row {
        Some(row) if there => match columns {
            None => rows.add(row, false),
            Some(columns) => rows.add(&project::row(row, columns)?, false),
        },
        _ => rows.add(&change.key, true),
    }
    Ok(())
}
