//! [`Sight`]: the rows of a channel that somebody sees, and how it is made of what the application
//! says, which only reads for it.

use crate::record::{FNV, Schema, fnv1a};
use crate::sql::{Row, Sql, Value};
use crate::store::{Filter, Given, Plan};
use crate::visible::NOTHING;
use crate::{Code, Error, Result, Visible};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::rc::Rc;

/// The rows of a channel that somebody sees, where that is not all of them.
#[derive(Debug)]
pub(crate) struct Sight {
    condition: Rc<str>,
    /// The condition's parameters, a JSON array.
    pub(super) params: Value,
    /// What tells it from other views of the channel, on the wire.
    token: String,
    pub(crate) plan: Rc<Plan>,
}

/// A view of all rows has none.
pub(crate) type Seen = Option<Rc<Sight>>;

impl PartialEq for Sight {
    fn eq(&self, other: &Self) -> bool {
        self.token == other.token
            && self.condition == other.condition
            && self.params == other.params
    }
}

impl Eq for Sight {}

impl Hash for Sight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.token.hash(state);
    }
}

impl Sight {
    pub(crate) fn given(&self) -> Given<'_> {
        Some(&self.params)
    }
}

/// What a view is called on the wire; nothing for one of all rows.
pub(crate) fn token(seen: &Seen) -> Option<&str> {
    seen.as_ref().map(|sight| sight.token.as_str())
}

/// The plan that reads what is seen of a channel, and the parameters that it wants.
pub(crate) fn plan<'p>(seen: &'p Seen, all: &'p Plan) -> (&'p Plan, Given<'p>) {
    match seen {
        Some(sight) => (&sight.plan, sight.given()),
        None => (all, None),
    }
}

/// Plans, each with its condition: there are few, and many who see by the same.
pub(crate) type Filtered = Vec<(Rc<str>, Rc<Plan>)>;

/// So many plans are kept before those are forgotten that nobody sees by.
const PLANS: usize = 64;

/// Makes what somebody sees of what the application says.
pub(super) fn sight(
    schema: &'static Schema,
    visible: Visible,
    page_bytes: usize,
    filtered: &mut Filtered,
    sql: &dyn Sql,
) -> Result<Seen> {
    let Some(rows) = visible.rows else { return Ok(None) };
    let named = |error: Error| error.context(format_args!("`visible` of `{}`", schema.table));
    if !schema.has_scope() && rows.condition != NOTHING {
        let message = "no column is marked: mark those that a condition names, or the key, with \
                       `#[record(scope)]`";
        return Err(named(Error::new(Code::Sql, message)));
    }
    let params = rows.json().map_err(named)?;
    let is_known = |(condition, plan): &&(Rc<str>, Rc<Plan>)| {
        **condition == *rows.condition && plan.schema.table == schema.table
    };
    let known = filtered.iter().find(is_known).cloned();
    let (condition, plan) = match known {
        Some(known) => known,
        None => {
            let condition: Rc<str> = rows.condition.as_str().into();
            let filter = Filter::new(schema, &condition, &params, sql).map_err(named)?;
            if filtered.len() >= PLANS {
                filtered.retain(|(_, plan)| Rc::strong_count(plan) > 1);
            }
            let plan = Rc::new(Plan::filtered(filter, page_bytes)?);
            filtered.push((condition.clone(), plan.clone()));
            (condition, plan)
        }
    };
    let takes = plan.filter.as_ref().map_or(0, Filter::parameters);
    let given = rows.params.len();
    if takes != given {
        let message = format!("the condition has {takes} parameters, and {given} are given");
        return Err(named(Error::new(Code::Sql, message)));
    }
    let bytes = || condition.bytes().chain([0]).chain(params.bytes());
    let token = format!("{:016x}", fnv1a(FNV, bytes()));
    Ok(Some(Rc::new(Sight { condition, params: params.as_str().into(), token, plan })))
}

/// The database as `visible` sees it: to read, and the names of what is read are kept.
pub(super) struct Reading<'a> {
    sql: &'a dyn Sql,
    schemas: &'static [&'static Schema],
    /// The places of the records whose tables were named.
    pub(super) named: RefCell<BTreeSet<usize>>,
    /// What the storage has said when it failed: `visible` may have passed over it.
    pub(super) failed: RefCell<Option<Error>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(sql: &'a dyn Sql, schemas: &'static [&'static Schema]) -> Self {
        Self { sql, schemas, named: RefCell::default(), failed: RefCell::default() }
    }
}

impl Sql for Reading<'_> {
    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if !super::stamped::only_reads(sql) {
            let message = "`visible` only reads: it is asked at any time, and as often as need be";
            return Err(Error::new(Code::Sql, message));
        }
        let tables = self.schemas.iter().enumerate();
        let named = tables.filter(|(_, schema)| names(sql, schema.table)).map(|(place, _)| place);
        self.named.borrow_mut().extend(named);
        let result = self.sql.scan(sql, params, each);
        if let Err(error) = &result
            && error.code() == Code::Storage
        {
            *self.failed.borrow_mut() = Some(error.clone());
        }
        result
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        body()
    }
}

/// Whether a text has this name in it as a word.
fn names(sql: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (sql, name) = (sql.to_ascii_lowercase(), name.to_ascii_lowercase());
    sql.match_indices(&name).any(|(at, found)| {
        let before = sql.get(..at).and_then(|before| before.chars().next_back());
        let behind = sql.get(at + found.len()..).and_then(|behind| behind.chars().next());
        !before.is_some_and(word) && !behind.is_some_and(word)
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_table_is_named_where_its_name_is_a_word() {
        assert!(names("SELECT 1 FROM \"Grants\" WHERE who = ?", "grants"));
        assert!(names("SELECT 1 FROM grants", "grants") && names("grants.x", "grants"));
        assert!(!names("SELECT granted FROM grants_of", "grants"));
    }
}
