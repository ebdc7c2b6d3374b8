//! What a query has found: untyped, and as the types that it was asked with.

use crate::sql::Value;
use crate::{Code, Column, Error, Record, Result};
use std::ops::Deref;
use std::sync::Arc;

/// A row that a query has found, untyped, with what came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its cells; shared with the table.
    pub row: Arc<[Value]>,
    /// What came with it, in the order in which it was asked for.
    pub related: Vec<Branch>,
}

/// What came with a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Branch {
    /// Related rows: all of them, or the first.
    Rows(Vec<Node>),
    /// How many there are.
    Count(u64),
}

/// A row that a query has found, and what came with it: a tuple in the order in which it was asked
/// for.
///
/// ```
/// use partysync::query::Found;
///
/// let found = Found { row: "a row".to_owned(), related: (vec!["a comment"], 3_u64) };
/// assert_eq!(found.len(), 5);
/// let (comments, likes) = &found.related;
/// assert_eq!((comments.len(), *likes), (1, 3));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<R, W = ()> {
    /// The row.
    pub row: R,
    /// What came with it.
    pub related: W,
}

impl<R, W> Deref for Found<R, W> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.row
    }
}

impl<R: Record, W: Tuple> Found<R, W> {
    /// What was found, as the types that were asked with. Related rows that do not fit theirs are left
    /// out.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] when the row does not fit its type.
    pub fn read(node: &Node) -> Result<Self> {
        Ok(Self { row: R::from_row(node.row.to_vec())?, related: W::read(&node.related)? })
    }
}

/// One part of what comes with a row.
pub trait Part: Sized {
    #[doc(hidden)]
    fn read(branch: &Branch) -> Result<Self>;
}

impl<R: Record, W: Tuple> Part for Vec<Found<R, W>> {
    fn read(branch: &Branch) -> Result<Self> {
        Ok(rows(branch)?.iter().filter_map(|row| Found::read(row).ok()).collect())
    }
}

impl<R: Record, W: Tuple> Part for Option<Found<R, W>> {
    fn read(branch: &Branch) -> Result<Self> {
        Ok(rows(branch)?.first().and_then(|row| Found::read(row).ok()))
    }
}

impl Part for u64 {
    fn read(branch: &Branch) -> Result<Self> {
        match branch {
            Branch::Count(count) => Ok(*count),
            Branch::Rows(_) => Err(other()),
        }
    }
}

fn rows(branch: &Branch) -> Result<&[Node]> {
    match branch {
        Branch::Rows(rows) => Ok(rows),
        Branch::Count(_) => Err(other()),
    }
}

fn other() -> Error {
    Error::new(Code::Internal, "a query has found something else than it was asked for")
}

/// All that comes with a row: none to six parts.
pub trait Tuple: Sized {
    /// The tuple with one part more.
    type With<T: Part>;

    #[doc(hidden)]
    fn read(branches: &[Branch]) -> Result<Self>;
}

impl Tuple for () {
    type With<T: Part> = (T,);

    fn read(_: &[Branch]) -> Result<Self> {
        Ok(())
    }
}

macro_rules! tuples {
    ($($part:ident),+ ; $($with:tt)+) => {
        impl<$($part: Part),+> Tuple for ($($part,)+) {
            type With<T: Part> = $($with)+;

            fn read(branches: &[Branch]) -> Result<Self> {
                let mut branches = branches.iter();
                Ok(($($part::read(branches.next().ok_or_else(other)?)?,)+))
            }
        }
    };
}
tuples!(A; (A, T));
tuples!(A, B; (A, B, T));
tuples!(A, B, C; (A, B, C, T));
tuples!(A, B, C, D; (A, B, C, D, T));
tuples!(A, B, C, D, E; (A, B, C, D, E, T));
tuples!(A, B, C, D, E, F; TooMany);

/// What comes with a row has at most six parts: this is no tuple of them.
#[derive(Debug)]
pub struct TooMany;

/// What rows are grouped by: the values of a column, or nothing.
pub trait Group: Sized {
    #[doc(hidden)]
    fn read(value: Value) -> Result<Self>;
}

impl Group for () {
    fn read(_: Value) -> Result<Self> {
        Ok(())
    }
}

impl<T: Column> Group for T {
    fn read(value: Value) -> Result<Self> {
        T::from_value(value)
    }
}
