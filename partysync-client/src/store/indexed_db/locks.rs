//! Web Locks: a lock with a name is held by one tab at a time, until the tab lets go or ends.
//!
//! Bound by hand: `web-sys` has them behind a `cfg` for unstable APIs.

use futures::channel::oneshot;
use js_sys::{Function, Object, Promise, Reflect};
use partysync::{Code, Error, Result};
use wasm_bindgen::prelude::*;

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
}

/// The lock of an outbox; dropping it lets go.
pub(super) struct Lock {
    slot: String,
    release: Function,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It resolves a promise, which cannot fail.
        let _ = self.release.call0(&JsValue::UNDEFINED);
    }
}

impl Lock {
    /// The outbox.
    pub(super) fn slot(&self) -> &str {
        &self.slot
    }

    /// Takes an outbox's lock if it is free.
    pub(super) async fn try_take(name: &str, slot: &str) -> Result<Option<Self>> {
        take(name, slot, true).await
    }

    /// Takes an outbox's lock when it is free.
    pub(super) async fn wait(name: &str, slot: &str) -> Result<Self> {
        take(name, slot, false).await?.ok_or_else(unavailable)
    }
}

fn unavailable() -> Error {
    Error::new(Code::Store, "the browser has no Web Locks here: the page has to come over https")
}

async fn take(name: &str, slot: &str, only_if_free: bool) -> Result<Option<Lock>> {
    let property = |object: &JsValue, name: &str| Reflect::get(object, &name.into());
    let locks = property(&js_sys::global(), "navigator").and_then(|n| property(&n, "locks"));
    let locks = locks.ok().filter(JsValue::is_object).ok_or_else(unavailable)?;
    let options = Object::new();
    let set = Reflect::set(&options, &"ifAvailable".into(), &only_if_free.into());
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
    let request = locks.unchecked_ref::<LockManager>().request(
        &format!("{name}/{slot}"),
        &options,
        &callback,
    );
    // A refusal comes as a rejected promise, which drops the callback's sender at some time.
    let request = request.map_err(|_| unavailable())?;
    let told = async { told.await.map_err(|_| unavailable()) };
    let refused = async {
        match wasm_bindgen_futures::JsFuture::from(request).await {
            Err(_) => {}
            // It was taken and let go of; that is told by the other one.
            Ok(_) => std::future::pending().await,
        }
    };
    let taken = match futures::future::select(std::pin::pin!(told), std::pin::pin!(refused)).await {
        futures::future::Either::Left((taken, _)) => taken?,
        futures::future::Either::Right(((), _)) => return Err(unavailable()),
    };
    Ok(taken.then(|| Lock { slot: slot.to_owned(), release }))
}
