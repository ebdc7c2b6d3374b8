//! Queries: which rows, in which order, with which rows of other records. A query is plain data: a
//! client keeps its result up to date (`SyncClient::query`).
//!
//! ```
//! # use partysync::Record;
//! # #[derive(Record, Clone)] #[record(table = "users")]
//! # struct User { #[record(key)] id: String, name: String }
//! # #[derive(Record, Clone)] #[record(table = "cards")]
//! # struct Card { #[record(key)] id: String, author: String, created_at: i64, done: bool }
//! # #[derive(Record, Clone)] #[record(table = "comments")]
//! # struct Comment { #[record(key)] id: String, card: String, created_at: i64 }
//! // The newest cards that are open, each with its author and its three newest comments.
//! let query = Card::query()
//!     .filter(Card::done.eq(false))
//!     .order_by(Card::created_at.desc())
//!     .limit(50)
//!     .with_one::<User, _, _>(Card::author, |users| users)
//!     .with(Comment::card, |comments| comments.order_by(Comment::created_at.desc()).limit(3));
//! let plan = query.plan().unwrap();
//! let json = serde_json::to_string(&plan).unwrap();
//! assert_eq!(plan, serde_json::from_str(&json).unwrap());
//! ```

mod field;
pub mod plan;
mod result;

pub use field::{
    Comparable, Condition, Field, Number, Ordered, RefersTo, Text, exists, exists_one,
};
pub use result::{Branch, Found, Group, Node, Part, TooMany, Tuple};

use crate::sql::Value;
use crate::{Column, Error, Key, Record, Result};
use plan::{Comparison, Filter, Join, Order, Plan, Related, Scalar, Shape};
use std::marker::PhantomData;

/// A query for rows of a record, each with `W`: see the [module](self).
#[derive(Debug)]
pub struct Query<R, W = ()> {
    plan: Plan,
    /// The cells of the row behind which it begins.
    after: Option<Result<Vec<Value>>>,
    error: Option<Error>,
    of: PhantomData<fn() -> (R, W)>,
}

impl<R, W> Clone for Query<R, W> {
    fn clone(&self) -> Self {
        Self {
            plan: self.plan.clone(),
            after: self.after.clone(),
            error: self.error.clone(),
            of: PhantomData,
        }
    }
}

impl<R: Record> Default for Query<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Record> Query<R> {
    /// All rows, by key. [`Record::query`] is the same.
    #[must_use]
    pub fn new() -> Self {
        let plan = Plan { table: R::SCHEMA.table.to_owned(), ..Plan::default() };
        Self { plan, after: None, error: None, of: PhantomData }
    }

    /// The row with this key, if there is one.
    #[must_use]
    pub fn by_key(key: impl Into<Key>) -> Self {
        let (key, columns, mut query) = (key.into(), R::SCHEMA.key(), Self::new());
        let parts = key.parts();
        if parts.len() != columns.len() {
            let (table, wanted) = (R::SCHEMA.table, columns.len());
            let message = format!("a key of `{table}` has {wanted} columns: it is no `{key}`");
            query.error = Some(Error::new(crate::Code::InvalidValue, message));
        }
        let is = |(column, part): (&crate::ColumnDef, &Key)| {
            let value = Scalar::from(part.to_value());
            Filter::Compare(column.name.to_owned(), Comparison::Eq, value)
        };
        let mut all: Vec<_> = columns.iter().zip(parts).map(is).collect();
        query.plan.filter = if all.len() == 1 { all.remove(0) } else { Filter::All(all) };
        query
    }
}

impl<R: Record, W: Tuple> Query<R, W> {
    /// A query out of plain data. What comes with its rows has to be what `W` says, as is seen when
    /// they are read.
    ///
    /// # Errors
    /// [`Code::UnknownChannel`](crate::Code::UnknownChannel) where it is of another table.
    pub fn from_plan(plan: Plan) -> Result<Self> {
        let table = R::SCHEMA.table;
        if plan.table != table {
            let message = format!("a query of `{}`, and not of `{table}`", plan.table);
            return Err(Error::new(crate::Code::UnknownChannel, message));
        }
        Ok(Self { plan, after: None, error: None, of: PhantomData })
    }

    /// Of the rows, those for which this holds.
    #[must_use]
    pub fn filter(mut self, condition: Condition<R>) -> Self {
        self.plan.filter = self.plan.filter.and(condition.filter);
        self.error = self.error.or(condition.error);
        self
    }

    /// Orders the rows by a column; those that are equal in it by that of the next call, and in the
    /// end by key.
    #[must_use]
    pub fn order_by(mut self, by: Ordered<R>) -> Self {
        self.plan.order.push(by.order);
        self
    }

    /// So many rows at most.
    #[must_use]
    pub fn limit(mut self, rows: u32) -> Self {
        self.plan.limit = Some(rows);
        self
    }

    /// Only what comes behind this row: the next page. The row itself need not be there any more.
    #[must_use]
    pub fn start_after(mut self, row: &R) -> Self {
        self.after = Some(row.to_row());
        self
    }

    /// With each row those of another record that refer to its key by this column.
    #[must_use]
    pub fn with<C: Record, T: RefersTo<R>, X: Tuple>(
        self,
        field: Field<C, T>,
        query: impl FnOnce(Query<C>) -> Query<C, X>,
    ) -> Query<R, W::With<Vec<Found<C, X>>>> {
        self.related(join_many::<R, C, T>(field), Shape::Many, query(Query::new()))
    }

