//! Spans: what a store does for requests that their clients trace. A request names its trace in the
//! envelope of Effect's RPC, whatever it comes by: `traceId`, `spanId`, `sampled`.

use super::envelope::{Failure, Id, Tag};
use super::io::{Effect, Who};
use super::machine::Machine;
use crate::Timestamp;
use crate::room::Slot;
use serde::Deserialize;

/// So many requests are traced at a time: a client need not wait for an answer.
const OPEN: usize = 1_000;
/// The longest id that is passed on.
const ID_BYTES: usize = 64;

/// What a store has done for a request, as a span of its client's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace, as the client names it: 32 hexadecimal digits in OpenTelemetry.
    pub trace_id: String,
    /// The client's span, which is the parent of this one. This one's id is yours to choose.
    pub parent_id: String,
    /// `livestore.push`, or `livestore.pull`, which ends with what it is sent first.
    pub name: &'static str,
    /// When the request came.
    pub began: Timestamp,
    /// When it was answered. A Durable Object's clock stands still where nothing is waited for.
    pub ended: Timestamp,
    /// Why it has failed; `None` if it has not.
    pub error: Option<String>,
}

/// A span that has not ended.
#[derive(Debug)]
pub(super) struct Open {
    who: Who,
    id: Id,
    span: Span,
}

/// What a request says of its trace.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Traced {
    trace_id: String,
    span_id: String,
    sampled: bool,
}

impl Machine {
    /// A request begins, of which this is the text.
    pub(super) fn begin_span(&mut self, who: Who, id: &Id, tag: Tag, text: &str) {
        if !self.traces || self.spans.len() >= OPEN {
            return;
        }
        let name = match tag {
            Tag::Push => "livestore.push",
            Tag::Pull => "livestore.pull",
            Tag::Ping => return,
        };
        // One without a trace of this form is served all the same.
        let Ok(Traced { trace_id, span_id: parent_id, sampled: true }) = serde_json::from_str(text)
        else {
            return;
        };
        if trace_id.len().max(parent_id.len()) > ID_BYTES {
            return;
        }
        let (began, ended, error) = (self.now, self.now, None);
        let span = Span { trace_id, parent_id, name, began, ended, error };
        self.spans.push(Open { who, id: id.clone(), span });
    }

    /// A request has its answer, or the first part of it.
    pub(super) fn end_span(&mut self, who: Who, id: &Id, failure: Option<&Failure>) {
        let open = self.spans.iter().position(|open| open.who == who && open.id == *id);
        let Some(Open { mut span, .. }) = open.map(|place| self.spans.swap_remove(place)) else {
            return;
        };
        span.error = failure.map(|failure| format!("{failure:?}"));
        self.tell_span(span);
    }

    /// Whoever had this slot hears no answer any more.
    pub(super) fn end_spans_of(&mut self, slot: Slot) {
        while let Some(place) = self.spans.iter().position(|open| open.who.slot == slot) {
            let mut span = self.spans.swap_remove(place).span;
            span.error = Some("the connection was closed".to_owned());
            self.tell_span(span);
        }
    }

    fn tell_span(&mut self, span: Span) {
        self.effects.push_back(Effect::Span(Span { ended: self.now, ..span }));
    }
}
