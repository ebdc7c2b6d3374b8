//! Events as clients send them.

use super::envelope::Failure;
use super::json::unreadable;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The most bytes of an event's JSON. LiveStore's own clients send none that is larger, and its
/// own server can send none: an event that is taken and cannot be pulled stops every client.
pub(super) const EVENT_BYTES: usize = 900_000;
/// The most bytes of a name, a client's or a session's id.
const NAME_BYTES: usize = 1_000;

/// An event of a push.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What happened, as the application names it.
    pub name: String,
    /// Its arguments as JSON; `None` where the event has none.
    #[serde(default, deserialize_with = "some")]
    pub args: Option<Box<RawValue>>,
    /// Its place in the log.
    pub seq_num: u64,
    /// The place of the event before it; 0 for the first.
    pub parent_seq_num: u64,
    /// The client that made it.
    pub client_id: String,
    /// The client's session, such as a tab.
    pub session_id: String,
}

/// JSON's `null` is an argument, too.
fn some<'de, D: serde::Deserializer<'de>>(de: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(de).map(Some)
}

impl Event {
    /// Looks whether the event can be stored, and pulled by every client.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let Self { name, args, seq_num, client_id, session_id, .. } = self;
        for (what, text) in [("name", name), ("clientId", client_id), ("sessionId", session_id)] {
            // SQLite's text functions end at a NUL.
            if text.len() > NAME_BYTES || text.contains('\0') {
                let what = format!(
                    "event {seq_num}: its {what} has more than {NAME_BYTES} bytes, or a NUL"
                );
                return Err(Failure::unknown("InvalidEvent", what));
            }
        }
        if let Some(why) = args.as_ref().and_then(|args| unreadable(args.get())) {
            let what = format!("event {seq_num}: its arguments {why}");
            return Err(Failure::unknown("InvalidEvent", what));
        }
        let bytes = args.as_ref().map_or(0, |args| args.get().len());
        if bytes > EVENT_BYTES {
            let what = format!(
                "event {seq_num}: its arguments are {bytes} bytes of JSON, and {EVENT_BYTES} is the most that can be pulled"
            );
            return Err(Failure::unknown("EventTooLarge", what));
        }
        Ok(())
    }
}

/// Looks whether a batch goes on behind `head`, one event behind the other.
pub(super) fn check_order(events: &[Event], head: u64) -> Result<(), Failure> {
    let Some(first) = events.first() else { return Ok(()) };
    let head = if crate::__mutated("livestore_ahead") { first.parent_seq_num } else { head };
    if first.parent_seq_num != head {
        return Err(Failure::ServerAhead { minimum: head, provided: first.parent_seq_num });
    }
    let mut before = head;
    for event in events {
        if event.parent_seq_num != before || Some(event.seq_num) != before.checked_add(1) {
            let what = format!(
                "event {} with the parent {} does not follow event {before}: events of a batch follow each other",
                event.seq_num, event.parent_seq_num
            );
            return Err(Failure::unknown("InvalidBatch", what));
        }
        before = event.seq_num;
    }
    Ok(())
}