    /// With each row the one of another record that it refers to by this column; `None` if it is
    /// not there, or the query does not find it.
    #[must_use]
    pub fn with_one<C: Record, T: RefersTo<C>, X: Tuple>(
        self,
        field: Field<R, T>,
        query: impl FnOnce(Query<C>) -> Query<C, X>,
    ) -> Query<R, W::With<Option<Found<C, X>>>> {
        self.related(join_one::<R, C, T>(field), Shape::One, query(Query::new()))
    }

    /// With each row how many of another record refer to its key by this column: all that the
    /// query's filter finds.
    #[must_use]
    pub fn with_count<C: Record, T: RefersTo<R>, X: Tuple>(
        self,
        field: Field<C, T>,
        query: impl FnOnce(Query<C>) -> Query<C, X>,
    ) -> Query<R, W::With<u64>> {
        self.related(join_many::<R, C, T>(field), Shape::Count, query(Query::new()))
    }

    fn related<C: Record, X: Tuple, P: Part>(
        mut self,
        join: Join,
        shape: Shape,
        query: Query<C, X>,
    ) -> Query<R, W::With<P>> {
        match query.into_plan() {
            Ok(plan) => self.plan.related.push(Related { join, shape, plan }),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        let Self { plan, after, error, .. } = self;
        Query { plan, after, error, of: PhantomData }
    }

    /// How many rows there are: all that the filter finds, without a limit and the like.
    #[must_use]
    pub fn count(self) -> Totals<R> {
        let plan = self.into_plan().and_then(|plan| plan.check_counted().map(|()| plan));
        let (plan, error) = match plan {
            Ok(plan) => (plan, None),
            Err(error) => (Plan::default(), Some(error)),
        };
        let Plan { table, filter, .. } = plan;
        let plan = plan::Totals { table, filter, group: None, sum: None };
        Totals { plan, error, of: PhantomData }
    }

    /// The query as plain data.
    ///
    /// # Errors
    /// [`Code::InvalidValue`](crate::Code::InvalidValue) where a value that something was compared
    /// with has no form in SQL, and where rows that are counted, or only looked for, were given an
    /// order, a limit, a place to start after or others that come with them.
    pub fn plan(&self) -> Result<Plan> {
        self.clone().into_plan()
    }

    fn into_plan(self) -> Result<Plan> {
        let Self { mut plan, after, error, .. } = self;
        if let Some(error) = error {
            return Err(error);
        }
        if let Some(cells) = after.transpose()? {
            let columns = R::SCHEMA.columns;
            let place = |order: &Order| columns.iter().position(|c| c.name == order.column);
            let cell = |place: usize| cells.get(place).cloned().unwrap_or(Value::Null);
            let key = 0..R::SCHEMA.key().len();
            let values = plan.order.iter().filter_map(place).chain(key).map(cell);
            plan.after = Some(values.map(Scalar::from).collect());
        }
        plan.check()?;
        Ok(plan)
    }
}

/// How many rows a query finds, and what a column of them sums up to; of all, or for each value of
/// a column.
///
/// ```
/// # use partysync::Record;
/// # #[derive(Record, Clone)] #[record(table = "cards")]
/// # struct Card { #[record(key)] id: String, list: String, points: i64 }
/// let points = Card::query().count().by(Card::list).sum(Card::points);
/// # assert!(points.plan().is_ok());
/// ```
#[derive(Debug)]
pub struct Totals<R, G = ()> {
    plan: plan::Totals,
    error: Option<Error>,
    of: PhantomData<fn() -> (R, G)>,
}

impl<R, G> Clone for Totals<R, G> {
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), error: self.error.clone(), of: PhantomData }
    }
}

impl<R: Record, G> Totals<R, G> {
    /// Out of plain data.
    ///
    /// # Errors
    /// [`Code::UnknownChannel`](crate::Code::UnknownChannel) where it is of another table.
    pub fn from_plan(plan: plan::Totals) -> Result<Self> {
        let table = R::SCHEMA.table;
        if plan.table != table {
            let message = format!("totals of `{}`, and not of `{table}`", plan.table);
            return Err(Error::new(crate::Code::UnknownChannel, message));
        }
        Ok(Self { plan, error: None, of: PhantomData })
    }

    /// For each value of this column; for those that no row has, none.
    #[must_use]
    pub fn by<T: Column>(mut self, field: Field<R, T>) -> Totals<R, T> {
        self.plan.group = Some(field.name().to_owned());
        Totals { plan: self.plan, error: self.error, of: PhantomData }
    }

    /// Also what this column sums up to; NULL is nothing.
    #[must_use]
    pub fn sum<T: Number>(mut self, field: Field<R, T>) -> Self {
        self.plan.sum = Some(field.name().to_owned());
        self
    }

    /// The query as plain data.
    ///
    /// # Errors
    /// As [`Query::plan`].
    pub fn plan(&self) -> Result<plan::Totals> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        self.plan.filter.check()?;
        Ok(self.plan.clone())
    }
}

/// Rows of `C` that refer to the key of a row of `R`.
fn join_many<R: Record, C: Record, T>(field: Field<C, T>) -> Join {
    Join { here: key_column::<R>(), there: field.name().to_owned() }
}

/// The row of `C` whose key a row of `R` refers to.
fn join_one<R: Record, C: Record, T>(field: Field<R, T>) -> Join {
    Join { here: field.name().to_owned(), there: key_column::<C>() }
}

fn key_column<R: Record>() -> String {
    R::SCHEMA.key().first().map_or_else(String::new, |key| key.name.to_owned())
}
