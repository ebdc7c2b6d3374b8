//! [`Difference`]: a change to a result, as it is told.

/// A change to a result; they count one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference<T> {
    /// A row is new at this place; those from there on are one further.
    Inserted(usize, T),
    /// The row at this place is another one, or what comes with it is.
    Updated(usize, T),
    /// A row has gone from the first place; then it is put in at the second.
    Moved(usize, usize, T),
    /// The row at this place is gone.
    Removed(usize),
    /// All is new.
    Reset(Vec<T>),
}

impl<T> Difference<T> {
    /// The same of other rows.
    ///
    /// # Errors
    /// The first of `read`.
    pub fn try_map<U, E>(
        &self,
        mut read: impl FnMut(&T) -> Result<U, E>,
    ) -> Result<Difference<U>, E> {
        Ok(match self {
            Self::Inserted(at, row) => Difference::Inserted(*at, read(row)?),
            Self::Updated(at, row) => Difference::Updated(*at, read(row)?),
            Self::Moved(from, to, row) => Difference::Moved(*from, *to, read(row)?),
            Self::Removed(at) => Difference::Removed(*at),
            Self::Reset(rows) => {
                Difference::Reset(rows.iter().map(read).collect::<Result<_, _>>()?)
            }
        })
    }

    /// Makes the change in a list. Places beyond its end are passed over.
    ///
    /// ```
    /// use partysync_client::query::Difference;
    ///
    /// let mut rows = vec!["a", "b"];
    /// Difference::Inserted(1, "c").apply(&mut rows);
    /// Difference::Moved(0, 2, "a").apply(&mut rows);
    /// assert_eq!(rows, ["c", "b", "a"]);
    /// ```
    pub fn apply(self, rows: &mut Vec<T>) {
        match self {
            Self::Inserted(at, row) => rows.insert(at.min(rows.len()), row),
            Self::Updated(at, row) => {
                if let Some(there) = rows.get_mut(at) {
                    *there = row;
                }
            }
            Self::Moved(from, to, row) => {
                if from < rows.len() {
                    rows.remove(from);
                }
                rows.insert(to.min(rows.len()), row);
            }
            Self::Removed(at) => {
                if at < rows.len() {
                    rows.remove(at);
                }
            }
            Self::Reset(all) => *rows = all,
        }
    }
}
