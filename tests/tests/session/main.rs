//! The session against a real room, with the network in between under the test's control: what
//! is sent when, what is resent, what is shown meanwhile.

mod lost;
mod world;

use partysync::{Code, Error, Timestamp};
use partysync_client::{Phase, Replica, Session, Timing};
use world::{NoteAction, World, pairs, put};

#[test]
fn an_action_is_shown_at_once_and_confirmed_in_one_step() {
    let mut world = World::new();
    world.live();
    let seq = world.act(put("a", "one"));
    assert_eq!(world.shown(), pairs(&[("a", "one")]));
    assert!(world.is_pending("a"));
    world.deliver();
    assert_eq!(world.session.take_answers(), [(seq, Ok(()))]);
    assert!(!world.is_pending("a"));
    assert_eq!(world.shown(), world.stored());
}

#[test]
fn a_rejected_action_goes_back_and_its_caller_hears_why() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "good"));
    world.deliver();
    world.session.take_answers();
    let seq = world.act(put("a", "refuse"));
    assert_eq!(world.shown(), pairs(&[("a", "refuse")]));
    world.deliver();
    assert_eq!(world.session.take_answers(), [(seq, Err(Error::reject("refused")))]);
    assert_eq!(world.shown(), pairs(&[("a", "good")]));
}

#[test]
fn what_is_made_while_a_push_is_under_way_goes_in_one_frame() {
    let mut world = World::new();
    world.live();
    world.sent.clear();
    for n in 0..10 {
        world.act(put(&n.to_string(), "x"));
    }
    let pushes = |world: &World| world.sent.iter().filter(|sent| sent.contains("push")).count();
    assert_eq!(pushes(&world), 1);
    world.deliver();
    assert_eq!(pushes(&world), 2);
    assert_eq!(world.stored().len(), 10);
    assert_eq!(world.session.replica().pending(), 0);
}

#[test]
fn actions_made_offline_are_sent_when_the_connection_is_back() {
    let mut world = World::new();
    world.act(put("a", "before the first connection"));
    world.live();
    world.deliver();
    world.cut();
    assert!(matches!(world.session.status().phase, Phase::Offline { .. }));
    world.act(put("b", "offline"));
    world.act(NoteAction::Delete { id: "a".into() });
    assert_eq!(world.shown(), pairs(&[("b", "offline")]));
    assert_eq!(world.session.status().pending, 2);
    world.reconnect();
    world.deliver();
    assert_eq!(world.stored(), pairs(&[("b", "offline")]));
    assert_eq!(world.session.status().pending, 0);
}

#[test]
fn an_action_whose_answer_was_lost_is_resent_and_done_once() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "once"));
    // The room has done it; its answer is lost on the way.
    let version = world.room.version();
    world.cut();
    // Another client goes on from there: doing it twice would undo that.
    world.room.act(put("a", "later")).unwrap();
    world.reconnect();
    world.deliver();
    assert_eq!(world.session.take_answers().len(), 1);
    assert_eq!(world.room.version(), version + 1);
    assert_eq!(world.shown(), pairs(&[("a", "later")]));
}

#[test]
fn a_rejection_that_was_lost_is_heard_again() {
    let mut world = World::new();
    world.live();
    let seq = world.act(put("a", "refuse"));
    world.cut();
    world.reconnect();
    world.deliver();
    assert_eq!(world.session.take_answers(), [(seq, Err(Error::reject("refused")))]);
    assert_eq!(world.shown(), []);
}

#[test]
fn catching_up_costs_what_changed() {
    let mut world = World::new();
    world.live();
    for n in 0..50 {
        world.room.act(put(&format!("{n:02}"), "x")).unwrap();
    }
    // Only this client's own frames arrive here: it reads the rest on its next connection.
    world.cut();
    world.reconnect();
    assert_eq!(world.shown().len(), 50);
    world.cut();
    world.room.act(NoteAction::Delete { id: "07".into() }).unwrap();
    world.room.act(put("08", "y")).unwrap();
    world.wait(60_000);
    world.open();
    let page = world.frames.iter().find(|frame| frame.contains("catch_up")).unwrap().clone();
    assert!(page.contains(r#""rows":[["08","y"]],"gone":["07"]"#), "{page}");
    world.deliver();
    assert_eq!(world.shown(), world.stored());
}

#[test]
fn a_lost_frame_is_noticed_and_made_good() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "1"));
    world.frames.clear();
    world.room.act(put("b", "from elsewhere")).unwrap();
    // A patch that does not go on from here.
    let patch = r#"{"type":"patch","from":5,"to":6,"changes":[],"acks":[],"more":false}"#;
    world.session.received(patch, world.now);
    world.effects();
    assert!(matches!(world.session.status().phase, Phase::Offline { .. }));
    world.reconnect();
    world.deliver();
    assert_eq!(world.shown(), world.stored());
}

