//! What connections follow: each different set of channels and columns is kept once, and what is
//! sent is written once for all connections that follow the same.

use super::project::{self, Followed};
use crate::Result;
use crate::record::Schema;
use crate::store::Change;
use crate::wire::pages::{Changes, Rows};
use std::collections::BTreeSet;
use std::rc::Rc;

/// A view's number in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ViewId(usize);

/// The columns that a client knows, as places among the room's; `None` for all of them.
pub(crate) type Columns = Option<Rc<[u16]>>;

/// One channel of a view.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChannelView {
    /// The channel's place among the room's.
    pub(crate) channel: usize,
    /// Its name: the record's table.
    pub(crate) name: &'static str,
    pub(crate) columns: Columns,
}

/// What a connection follows.
pub(crate) type View = Rc<[ChannelView]>;

/// The views of a room's connections.
#[derive(Debug, Default)]
pub(crate) struct Views {
    /// `None` where a view was forgotten.
    views: Vec<Option<View>>,
}

impl Views {
    /// The view that follows these channels. There are few: a handful of generations of an
    /// application.
    pub(crate) fn intern(&mut self, schemas: &[&'static Schema], channels: &[Followed]) -> ViewId {
        let place = |followed: &Followed| {
            let channel = schemas.iter().position(|schema| schema.table == followed.channel)?;
            let name = schemas.get(channel)?.table;
            Some(ChannelView { channel, name, columns: followed.columns.as_deref().map(Rc::from) })
        };
        let view: View = channels.iter().filter_map(place).collect();
        let view = Some(view);
        let known = self.views.iter().position(|other| *other == view);
        let free = || self.views.iter().position(Option::is_none);
        let place = known.or_else(free).unwrap_or(self.views.len());
        match self.views.get_mut(place) {
            Some(known) => *known = view,
            None => self.views.push(view),
        }
        ViewId(place)
    }

    pub(crate) fn get(&self, id: ViewId) -> View {
        self.views.get(id.0).cloned().flatten().unwrap_or_else(|| Rc::from([]))
    }

    /// Whether there are so many views that those that nobody follows are to be forgotten.
    pub(crate) fn is_full(&self) -> bool {
        const MANY: usize = 64;
        self.views.iter().flatten().count() >= MANY
    }

    /// Forgets the views that nobody follows.
    pub(crate) fn retain(&mut self, used: &BTreeSet<ViewId>) {
        for (place, view) in self.views.iter_mut().enumerate() {
            if !used.contains(&ViewId(place)) {
                *view = None;
            }
        }
    }

    /// Forgets all views when nobody follows any.
    pub(crate) fn clear(&mut self) {
        self.views.clear();
    }
}

/// What changed, by the place of its channel.
pub(crate) type Changed = Vec<(usize, Vec<Change>)>;

/// What changed, as one view sees it.
pub(crate) fn render(view: &View, changed: &Changed) -> Result<Changes> {
    let mut changes = Changes::default();
    for (channel, list) in changed {
        let Some(followed) = view.iter().find(|f| f.channel == *channel) else { continue };
        let mut rows = Rows::default();
        for change in list {
            add(&mut rows, change, &followed.columns)?;
        }
        changes.add(followed.name, &rows);
    }
    Ok(changes)
}

/// Puts a change into the rows that are sent.
pub(crate) fn add(rows: &mut Rows, change: &Change, columns: &Columns) -> Result<()> {
    match &change.row {
        Some(row) if !change.gone => match columns {
            None => rows.add(row, false),
            Some(columns) => rows.add(&project::row(row, columns)?, false),
        },
        _ => rows.add(&change.key, true),
    }
    Ok(())
}
