//! [`Layers`]: what pending actions make of one row, one over the other. Each action sees what is
//! below its own, so that it can be done again alone.

use super::Row;
use std::collections::VecDeque;

/// An action's place among all that are pending: that of its queue, and its seq there.
pub(super) type Order = (u64, u64);

/// A row as each of the pending actions that have written it left it, in their order; `None` where
/// it was deleted.
#[derive(Debug, Default)]
pub(super) struct Layers(VecDeque<(Order, Option<Row>)>);

impl Layers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The row as all have left it.
    pub(super) fn top(&self) -> Option<Option<&Row>> {
        self.0.back().map(|(_, row)| row.as_ref())
    }

    /// The row as those before this one have left it, if one of them has written it.
    pub(super) fn below(&self, order: Order) -> Option<Option<&Row>> {
        let before = self.place(order).checked_sub(1)?;
        self.0.get(before).map(|(_, row)| row.as_ref())
    }

    /// What this one has left.
    pub(super) fn get(&self, order: Order) -> Option<&Option<Row>> {
        let (at, row) = self.0.get(self.place(order))?;
        (*at == order).then_some(row)
    }

    /// The first that has written the row.
    pub(super) fn first(&self) -> Option<Order> {
        self.0.front().map(|(order, _)| *order)
    }

    /// The next one after this that has written the row.
    pub(super) fn after(&self, order: Order) -> Option<Order> {
        let after = self.0.partition_point(|(at, _)| *at <= order);
        self.0.get(after).map(|(order, _)| *order)
    }

    /// This one leaves that; with `None` it does not write the row any more.
    pub(super) fn put(&mut self, order: Order, row: Option<Option<Row>>) {
        let place = self.place(order);
        match (self.0.get_mut(place).filter(|(at, _)| *at == order), row) {
            (Some((_, there)), Some(row)) => *there = row,
            (Some(_), None) => drop(self.0.remove(place)),
            (None, Some(row)) => self.0.insert(place, (order, row)),
            (None, None) => {}
        }
    }

    fn place(&self, order: Order) -> usize {
        self.0.partition_point(|(at, _)| *at < order)
    }
}
