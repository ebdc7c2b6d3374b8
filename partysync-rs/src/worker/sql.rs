//! [`Sql`] over the SQLite of a Durable Object.

use super::js::{self, Cursor, Database, State, Storage};
use crate::sql::{Row, Sql, Value};
use crate::{Code, Error, Result};
use js_sys::{Array, JsString, Number, Uint8Array};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use wasm_bindgen::closure::ScopedClosure;
use wasm_bindgen::{JsCast, JsValue};

/// Statements whose text is kept on JavaScript's side: the runtime finds a prepared statement by
/// the identity of its text.
const KEPT: usize = 256;

/// The object's SQLite database.
#[derive(Clone, Debug)]
pub struct DurableSql {
    storage: Storage,
    database: Database,
    texts: Rc<RefCell<HashMap<Box<str>, Text>>>,
}

/// A statement on JavaScript's side.
#[derive(Clone, Debug)]
struct Text {
    text: JsString,
    /// Whether it may give rows.
    gives_rows: bool,
}

/// Whether a statement may give rows.
fn gives_rows(sql: &str) -> bool {
    const WITHOUT: [&str; 7] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER"];
    let word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next();
    let without = WITHOUT.iter().any(|w| word.is_some_and(|word| word.eq_ignore_ascii_case(w)));
    !without || sql.to_ascii_uppercase().contains("RETURNING")
}

impl DurableSql {
    /// The database of this object's state.
    ///
    /// # Errors
    /// [`Code::Sql`] when the class is not in `new_sqlite_classes` of `wrangler.toml`.
    pub fn new(state: &worker::State) -> Result<Self> {
        let state: &State = state.as_raw().unchecked_ref();
        let storage = state.storage();
        let database = storage.sql().ok_or_else(|| {
            let message = "the object has no SQLite: list its class in `new_sqlite_classes`";
            Error::new(Code::Sql, message)
        })?;
        Ok(Self { storage, database, texts: Rc::default() })
    }

    fn text(&self, sql: &str) -> Text {
        let mut texts = self.texts.borrow_mut();
        if let Some(text) = texts.get(sql) {
            return text.clone();
        }
        if texts.len() >= KEPT {
            texts.clear();
        }
        let text = Text { text: JsString::from(sql), gives_rows: gives_rows(sql) };
        texts.insert(sql.into(), text.clone());
        text
    }

    /// Starts a statement, which runs as far as its cursor is read; one without rows runs whole.
    fn start(&self, Text { text, .. }: &Text, params: &[Value]) -> Result<Cursor> {
        let database = &self.database;
        match params {
            [] => database.exec0(text),
            [a] => database.exec1(text, &to_js(a)),
            [a, b] => database.exec2(text, &to_js(a), &to_js(b)),
            [a, b, c] => database.exec3(text, &to_js(a), &to_js(b), &to_js(c)),
            [a, b, c, d] => database.exec4(text, &to_js(a), &to_js(b), &to_js(c), &to_js(d)),
            more => database.exec_with(text, &more.iter().map(to_js).collect::<Array>()),
        }
        .map_err(|e| js_error(&e))
    }
}

impl Sql for DurableSql {
    fn exec(&self, sql: &str, params: &[Value]) -> Result<()> {
        let text = self.text(sql);
        if text.gives_rows {
            // A cursor that is not read to its end keeps its tables busy.
            return self.scan(sql, params, &mut |_| Ok(ControlFlow::Continue(())));
        }
        self.start(&text, params).map(drop)
    }

    fn scan(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let rows = self.start(&self.text(sql), params)?.raw().map_err(|e| js_error(&e))?;
        let mut values = Vec::new();
        loop {
            let step = rows.next().map_err(|e| js_error(&e))?;
            if step.done() {
                return Ok(());
            }
            values.clear();
            for cell in step.value().iter() {
                values.push(from_js(cell)?);
            }
            if each(&Row::new(&values))?.is_break() {
                return Ok(());
            }
        }
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        let called = {
            let mut once = || -> bool {
                result = body();
                result.is_ok()
            };
            let callback =
                ScopedClosure::<'_, dyn FnMut() -> bool + '_>::borrow_mut_aborting(&mut once);
            js::transaction(&self.storage, callback.as_js_value().unchecked_ref())
        };
        match (result, called) {
            (Err(error), _) => Err(error),
            (Ok(()), Ok(())) => Ok(()),
            (Ok(()), Err(error)) => Err(js_error(&error)),
        }
    }
}

fn to_js(value: &Value) -> JsValue {
    match value {
        Value::Null => JsValue::NULL,
        // Beyond 2^53 a number loses digits; a column of integers reads text without loss.
        Value::Integer(n) if n.unsigned_abs() > 1 << 53 => JsValue::from_str(&n.to_string()),
        Value::Integer(n) => JsValue::from_f64(*n as f64),
        Value::Real(x) => JsValue::from_f64(*x),
        Value::Text(text) => JsValue::from_str(text),
        Value::Blob(bytes) => Uint8Array::from(bytes.as_slice()).into(),
    }
}

fn from_js(value: JsValue) -> Result<Value> {
    if value.is_null() || value.is_undefined() {
        return Ok(Value::Null);
    }
    if let Some(number) = value.as_f64() {
        return Ok(if Number::is_safe_integer(&value) {
            Value::Integer(number as i64)
        } else {
            Value::Real(number)
        });
    }
    if let Some(text) = js::text(&value) {
        return Ok(Value::Text(text));
    }
    match value.dyn_into::<js_sys::ArrayBuffer>() {
        Ok(buffer) => Ok(Value::Blob(Uint8Array::new(&buffer).to_vec())),
        Err(_) => Err(Error::new(Code::InvalidValue, "SQLite gave a value of an unknown type")),
    }
}

/// The message of what JavaScript threw.
pub(super) fn js_error(error: &JsValue) -> Error {
    let message = match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => error.as_string().unwrap_or_else(|| format!("{error:?}")),
    };
    Error::from_sqlite(&message)
}
