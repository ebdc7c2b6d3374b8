//! A plan made ready: columns by their places, and what is to be looked up how.

use super::sort::{SortKey, bytes, cell, key_columns, push, sort_key};
use super::source::{Source, Spec};
use crate::replica::Row;
use partysync::query::plan::{Comparison, Filter, Join, Plan, Scalar, Shape};
use partysync::sql::{SqlType, Value};
use partysync::{Code, Error, Key, Result, Schema};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The tables that there are.
pub(crate) type Schemas = BTreeMap<&'static str, &'static Schema>;

/// A plan made ready.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(super) table: &'static str,
    /// How many columns its key has.
    pub(super) keys: usize,
    pub(super) test: Test,
    order: Vec<(usize, bool)>,
    /// What the result begins behind.
    pub(super) after: Option<SortKey>,
    pub(super) limit: usize,
    pub(super) related: Vec<Related>,
    /// The one row that it can be of.
    pub(super) key: Option<Key>,
    /// The index that has its rows in order, and what all of them begin with there; without one, all
    /// rows are looked at.
    pub(super) index: Option<Spec>,
    prefix: Vec<u8>,
    /// All tables that the result depends on.
    pub(super) tables: BTreeSet<&'static str>,
}

/// Rows that come with each row.
#[derive(Debug)]
pub(super) struct Related {
    pub(super) here: usize,
    /// Whether that is the key, by itself.
    pub(super) here_is_key: bool,
    pub(super) there: usize,
    pub(super) shape: Shape,
    pub(super) node: Compiled,
}

/// A condition.
#[derive(Debug)]
pub(super) enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
    Compare(usize, Comparison, Value),
    In(usize, BTreeSet<SortKey>),
    Contains(usize, String),
    StartsWith(usize, String),
    Exists(Box<Exists>),
}

/// Whether there is a related row.
#[derive(Debug)]
pub(super) struct Exists {
    pub(super) here: usize,
    pub(super) there: usize,
    pub(super) table: &'static str,
    pub(super) keys: usize,
    pub(super) test: Test,
    /// Finds the related rows, and those that they are related to; `None` where that is a key.
    pub(super) there_index: Option<Spec>,
    pub(super) here_index: Option<Spec>,
}

/// How two values compare; `None` if one is NULL.
fn compare(one: &Value, two: &Value) -> Option<Ordering> {
    #[allow(clippy::cast_precision_loss)]
    match (one, two) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Integer(one), Value::Integer(two)) => Some(one.cmp(two)),
        (Value::Real(one), Value::Real(two)) => one.partial_cmp(two),
        (Value::Integer(one), Value::Real(two)) => (*one as f64).partial_cmp(two),
        (Value::Real(one), Value::Integer(two)) => one.partial_cmp(&(*two as f64)),
        (Value::Text(one), Value::Text(two)) => Some(one.cmp(two)),
        (Value::Blob(one), Value::Blob(two)) => Some(one.cmp(two)),
        (Value::Integer(_) | Value::Real(_), _) | (Value::Text(_), Value::Blob(_)) => {
            Some(Ordering::Less)
        }
        (Value::Text(_) | Value::Blob(_), _) => Some(Ordering::Greater),
    }
}

impl Test {
    /// Whether a row meets it.
    pub(super) fn meets(&self, row: &Row, source: Source<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|test| test.meets(row, source)),
            Self::Any(any) => any.iter().any(|test| test.meets(row, source)),
            Self::Not(test) => !test.meets(row, source),
            Self::Compare(column, how, value) => {
                let cell = cell(row, *column);
                let order = compare(cell, value);
                let equal = order == Some(Ordering::Equal)
                    || (*cell == Value::Null && *value == Value::Null);
                match how {
                    Comparison::Eq => equal,
                    Comparison::Ne => !equal,
                    Comparison::Lt => order.is_some_and(Ordering::is_lt),
                    Comparison::Le => order.is_some_and(Ordering::is_le),
                    Comparison::Gt => order.is_some_and(Ordering::is_gt),
                    Comparison::Ge => order.is_some_and(Ordering::is_ge),
                }
            }
            Self::In(column, values) => values.contains(&bytes(cell(row, *column))),
            Self::Contains(column, text) => {
                matches!(cell(row, *column), Value::Text(cell) if cell.contains(text))
            }
            Self::StartsWith(column, text) => {
                matches!(cell(row, *column), Value::Text(cell) if cell.starts_with(text))
            }
            Self::Exists(exists) => {
                let Exists { here, table, test, there_index, .. } = &**exists;
                let value = cell(row, *here);
                let mut found = false;
                source.related(table, there_index.as_ref(), value, &mut |other| {
                    found = test.meets(other, source);
                    !found
                });
                found
            }
        }
    }

    /// All that ask for related rows in it, not those within them.
    pub(super) fn each_exists<'t>(&'t self, f: &mut dyn FnMut(&'t Exists)) {
        match self {
            Self::All(tests) | Self::Any(tests) => {
                tests.iter().for_each(|test| test.each_exists(f))
            }
            Self::Not(test) => test.each_exists(f),
            Self::Exists(exists) => f(exists),
            _ => {}
        }
    }

    /// Whether a row's own cells decide.
    pub(super) fn is_plain(&self) -> bool {
        let mut plain = true;
        self.each_exists(&mut |_| plain = false);
        plain
    }

    pub(super) fn add_tables(&self, tables: &mut BTreeSet<&'static str>) {
        self.each_exists(&mut |exists| {
            tables.insert(exists.table);
            exists.test.add_tables(tables);
        });
    }

    pub(super) fn add_specs(&self, specs: &mut BTreeSet<Spec>) {
        self.each_exists(&mut |exists| {
            specs.extend(exists.there_index.iter().chain(&exists.here_index).cloned());
            exists.test.add_specs(specs);
        });
    }
}

