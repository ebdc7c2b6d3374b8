//! A Worker that renders its page with the room's rows in it, and the room.

use partysync::wire::snapshot::Snapshot;
use partysync::worker::Router;
use partysync::{Action, Code, Error, Handle, Result, Room, SyncServer};
use rendered_app::{NoteAction, document};
use worker::{Context, Env, Method, Request, Response, ResponseBuilder, event};

/// Notes.
#[derive(Debug, Default)]
pub struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }

    /// The rows, for the Worker.
    async fn on_request(
        &self,
        room: &Handle<Self>,
        _: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| {
            let rows = serde_json::to_vec(&room.snapshot(&["notes"])?);
            let rows = rows.map_err(|error| Error::new(Code::Internal, error.to_string()))?;
            Ok(http::Response::new(rows))
        })
        .await
    }
}

partysync::durable_object!(Notes);

#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
    let router = Router::new().party("notes", "NOTES");
    let url = request.url()?;
    if url.path() != "/" {
        return router.route(request, &env).await;
    }
    let rows = Request::new(url.join("/parties/notes/default")?.as_str(), Method::Get)?;
    let rows: Snapshot = router.route(rows, &env).await?.json().await?;
    let page = document(rows).map_err(|error| worker::Error::RustError(error.to_string()))?;
    ResponseBuilder::new().from_html(page)
}
