//! [`Bell`]: wakes whoever waits for a stream, once per append however many they are.

use super::StreamId;
use futures::channel::oneshot;
use std::cell::RefCell;
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct Bell {
    waiting: RefCell<HashMap<StreamId, Vec<oneshot::Sender<()>>>>,
}

impl Bell {
    /// Resolves at the next [`ring`](Self::ring) of this stream.
    pub(super) fn wait(&self, id: StreamId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        let those = waiting.entry(id).or_default();
        // Readers that went away are forgotten whenever the list would have to grow.
        if those.len() == those.capacity() {
            those.retain(|other| !other.is_canceled());
        }
        those.push(sender);
        receiver
    }

    pub(super) fn ring(&self, id: StreamId) {
        let those = self.waiting.borrow_mut().remove(&id).unwrap_or_default();
        for one in those {
            // Who is gone does not hear it.
            let _ = one.send(());
        }
    }

    /// Whether anyone waits for this stream.
    pub(super) fn is_awaited(&self, id: StreamId) -> bool {
        let waiting = self.waiting.borrow();
        waiting.get(&id).is_some_and(|those| those.iter().any(|one| !one.is_canceled()))
    }
}
