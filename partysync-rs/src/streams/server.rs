//! [`Streams`]: the streams under one root.

use super::bell::Bell;
use super::subscription::Subscription;
use super::{Change, Options, Platform, Refusal, Store, Stream};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// The streams under one root. Cheap to clone: clones are the same server.
///
/// [`handle`](Self::handle) answers a request of the protocol; the methods beside it do the same
/// from Rust.
#[derive(Debug)]
pub struct Streams<S, P> {
    pub(super) inner: Rc<Inner<S, P>>,
}

#[derive(Debug)]
pub(super) struct Inner<S, P> {
    pub(super) store: S,
    pub(super) platform: P,
    pub(super) options: Options,
    pub(super) bell: Bell,
    /// Whether a task puts off work in order.
    pub(super) settling: Cell<bool>,
    /// The subscriptions, once they were asked for.
    pub(super) subscriptions: RefCell<Option<Rc<Vec<Subscription>>>>,
    /// Those with a delivery under way.
    pub(super) delivering: RefCell<BTreeSet<String>>,
}

impl<S, P> Clone for Streams<S, P> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// The streams of this store.
    #[must_use]
    pub fn new(store: S, platform: P, options: Options) -> Self {
        let inner = Inner {
            store,
            platform,
            options,
            bell: Bell::default(),
            settling: Cell::new(false),
            subscriptions: RefCell::default(),
            delivering: RefCell::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.inner.store
    }

    /// Where it runs.
    #[must_use]
    pub fn platform(&self) -> &P {
        &self.inner.platform
    }

    pub(super) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Tells the operator of a fault that no request is answered with.
    pub(super) fn report<E: Into<crate::Error>>(&self, what: &str, done: Result<(), E>) {
        if let Err(error) = done {
            self.inner.platform.report(what, &error.into());
        }
    }

    pub(super) fn now(&self) -> crate::Timestamp {
        self.inner.platform.now()
    }

    /// Keeps changes with what they mean for subscriptions, and wakes who waits for them.
    ///
    /// An error means that nothing was kept: what fails behind the commit is reported, and done
    /// when the alarm rings.
    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<(), Refusal> {
        if changes.is_empty() {
            return Ok(());
        }
        let changes = self.with_wakes(changes)?;
        let subscribed =
            |change: &Change| matches!(change, Change::Note { key, .. } if key.starts_with("sub/"));
        let subscribed = changes.iter().any(subscribed);
        let changed = changes.iter().filter_map(|change| match change {
            Change::Update(Stream { id, .. })
            | Change::Append { id, .. }
            | Change::AppendStaged { id, .. }
            | Change::Remove(id) => Some(*id),
            _ => None,
        });
        let changed: BTreeSet<_> = changed.collect();
        self.store().commit(changes)?;
        if subscribed {
            *self.inner.subscriptions.borrow_mut() = None;
        }
        changed.into_iter().for_each(|id| self.inner.bell.ring(id));
        self.attend();
        Ok(())
    }
}
