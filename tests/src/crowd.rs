//! A room that many are connected to, each as another user.

use partysync::room::turn::Local;
use partysync::room::{Effect, Event, Incoming, Opening, Slot};
use partysync::sql::Turns;
use partysync::{Action, Identity, Protocol, SyncServer, Timestamp};

/// A request by which somebody connects.
///
/// # Panics
/// Never: a name has a JSON form.
#[must_use]
pub fn request_by(who: &str) -> http::Request<()> {
    let mut request = http::Request::new(());
    Identity::new(who).expect("a name has a JSON form").put(&mut request);
    request
}

/// The room and its database, with connections by `user 0`, `user 1` and so on at its slots.
pub struct Crowd<D, S: SyncServer> {
    db: D,
    room: Local<S>,
    seq: usize,
}

impl<D, S: SyncServer> std::fmt::Debug for Crowd<D, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crowd").field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl<D: Turns, S: SyncServer> Crowd<D, S> {
    /// So many connect, and follow all channels.
    #[must_use]
    pub fn new(db: D, server: S, connections: u32) -> Self {
        let mut crowd = Self { db, room: Local::new(server), seq: 0 };
        let channels = S::Action::CHANNELS.iter().map(|schema| {
            let (channel, hash) = (schema.table, schema.hash());
            format!(r#"{{"channel":"{channel}","since":null,"schema":"{hash}"}}"#)
        });
        let channels = channels.collect::<Vec<_>>().join(",");
        for slot in 0..connections {
            crowd.event(Event::Connect {
                wanted: Some(slot.to_string()),
                fresh_id: slot.to_string(),
                protocol: Protocol::V2,
                request: &request_by(&format!("user {slot}")),
            });
            let hello = format!(
                r#"{{"type":"hello","client":"{slot}","epoch":null,"channels":[{channels}]}}"#
            );
            crowd.event(Event::Frame(Slot(slot), Incoming::Text(&hello)));
        }
        crowd
    }

    /// Something happens.
    ///
    /// # Panics
    /// When the room's turn fails.
    pub fn event(&mut self, event: Event<'_, S::Action>) -> Vec<Effect<S::Action>> {
        let opening = || Opening { fresh_epoch: "epoch".into(), ..Opening::default() };
        let now = Timestamp::from_millis(1_000);
        let turn = self.room.turn(&self.db, now, opening, [event]).expect("the room takes it");
        assert_eq!(turn.aborted, None);
        turn.effects
    }

    /// The frame by which the first of them does this next.
    ///
    /// # Panics
    /// When the action has no JSON form.
    pub fn next_push(&mut self, action: &S::Action) -> String {
        self.seq += 1;
        let (seq, channel) = (self.seq, action.channel());
        let action = action.to_json().expect("the action has a JSON form");
        format!(
            r#"{{"type":"push","actions":[{{"seq":{seq},"channel":"{channel}","action":{action}}}]}}"#
        )
    }

    /// The first of them sends this frame.
    pub fn frame(&mut self, text: &str) -> Vec<Effect<S::Action>> {
        self.event(Event::Frame(Slot(0), Incoming::Text(text)))
    }
}

/// How many connections are sent a frame with this text.
#[must_use]
pub fn sent<A>(effects: &[Effect<A>], text: &str) -> usize {
    let sent = effects.iter().map(|effect| match effect {
        Effect::Send { slots, frame } if frame.contains(text) => slots.len(),
        _ => 0,
    });
    sent.sum()
}
