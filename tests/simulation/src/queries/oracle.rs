//! The oracle: a query as SQL, and what SQLite finds.

use partysync::query::plan::{Comparison, Filter, Join, Order, Plan, Scalar, Shape, Totals};
use partysync::query::{Branch, Node};
use partysync::sql::{Sql, SqlType, Sqlite, Value};
use partysync::{Code, Column, Error, Record, Result, Schema};

/// A cell as it is.
#[derive(Clone)]
struct Cell(Value);

impl Column for Cell {
    const TYPE: SqlType = SqlType::Blob;
    const NULLABLE: bool = true;

    fn to_value(&self) -> Value {
        self.0.clone()
    }

    fn from_value(value: Value) -> Result<Self> {
        Ok(Self(value))
    }
}

/// Tables without constraints, to be filled with what a client shows.
pub(super) struct Oracle {
    db: Sqlite,
    schemas: &'static [&'static Schema],
}

impl Oracle {
    pub(super) fn new(schemas: &'static [&'static Schema]) -> Result<Self> {
        let db = Sqlite::in_memory()?;
        for schema in schemas {
            let columns: Vec<_> = schema.columns.iter().map(|column| column.name).collect();
            db.exec(&format!("CREATE TABLE {} ({})", schema.table, columns.join(", ")), &[])?;
        }
        Ok(Self { db, schemas })
    }

    pub(super) fn fill<R: Record>(&self, rows: &[R]) -> Result<()> {
        let schema = R::SCHEMA;
        self.db.exec(&format!("DELETE FROM {}", schema.table), &[])?;
        let places = vec!["?"; schema.columns.len()].join(", ");
        let insert = format!("INSERT INTO {} VALUES ({places})", schema.table);
        rows.iter().try_for_each(|row| self.db.exec(&insert, &row.to_row()?))
    }

    fn schema(&self, table: &str) -> Result<&'static Schema> {
        let found = self.schemas.iter().find(|schema| schema.table == table);
        found.copied().ok_or_else(|| Error::new(Code::Internal, format!("no table {table}")))
    }

    /// What a query finds.
    pub(super) fn nodes(&self, plan: &Plan) -> Result<Vec<Node>> {
        self.related(plan, None)
    }

    fn related(&self, plan: &Plan, join: Option<(&str, &Value)>) -> Result<Vec<Node>> {
        let schema = self.schema(&plan.table)?;
        let mut params = Vec::new();
        let mut conditions = vec![filter(&plan.filter, &plan.table, &mut params, 0)];
        if let Some((there, value)) = join {
            params.push(value.clone());
            conditions.push(format!("{there} = ?{}", params.len()));
        }
        let key = schema.columns[0].name;
        if let Some(after) = &plan.after {
            conditions.push(behind(&plan.order, key, after, &mut params));
        }
        let order = plan.order.iter().map(|Order { column, descending }| {
            format!("{column} {}", if *descending { "DESC" } else { "ASC" })
        });
        let order: Vec<_> = order.chain([key.to_owned()]).collect();
        let limit = plan.limit.map_or(String::new(), |limit| format!(" LIMIT {limit}"));
        let columns: Vec<_> = schema.columns.iter().map(|column| column.name).collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {}{limit}",
            columns.join(", "),
            plan.table,
            conditions.join(" AND "),
            order.join(", ")
        );
        let db: &dyn Sql = &self.db;
        let cells = |row: &partysync::sql::Row<'_>| {
            (0..schema.columns.len())
                .map(|n| row.get::<Cell>(n).map(|cell| cell.0))
                .collect::<Result<Vec<_>>>()
        };
        let rows = db.query_map(&sql, &*params, cells).map_err(|error| error.context(&sql))?;
        rows.into_iter().map(|row| self.node(plan, schema, row)).collect()
    }

    fn node(&self, plan: &Plan, schema: &Schema, row: Vec<Value>) -> Result<Node> {
        let related = plan.related.iter().map(|related| {
            let Join { here, there } = &related.join;
            let here = schema.columns.iter().position(|column| column.name == here);
            let value = here.and_then(|here| row.get(here)).unwrap_or(&Value::Null);
            let mut plan = related.plan.clone();
            match related.shape {
                Shape::Many => {}
                Shape::One => plan.limit = Some(plan.limit.unwrap_or(1).min(1)),
                // All of them count.
                Shape::Count => (plan.limit, plan.after) = (None, None),
            }
            let rows = self.related(&plan, Some((there, value)))?;
            Ok(match related.shape {
                Shape::Count => Branch::Count(rows.len() as u64),
                _ => Branch::Rows(rows),
            })
        });
        Ok(Node { related: related.collect::<Result<_>>()?, row: row.clone().into() })
    }

    /// Groups with their counts and sums.
    pub(super) fn totals(&self, totals: &Totals) -> Result<Vec<(Value, i64, i64)>> {
        let mut params = Vec::new();
        let condition = filter(&totals.filter, &totals.table, &mut params, 0);
        let group = totals.group.as_deref().unwrap_or("NULL");
        let sum = totals.sum.as_deref().unwrap_or("0");
        let by =
            totals.group.as_ref().map_or(String::new(), |g| format!(" GROUP BY {g} ORDER BY {g}"));
        let sql = format!(
            "SELECT {group}, count(*), coalesce(sum({sum}), 0) FROM {} WHERE {condition}{by}",
            totals.table
        );
        let db: &dyn Sql = &self.db;
        db.query_map(&sql, &*params, |row| Ok((row.get::<Cell>(0)?.0, row.get(1)?, row.get(2)?)))
    }
}