impl Compiled {
    /// Makes a plan ready.
    ///
    /// # Errors
    /// [`Code::UnknownChannel`] or [`Code::InvalidValue`] where it names what is not there.
    pub(super) fn new(plan: &Plan, schemas: &Schemas) -> Result<Self> {
        Self::within(plan, schemas, None)
    }

    fn within(plan: &Plan, schemas: &Schemas, there: Option<usize>) -> Result<Self> {
        let schema = schema(schemas, &plan.table)?;
        let test = test(&plan.filter, schema, schemas)?;
        let order =
            plan.order.iter().map(|order| Ok((column(schema, &order.column)?, order.descending)));
        let mut order = order.collect::<Result<Vec<_>>>()?;
        order.extend(key_columns(schema.key().len()));
        let after = plan.after.as_ref().map(|values| after(schema, &order, values)).transpose()?;
        let mut related = Vec::new();
        for part in &plan.related {
            let other = self::schema(schemas, &part.plan.table)?;
            let (here, there) = join(schema, other, &part.join)?;
            let mut node = Self::within(&part.plan, schemas, Some(there))?;
            if part.shape == Shape::One {
                node.limit = node.limit.min(1);
            }
            let here_is_key = schema.is_key(here);
            related.push(Related { here, here_is_key, there, shape: part.shape, node });
        }
        let limit = plan.limit.map_or(usize::MAX, |limit| limit as usize);
        // What all rows have in common comes first in an index.
        let (mut columns, mut prefix) = (Vec::new(), Vec::new());
        columns.extend(there.map(|there| (there, false)));
        if limit != usize::MAX {
            for (column, value) in test.equals() {
                columns.push((column, false));
                push(&mut prefix, value, false);
            }
        }
        // All rows of a table without an order of its own are sorted as fast as they are indexed.
        let key = test.key(schema).filter(|_| there.is_none());
        let by_key = there.is_some_and(|there| schema.is_key(there)) || key.is_some();
        let wanted = !by_key && (there.is_some() || limit != usize::MAX);
        columns.extend(&order);
        let index = wanted.then_some(Spec { table: schema.table, columns });
        let mut tables = BTreeSet::from([schema.table]);
        test.add_tables(&mut tables);
        related.iter().for_each(|part| tables.extend(&part.node.tables));
        Ok(Self {
            table: schema.table,
            keys: schema.key().len(),
            test,
            order,
            after,
            limit,
            related,
            key,
            index,
            prefix,
            tables,
        })
    }

    /// Where a row is in the result's order.
    pub(super) fn sort_key(&self, row: &Row) -> SortKey {
        sort_key(row, self.order.iter().copied())
    }

    /// What its rows begin with in the index, given what they are related to.
    pub(super) fn prefix(&self, value: Option<&Value>) -> Vec<u8> {
        let mut key = Vec::with_capacity(48);
        if let Some(value) = value {
            push(&mut key, value, false);
        }
        key.extend(&self.prefix);
        key
    }

    /// The indexes that have to be there.
    pub(super) fn add_specs(&self, specs: &mut BTreeSet<Spec>) {
        specs.extend(self.index.clone());
        self.test.add_specs(specs);
        self.related.iter().for_each(|part| part.node.add_specs(specs));
    }
}

impl Test {
    /// The one row that meets it, if there is one.
    fn key(&self, schema: &Schema) -> Option<Key> {
        let equals = self.equals();
        let cell = |place: usize| equals.iter().find(|(column, _)| *column == place);
        let cells = (0..schema.key().len()).map(|place| Some(cell(place)?.1.clone()));
        schema.key_of(&cells.collect::<Option<Vec<_>>>()?).ok()
    }

