//! [`Field`]: a column as queries name it, and the conditions that it makes.

use super::plan::{Comparison, Filter, Join, Order, Scalar};
use super::{Query, Tuple};
use crate::{Column, Error, Record, Result, Timestamp};
use std::marker::PhantomData;
use std::ops::Not;

/// A column of a record, as queries name it. `derive(Record)` makes a constant of each field that is
/// not `json`: `Todo::text`. `#[record(constant = "text_column")]` on the field gives it another name,
/// where the record has a function of that one.
///
/// ```
/// # use partysync::Record;
/// # #[derive(Record, Clone)] #[record(table = "todos")]
/// # struct Todo { #[record(key)] id: String, text: String, done: bool, place: Option<i64> }
/// let open = Todo::done.eq(false).and(Todo::place.lt(10).or(Todo::text.starts_with("!")));
/// let query = Todo::query().filter(open).order_by(Todo::place.desc()).limit(50);
/// # assert!(query.plan().is_ok());
/// ```
pub struct Field<R, T> {
    index: usize,
    of: PhantomData<fn() -> (R, T)>,
}

impl<R, T> Clone for Field<R, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, T> Copy for Field<R, T> {}

impl<R: Record, T> std::fmt::Debug for Field<R, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", R::SCHEMA.table, self.name())
    }
}

/// What can be compared with a column of type `T`: such a value, what is in its `Option`, and `&str`
/// for text.
#[diagnostic::on_unimplemented(
    message = "a column of `{T}` is not compared with `{Self}`",
    label = "not the column's type"
)]
pub trait Comparable<T> {
    #[doc(hidden)]
    fn comparable(self) -> T;
}

impl<T> Comparable<T> for T {
    fn comparable(self) -> T {
        self
    }
}

impl<T> Comparable<Option<T>> for T {
    fn comparable(self) -> Option<T> {
        Some(self)
    }
}

impl Comparable<String> for &str {
    fn comparable(self) -> String {
        self.to_owned()
    }
}

impl Comparable<Option<String>> for &str {
    fn comparable(self) -> Option<String> {
        Some(self.to_owned())
    }
}

impl Comparable<String> for &String {
    fn comparable(self) -> String {
        self.clone()
    }
}

impl Comparable<Option<String>> for &String {
    fn comparable(self) -> Option<String> {
        Some(self.clone())
    }
}

/// What refers to the key of `R`: a value of the key's type, for which `derive(Record)` says so, or
/// an `Option` of one.
#[diagnostic::on_unimplemented(
    message = "a column of `{Self}` does not refer to the key of `{R}`",
    label = "not the type of the key",
    note = "a column that refers to a key has the key's type, or an `Option` of it"
)]
pub trait RefersTo<R> {}

impl<R, T: RefersTo<R>> RefersTo<R> for Option<T> {}

impl<R, T> Field<R, T> {
    /// The column at this place of the schema.
    #[doc(hidden)]
    #[must_use]
    pub const fn at(index: usize) -> Self {
        Self { index, of: PhantomData }
    }
}

impl<R: Record, T> Field<R, T> {
    /// The column's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        R::SCHEMA.columns.get(self.index).map_or("", |column| column.name)
    }

    /// From the smallest value on; NULL first.
    #[must_use]
    pub fn asc(self) -> Ordered<R> {
        self.ordered(false)
    }

    /// From the largest value on; NULL last.
    #[must_use]
    pub fn desc(self) -> Ordered<R> {
        self.ordered(true)
    }

    fn ordered(self, descending: bool) -> Ordered<R> {
        Ordered { order: Order { column: self.name().to_owned(), descending }, of: PhantomData }
    }

    /// Rows in which it is NULL.
    #[must_use]
    pub fn is_null(self) -> Condition<R> {
        self.compare(Comparison::Eq, Ok(crate::sql::Value::Null))
    }

    fn compare(self, how: Comparison, value: Result<crate::sql::Value>) -> Condition<R> {
        match value {
            Ok(value) => {
                Condition::of(Filter::Compare(self.name().to_owned(), how, Scalar::from(value)))
            }
            Err(error) => Condition::failed(error.context(format_args!("{self:?}"))),
        }
    }
}

impl<R: Record, T: Column> Field<R, T> {
    fn with(self, how: Comparison, value: impl Comparable<T>) -> Condition<R> {
        self.compare(how, value.comparable().try_to_value())
    }

    /// Rows in which it has this value; `None` is NULL.
    #[must_use]
    pub fn eq(self, value: impl Comparable<T>) -> Condition<R> {
        self.with(Comparison::Eq, value)
    }

    /// Rows in which it has another value, also NULL.
    #[must_use]
    pub fn ne(self, value: impl Comparable<T>) -> Condition<R> {
        self.with(Comparison::Ne, value)
    }

    /// Rows in which it is less than this; NULL is not.
    #[must_use]
    pub fn lt(self, value: impl Comparable<T>) -> Condition<R> {
        self.with(Comparison::Lt, value)
    }

    /// Rows in which it is at most this; NULL is not.
    #[must_use]
    pub fn le(self, value: impl Comparable<T>) -> Condition<R> {
        self.with(Comparison::Le, value)
    }

    /// Rows in which it is more than this; NULL is not.
    #[must_use]
    pub fn gt(self, value: impl Comparable<T>) -> Condition<R> {
        self.with(Comparison::Gt, value)
    }

