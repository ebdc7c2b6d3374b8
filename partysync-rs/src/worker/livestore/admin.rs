//! What whoever runs a backend may ask of a store, for development and repair: over HTTP with a
//! secret, and by a method of the object's class that no request leads to.

use super::object::Inner;
use super::open::backend_id;
use crate::livestore::{Input, LiveStoreServer};
use crate::worker::http::Url;
use js_sys::Promise;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::rc::Rc;
use subtle::ConstantTimeEq;
use wasm_bindgen::prelude::*;
use worker::wasm_bindgen_futures::JsFuture;
use worker::{Method, Request, Response, Stub};

#[wasm_bindgen]
extern "C" {
    /// A store's object, as its binding gives it.
    type Store;
    #[wasm_bindgen(method, catch)]
    fn admin(this: &Store, task: &str, store: &str) -> Result<Promise, JsValue>;
}

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Task {
    Info,
    Reset,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Reset => "reset",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Info, Self::Reset].into_iter().find(|task| task.name() == name)
    }

    /// The task and the store of an address: `…/admin/info?storeId=S`.
    pub(super) fn of_url(url: &Url) -> Option<(Self, Option<String>)> {
        let path = url.pathname();
        let (before, name) = path.trim_end_matches('/').rsplit_once('/')?;
        let task = Self::from_name(name).filter(|_| before.ends_with("/admin"))?;
        Some((task, url.query().get("storeId").filter(|id| !id.is_empty())))
    }

    /// Answers a request for the task, if it knows the secret.
    pub(super) async fn answer(
        self,
        request: &Request,
        secret: &str,
        store: &str,
        stub: Stub,
    ) -> worker::Result<Response> {
        let given = request.headers().get("authorization")?.unwrap_or_default();
        let given = given.strip_prefix("Bearer ").unwrap_or_default();
        // As long as each other, whatever was given.
        let digest = |text: &str| Sha256::digest(text.as_bytes());
        if !bool::from(digest(given).as_slice().ct_eq(digest(secret).as_slice())) {
            return Response::error("the secret is not valid", 401);
        }
        let method = match self {
            Self::Info => Method::Get,
            Self::Reset => Method::Post,
        };
        if request.method() != method {
            return Response::error("this method is not allowed", 405);
        }
        let answer = stub.into_rpc::<Store>().admin(self.name(), store)?;
        let answer = JsFuture::from(answer).await?;
        let response = Response::ok(answer.as_string().unwrap_or_default())?;
        response.headers().set("content-type", "application/json")?;
        Ok(response)
    }
}

impl<S: LiveStoreServer> Inner<S> {
    /// Does a task: its answer as JSON.
    pub(super) async fn admin(self: &Rc<Self>, task: &str, store: &str) -> worker::Result<JsValue> {
        self.ready(store).await?;
        let mut reset = None;
        match Task::from_name(task) {
            Some(Task::Info) => drop(self.turn(store, None, None)?),
            Some(Task::Reset) => {
                let fresh = backend_id();
                drop(self.turn(store, Some(Input::Empty(fresh.clone())), None)?);
                // In D1 it takes its time, and may fail.
                reset = Some(fresh);
            }
            None => return Err(format!("there is no task `{task}`").into()),
        }
        let Some((context, (connections, subscribers))) = self.summary() else {
            return Err("the store is not open".into());
        };
        let mut info = json!({
            "storeId": store,
            "backendId": context.backend_id,
            "head": context.head,
            "connections": connections,
            "subscribers": subscribers,
        });
        if let (Some(fresh), Some(info)) = (reset, info.as_object_mut()) {
            info.insert("reset".to_owned(), (fresh == context.backend_id).into());
        }
        Ok(JsValue::from_str(&info.to_string()))
    }
}
