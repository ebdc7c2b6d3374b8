//! LiveStore's Durable Object RPC: calls of other objects, and calls to those that subscribe.

use super::object::{Called, Inner};
use crate::livestore::{self, Caller, Input, LiveStoreServer, Subscriber, Transport, msgpack};
use crate::worker::sql::js_error;
use crate::{Code, Error};
use futures::StreamExt;
use futures::future::{Either, select};
use js_sys::{Function, JsString, Promise, Uint8Array};
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::prelude::*;
use worker::wasm_bindgen_futures::JsFuture;
use worker::{Delay, ResponseBuilder, web_sys};

/// A subscriber that does not answer for so long is called again later.
const PATIENCE: Duration = Duration::from_secs(30);

#[wasm_bindgen(inline_js = "
import { DurableObject } from 'cloudflare:workers';
import * as exports from '../../index.js';

// The runtime passes calls on only to classes that extend its own, which a class of wasm-bindgen
// cannot. The classes are there when all modules have run, and are looked at after that.
queueMicrotask(() => {
  for (const value of Object.values(exports)) {
    const prototype = typeof value === 'function' ? value.prototype : undefined;
    if ((prototype?.rpc || prototype?.syncUpdateRpc) && prototype.webSocketMessage) {
      Object.setPrototypeOf(prototype, DurableObject.prototype);
      Object.setPrototypeOf(value, DurableObject);
    }
  }
});

// Null where there is no such object.
export function call_subscriber(env, binding, object, frame) {
  const namespace = env[binding];
  if (typeof namespace?.idFromString !== 'function') return null;
  let id;
  try {
    id = namespace.idFromString(object);
  } catch {
    return null;
  }
  return namespace.get(id).syncUpdateRpc(JSON.parse(frame));
}

// Hands each part of the answer to `part`. False where there is no such binding.
export async function call_backend(env, binding, store, bytes, part) {
  const namespace = env[binding];
  if (typeof namespace?.idFromName !== 'function') return false;
  const answer = await namespace.get(namespace.idFromName(store)).rpc(bytes);
  if (answer instanceof ReadableStream) {
    for await (const bytes of answer) part(bytes);
  } else {
    part(new Uint8Array(answer));
  }
  return true;
}")]
extern "C" {
    #[wasm_bindgen(catch)]
    fn call_subscriber(
        env: &JsValue,
        binding: &str,
        object: &str,
        frame: &JsString,
    ) -> Result<Option<Promise>, JsValue>;

    #[wasm_bindgen(catch)]
    pub(super) fn call_backend(
        env: &JsValue,
        binding: &JsString,
        store: &JsString,
        bytes: &Uint8Array,
        part: &Function,
    ) -> Result<Promise, JsValue>;
}

/// The store that a message names.
pub(super) fn store_of(message: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        payload: Payload,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        store_id: String,
    }
    serde_json::from_str(message).ok().map(|Message { payload }| payload.store_id)
}

fn is_request(message: &str) -> bool {
    #[derive(Deserialize)]
    struct Message<'m> {
        #[serde(rename = "_tag", borrow)]
        tag: Cow<'m, str>,
    }
    serde_json::from_str::<Message<'_>>(message).is_ok_and(|message| message.tag == "Request")
}

fn bytes<'m>(messages: impl IntoIterator<Item = &'m str>) -> worker::Result<Vec<u8>> {
    msgpack::encode(messages).map_err(worker::Error::from)
}

fn to_js<'m>(messages: impl IntoIterator<Item = &'m str>) -> worker::Result<JsValue> {
    Ok(Uint8Array::from(bytes(messages)?.as_slice()).into())
}

/// What is wrong with all that was sent.
fn defect(why: &str) -> worker::Result<JsValue> {
    to_js([&*json!({"_tag": "Defect", "defect": why}).to_string()])
}

impl<S: LiveStoreServer> Inner<S> {
    /// Answers the messages of a call. A pull that comes alone is answered with a stream, as long as
    /// there is more to come; LiveStore's clients take both.
    ///
    /// What fails for a while is told to the request: a client that hears of a defect, or whose call
    /// throws, pushes no more.
    pub(super) async fn rpc(self: &Rc<Self>, messages: Option<&[u8]>) -> worker::Result<JsValue> {
        if !self.server.enabled_transports().contains(&Transport::Rpc) {
            return Err("this transport is not enabled".into());
        }
        let limit = self.server.limits().frame_bytes;
        let Some(messages) = messages else {
            return defect(&format!("the limit is {limit} bytes"));
        };
        let messages = match msgpack::decode(messages, limit) {
            Ok(messages) => messages,
            Err(error) => return defect(error.message()),
        };
        let mut answers = Vec::new();
        for message in &messages {
            let Some(store_id) = store_of(message) else {
                // What is no request asks for nothing.
                if is_request(message) {
                    answers.push(livestore::refusal(message, "the request names no store"));
                }
                continue;
            };
            let caller = Caller {
                store_id: store_id.clone(),
                payload: None,
                headers: Vec::new(),
                transport: Transport::Rpc,
            };
            let called = self.call(&store_id, caller, message).await;
            match called.unwrap_or_else(|error| Called::Refused(500, error.to_string())) {
                Called::Refused(_, why) => answers.push(livestore::refusal(message, &why)),
                Called::Whole(parts) => answers.extend(parts),
                Called::Parts(parts) if messages.len() == 1 => {
                    let parts = parts.map(|part| bytes([&*part]));
                    let response = ResponseBuilder::new().from_stream(parts)?;
                    let body = web_sys::Response::from(response).body();
                    return Ok(body.map(JsValue::from).unwrap_or_default());
                }
                Called::Parts(parts) => answers.extend(parts.collect::<Vec<_>>().await),
            }
        }
        to_js(answers.iter().map(String::as_str))
    }

    /// Calls a subscriber; what comes of it is an input.
    pub(super) fn call_subscriber(self: &Rc<Self>, number: u64, whom: &Subscriber, frame: &str) {
        let env: &JsValue = self.env.as_ref();
        let called = call_subscriber(env, &whom.binding, &whom.object, &JsString::from(frame));
        let inner = self.clone();
        self.state.wait_until(async move {
            let result = match called {
                Err(error) => Err(js_error(&error)),
                Ok(None) => Err(Error::new(Code::NotFound, "the worker has no such binding")),
                Ok(Some(answer)) => {
                    match select(JsFuture::from(answer), Delay::from(PATIENCE)).await {
                        Either::Left((answer, _)) => {
                            answer.map(drop).map_err(|error| js_error(&error))
                        }
                        Either::Right(_) => Err(Error::retry("it does not answer")),
                    }
                }
            };
            let result = result.map_err(|error| match error.code() {
                Code::NotFound => error,
                _ => Error::retry(error.message().to_owned()),
            });
            inner.later(Some(Input::Called(number, result)));
        });
    }
}
