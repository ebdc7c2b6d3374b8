//! [`Recorder`]: the last frames of a client, and how long the room takes to answer.

use super::{Direction, Frame};
use crate::peer::{Cause, Now, Output};
use crate::transport::Event;
use partysync::wire::{PING, PONG};
use std::collections::VecDeque;

/// So many frames are kept.
const FRAMES: usize = 50;
/// So many pings wait for their answers; of a room that answers none, the first are forgotten.
const PINGS: usize = 16;

/// What it has seen of a connection.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    frames: VecDeque<Frame>,
    /// When the pings were sent that have no answer yet.
    pings: VecDeque<u64>,
    /// When the push was sent that has no answer yet.
    pushed: Option<u64>,
    ping_ms: Option<u64>,
    answer_ms: Option<u64>,
}

impl Recorder {
    /// The client wants this done.
    pub(crate) fn wants(&mut self, output: &Output, now: &dyn Fn() -> Now) {
        let now = match output {
            Output::Send(_) | Output::Connect => now(),
            _ => return,
        };
        match output {
            Output::Send(text) => {
                let kind = kind(text);
                match kind {
                    PING => {
                        self.pings.push_back(now.monotonic);
                        self.pings.drain(..self.pings.len().saturating_sub(PINGS));
                    }
                    "push" => self.pushed = Some(now.monotonic),
                    _ => {}
                }
                self.add(Direction::Out, kind, text.len(), now);
            }
            Output::Connect => {
                self.pings.clear();
                self.pushed = None;
                self.add(Direction::Connection, "connect", 0, now);
            }
            _ => {}
        }
    }

    /// The socket tells this.
    pub(crate) fn hears(&mut self, event: &Event, now: Now) {
        match event {
            Event::Opened => self.add(Direction::Connection, "open", 0, now),
            Event::Closed(cause) => {
                let kind = match cause {
                    Cause::Code { code, .. } => format!("close {code}"),
                    Cause::Status(status) => format!("refused {status}"),
                    Cause::Unreachable(_) => "not reached".to_owned(),
                    Cause::Address(_) | Cause::Provider(_) => "no address".to_owned(),
                };
                self.add(Direction::Connection, &kind, 0, now);
            }
            Event::Text(text) => {
                let kind = kind(text);
                let since = |then: u64| now.monotonic.saturating_sub(then);
                // Within a text the quotes would be escaped.
                if kind == PONG {
                    self.ping_ms = self.pings.pop_front().map(since).or(self.ping_ms);
                } else if kind == "patch" && text.contains(r#""acks":[{"#) {
                    self.answer_ms = self.pushed.take().map(since).or(self.answer_ms);
                }
                self.add(Direction::In, kind, text.len(), now);
            }
        }
    }

    fn add(&mut self, direction: Direction, kind: &str, bytes: usize, now: Now) {
        self.frames.drain(..(self.frames.len() + 1).saturating_sub(FRAMES));
        self.frames.push_back(Frame { at: now.wall, direction, kind: kind.to_owned(), bytes });
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = Frame> {
        self.frames.iter().cloned()
    }

    pub(super) fn ping_ms(&self) -> Option<u64> {
        self.ping_ms
    }

    pub(super) fn answer_ms(&self) -> Option<u64> {
        self.answer_ms
    }
}

/// The type of a frame, which both sides write first.
fn kind(text: &str) -> &str {
    let name = text.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split('"').next());
    name.unwrap_or(if text == PING || text == PONG { text } else { "frame" })
}
