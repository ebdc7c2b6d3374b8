//! The sync backend of `fixtures/livestore-sync`, without rooms that take part.

use partysync::livestore::LiveStoreServer;
use partysync::worker::LiveStore;
use partysync::{Code, Error};
use worker::{Context, Env, Request, Response, event};

#[derive(Default)]
struct SyncBackend;

impl LiveStoreServer for SyncBackend {}

partysync::livestore_object!(SyncBackend);

#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
    let backend = LiveStore::new("SYNC_BACKEND").validate_payload(|sync, _, _| {
        Box::pin(async move {
            let token = sync.payload.as_ref().and_then(|payload| payload.get("authToken"));
            let known = token.and_then(|token| token.as_str()) == Some("ok");
            let refused = || Error::new(Code::Unauthorized, "the auth token is not valid");
            known.then_some(()).ok_or_else(refused)
        })
    });
    match backend.try_route(request, &env).await? {
        Some(response) => Ok(response),
        None => Response::ok("LiveStore's sync backend"),
    }
}
