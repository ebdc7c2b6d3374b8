//! What takes the place of the tools where they are not wanted: nothing.

use crate::SyncClient;
use crate::peer::{Now, Output};
use crate::transport::Event;
use partysync::Action;

#[derive(Debug, Default)]
pub(crate) struct Recorder {}

impl Recorder {
    pub(crate) fn wants(&mut self, _: &Output, _: &dyn Fn() -> Now) {}

    pub(crate) fn hears(&mut self, _: &Event, _: Now) {}
}

#[cfg_attr(not(feature = "leptos"), allow(dead_code))]
pub(crate) fn watching<A: Action, N: FnOnce() -> String>(
    _: N,
    _: &SyncClient<A>,
) -> impl FnOnce() + 'static {
    || ()
}
