//! Which rows are shown otherwise than before.

use partysync::Key;
use std::collections::{BTreeMap, BTreeSet};

/// The rows that are shown otherwise than before, or became or ceased to be pending; by channel.
pub type Changes = BTreeMap<&'static str, Changed>;

/// Which rows of a channel have changed.
///
/// ```
/// use partysync_client::Changed;
///
/// let changed = Changed::Keys(["a".into()].into());
/// assert!(changed.contains(&"a".into()) && !changed.contains(&"b".into()));
/// assert!(Changed::All.contains(&"b".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Those with these keys.
    Keys(BTreeSet<Key>),
    /// Any may have: all of them came at once, or went.
    All,
}

impl Default for Changed {
    fn default() -> Self {
        Self::Keys(BTreeSet::new())
    }
}

impl Changed {
    /// Whether the row with this key may have changed.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Keys(keys) => keys.contains(key),
            Self::All => true,
        }
    }

    pub(super) fn insert(&mut self, key: Key) {
        if let Self::Keys(keys) = self {
            keys.insert(key);
        }
    }

    /// Adds what else has changed.
    pub fn merge(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Keys(keys), Self::Keys(more)) if keys.is_empty() => *keys = more,
            (Self::Keys(keys), Self::Keys(more)) => keys.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// Adds changes to others.
pub(crate) fn merge(into: &mut Changes, changes: Changes) {
    for (channel, changed) in changes {
        into.entry(channel).or_default().merge(changed);
    }
}
