//! Waking: what an append, an acknowledgement or an expired lease means for subscriptions
//! (sections 7 and 7.3). All of it comes down to changes for one transaction.

use super::{Delivery, Known, Link, Subscription, Wake, known, note, random_text, read_note};
use crate::Result;
use crate::streams::{Change, Kind, Offset, Platform, Refusal, Store, Stream, StreamId, Streams};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A stream that holds more than its cursor has seen.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) path: String,
    pub(super) link: Link,
    pub(super) stream: Stream,
}

impl Pending {
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "path": self.path, "link_type": self.link.kind(), "acked_offset": self.link.offset(),
            "tail_offset": self.stream.tail().to_string(), "has_pending": true,
        })
    }
}

impl<S: Store, P: Platform> Streams<S, P> {
    /// Puts to the changes of a transaction what its appends mean for subscriptions.
    pub(in crate::streams) fn with_wakes(
        &self,
        mut changes: Vec<Change>,
    ) -> Result<Vec<Change>, Refusal> {
        let subscriptions = self.subscriptions()?;
        if subscriptions.is_empty() {
            return Ok(changes);
        }
        let mut woken: BTreeMap<&str, Subscription> = BTreeMap::new();
        let mut linked = BTreeSet::new();
        // Wakes are appends as well, and come behind those that cause them.
        let mut index = 0;
        while let Some(change) = changes.get(index) {
            index += 1;
            let (Change::Append { id, at, .. } | Change::AppendStaged { id, at, .. }) = *change
            else {
                continue;
            };
            let Some(path) = self.appended_path(id, &changes)? else { continue };
            for subscription in &*subscriptions {
                let key = Subscription::link_key(&subscription.id, &path);
                let first = linked.insert(key.clone());
                let known = if first { read_note::<Link>(self.store(), &key)? } else { continue };
                let link = match known {
                    None if !subscription.covers(&path) => continue,
                    // Linked before the append: its data is news.
                    None => Some(Link { explicit: false, glob: true, stream: Some(id), acked: at }),
                    Some(link) if link.stream == Some(id) => None,
                    Some(link) => Some(Link { stream: Some(id), acked: at, ..link }),
                };
                if let Some(link) = link {
                    changes.push(note(key, &link)?);
                }
                let todo = Subscription::todo_key(&subscription.id, &path);
                if self.store().note(&todo)?.is_none() {
                    changes.push(Change::Note { key: todo, text: Some("1".to_owned()) });
                }
                if subscription.wake.is_none() && !woken.contains_key(subscription.id.as_str()) {
                    let mut awake = subscription.clone();
                    changes.extend(self.begin_wake(&mut awake, &path, &changes)?);
                    woken.insert(&subscription.id, awake);
                }
            }
        }
        for (id, subscription) in woken {
            changes.push(note(Subscription::key(id), &subscription)?);
        }
        Ok(changes)
    }

    /// The path of a stream that changes append to, which may be created by them.
    fn appended_path(&self, id: StreamId, changes: &[Change]) -> Result<Option<String>> {
        let created = changes.iter().find_map(|change| match change {
            Change::Create(stream) if stream.id == id => Some(stream.path.clone()),
            _ => None,
        });
        match created {
            Some(path) => Ok(Some(path)),
            None => Ok(self.store().stream(id)?.map(|stream| stream.path)),
        }
    }

    /// Gives an idle subscription a wake, and its wake stream the event that says so.
    fn begin_wake(
        &self,
        subscription: &mut Subscription,
        path: &str,
        before: &[Change],
    ) -> Result<Option<Change>, Refusal> {
        subscription.generation += 1;
        let webhook = matches!(subscription.config.delivery, Delivery::Webhook { .. });
        subscription.wake = Some(Wake {
            id: format!("w_{}", random_text(&self.inner.platform)?),
            token: random_text(&self.inner.platform)?,
            holder: None,
            lease_until: None,
            snapshot: BTreeMap::new(),
            attempts: 0,
            next_attempt: webhook.then(|| self.now()),
        });
        let Delivery::PullWake { wake_stream } = &subscription.config.delivery else {
            return Ok(None);
        };
        // The application makes the wake stream; without one, workers have to ask.
        let Ok(stream) = self.find(wake_stream) else { return Ok(None) };
        if stream.closed.is_some() || Kind::of(&stream.content_type) != Kind::Json {
            return Ok(None);
        }
        let event = serde_json::json!({
            "type": "wake", "subscription_id": subscription.id, "stream": path,
            "generation": subscription.generation, "ts": self.now().as_millis(),
        });
        let bytes = Kind::Json.encode(event.to_string().into_bytes())?;
        // Others of the same transaction may have appended to it.
        let appended = before.iter().rev().find_map(|change| match change {
            Change::Append { id, at, bytes } if *id == stream.id => Some(at + bytes.len() as u64),
            _ => None,
        });
        Ok(Some(Change::Append { id: stream.id, at: appended.unwrap_or(stream.end), bytes }))
    }

