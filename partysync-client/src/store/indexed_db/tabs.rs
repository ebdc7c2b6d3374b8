//! The tabs of an app: each tells the others of its outbox, and waits to inherit theirs.

use super::locks::Lock;
use super::{ALL, IndexedDbStore, Tx, read_outbox, remove, slots};
use crate::store::{Orphan, Orphans, Outbox};
use futures::channel::mpsc::{UnboundedSender, unbounded};
use idb::{Database, TransactionMode};
use partysync::Result;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use wasm_bindgen_futures::spawn_local;
use web_sys::{BroadcastChannel, MessageEvent};

/// Tells the other tabs of this tab's outbox.
pub(super) fn announce(name: &str, slot: &str) {
    if let Ok(channel) = BroadcastChannel::new(name) {
        // A tab that does not hear of it finds it when it is opened again.
        let _ = channel.post_message(&slot.into());
        channel.close();
    }
}

/// The outboxes of tabs that end, or have ended.
pub(super) fn orphans(store: &IndexedDbStore) -> Orphans {
    let Ok((db, _, own)) = store.opened() else { return Box::pin(futures::stream::pending()) };
    let (found, orphans) = unbounded();
    let heir = Rc::new(Heir { store: store.name_only(), db, found, known: RefCell::default() });
    heir.known.borrow_mut().insert(own);
    // First listen, then look: a tab that opens meanwhile is heard or seen.
    let channel = BroadcastChannel::new(&store.shared.name).ok();
    let weak = Rc::downgrade(&heir);
    let heard = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
        if let (Some(heir), Some(slot)) = (weak.upgrade(), event.data().as_string()) {
            heir.wait_for(slot);
        }
    });
    if let Some(channel) = &channel {
        channel.set_onmessage(Some(heard.as_ref().unchecked_ref()));
    }
    let looking = heir.clone();
    spawn_local(async move {
        // Where that fails, the tab's own outbox fails, too, and says so.
        for slot in slots(&looking.db).await.unwrap_or_default() {
            looking.wait_for(slot);
        }
    });
    Box::pin(Waiting { orphans, channel, _heard: heard, _heir: heir })
}

/// Waits for the outboxes of others.
struct Heir {
    store: IndexedDbStore,
    db: Rc<Database>,
    found: UnboundedSender<Orphan>,
    known: RefCell<BTreeSet<String>>,
}

impl Heir {
    fn wait_for(self: &Rc<Self>, slot: String) {
        if !self.known.borrow_mut().insert(slot.clone()) {
            return;
        }
        let (heir, name) = (Rc::downgrade(self), self.store.shared.name.clone());
        spawn_local(async move {
            let Ok(lock) = Lock::wait(&name, &slot).await else { return };
            // A client that has ended lets go again.
            let Some(heir) = Weak::upgrade(&heir) else { return };
            // What cannot be read now is found by the next tab.
            let _ = heir.inherit(lock).await;
        });
    }

    async fn inherit(&self, lock: Lock) -> Result<()> {
        let tx = Tx::begin(&self.db, &ALL, TransactionMode::ReadOnly)?;
        let outbox: Option<Outbox> = read_outbox(&tx, lock.slot()).await?;
        tx.commit().await?;
        match outbox {
            Some(outbox) if !outbox.pending.is_empty() => {
                let store = Box::new(self.store.over(self.db.clone(), &outbox, lock));
                // The client has ended: it is let go again.
                let _ = self.found.unbounded_send(Orphan { outbox, store });
                Ok(())
            }
            _ => remove(&self.db, lock.slot()).await,
        }
    }
}

/// The stream of orphans, with what feeds it.
struct Waiting {
    orphans: futures::channel::mpsc::UnboundedReceiver<Orphan>,
    channel: Option<BroadcastChannel>,
    _heard: Closure<dyn FnMut(MessageEvent)>,
    _heir: Rc<Heir>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            channel.set_onmessage(None);
            channel.close();
        }
    }
}

impl futures::Stream for Waiting {
    type Item = Orphan;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Orphan>> {
        Pin::new(&mut self.orphans).poll_next(context)
    }
}
