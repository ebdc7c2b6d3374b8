//! LiveStore backends: one that tells which life of its object answers, and one with its log in D1.

use partysync::livestore::{Caller, LiveStoreServer, Pull, Push};
use partysync::{Error, Result};

pub(crate) struct LabStore {
    instance: String,
}

impl LabStore {
    fn new() -> Self {
        Self { instance: format!("{}", js_sys::Math::random()) }
    }
}

fn asks(caller: &Caller, what: &str) -> bool {
    caller.payload.as_ref().is_some_and(|payload| payload.get("ask").is_some_and(|ask| ask == what))
}

impl LiveStoreServer for LabStore {
    fn forward_headers(&self) -> &[&str] {
        &["x-lab"]
    }

    async fn on_pull(&self, _: &Pull, caller: &Caller) -> Result<()> {
        match asks(caller, "instance") {
            true => Err(Error::reject(self.instance.clone())),
            false => Ok(()),
        }
    }

    async fn on_push(&self, push: &Push, caller: &Caller) -> Result<()> {
        // Waits, so that other things happen meanwhile.
        if asks(caller, "wait") {
            worker::Delay::from(std::time::Duration::from_millis(50)).await;
        }
        let refused = push.events.iter().any(|event| event.name == "refused");
        if refused { Err(Error::reject(format!("refused: {:?}", caller.headers))) } else { Ok(()) }
    }
}

partysync::livestore_object!(LabStore = |_env| LabStore::new());

/// The same with its log in D1.
#[derive(Default)]
pub(crate) struct LabStoreD1;

impl LiveStoreServer for LabStoreD1 {}

partysync::livestore_object!(LabStoreD1, d1 = "DB");
