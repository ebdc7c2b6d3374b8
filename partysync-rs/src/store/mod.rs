//! The framework's own tables and triggers, and the SQL of derived actions: the only place that
//! writes `_partysync_*`.

pub(crate) mod apply;
mod migrate;
mod triggers;

pub(crate) use migrate::migrate;