#[test]
fn a_frame_that_comes_twice_changes_nothing() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "1"));
    let twice = world.frames.clone();
    world.deliver();
    world.session.take_changes();
    for frame in twice {
        world.session.received(&frame, world.now);
    }
    assert_eq!(world.session.status().phase, Phase::Live);
    assert!(world.session.take_changes().is_empty());
    assert_eq!(world.shown(), world.stored());
}

#[test]
fn waits_between_attempts_double_and_differ_between_clients() {
    let waits = |seed| {
        let mut now = Timestamp::from_millis(0);
        let mut session =
            Session::new(Replica::<NoteAction>::new("c"), Timing::default(), seed, now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            session.closed(1006, "", now);
            let at = session.wake_at().unwrap();
            waits.push(at.as_millis() - now.as_millis());
            now = at;
            session.tick(now);
        }
        waits
    };
    let one = waits(1);
    assert_ne!(one, waits(2));
    let longest = [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000, 15_000];
    for (wait, longest) in one.iter().zip(longest) {
        assert!((longest / 2..=longest).contains(wait), "{wait} of {longest}");
    }
}

#[test]
fn a_silent_server_is_given_up_and_asked_again() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "1"));
    world.frames.clear();
    world.wait(10_000);
    assert!(matches!(world.session.status().phase, Phase::Offline { .. }));
    world.reconnect();
    world.deliver();
    assert_eq!(world.shown(), world.stored());
    // A quiet connection is pinged, and given up when there is no pong.
    world.sent.clear();
    world.wait(20_000);
    assert_eq!(world.sent, ["ping"]);
    world.deliver();
    assert_eq!(world.session.status().phase, Phase::Live);
    world.wait(20_000);
    world.frames.clear();
    world.wait(10_000);
    assert!(matches!(world.session.status().phase, Phase::Offline { .. }));
    // So is a socket that never opens.
    world.wait(60_000);
    assert_eq!(world.session.status().phase, Phase::Connecting);
    let connects = world.connects;
    world.wait(10_000);
    world.wait(60_000);
    assert_eq!(world.connects, connects + 1);
}

#[test]
fn a_refusal_is_final_until_the_user_asks_again() {
    for (code, expected) in [(4409, Code::SchemaMismatch), (4403, Code::Forbidden)] {
        let mut world = World::new();
        world.live();
        world.session.closed(code, "no", world.now);
        world.effects();
        let Phase::Refused(error) = world.session.status().phase else {
            panic!("{:?}", world.session.status())
        };
        assert_eq!(error.code(), expected);
        assert_eq!(world.session.wake_at(), None);
        world.act(put("a", "kept"));
        world.session.reconnect(world.now);
        world.effects();
        world.live();
        world.deliver();
        assert_eq!(world.stored(), pairs(&[("a", "kept")]));
    }
}

#[test]
fn a_server_that_talks_nonsense_is_left_and_tried_again() {
    for nonsense in [
        "{",
        r#"{"type":"patch"}"#,
        r#"{"type":"catch_up","channel":"nope","from":null,"to":1,"rows":[],"gone":[],"sent":0,"total":0,"more":false}"#,
    ] {
        let mut world = World::new();
        world.live();
        world.session.received(nonsense, world.now);
        assert_eq!(world.session.take_errors().len(), 1);
        world.effects();
        world.reconnect();
    }
}