    /// The streams with something to do. Links of streams that are gone are put to `changes`.
    pub(super) fn pending(&self, id: &str, changes: &mut Vec<Change>) -> Result<Vec<Pending>> {
        let prefix = Subscription::todo_key(id, "");
        let mut pending = Vec::new();
        for (key, _) in self.store().notes(&prefix)? {
            let path = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
            let link_key = Subscription::link_key(id, &path);
            let link = read_note::<Link>(self.store(), &link_key)?;
            let stream = self.store().at(&path)?.filter(|stream| !stream.deleted);
            match (link, stream) {
                (Some(link), Some(stream))
                    if link.stream == Some(stream.id) && link.acked < stream.end =>
                {
                    pending.push(Pending { path, link, stream });
                }
                (link, _) => {
                    changes.push(Change::Note { key, text: None });
                    if link.is_some_and(|link| !link.explicit) && self.store().at(&path)?.is_none()
                    {
                        changes.push(Change::Note { key: link_key, text: None });
                    }
                }
            }
        }
        Ok(pending)
    }

    /// Moves cursors on; they never go back.
    pub(super) fn acknowledge(
        &self,
        id: &str,
        acks: &BTreeMap<String, u64>,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (path, offset) in acks {
            let key = Subscription::link_key(id, path);
            let Some(link) = read_note::<Link>(self.store(), &key)? else { continue };
            let end =
                self.store().at(path)?.filter(|s| link.stream == Some(s.id)).map_or(0, |s| s.end);
            let acked = link.acked.max((*offset).min(end));
            if acked >= end {
                changes.push(Change::Note { key: Subscription::todo_key(id, path), text: None });
            }
            changes.push(note(key, &Link { acked, ..link })?);
        }
        Ok(changes)
    }

    /// Ends a wake, and begins the next one if there is something left to do; `acked` has moved
    /// the cursors. Returns whether there is a next one.
    pub(super) fn end_wake(
        &self,
        mut subscription: Subscription,
        acked: Vec<Change>,
    ) -> Result<bool, Refusal> {
        // First the cursors: what is pending is read off them.
        self.commit(acked)?;
        let mut changes = Vec::new();
        let pending = self.pending(&subscription.id, &mut changes)?;
        subscription.wake = None;
        if let Some(first) = pending.first() {
            let event = self.begin_wake(&mut subscription, &first.path, &[])?;
            changes.extend(event);
        }
        changes.push(note(Subscription::key(&subscription.id), &subscription)?);
        self.commit(changes)?;
        Ok(!pending.is_empty())
    }

    /// Keeps a subscription.
    pub(super) fn keep(&self, subscription: &Subscription) -> Result<(), Refusal> {
        self.commit(vec![note(Subscription::key(&subscription.id), subscription)?])
    }

    /// All subscriptions; kept at hand, since every append asks for them.
    pub(in crate::streams) fn subscriptions(&self) -> Result<Rc<Vec<Subscription>>> {
        if let Some(known) = &*self.inner.subscriptions.borrow() {
            return Ok(Rc::clone(known));
        }
        let all = known(self.store(), "sub/")?.into_iter().map(|Known { value, .. }| value);
        let all = Rc::new(all.collect());
        *self.inner.subscriptions.borrow_mut() = Some(Rc::clone(&all));
        Ok(all)
    }

    /// The subscription of this name.
    pub(super) fn subscription(&self, id: &str) -> Result<Option<Subscription>> {
        Ok(self.subscriptions()?.iter().find(|known| known.id == id).cloned())
    }

    /// Where a new link begins: at the stream's end as it is.
    pub(super) fn linked_at_end(&self, path: &str, explicit: bool) -> Result<Link> {
        let stream = self.store().at(path)?.filter(|stream| !stream.deleted);
        let acked = stream.as_ref().map_or(Offset::START, Stream::tail).bytes();
        Ok(Link { explicit, glob: !explicit, stream: stream.map(|stream| stream.id), acked })
    }
}
