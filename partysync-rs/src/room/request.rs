//! Requests: each is answered beside whatever else happens to the room, and is no part of a turn but
//! for what it does by its [`Handle`](super::Handle).

use super::migrate::MIGRATING;
use super::{Fault, Machine};
use crate::{Code, Error, Identity, SyncServer};
use futures::FutureExt;
use futures::future::{LocalBoxFuture, ready};
use std::rc::Rc;

/// What a request is answered.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub response: http::Response<Vec<u8>>,
    /// Log this, and tell [`SyncServer::on_error`].
    pub fault: Option<Fault>,
}

/// Answers a request to a room that is open; `None` is one whose rows are being migrated. It is begun
/// between two turns.
pub fn answer<S: SyncServer>(
    machine: Option<&Machine<S>>,
    server: &Rc<S>,
    request: http::Request<Vec<u8>>,
) -> LocalBoxFuture<'static, Answered> {
    let Some(machine) = machine.filter(|machine| !machine.is_migrating()) else {
        return ready(Answered { response: put_off(), fault: None }).boxed_local();
    };
    let handle = machine.room_handle(Identity::of(&request).cloned());
    let (faults, server) = (machine.life.faults.clone(), server.clone());
    async move {
        match server.on_request(&handle, request).await {
            Ok(response) => Answered { response, fault: None },
            Err(error) => {
                let (told, fault) = faults.public(error, "on_request");
                Answered { response: failed(status(told.code()), &told), fault }
            }
        }
    }
    .boxed_local()
}

/// What HTTP calls an error.
fn status(code: Code) -> http::StatusCode {
    use http::StatusCode;
    match code {
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::Rejected => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::KeyExists | Code::Constraint => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::InvalidFrame | Code::InvalidAction | Code::InvalidValue => StatusCode::BAD_REQUEST,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Rows are on their way to another version: come again.
fn put_off() -> http::Response<Vec<u8>> {
    let status = http::StatusCode::SERVICE_UNAVAILABLE;
    let mut response = failed(status, &Error::retry(MIGRATING));
    let soon = http::HeaderValue::from_static("1");
    response.headers_mut().insert(http::header::RETRY_AFTER, soon);
    response
}

/// The answer to a request that cannot have another.
fn failed(status: http::StatusCode, error: &Error) -> http::Response<Vec<u8>> {
    let mut response = http::Response::new(format!("{}: {error}", error.code()).into());
    *response.status_mut() = status;
    response
}
