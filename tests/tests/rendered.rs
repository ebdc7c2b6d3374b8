//! Pages that a native server renders, in futures that may move between threads, as axum's are.

use leptos::prelude::*;
use partysync::Record;
use partysync::wire::snapshot::{Channel, Snapshot};
use partysync_client::leptos::use_sync;
use partysync_client::{Place, User};
use todo_shared::{Todo, TodoAction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[component]
fn Todos() -> impl IntoView {
    let sync = use_sync::<TodoAction>(&Place::new("todos", "default", User::anyone()));
    let todos = sync.query(Todo::query);
    let left = sync.count(Todo::query);
    view! {
        <p>{move || format!("{:?} {:?}", todos.listing(), left.get())}</p>
        <p>{move || todos.all().len()} " todos"</p>
    }
}

async fn render() -> String {
    let owner = Owner::new();
    let page = owner.with(|| view! { <Todos/> }.to_html());
    tokio::task::yield_now().await;
    page
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_renders_a_page_that_follows_a_room_and_connects_to_none() {
    // As leptos_axum does.
    let _ = any_spawner::Executor::init_tokio();
    let page = tokio::spawn(render()).await.expect("no panic");
    assert!(page.contains("Loading Loading") && page.contains("0"), "{page}");
}

/// The page of `tests/rendered`, as axum sends it for one note.
async fn served() -> String {
    let channel = Channel {
        schema: rendered_app::Note::SCHEMA.hash(),
        version: 1,
        view: None,
        rows: vec![serde_json::json!(["1", "Note 1"])],
    };
    let rows = Snapshot {
        room: "default".to_owned(),
        epoch: "EPOCH".to_owned(),
        channels: [("notes".to_owned(), channel)].into(),
    };
    let page = async move || axum::response::Html(rendered_app::document(rows.clone()).unwrap());
    let app = axum::Router::new().route("/", axum::routing::get(page));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    server.abort();
    response.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What a Worker sends for the same row is compared with this file, too, and hydrated in a browser:
/// `tests/e2e/rendered.test.mjs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_sends_the_page_that_a_worker_sends() {
    let _ = any_spawner::Executor::init_tokio();
    assert_eq!(served().await, include_str!("../rendered/page.html"));
}
