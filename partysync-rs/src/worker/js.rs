//! What the runtime offers to a Durable Object and the crate `worker` does not, or not at the
//! price of one call.

use crate::Timestamp;
use js_sys::{Array, Date, Function, JsString, Promise, Uint8Array};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(inline_js = r#"
export function abort(state, reason) {
  // An abort ends all that runs: not before wasm has returned, or its stack stays as it is. A
  // microtask is still part of the turn.
  queueMicrotask(() => state.abort(reason));
}
const encoder = new TextEncoder();
export function utf8(text) {
  return encoder.encode(text);
}
// Throwing is what rolls back: the one exception that is no error, and goes no further.
const rollback = Symbol("rollback");
export function transaction(storage, body) {
  try {
    storage.transactionSync(() => {
      if (!body()) throw rollback;
    });
  } catch (error) {
    if (error !== rollback) throw error;
  }
}
export function guarded(state, turn) {
  try {
    turn();
  } catch (error) {
    // The runtime keeps what a turn has written even if it ends with an error.
    abort(state, String(error));
    // Whoever watches over the module has to hear of a trap, also of one in a promise's reaction.
    if (error instanceof WebAssembly.RuntimeError) reportError(error);
    throw error;
  }
}"#)]
extern "C" {
    /// Runs a turn; if it throws (a panic is a trap), what it has written is taken back.
    #[wasm_bindgen(catch)]
    pub(super) fn guarded(state: &State, turn: &Function) -> Result<(), JsValue>;
    /// Runs this in a transaction, which is rolled back if it gives `false`. What it throws does not
    /// come to a function of wasm-bindgen's: in development builds those log each exception as an
    /// error, and a refused action is none.
    #[wasm_bindgen(catch)]
    pub(super) fn transaction(storage: &Storage, body: &Function) -> Result<(), JsValue>;
    /// A text's bytes: much cheaper for a long one than what wasm-bindgen does, letter by letter.
    pub(super) fn utf8(text: &JsValue) -> Uint8Array;
    /// Ends this life of the object when the turn is over: what the turn has written is taken
    /// back, sockets break.
    pub(super) fn abort(state: &State, reason: &str);
}

#[wasm_bindgen]
extern "C" {
    /// The state of an object.
    #[derive(Clone, Debug)]
    pub(super) type State;
    #[wasm_bindgen(method, getter)]
    pub(super) fn storage(this: &State) -> Storage;
    #[wasm_bindgen(method, catch, js_name = getTags)]
    fn tags(this: &State, socket: &JsValue) -> Result<Array, JsValue>;
    #[wasm_bindgen(method, catch, js_name = getWebSocketAutoResponseTimestamp)]
    fn answered_at(this: &State, socket: &JsValue) -> Result<Option<Date>, JsValue>;

    /// What the event loop does later.
    pub(super) type Scheduler;
    #[wasm_bindgen(thread_local_v2, js_name = scheduler)]
    pub(super) static SCHEDULER: Scheduler;
    #[wasm_bindgen(method)]
    pub(super) fn wait(this: &Scheduler, ms: u32) -> Promise;

    /// An object's storage.
    #[derive(Clone, Debug)]
    pub(super) type Storage;
    #[wasm_bindgen(method, getter)]
    pub(super) fn sql(this: &Storage) -> Option<Database>;
    #[wasm_bindgen(method, catch, js_name = setAlarm)]
    pub(super) fn set_alarm(this: &Storage, at: f64) -> Result<Promise, JsValue>;
    #[wasm_bindgen(method, catch, js_name = deleteAlarm)]
    pub(super) fn delete_alarm(this: &Storage) -> Result<Promise, JsValue>;

    /// An object's SQLite.
    #[derive(Clone, Debug)]
    pub(super) type Database;
    #[wasm_bindgen(method, catch, js_name = exec)]
    pub(super) fn exec0(this: &Database, sql: &JsString) -> Result<Cursor, JsValue>;
    #[wasm_bindgen(method, catch, js_name = exec)]
    pub(super) fn exec1(this: &Database, sql: &JsString, a: &JsValue) -> Result<Cursor, JsValue>;
    #[wasm_bindgen(method, catch, js_name = exec)]
    pub(super) fn exec2(
        this: &Database,
        sql: &JsString,
        a: &JsValue,
        b: &JsValue,
    ) -> Result<Cursor, JsValue>;
    #[wasm_bindgen(method, catch, js_name = exec)]
    pub(super) fn exec3(
        this: &Database,
        sql: &JsString,
        a: &JsValue,
        b: &JsValue,
        c: &JsValue,
    ) -> Result<Cursor, JsValue>;
    #[wasm_bindgen(method, catch, js_name = exec)]
    pub(super) fn exec4(
        this: &Database,
        sql: &JsString,
        a: &JsValue,
        b: &JsValue,
        c: &JsValue,
        d: &JsValue,
    ) -> Result<Cursor, JsValue>;
    #[wasm_bindgen(method, catch, variadic, js_name = exec)]
    pub(super) fn exec_with(
        this: &Database,
        sql: &JsString,
        params: &Array,
    ) -> Result<Cursor, JsValue>;

    /// A statement that runs as far as it is read.
    pub(super) type Cursor;
    #[wasm_bindgen(method, catch)]
    pub(super) fn raw(this: &Cursor) -> Result<Rows, JsValue>;

    /// Its rows, as arrays.
    pub(super) type Rows;
    #[wasm_bindgen(method, catch)]
    pub(super) fn next(this: &Rows) -> Result<Step, JsValue>;

    /// A row, or the end.
    pub(super) type Step;
    #[wasm_bindgen(method, getter)]
    pub(super) fn done(this: &Step) -> bool;
    #[wasm_bindgen(method, getter)]
    pub(super) fn value(this: &Step) -> Array;

    /// A socket.
    #[derive(Clone, Debug)]
    pub(super) type Socket;
    #[wasm_bindgen(method, catch)]
    pub(super) fn send(this: &Socket, text: &JsString) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    pub(super) fn close(this: &Socket, code: u16, reason: &str) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch, js_name = serializeAttachment)]
    pub(super) fn serialize_attachment(this: &Socket, text: &str) -> Result<(), JsValue>;
}

/// How long a text is, in UTF-16 units: never more than bytes.
pub(super) fn text_length(value: &JsValue) -> Option<usize> {
    value.dyn_ref::<JsString>().map(|text| text.length() as usize)
}

/// What JavaScript holds, if it is a text.
pub(super) fn text(value: &JsValue) -> Option<String> {
    const LONG: u32 = 1024;
    match value.dyn_ref::<JsString>() {
        Some(text) if text.length() >= LONG => String::from_utf8(utf8(value).to_vec()).ok(),
        _ => value.as_string(),
    }
}

impl State {
    /// The id of a socket's connection: the tag that it was accepted with.
    pub(super) fn connection_id(&self, socket: &JsValue) -> Option<String> {
        self.tags(socket).ok()?.get(0).as_string()
    }

    /// When the runtime last answered a ping of this socket's.
    pub(super) fn pinged_at(&self, socket: &Socket) -> Option<Timestamp> {
        let at = self.answered_at(socket).ok()??.get_time();
        // A date that is none is 0: no ping.
        Some(Timestamp::from_millis(at as i64))
    }
}

/// Whether an alarm rings because its last ring has failed, as the runtime says.
pub(super) fn is_retry(info: &JsValue) -> bool {
    info.is_object()
        && js_sys::Reflect::get(info, &JsValue::from_str("isRetry")).is_ok_and(|it| it.is_truthy())
}
