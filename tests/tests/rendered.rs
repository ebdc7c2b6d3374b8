//! A page that a server renders, in a future that may move between threads, as axum's are.

use leptos::prelude::*;
use partysync::Record;
use partysync_client::leptos::use_sync;
use partysync_client::{Place, User};
use todo_shared::{Todo, TodoAction};

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
    any_spawner::Executor::init_tokio().unwrap();
    let page = tokio::spawn(render()).await.expect("no panic");
    assert!(page.contains("Loading Loading") && page.contains("0"), "{page}");
}
