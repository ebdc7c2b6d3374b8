//! The page as a server sends it, be it a Worker or axum.

use crate::{App, AppProps};
use leptos::prelude::*;
use partysync::Result;
use partysync::wire::snapshot::Snapshot;

/// The page, with what its client begins with.
///
/// # Errors
/// Those of [`Snapshot::to_script`].
pub fn document(rows: Snapshot) -> Result<String> {
    let json = rows.to_script()?;
    let owner = Owner::new();
    let body = owner.with(|| App(AppProps { rows: Some(rows) }).to_html());
    drop(owner);
    Ok(format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Notes</title>
<link rel="icon" href="data:,">
<script>__RESOLVED_RESOURCES=[];__SERIALIZED_ERRORS=[];__INCOMPLETE_CHUNKS=[];</script>
<script id="rows" type="application/json">{json}</script>
<script type="module">
import init, {{ hydrate }} from "/app.js";
await init();
hydrate(document.getElementById("rows").textContent);
</script>
</head>
<body>{body}</body>
</html>"#
    ))
}