    /// Rows in which it is at least this; NULL is not.
    #[must_use]
    pub fn ge(self, value: impl Comparable<T>) -> Condition<R> {
        self.with(Comparison::Ge, value)
    }

    /// Rows in which it has one of these values.
    #[must_use]
    pub fn is_in<V: Comparable<T>>(self, values: impl IntoIterator<Item = V>) -> Condition<R> {
        let values = values.into_iter().map(|value| value.comparable().try_to_value());
        let values = values.map(|value| value.map(Scalar::from)).collect::<Result<Vec<_>>>();
        match values {
            Ok(values) => Condition::of(Filter::In(self.name().to_owned(), values)),
            Err(error) => Condition::failed(error.context(format_args!("{self:?}"))),
        }
    }
}

/// A column of text, or of none.
pub trait Text {}

impl Text for String {}
impl Text for Option<String> {}

impl<R: Record, T: Text> Field<R, T> {
    /// Rows in whose text this is found, letter by letter.
    #[must_use]
    pub fn contains(self, text: impl Into<String>) -> Condition<R> {
        Condition::of(Filter::Contains(self.name().to_owned(), text.into()))
    }

    /// Rows whose text begins with this.
    #[must_use]
    pub fn starts_with(self, text: impl Into<String>) -> Condition<R> {
        Condition::of(Filter::StartsWith(self.name().to_owned(), text.into()))
    }
}

/// A number that can be summed up.
pub trait Number {}

impl Number for i64 {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for Option<i64> {}
impl Number for Option<i32> {}
impl Number for Option<u32> {}
impl Number for bool {}
impl Number for Timestamp {}

/// A column that rows are ordered by, and which way.
#[derive(Debug)]
pub struct Ordered<R> {
    pub(super) order: Order,
    of: PhantomData<fn() -> R>,
}

/// Which rows of a record. A condition holds or does not: NULL equals NULL, and is neither less
/// nor more than anything.
#[derive(Debug)]
pub struct Condition<R> {
    pub(super) filter: Filter,
    pub(super) error: Option<Error>,
    of: PhantomData<fn() -> R>,
}

impl<R> Clone for Condition<R> {
    fn clone(&self) -> Self {
        Self { filter: self.filter.clone(), error: self.error.clone(), of: PhantomData }
    }
}

impl<R> Condition<R> {
    fn of(filter: Filter) -> Self {
        Self { filter, error: None, of: PhantomData }
    }

    fn failed(error: Error) -> Self {
        Self { filter: Filter::default(), error: Some(error), of: PhantomData }
    }

    /// Rows for which this holds, and that.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let filter = self.filter.and(other.filter);
        Self { filter, error: self.error.or(other.error), of: PhantomData }
    }

    /// Rows for which this holds, or that.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let filter = match (self.filter, other.filter) {
            (Filter::Any(mut any), other) => {
                any.push(other);
                Filter::Any(any)
            }
            (one, two) => Filter::Any(vec![one, two]),
        };
        Self { filter, error: self.error.or(other.error), of: PhantomData }
    }
}

impl<R> Not for Condition<R> {
    type Output = Self;

    fn not(self) -> Self {
        let filter = Filter::Not(Box::new(self.filter));
        Self { filter, error: self.error, of: PhantomData }
    }
}

/// Rows that have rows of another record which refer to their key by this column, and which the
/// query finds.
///
/// ```
/// # use partysync::Record;
/// # #[derive(Record, Clone)] #[record(table = "cards")] struct Card { #[record(key)] id: String }
/// # #[derive(Record, Clone)] #[record(table = "comments")]
/// # struct Comment { #[record(key)] id: String, card: String, by: String }
/// use partysync::query::exists;
/// let by_ada = exists(Comment::card, |comments| comments.filter(Comment::by.eq("ada")));
/// let query = Card::query().filter(by_ada);
/// # assert!(query.plan().is_ok());
/// ```
#[must_use]
pub fn exists<R: Record, C: Record, T: RefersTo<R>, W: Tuple>(
    field: Field<C, T>,
    query: impl FnOnce(Query<C>) -> Query<C, W>,
) -> Condition<R> {
    related(super::join_many::<R, C, T>(field), query(Query::new()))
}

/// Rows that refer to a row of another record by this column which the query finds.
///
/// ```
/// # use partysync::Record;
/// # #[derive(Record, Clone)] #[record(table = "users")]
/// # struct User { #[record(key)] id: String, admin: bool }
/// # #[derive(Record, Clone)] #[record(table = "cards")]
/// # struct Card { #[record(key)] id: String, author: String }
/// use partysync::query::exists_one;
/// let by_admins = exists_one::<_, User, _, _>(Card::author, |users| users.filter(User::admin.eq(true)));
/// let query = Card::query().filter(by_admins);
/// # assert!(query.plan().is_ok());
/// ```
#[must_use]
pub fn exists_one<R: Record, C: Record, T: RefersTo<C>, W: Tuple>(
    field: Field<R, T>,
    query: impl FnOnce(Query<C>) -> Query<C, W>,
) -> Condition<R> {
    related(super::join_one::<R, C, T>(field), query(Query::new()))
}

fn related<R, C: Record, W: Tuple>(join: Join, query: Query<C, W>) -> Condition<R> {
    match query.into_plan() {
        Ok(plan) => Condition::of(Filter::Exists(join, Box::new(plan))),
        Err(error) => Condition::failed(error),
    }
}
