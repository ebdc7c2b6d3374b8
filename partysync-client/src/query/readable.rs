//! [`Readable`]: changes to a result as they are told to who reads its rows as a type: those that the
//! type does not fit are left out, and the places of the others counted without them.

use super::difference::Difference;

/// Where a result has rows that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Readable {
    /// Their places in the result, in order.
    hidden: Vec<usize>,
}

impl Readable {
    /// A change as it is told; `None` when nothing is.
    pub(super) fn take<T, U>(
        &mut self,
        change: &Difference<T>,
        mut read: impl FnMut(&T) -> Option<U>,
    ) -> Option<Difference<U>> {
        match change {
            Difference::Reset(rows) => {
                self.hidden.clear();
                let mut all = Vec::with_capacity(rows.len());
                for (place, row) in rows.iter().enumerate() {
                    match read(row) {
                        Some(row) => all.push(row),
                        None => self.hidden.push(place),
                    }
                }
                Some(Difference::Reset(all))
            }
            Difference::Inserted(at, row) => {
                self.come(*at);
                match read(row) {
                    Some(row) => Some(Difference::Inserted(self.shown(*at), row)),
                    None => self.hide(*at),
                }
            }
            Difference::Updated(at, row) => match (self.unhide(*at), read(row)) {
                (false, Some(row)) => Some(Difference::Updated(self.shown(*at), row)),
                (true, Some(row)) => Some(Difference::Inserted(self.shown(*at), row)),
                (false, None) => {
                    let removed = Difference::Removed(self.shown(*at));
                    self.hide::<U>(*at);
                    Some(removed)
                }
                (true, None) => self.hide(*at),
            },
            Difference::Moved(from, to, row) => {
                let (place, was_hidden) = (self.shown(*from), self.unhide(*from));
                self.go(*from);
                self.come(*to);
                match (was_hidden, read(row)) {
                    (false, Some(row)) => Some(Difference::Moved(place, self.shown(*to), row)),
                    (true, Some(row)) => Some(Difference::Inserted(self.shown(*to), row)),
                    (false, None) => {
                        self.hide::<U>(*to);
                        Some(Difference::Removed(place))
                    }
                    (true, None) => self.hide(*to),
                }
            }
            Difference::Removed(at) => {
                let (place, was_hidden) = (self.shown(*at), self.unhide(*at));
                self.go(*at);
                (!was_hidden).then_some(Difference::Removed(place))
            }
        }
    }

    /// How many rows before this place are told of.
    fn shown(&self, at: usize) -> usize {
        at - self.hidden.partition_point(|hidden| *hidden < at)
    }

    /// A row is put in at this place.
    fn come(&mut self, at: usize) {
        self.hidden.iter_mut().filter(|hidden| **hidden >= at).for_each(|hidden| *hidden += 1);
    }

    /// The row at this place is taken out, which is not hidden.
    fn go(&mut self, at: usize) {
        self.hidden.iter_mut().filter(|hidden| **hidden > at).for_each(|hidden| *hidden -= 1);
    }

    /// The row at this place is not told of.
    fn hide<U>(&mut self, at: usize) -> Option<Difference<U>> {
        let place = self.hidden.partition_point(|hidden| *hidden < at);
        self.hidden.insert(place, at);
        None
    }

    /// The row at this place is told of from here on; whether it was not.
    fn unhide(&mut self, at: usize) -> bool {
        match self.hidden.binary_search(&at) {
            Ok(place) => {
                self.hidden.remove(place);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows are numbers, of which the odd ones cannot be read.
    fn read(row: &u8) -> Option<u8> {
        row.is_multiple_of(2).then_some(*row)
    }

    proptest! {
        #[test]
        fn who_is_told_of_readable_rows_has_those_in_their_order(
            changes in proptest::collection::vec((0..5_u8, any::<[usize; 2]>(), any::<u8>()), 0..60),
        ) {
            let (mut rows, mut told, mut readable) = (Vec::new(), Vec::new(), Readable::default());
            for (what, [from, to], row) in changes {
                let len = rows.len();
                let (from, to) = (from % len.max(1), to % (len + 1));
                let change = match what {
                    0 | 1 => Difference::Inserted(to, row),
                    _ if len == 0 => Difference::Reset(vec![row; usize::from(row % 4)]),
                    2 => Difference::Updated(from, row),
                    3 => Difference::Moved(from, to % len, row),
                    _ => Difference::Removed(from),
                };
                let mapped = readable.take(&change, read);
                change.apply(&mut rows);
                mapped.into_iter().for_each(|change| change.apply(&mut told));
                let wanted: Vec<u8> = rows.iter().filter_map(read).collect();
                prop_assert_eq!(&told, &wanted);
            }
        }
    }
}
