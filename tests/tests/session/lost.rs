//! What is lost on the way: frames on a connection that lives on.

use super::world::{World, pairs, put};
use partysync::Code;
use partysync_client::Phase;

#[test]
fn rows_without_a_welcome_are_not_believed() {
    let mut world = World::new();
    world.open();
    assert!(world.frames.remove(0).contains("welcome"));
    world.deliver();
    assert!(matches!(world.phase(), Phase::Offline { .. }));
    assert_eq!(world.errors[0].code(), Code::InvalidFrame);
    world.reconnect();
    assert_eq!(world.peer.replica().epoch(), Some("epoch"));
}

#[test]
fn a_reset_that_is_lost_behind_its_welcome_is_not_missed() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "of the old epoch"));
    world.deliver();
    let since = |world: &World| world.peer.replica().version("notes");
    assert_eq!(since(&world), Some(1));
    world.cut();
    world.wait(60_000);
    world.open();
    world.frames.truncate(1);
    world.frames[0] = world.frames[0].replace(r#""epoch":"epoch""#, r#""epoch":"another""#);
    world.deliver();
    world.cut();
    assert_eq!((world.peer.replica().epoch(), since(&world)), (Some("another"), None));
    // What it showed it goes on showing until there is something better.
    assert_eq!(world.shown(), pairs(&[("a", "of the old epoch")]));
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
    world.sent.clear();
    world.receive(&patch(1, 200_000));
    assert_eq!(world.sent, [""; 0]);
    world.receive(&patch(2, 100_000));
    let [read] = &world.sent[..] else { panic!("{:?}", world.sent) };
    assert!(read.starts_with(r#"{"type":"read","bytes":300"#), "{read}");
}