    /// Columns that have one value in all rows.
    fn equals(&self) -> Vec<(usize, &Value)> {
        match self {
            Self::All(all) => all.iter().flat_map(Self::equals).collect(),
            Self::Compare(column, Comparison::Eq, value) => vec![(*column, value)],
            _ => Vec::new(),
        }
    }
}

pub(super) fn schema(schemas: &Schemas, table: &str) -> Result<&'static Schema> {
    schemas.get(table).copied().ok_or_else(|| {
        let message = format!("this client does not follow `{table}`: its action type lacks it");
        Error::new(Code::UnknownChannel, message)
    })
}

pub(super) fn column(schema: &Schema, name: &str) -> Result<usize> {
    schema.columns.iter().position(|column| column.name == name).ok_or_else(|| {
        let message = format!("`{}` has no column `{name}`", schema.table);
        Error::new(Code::InvalidValue, message)
    })
}

/// The two columns that relate rows of two tables. Values of two types are never equal.
fn join(schema: &Schema, other: &Schema, join: &Join) -> Result<(usize, usize)> {
    let (here, there) = (column(schema, &join.here)?, column(other, &join.there)?);
    let sql_type = |schema: &Schema, column: usize| schema.columns.get(column).map(|c| c.sql_type);
    if sql_type(schema, here) != sql_type(other, there) {
        let message = format!(
            "`{}.{}` and `{}.{}` have two types: no row is related to another by them",
            schema.table, join.here, other.table, join.there
        );
        return Err(Error::new(Code::InvalidValue, message));
    }
    Ok((here, there))
}

/// The place behind which a result begins.
fn after(schema: &Schema, order: &[(usize, bool)], values: &[Scalar]) -> Result<SortKey> {
    if values.len() != order.len() {
        let (found, wanted) = (values.len(), order.len());
        let message = format!(
            "`after` has {found} values, and not {wanted}: one of each column of the order, and the key"
        );
        return Err(Error::new(Code::InvalidValue, message));
    }
    let mut key = Vec::new();
    for ((column, descending), value) in order.iter().zip(values) {
        push(&mut key, &fitting(schema, *column, value.value()), *descending);
    }
    Ok(key.into())
}

/// A number as its column has it, where that is the same number.
fn fitting(schema: &Schema, column: usize, value: &Value) -> Value {
    let sql_type = schema.columns.get(column).map(|column| column.sql_type);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    match (sql_type, value) {
        (Some(SqlType::Real), Value::Integer(n)) => Value::Real(*n as f64),
        // Below 2^63: the cast gives the largest integer for what is above it.
        (Some(SqlType::Integer), Value::Real(x))
            if x.abs() < 9.2e18 && (*x as i64) as f64 == *x =>
        {
            Value::Integer(*x as i64)
        }
        _ => value.clone(),
    }
}

pub(super) fn test(filter: &Filter, schema: &Schema, schemas: &Schemas) -> Result<Test> {
    let all = |filters: &[Filter]| {
        filters.iter().map(|filter| test(filter, schema, schemas)).collect::<Result<Vec<_>>>()
    };
    Ok(match filter {
        Filter::All(filters) => Test::All(all(filters)?),
        Filter::Any(filters) => Test::Any(all(filters)?),
        Filter::Not(filter) => Test::Not(Box::new(test(filter, schema, schemas)?)),
        Filter::Compare(name, how, value) => {
            let column = column(schema, name)?;
            Test::Compare(column, *how, fitting(schema, column, value.value()))
        }
        Filter::In(name, values) => {
            let column = column(schema, name)?;
            let values = values.iter().map(|value| bytes(&fitting(schema, column, value.value())));
            Test::In(column, values.collect())
        }
        Filter::Contains(name, text) => Test::Contains(column(schema, name)?, text.clone()),
        Filter::StartsWith(name, text) => Test::StartsWith(column(schema, name)?, text.clone()),
        Filter::Exists(related, plan) => {
            let other = self::schema(schemas, &plan.table)?;
            let (here, there) = join(schema, other, related)?;
            let spec = |schema: &Schema, column: usize| {
                let columns =
                    std::iter::once((column, false)).chain(key_columns(schema.key().len()));
                let spec = || Spec { table: schema.table, columns: columns.collect() };
                (!schema.is_key(column)).then(spec)
            };
            Test::Exists(Box::new(Exists {
                here,
                there,
                table: other.table,
                keys: other.key().len(),
                test: test(&plan.filter, other, schemas)?,
                there_index: spec(other, there),
                here_index: spec(schema, here),
            }))
        }
    })
}
