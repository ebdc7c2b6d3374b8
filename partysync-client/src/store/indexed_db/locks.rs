//! Web Locks: a lock with a name is held by one tab at a time, until the tab lets go or ends,
//! however it ends.
//!
//! Bound by hand: `web-sys` has them behind a `cfg` for unstable APIs.

use super::database::store_error;
use futures::channel::oneshot;
use futures::future::{Either, select};
use js_sys::{Array, Function, Object, Promise, Reflect};
use partysync::{Error, Result};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

#[wasm_bindgen]
extern "C" {
    type LockManager;
    #[wasm_bindgen(method, catch)]
    fn request(
        this: &LockManager,
        name: &str,
        options: &Object,
        callback: &JsValue,
    ) -> std::result::Result<Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn query(this: &LockManager) -> std::result::Result<Promise, JsValue>;
}

/// A lock that is held; dropping it lets go.
pub(super) struct Lock {
    release: Function,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It resolves a promise, which cannot fail.
        let _ = self.release.call0(&JsValue::UNDEFINED);
    }
}

impl Lock {
    /// Takes a lock if it is free.
    pub(super) async fn try_take(name: &str) -> Result<Option<Self>> {
        take(name, "ifAvailable", &true.into()).await
    }

    /// Takes a lock when it is free; fails when the signal comes before.
    pub(super) async fn wait(name: &str, signal: &AbortSignal) -> Result<Self> {
        take(name, "signal", signal).await?.ok_or_else(unavailable)
    }
}

/// The names of all locks that tabs of the origin hold.
pub(super) async fn held() -> Result<Vec<String>> {
    let query = manager()?.query().map_err(|_| unavailable())?;
    let snapshot = JsFuture::from(query).await.map_err(|_| unavailable())?;
    let held = property(&snapshot, "held").map_err(|_| unavailable())?;
    let name = |lock: JsValue| property(&lock, "name").ok()?.as_string();
    Ok(Array::from(&held).iter().filter_map(name).collect())
}

fn unavailable() -> Error {
    store_error("there are no Web Locks here: the page has to come over https")
}

fn property(object: &JsValue, name: &str) -> std::result::Result<JsValue, JsValue> {
    Reflect::get(object, &name.into())
}

fn manager() -> Result<LockManager> {
    let locks = property(&js_sys::global(), "navigator").and_then(|n| property(&n, "locks"));
    let locks = locks.ok().filter(JsValue::is_object).ok_or_else(unavailable)?;
    Ok(locks.unchecked_into())
}

async fn take(name: &str, option: &str, value: &JsValue) -> Result<Option<Lock>> {
    let options = Object::new();
    let set = Reflect::set(&options, &option.into(), value);
    set.map_err(|_| unavailable())?;
    let mut release = None;
    let held = Promise::new(&mut |resolve, _| release = Some(resolve));
    let release = release.ok_or_else(unavailable)?;
    let (tell, told) = oneshot::channel();
    let callback = Closure::once_into_js(move |lock: JsValue| -> JsValue {
        let taken = !lock.is_null();
        // Nobody waits for it any more: let go at once.
        if tell.send(taken).is_ok() && taken { held.into() } else { JsValue::UNDEFINED }
    });
    let request = manager()?.request(name, &options, &callback).map_err(|_| unavailable())?;
    let taken = async { told.await.map_err(|_| unavailable()) };
    let refused = async {
        match JsFuture::from(request).await {
            Err(_) => {}
            // It was taken and let go of; that is told by the callback.
            Ok(_) => std::future::pending().await,
        }
    };
    match select(std::pin::pin!(taken), std::pin::pin!(refused)).await {
        Either::Left((taken, _)) => Ok(taken?.then_some(Lock { release })),
        Either::Right(((), _)) => Err(unavailable()),
    }
}
