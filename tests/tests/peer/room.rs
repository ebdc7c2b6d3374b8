//! A room and its clients, as users test them.

use super::*;
use partysync::{Limits, Protocol, Room, SyncServer};
use partysync_client::testing::World;
struct Notes(i64);
impl SyncServer for Notes {
    type Action = NoteAction;
    fn limits(&self) -> Limits {
        Limits { client_retention_ms: self.0, ..Default::default() }
    }
    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> partysync::Result<()> {
        action.apply(room.sql())
    }
}
#[test]
fn a_connection_pushes_for_so_many_unknown_clients_and_no_more() {
    let mut w = World::new(Notes(1_000_000_000)).unwrap();
    let room = w.room();
    room.connect("mallory", Protocol::V2).unwrap();
    let hello = r#"{"type":"hello","client":"m","epoch":null,"channels":[]}"#;
    room.frame("mallory", hello).unwrap();
    let mut push = |id: u32| {
        let push = format!(
            r#"{{"type":"push","client":"x{id}","actions":[{{"seq":1,"channel":"nope","action":{{}}}}]}}"#
        );
        let sent = room.frame("mallory", &push).unwrap();
        room.frame("mallory", r#"{"type":"read","bytes":100000}"#).unwrap();
        sent.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
    };
    assert!((0..256).all(|id| push(id)[0].contains("unknown_channel")));
    assert_eq!(push(256)[1], "close 4429 rate_limited");
}

/// A room that lets nobody in but the test's own client.
struct Closed;
impl SyncServer for Closed {
    type Action = NoteAction;
    fn on_connect(
        &self,
        _: &mut Room<'_, Self>,
        connection: &mut partysync::Connection,
        _: &http::Request<()>,
    ) -> partysync::Result<()> {
        match connection.id().starts_with("socket") {
            true => Err(partysync::Error::new(partysync::Code::Unauthorized, "who are you?")),
            false => Ok(()),
        }
    }
    fn on_action(&self, _: &mut Room<'_, Self>, _: NoteAction) -> partysync::Result<()> {
        Ok(())
    }
}
#[test]
fn a_client_that_a_room_lets_not_in_is_refused_in_tests_too() {
    let mut w = World::new(Closed).unwrap();
    let ada = w.client();
    w.deliver().unwrap();
    let phase = w.status(ada).unwrap().phase;
    let Phase::Refused(error) = phase else { panic!("{phase:?}") };
    assert_eq!(error.message(), "who are you?");
    w.reconnect(ada);
    assert_eq!(w.status(ada).unwrap().phase, Phase::Connecting);
}

#[test]
fn a_room_that_forgets_at_once_takes_new_actions() {
    for ms in [0, 1] {
        let mut w = World::new(Notes(ms)).unwrap();
        let ada = w.client();
        w.deliver().unwrap();
        let seq = w.act(ada, put("a", "x")).unwrap();
        w.deliver().unwrap();
        assert_eq!(w.answer(ada, seq), Some(&Ok(())), "client_retention_ms: {ms}");
    }
}
