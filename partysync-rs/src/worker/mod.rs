//! Rooms in Cloudflare Durable Objects: [`durable_object!`](crate::durable_object) for the class,
//! [`Router`] for the worker in front of it.
//!
//! ```no_run
//! # use partysync::{Action, Record, Result, Room, SyncServer};
//! # #[derive(Record, Clone)] #[record(table = "todos")]
//! # struct Todo { #[record(key)] id: String }
//! # #[derive(Action, Clone, Debug)] #[action(record = Todo)]
//! # enum TodoAction { #[action(delete)] Delete { id: String } }
//! use partysync::worker::Router;
//! use worker::{Context, Env, Request, Response, event};
//!
//! #[derive(Default)]
//! struct Todos;
//!
//! impl SyncServer for Todos {
//!     type Action = TodoAction;
//!     // ...
//! #     fn on_action(&self, room: &mut Room<'_, Self>, action: TodoAction) -> Result<()> {
//! #         action.apply(room.sql())
//! #     }
//! }
//!
//! partysync::durable_object!(Todos);
//!
//! #[event(fetch)]
//! async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
//!     Router::new().party("todos", "TODOS").route(request, &env).await
//! }
//! # fn main() {}
//! ```

mod gather;
#[cfg(feature = "streams")]
mod history;
mod http;
mod identity;
mod js;
#[cfg(feature = "livestore")]
mod livestore;
mod object;
mod open;
mod router;
mod sql;
#[cfg(feature = "streams")]
mod streams;

#[cfg(feature = "livestore")]
pub use livestore::{EventObject, LiveStore, LiveStoreObject, SyncRequest};
pub use object::Object;
pub use router::{Route, Router};
pub use sql::DurableSql;
#[cfg(feature = "streams")]
pub use streams::{StreamObject, Workers};

/// The present, as the runtime's clock says.
fn now() -> crate::Timestamp {
    let millis = worker::Date::now().as_millis();
    crate::Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// Makes a [`SyncServer`](crate::SyncServer) a Durable Object class of the same name.
///
/// The server is made by `Default`, or by a closure that gets the worker's
/// `Env`: `durable_object!(Todos = |env| Todos::new(env))`. The crate needs `worker` as a
/// dependency of its own, and `wrangler.toml` names the class:
///
/// ```toml
/// [[durable_objects.bindings]]
/// name = "TODOS"        # what the router names: `.party("todos", "TODOS")`
/// class_name = "Todos"
///
/// [[migrations]]
/// tag = "v1"
/// new_sqlite_classes = ["Todos"]
/// ```
#[macro_export]
macro_rules! durable_object {
    ($server:ident) => {
        $crate::durable_object!($server = |_env| ::std::default::Default::default());
    };
    ($server:ident = $make:expr) => {
        $crate::__object_class!($server, Object, $make, |server, state, _env| {
            $crate::worker::Object::new(server, state)
        });
    };
}

/// The class around an object of this module.
#[doc(hidden)]
#[macro_export]
macro_rules! __object_class {
    ($server:ident, $object:ident, $make:expr, $new:expr $(, $($method:tt)*)?) => {
        const _: () = {
            type PartysyncServer = $server;

            fn partysync_make(env: &::worker::Env) -> PartysyncServer {
                let make: fn(&::worker::Env) -> PartysyncServer = $make;
                make(env)
            }

            const _: () = {
                // What the attribute derives for the class names the crate without `::worker`.
                use ::worker::wasm_bindgen;
                use ::worker::wasm_bindgen::prelude::*;

                #[allow(missing_docs, missing_debug_implementations, unreachable_pub)]
                #[wasm_bindgen(wasm_bindgen = ::worker::wasm_bindgen)]
                pub struct $server {
                    object: $crate::worker::$object<PartysyncServer>,
                }

                // Not a promise each, where there is nothing to wait for: frames are what is
                // most frequent.
                #[allow(missing_docs, unreachable_pub)]
                #[wasm_bindgen(wasm_bindgen = ::worker::wasm_bindgen)]
                impl $server {
                    #[wasm_bindgen(constructor)]
                    pub fn new(
                        state: ::worker::worker_sys::DurableObjectState,
                        env: ::worker::Env,
                    ) -> Self {
                        type Object = $crate::worker::$object<PartysyncServer>;
                        let new: fn(PartysyncServer, ::worker::State, ::worker::Env) -> Object =
                            $new;
                        Self { object: new(partysync_make(&env), state.into(), env) }
                    }

                    $($($method)*)?

                    pub fn fetch(
                        &self,
                        request: ::worker::web_sys::Request,
                    ) -> ::std::result::Result<JsValue, JsValue> {
                        self.object.fetch(request)
                    }

                    pub fn alarm(&self, info: JsValue) -> ::std::result::Result<(), JsValue> {
                        self.object.alarm(&info)
                    }

                    #[wasm_bindgen(js_name = webSocketMessage)]
                    pub fn web_socket_message(
                        &self,
                        socket: JsValue,
                        message: JsValue,
                    ) -> ::std::result::Result<(), JsValue> {
                        self.object.message(socket, message)
                    }

                    #[wasm_bindgen(js_name = webSocketClose)]
                    pub fn web_socket_close(
                        &self,
                        socket: JsValue,
                        code: u16,
                    ) -> ::std::result::Result<(), JsValue> {
                        self.object.closed(socket, code)
                    }

                    #[wasm_bindgen(js_name = webSocketError)]
                    pub fn web_socket_error(
                        &self,
                        socket: JsValue,
                    ) -> ::std::result::Result<(), JsValue> {
                        self.object.closed(socket, 1006)
                    }
                }
            };
        };
    };
}
