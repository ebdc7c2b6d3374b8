//! [`Sql`] over the SQLite of a Durable Object.

use crate::sql::{Row, Sql, Value};
use crate::{Code, Error, Result};
use js_sys::{Array, Function, Number, Reflect, Uint8Array};
use wasm_bindgen::closure::ScopedClosure;
use wasm_bindgen::{JsCast, JsValue};

/// The object's SQLite database.
#[derive(Clone, Debug)]
pub struct DurableSql {
    storage: JsValue,
    sql: JsValue,
    exec: Function,
    transaction: Function,
}

impl DurableSql {
    /// The database of this object's state.
    ///
    /// # Errors
    /// [`Code::Sql`] when the class is not in `new_sqlite_classes` of `wrangler.toml`.
    pub fn new(state: &worker::State) -> Result<Self> {
        let get = |object: &JsValue, name: &str| {
            Reflect::get(object, &name.into()).map_err(|e| js_error(&e))
        };
        let storage: JsValue = state.storage().as_raw().into();
        let sql = get(&storage, "sql")?;
        let function = |value: JsValue| {
            value.dyn_into::<Function>().map_err(|_| {
                Error::new(
                    Code::Sql,
                    "the object has no SQLite: list its class in `new_sqlite_classes`",
                )
            })
        };
        let exec = function(get(&sql, "exec")?)?;
        let transaction = function(get(&storage, "transactionSync")?)?;
        Ok(Self { storage, sql, exec, transaction })
    }
}

impl Sql for DurableSql {
    fn run(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let arguments = Array::of1(&sql.into());
        for param in params {
            arguments.push(&to_js(param));
        }
        let cursor = self.exec.apply(&self.sql, &arguments).map_err(|e| js_error(&e))?;
        // The cursor is read to its end: a statement runs no further than it is read.
        let rows = call(&call(&cursor, "raw")?, "toArray")?;
        let mut values = Vec::new();
        for row in rows.unchecked_into::<Array>().iter() {
            let cells: Array = row.unchecked_into();
            values.clear();
            for cell in cells.iter() {
                values.push(from_js(cell)?);
            }
            each(&Row::new(&values))?;
        }
        Ok(())
    }

    fn transaction(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        let called = {
            let mut once = || -> Thrown {
                result = body();
                // Throwing is what rolls back.
                if result.is_err() { Err(JsValue::from_str("rollback")) } else { Ok(()) }
            };
            let callback =
                ScopedClosure::<'_, dyn FnMut() -> Thrown + '_>::borrow_mut_aborting(&mut once);
            self.transaction.call1(&self.storage, callback.as_js_value())
        };
        match (result, called) {
            (Err(error), _) => Err(error),
            (Ok(()), Ok(_)) => Ok(()),
            (Ok(()), Err(error)) => Err(js_error(&error)),
        }
    }
}

type Thrown = std::result::Result<(), JsValue>;

/// Calls a method without arguments.
fn call(object: &JsValue, method: &str) -> Result<JsValue> {
    Reflect::get(object, &method.into())
        .and_then(|f| f.unchecked_into::<Function>().call0(object))
        .map_err(|e| js_error(&e))
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
    if let Some(text) = value.as_string() {
        return Ok(Value::Text(text));
    }
    match value.dyn_into::<js_sys::ArrayBuffer>() {
        Ok(buffer) => Ok(Value::Blob(Uint8Array::new(&buffer).to_vec())),
        Err(_) => Err(Error::new(Code::InvalidValue, "SQLite gave a value of an unknown type")),
    }
}

/// The message of what JavaScript threw.
fn js_error(error: &JsValue) -> Error {
    let message = match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => error.as_string().unwrap_or_else(|| format!("{error:?}")),
    };
    Error::from_sqlite(&message)
}
