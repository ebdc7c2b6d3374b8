//! The pages of `docs/guide`, whose examples `cargo test` runs as doctests. Workers and components
//! need a runtime or a page: they are compiled (`no_run`). The page about tests is compiled and run
//! by `tests/leptos`, since effects of components do not run where Leptos renders on a server, as it
//! does in this build.

/// A page of the guide.
macro_rules! pages {
    ($($page:ident),*) => {$(
        #[cfg(doctest)]
        #[doc = include_str!(concat!("../../docs/guide/src/", stringify!($page), ".md"))]
        mod $page {}
    )*};
}

pages!(
    actions, deploying, files, presence, queries, records, requests, start, time, typescript,
    users, visibility
);
