//! An [`Identity`] on its way from the router to a room: in the request's `cf`, which only workers
//! write. What a client sends is in its headers, address and body.

use crate::{Code, Error, Identity, Result};
use js_sys::{Object, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use worker::{Request, web_sys};

/// Where it is in `cf`.
const PLACE: &str = "partysync";

fn js(error: &JsValue) -> Error {
    Error::new(Code::Internal, format!("a request's `cf`: {error:?}"))
}

/// The same request with this identity behind it, in place of any that it has.
pub(super) fn put(request: &Request, identity: &Identity) -> Result<Request> {
    let text = serde_json::to_string(identity)
        .map_err(|e| Error::new(Code::InvalidValue, format!("an identity: {e}")))?;
    let put = || {
        let own = Reflect::get(request.inner(), &"cf".into())?;
        let cf = Object::new();
        if let Some(own) = own.dyn_ref::<Object>() {
            Object::assign(&cf, own);
        }
        // As a text: what a room reads is what was written.
        Reflect::set(&cf, &PLACE.into(), &text.into())?;
        let init = Object::new();
        Reflect::set(&init, &"cf".into(), &cf)?;
        web_sys::Request::new_with_request_and_init(request.inner(), init.unchecked_ref())
    };
    put().map(Request::from).map_err(|error| js(&error))
}

/// Who is behind a request, if a router has said so.
pub(super) fn of(request: &Request) -> Result<Option<Identity>> {
    let cf = Reflect::get(request.inner(), &"cf".into()).map_err(|error| js(&error))?;
    let text = match cf.is_object() {
        true => Reflect::get(&cf, &PLACE.into()).map_err(|error| js(&error))?.as_string(),
        false => None,
    };
    let read = |text: String| {
        serde_json::from_str(&text)
            .map_err(|e| Error::new(Code::Internal, format!("an identity: {e}")))
    };
    text.map(read).transpose()
}
