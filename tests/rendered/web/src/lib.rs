//! The rendered page in the browser.

use leptos::mount::hydrate_body;
use rendered_app::{App, AppProps};
use wasm_bindgen::prelude::wasm_bindgen;

/// Goes on with the page as it was rendered, with the rows that are in it.
#[wasm_bindgen]
pub fn hydrate(rows: &str) {
    let rows = serde_json::from_str(rows).ok();
    hydrate_body(move || App(AppProps { rows }));
}