#[test]
fn only_what_is_shown_otherwise_is_told() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "1"));
    world.act(put("b", "1"));
    world.deliver();
    world.session.take_changes();
    world.act(put("a", "2"));
    let keys = |world: &mut World| -> Vec<String> {
        let changes = world.session.take_changes();
        changes.into_values().flatten().map(|key| key.to_string()).collect()
    };
    assert_eq!(keys(&mut world), ["a"]);
    world.deliver();
    // It was pending, and is not any more.
    assert_eq!(keys(&mut world), ["a"]);
    world.act(NoteAction::Delete { id: "nobody".into() });
    world.deliver();
    assert_eq!(keys(&mut world), Vec::<String>::new());
}

#[test]
fn an_action_that_the_server_cannot_bear_is_given_up_and_the_queue_goes_on() {
    let mut world = World::new();
    world.live();
    world.poison = Some("deadly");
    world.act(put("z", "first"));
    let deadly = world.act(put("a", "deadly"));
    let good = world.act(put("b", "good"));
    world.deliver();
    world.session.take_answers();
    for _ in 0..3 {
        assert!(world.is_pending("a") && world.is_pending("b"));
        world.deliver();
        world.wait(10_000);
        assert!(matches!(world.session.status().phase, Phase::Offline { .. }));
        world.reconnect();
    }
    world.deliver();
    let answers = world.session.take_answers();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0].0, deadly);
    assert_eq!(answers[0].1.as_ref().unwrap_err().code(), Code::Abandoned);
    assert_eq!(answers[1], (good, Ok(())));
    assert_eq!(world.shown(), pairs(&[("b", "good"), ("z", "first")]));
    assert_eq!(world.stored(), world.shown());
}

#[test]
fn an_action_that_the_server_wants_later_is_never_given_up_and_asked_about_less_and_less() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "not now"));
    let mut waits = Vec::new();
    world.deliver();
    for _ in 0..20 {
        let Phase::Offline { retry_at } = world.session.status().phase else {
            panic!("{:?}", world.session.status());
        };
        waits.push(retry_at.as_millis() - world.now.as_millis());
        world.wait(60_000);
        world.open();
        world.deliver();
    }
    assert!(world.is_pending("a"));
    assert_eq!(world.session.take_answers(), []);
    assert!(waits.last() > Some(&5_000), "{waits:?}");
}

#[test]
fn an_action_that_was_done_after_all_is_not_given_up() {
    let mut world = World::new();
    world.live();
    let seq = world.act(put("a", "done"));
    // Each time the room answers, and each time the answer is lost.
    for _ in 0..3 {
        world.frames.retain(|frame| frame == "pong");
        world.deliver();
        world.wait(10_000);
        world.wait(60_000);
        world.open();
        let answers = std::mem::take(&mut world.frames);
        for frame in answers.into_iter().filter(|frame| !frame.contains(r#""acks":[{"#)) {
            world.session.received(&frame, world.now);
            world.effects();
        }
    }
    assert!(world.sent.iter().any(|sent| sent.contains(r#""action":null"#)));
    world.deliver();
    assert_eq!(world.session.take_answers(), [(seq, Ok(()))]);
    assert_eq!(world.stored(), pairs(&[("a", "done")]));
}

#[test]
fn a_client_that_was_forgotten_is_told_so_and_does_nothing_twice() {
    const DAYS: i64 = 24 * 60 * 60 * 1000;
    let mut world = World::new();
    world.live();
    let sent = world.act(put("a", "sent"));
    // The room has done it; the answer is lost, and the client is away for long.
    world.cut();
    let never_sent = world.act(put("b", "never sent"));
    let id = world.session.replica().client().to_owned();
    world.room.advance_millis(91 * DAYS);
    world.room.alarm().unwrap();
    let version = world.room.version();

    world.wait(60_000);
    world.open();
    world.deliver();
    let answers = world.session.take_answers();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, sent);
    assert_eq!(answers[0].1.as_ref().unwrap_err().code(), Code::ClientForgotten);
    assert_ne!(world.session.replica().client(), id);
    world.live();
    world.deliver();
    assert_eq!(world.session.take_answers(), [(never_sent, Ok(()))]);
    assert_eq!(world.room.version(), version + 1);
    assert_eq!(world.shown(), pairs(&[("a", "sent"), ("b", "never sent")]));
}