fn filter(filter: &Filter, table: &str, params: &mut Vec<Value>, depth: usize) -> String {
    let all = |filters: &[Filter], with: &str, none: &str, params: &mut Vec<Value>| {
        let all: Vec<_> = filters.iter().map(|f| self::filter(f, table, params, depth)).collect();
        if all.is_empty() { none.to_owned() } else { format!("({})", all.join(with)) }
    };
    let mut param = |value: Value| {
        params.push(value);
        format!("?{}", params.len())
    };
    match filter {
        Filter::All(filters) => all(filters, " AND ", "1", params),
        Filter::Any(filters) => all(filters, " OR ", "0", params),
        Filter::Not(inner) => format!("NOT {}", self::filter(inner, table, params, depth)),
        Filter::Compare(column, how, value) => {
            let value = param(value.value().clone());
            match how {
                Comparison::Eq => format!("({table}.{column} IS {value})"),
                Comparison::Ne => format!("({table}.{column} IS NOT {value})"),
                how => {
                    let how = match how {
                        Comparison::Lt => "<",
                        Comparison::Le => "<=",
                        Comparison::Gt => ">",
                        _ => ">=",
                    };
                    format!("coalesce({table}.{column} {how} {value}, 0)")
                }
            }
        }
        Filter::In(column, values) => {
            let values: Vec<_> = values
                .iter()
                .map(|value| format!("{table}.{column} IS {}", param(value.value().clone())))
                .collect();
            if values.is_empty() { "0".to_owned() } else { format!("({})", values.join(" OR ")) }
        }
        Filter::Contains(column, text) => {
            let text = param(Value::Text(text.clone()));
            format!("coalesce(instr({table}.{column}, {text}) > 0, 0)")
        }
        Filter::StartsWith(column, text) => {
            let text = param(Value::Text(text.clone()));
            format!("coalesce(substr({table}.{column}, 1, length({text})) = {text}, 0)")
        }
        Filter::Exists(Join { here, there }, plan) => {
            // A table may be asked about itself.
            let other = format!("t{depth}");
            let inner = self::filter(&plan.filter, &other, params, depth + 1);
            format!(
                "EXISTS (SELECT 1 FROM {} AS {other} WHERE {other}.{there} = {table}.{here} AND {inner})",
                plan.table
            )
        }
    }
}

/// Rows behind one with these values, in an order.
fn behind(order: &[Order], key: &str, after: &[Scalar], params: &mut Vec<Value>) -> String {
    let columns = order.iter().map(|order| (order.column.as_str(), order.descending));
    let mut equal = String::from("1");
    let mut any = Vec::new();
    for ((column, descending), value) in columns.chain([(key, false)]).zip(after) {
        params.push(value.value().clone());
        let place = format!("?{}", params.len());
        let more = match (value.value(), descending) {
            (Value::Null, false) => format!("{column} IS NOT NULL"),
            (Value::Null, true) => "0".to_owned(),
            (_, false) => format!("{column} > {place}"),
            (_, true) => format!("({column} < {place} OR {column} IS NULL)"),
        };
        any.push(format!("({equal} AND {more})"));
        equal = format!("{equal} AND {column} IS {place}");
    }
    format!("({})", any.join(" OR "))
}
