//! What is lost on the way: frames on a connection that lives on, and what a store held.

use super::world::{NoteAction, World, pairs, put};
use partysync::Code;
use partysync_client::{Effect, Phase, Replica, Session, Timing};

#[test]
fn rows_without_a_welcome_are_not_believed() {
    let mut world = World::new();
    world.open();
    assert!(world.frames.remove(0).contains("welcome"));
    world.deliver();
    assert!(matches!(world.session.status().phase, Phase::Offline { .. }));
    assert_eq!(world.session.take_errors()[0].code(), Code::InvalidFrame);
    world.reconnect();
    assert_eq!(world.session.replica().epoch(), Some("epoch"));
}

#[test]
fn a_reset_that_is_lost_behind_its_welcome_is_not_missed() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "of the old epoch"));
    world.deliver();
    let since = |world: &World| world.session.replica().subscriptions()[0].since;
    assert_eq!(since(&world), Some(1));
    world.cut();
    world.wait(60_000);
    world.open();
    world.frames.truncate(1);
    world.frames[0] = world.frames[0].replace(r#""epoch":"epoch""#, r#""epoch":"another""#);
    world.deliver();
    world.cut();
    assert_eq!((world.session.replica().epoch(), since(&world)), (Some("another"), None));
    // What it showed it goes on showing until there is something better.
    assert_eq!(world.shown(), pairs(&[("a", "of the old epoch")]));
}

#[test]
fn a_client_whose_store_was_set_back_does_not_take_old_answers_for_its_own() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "one"));
    world.act(put("a", "two"));
    world.deliver();
    // The program starts anew from a store that had kept nothing but its id.
    world.cut_server();
    world.session = Session::new(Replica::new("client"), Timing::default(), 9, world.now);
    world.effects();
    let seq = world.act(put("b", "three"));
    world.open();
    world.deliver();
    assert_ne!(world.session.replica().client(), "client");
    world.live();
    world.deliver();
    assert_eq!(world.session.take_answers(), [(seq, Ok(()))]);
    assert_eq!(world.stored(), pairs(&[("a", "two"), ("b", "three")]));
}

#[test]
fn a_client_says_how_much_it_has_read() {
    let mut world = World::new();
    world.live();
    world.room.act(put("a", &"x".repeat(200_000))).unwrap();
    let patch = |version: u64, size: usize| {
        let (from, text) = (version - 1, "y".repeat(size));
        format!(
            r#"{{"type":"patch","from":{from},"to":{version},"changes":[{{"channel":"notes","rows":[["b","{text}"]],"gone":[]}}],"acks":[],"more":false}}"#
        )
    };
    world.session.take_effects();
    world.session.received(&patch(1, 200_000), world.now);
    assert_eq!(world.session.take_effects(), []);
    world.session.received(&patch(2, 100_000), world.now);
    let [Effect::Send(read)] = &world.session.take_effects()[..] else { panic!("nothing sent") };
    assert!(read.starts_with(r#"{"type":"read","bytes":300"#), "{read}");
}

#[test]
fn a_session_that_follows_no_rows_brings_an_outbox_home() {
    use partysync_client::store::MemoryStore;
    let mut world = World::new();
    world.live();
    // Another client has made two actions; the server has done the first, the answer is lost.
    let store = MemoryStore::new();
    let mut gone = Replica::new("gone");
    gone.act(put("a", "first"), world.now).unwrap();
    gone.act(put("b", "refuse"), world.now).unwrap();
    gone.act(put("c", "third"), world.now).unwrap();
    gone.to_push(0, 1, 1000).unwrap();
    store.write_now("gone", gone.take_writes()).unwrap();
    let first = r#"{"type":"push","actions":[{"seq":1,"channel":"notes","action":{"type":"put","payload":{"id":"a","text":"first"}}}]}"#;
    let hello = r#"{"type":"hello","client":"gone","epoch":null,"channels":[]}"#;
    world.room.connect("gone", partysync::Protocol::V2).unwrap();
    world.room.frame("gone", hello).unwrap();
    let sent = world.room.frame("gone", first).unwrap();
    world.room.disconnect("gone").unwrap();

    let shared = store.clone();
    drop(store);
    let orphan = shared.orphan_now().unwrap().unwrap();
    world.session.adopt(7, &orphan.outbox);
    assert_eq!(world.shown(), pairs(&[("a", "first"), ("b", "refuse"), ("c", "third")]));
    assert_eq!(world.session.status().pending, 3);

    let mut courier =
        Session::<NoteAction>::courier(&orphan.outbox, Timing::default(), 1, world.now);
    courier.take_effects();
    world.room.connect("courier", partysync::Protocol::V2).unwrap();
    courier.opened(world.now);
    let mut to_main = sent;
    loop {
        let effects = courier.take_effects();
        if effects.is_empty() {
            break;
        }
        for effect in effects {
            let Effect::Send(text) = effect else { panic!("{effect:?}") };
            for (to, text) in world.room.frame("courier", &text).unwrap() {
                match to.as_str() {
                    "courier" => courier.received(&text, world.now),
                    _ => to_main.push((to, text)),
                }
            }
        }
    }
    assert_eq!(courier.replica().pending(), 0);
    assert!(world.is_pending("c") && world.is_pending("b"));
    let answers = world.session.hear(7, &mut courier, world.now);
    assert_eq!(
        answers.iter().map(|(seq, a)| (*seq, a.is_ok())).collect::<Vec<_>>(),
        [(1, true), (2, false), (3, true)]
    );
    // What was rejected is gone at once; the rest stays until its rows are here.
    assert_eq!(world.shown(), pairs(&[("a", "first"), ("c", "third")]));
    assert!(world.is_pending("c"));
    assert_eq!(world.session.take_errors()[0].code(), Code::Rejected);
    let socket = world.socket.clone().unwrap();
    for (_, text) in to_main.into_iter().filter(|(to, _)| *to == socket) {
        world.session.received(&text, world.now);
        assert_eq!(world.shown(), pairs(&[("a", "first"), ("c", "third")]), "it flickers");
    }
    assert_eq!(world.session.status().pending, 0);
    assert!(!world.is_pending("c"));
}
