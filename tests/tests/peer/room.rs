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

/// A room that asks who comes.
struct Named;
impl SyncServer for Named {
    type Action = NoteAction;
    fn on_connect(
        &self,
        _: &mut Room<'_, Self>,
        connection: &mut partysync::Connection,
        request: &http::Request<()>,
    ) -> partysync::Result<()> {
        let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
        let unknown = || partysync::Error::new(partysync::Code::Unauthorized, "who are you?");
        connection.set_state(&user.ok_or_else(unknown)?)
    }
    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> partysync::Result<()> {
        let user = room.sender().map(|sender| sender.state::<String>()).transpose()?.flatten();
        match user.as_deref() {
            Some("guest") => Err(partysync::Error::reject("guests only look")),
            _ => action.apply(room.sql()),
        }
    }
}
#[test]
fn a_client_that_a_room_lets_not_in_is_refused_in_tests_too() {
    let mut w = World::new(Named).unwrap();
    let ada = w.client();
    w.deliver().unwrap();
    // Other credentials might be there by now.
    let phase = w.status(ada).unwrap().phase;
    assert!(matches!(phase, Phase::Offline { .. }), "{phase:?}");
    w.advance(1_000).unwrap();
    w.deliver().unwrap();
    let phase = w.status(ada).unwrap().phase;
    let Phase::Refused(error) = phase else { panic!("{phase:?}") };
    assert_eq!(error.message(), "who are you?");
    w.reconnect(ada);
    assert_eq!(w.status(ada).unwrap().phase, Phase::Connecting);
}

#[test]
fn a_client_comes_as_who_it_is_in_tests_too() {
    let by = |user| http::Request::builder().header("x-user", user).body(()).unwrap();
    let mut w = World::new(Named).unwrap();
    let (ada, guest) = (w.client_by(by("ada")), w.client_by(by("guest")));
    let mut seqs = Vec::new();
    for client in [ada, guest] {
        w.deliver().unwrap();
        seqs.push(w.act(client, put("a", "x")).unwrap());
        w.deliver().unwrap();
    }
    assert_eq!(w.answer(ada, seqs[0]), Some(&Ok(())));
    let refused = partysync::Error::reject("guests only look");
    assert_eq!(w.answer(guest, seqs[1]), Some(&Err(refused)));
    // Who has logged in meanwhile.
    w.set_request(guest, by("bob"));
    w.restart(guest).unwrap();
    w.deliver().unwrap();
    let seq = w.act(guest, put("b", "y")).unwrap();
    w.deliver().unwrap();
    assert_eq!(w.answer(guest, seq), Some(&Ok(())));
    // The room's own client, too.
    assert_eq!(w.room().act(put("c", "z")).unwrap_err().code(), partysync::Code::Unauthorized);
    w.room().connect_own(&by("eve")).unwrap();
    w.room().act(put("c", "z")).unwrap();
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
