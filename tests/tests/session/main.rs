//! The client's machine against a real room, with the network in between under the test's control: what
//! is sent when, what is resent, what is shown meanwhile.

mod lost;
mod store;
mod world;

use partysync::{Code, Error};
use partysync_client::store::Saved;
use partysync_client::{Cause, Changed, Input, Now, Peer, Phase, Timing};
use world::{NoteAction, World, pairs, put};

#[test]
fn an_action_is_shown_at_once_and_confirmed_in_one_step() {
    let mut world = World::new();
    world.live();
    let seq = world.act(put("a", "one"));
    assert_eq!(world.shown(), pairs(&[("a", "one")]));
    assert!(world.is_pending("a"));
    world.deliver();
    assert_eq!(world.answers(), [(seq, Ok(()))]);
    assert!(!world.is_pending("a"));
    assert_eq!(world.shown(), world.stored());
}

#[test]
fn a_rejected_action_goes_back_and_its_caller_hears_why() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "good"));
    world.deliver();
    world.answers();
    let seq = world.act(put("a", "refuse"));
    assert_eq!(world.shown(), pairs(&[("a", "refuse")]));
    world.deliver();
    assert_eq!(world.answers(), [(seq, Err(Error::reject("refused")))]);
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
    assert_eq!(world.peer.replica().pending(), 0);
}

#[test]
fn actions_made_offline_are_sent_when_the_connection_is_back() {
    let mut world = World::new();
    world.act(put("a", "before the first connection"));
    world.live();
    world.deliver();
    world.cut();
    assert!(matches!(world.phase(), Phase::Offline { .. }));
    world.act(put("b", "offline"));
    world.act(NoteAction::Delete { id: "a".into() });
    assert_eq!(world.shown(), pairs(&[("b", "offline")]));
    assert_eq!(world.peer.status().pending, 2);
    world.reconnect();
    world.deliver();
    assert_eq!(world.stored(), pairs(&[("b", "offline")]));
    assert_eq!(world.peer.status().pending, 0);
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
    assert_eq!(world.answers().len(), 1);
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
    assert_eq!(world.answers(), [(seq, Err(Error::reject("refused")))]);
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
    world.receive(patch);
    assert!(matches!(world.phase(), Phase::Offline { .. }));
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
    world.changes.clear();
    for frame in twice {
        world.receive(&frame);
    }
    assert_eq!(world.phase(), Phase::Live);
    assert!(world.changes.is_empty());
    assert_eq!(world.shown(), world.stored());
}

#[test]
fn waits_between_attempts_double_and_differ_between_clients() {
    let waits = |random| {
        let mut now = Now::default();
        let mut peer = Peer::<NoteAction>::new([random, 1], Timing::default(), now);
        peer.handle(Input::Opened(Ok(Saved::default())), now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            peer.handle(Input::Disconnected(Cause::gone()), now);
            let at = peer.timeout().unwrap();
            waits.push(at - now.monotonic);
            now.monotonic = at;
            peer.handle(Input::Time, now);
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
    world.wait(60_000);
    assert_eq!(world.phase(), Phase::Connecting);
    world.live();
    world.deliver();
    assert_eq!(world.shown(), world.stored());
    // A quiet connection is pinged, and given up when there is no pong.
    world.sent.clear();
    world.wait(20_000);
    assert_eq!(world.sent, ["ping"]);
    world.deliver();
    assert_eq!(world.phase(), Phase::Live);
    world.wait(20_000);
    world.frames.clear();
    let connects = world.connects;
    world.wait(60_000);
    // So is a socket that never opens.
    assert_eq!((world.phase(), world.connects), (Phase::Connecting, connects + 1));
    world.wait(20_000);
    assert_eq!(world.connects, connects + 2);
}

#[test]
fn a_page_that_slept_asks_before_it_lets_go_of_its_connection() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "1"));
    // An hour passes before a timer rings; what came meanwhile is still to be read.
    world.sleep(60 * 60 * 1000);
    assert_eq!(world.phase(), Phase::Live);
    world.deliver();
    assert_eq!((world.phase(), world.answers().len()), (Phase::Live, 1));
    // A second time nothing was heard in between.
    world.sleep(60 * 60 * 1000);
    assert_eq!(world.phase(), Phase::Live);
    world.frames.clear();
    world.sleep(60 * 60 * 1000);
    assert!(matches!(world.phase(), Phase::Offline { .. }), "{:?}", world.phase());
}

#[test]
fn a_refusal_is_final_until_the_user_asks_again() {
    for (code, expected) in [(4409, Code::SchemaMismatch), (4403, Code::Forbidden)] {
        let mut world = World::new();
        world.live();
        world.close(code, "no");
        let Phase::Refused(error) = world.phase() else { panic!("{:?}", world.peer.status()) };
        assert_eq!(error.code(), expected);
        assert_eq!(world.peer.timeout(), None);
        world.act(put("a", "kept"));
        world.peer.reconnect(world.now);
        world.outputs();
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
        world.receive(nonsense);
        assert_eq!(world.errors.len(), 1);
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
    world.changes.clear();
    world.act(put("a", "2"));
    let keys = |world: &mut World| -> Vec<String> {
        let changes = std::mem::take(&mut world.changes);
        let keys = changes.into_values().flat_map(|changed| match changed {
            Changed::Keys(keys) => keys,
            Changed::All => panic!("all"),
        });
        keys.map(|key| key.to_string()).collect()
    };
    assert_eq!(keys(&mut world), ["a"]);
    world.deliver();
    // It was pending, and is not any more.
    assert_eq!(keys(&mut world), ["a"]);
    world.act(NoteAction::Delete { id: "nobody".into() });
    world.deliver();
    assert_eq!(keys(&mut world), Vec::<String>::new());
}

/// A server that dies of an action each time that it is pushed, until this much time has passed.
fn dies_of(world: &mut World, millis: u64) {
    let end = world.now.monotonic + millis;
    while world.now.monotonic < end {
        world.deliver();
        world.wait(60_000);
        if world.phase() == Phase::Connecting {
            world.open();
        }
    }
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
    world.answers();
    dies_of(&mut world, 59 * 60 * 1000);
    assert!(world.is_pending("a") && world.is_pending("b"), "given up too early");
    dies_of(&mut world, 3 * 60 * 1000);
    world.deliver();
    let answers = world.answers();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0].0, deadly);
    assert_eq!(answers[0].1.as_ref().unwrap_err().code(), Code::Abandoned);
    assert_eq!(answers[1], (good, Ok(())));
    assert_eq!(world.shown(), pairs(&[("b", "good"), ("z", "first")]));
    assert_eq!(world.stored(), world.shown());

    // It is kept, over a restart too, until somebody says what is to become of it.
    world.restart();
    let abandoned: Vec<_> = world.peer.abandoned().keys().cloned().collect();
    assert_eq!((abandoned.len(), world.peer.status().abandoned), (1, 1));
    world.poison = None;
    let retried = world.peer.retry(&abandoned[0], world.now).unwrap();
    world.outputs();
    assert_eq!(world.shown()[0], ("a".into(), "deadly".into()));
    world.live();
    world.deliver();
    assert_eq!(world.answers(), [(retried, Ok(()))]);
    world.restart();
    assert!(world.peer.abandoned().is_empty());
    assert_eq!(world.peer.retry("nothing", world.now).unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_minute_in_which_the_server_fails_costs_nothing() {
    let mut world = World::new();
    world.live();
    for n in 0..100 {
        world.act(put(&format!("{n:03}"), "x"));
    }
    let end = world.now.monotonic + 60_000;
    while world.now.monotonic < end {
        world.close(1011, "internal");
        world.wait(60_000);
        world.open();
        let pushed = world.sent.len();
        // What it answers to a push is that it failed.
        world.deliver();
        assert!(world.sent.len() >= pushed);
    }
    world.deliver();
    assert_eq!(world.peer.abandoned().len(), 0);
    assert_eq!((world.peer.status().pending, world.stored().len()), (0, 100));
    assert!(world.answers().iter().all(|(_, answer)| answer.is_ok()));
}

#[test]
fn an_action_that_the_server_wants_later_is_never_given_up_and_asked_about_less_and_less() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "not now"));
    let mut waits = Vec::new();
    world.deliver();
    for _ in 0..20 {
        let Phase::Offline { retry_at, error } = world.phase() else {
            panic!("{:?}", world.peer.status());
        };
        assert_eq!(error.message(), "unavailable");
        waits.push(retry_at.as_millis() - world.now.wall.as_millis());
        world.wait(60_000);
        world.open();
        world.deliver();
    }
    assert!(world.is_pending("a"));
    assert_eq!(world.answers(), []);
    assert!(waits.last() > Some(&5_000), "{waits:?}");
}

#[test]
fn an_action_that_was_done_after_all_is_not_given_up() {
    let mut world = World::new();
    world.live();
    let seq = world.act(put("a", "done"));
    // Each time the room answers, and each time the answer is lost.
    world.frames.clear();
    world.loses = Some(r#""acks":[{"#);
    let end = world.now.monotonic + 2 * 60 * 60 * 1000;
    while world.now.monotonic < end {
        world.deliver();
        world.wait(60_000);
        if world.phase() == Phase::Connecting {
            world.open();
        }
    }
    assert!(world.sent.iter().any(|sent| sent.contains(r#""action":null"#)));
    world.loses = None;
    while world.answers.is_empty() {
        world.deliver();
        world.wait(60_000);
        if world.phase() == Phase::Connecting {
            world.open();
        }
    }
    assert_eq!(world.answers(), [(seq, Ok(()))]);
    assert_eq!(world.stored(), pairs(&[("a", "done")]));
}

const DAYS: i64 = 24 * 60 * 60 * 1000;

#[test]
fn what_was_sent_so_long_ago_that_the_room_forgot_is_told_and_not_done_twice() {
    let mut world = World::new();
    world.live();
    let sent = world.act(put("a", "sent"));
    // The room has done it; the answer is lost, and the client is away for long.
    world.cut();
    let never_sent = world.act(put("b", "never sent"));
    world.room.advance_millis(91 * DAYS);
    world.room.alarm().unwrap();
    let version = world.room.version();
    world.now.wall = world.now.wall.plus_millis(91 * DAYS);

    world.wait(60_000);
    world.live();
    world.deliver();
    let answers = world.answers();
    assert_eq!(answers[0].0, sent);
    assert_eq!(answers[0].1.as_ref().unwrap_err().code(), Code::ClientForgotten);
    assert_eq!(answers[1..], [(never_sent, Ok(()))]);
    assert_eq!(world.room.version(), version + 1);
    assert_eq!(world.shown(), pairs(&[("a", "sent"), ("b", "never sent")]));
    // The user may look at it and decide.
    let abandoned: Vec<_> = world.peer.abandoned().values().cloned().collect();
    assert_eq!(abandoned[0].action["payload"]["text"], "sent");
}

#[test]
fn what_never_arrived_is_sent_again_after_weeks() {
    let mut world = World::new();
    world.live();
    world.poison = Some("put");
    let seq = world.act(put("a", "never arrived"));
    world.cut();
    world.poison = None;
    world.now.wall = world.now.wall.plus_millis(30 * DAYS);
    world.wait(60_000);
    world.live();
    world.deliver();
    assert_eq!(world.answers(), [(seq, Ok(()))]);
}

#[test]
fn a_reducer_that_panics_leaves_everything_as_it_was() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "1"));
    world.deliver();
    let panics = std::panic::AssertUnwindSafe(|| world.act(NoteAction::Panic));
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!((world.shown(), world.peer.status().pending), (pairs(&[("a", "1")]), 0));
    // The next one has the seq that this one did not take.
    let seq = world.act(put("b", "3"));
    world.deliver();
    assert_eq!(seq, 2);
    assert_eq!(world.stored(), pairs(&[("a", "1"), ("b", "3")]));
}

#[test]
fn progress_goes_on_over_all_channels() {
    let mut peer = Peer::<lab_shared::LabAction>::new([1, 2], Timing::default(), Now::default());
    peer.handle(Input::Opened(Ok(Saved::default())), Now::default());
    peer.handle(Input::Connected, Now::default());
    let mut frame = |text: &str| {
        peer.handle(Input::Frame(text), Now::default());
        peer.status().phase
    };
    frame(r#"{"type":"welcome","epoch":"e","version":9,"connection":"c","now":0}"#);
    let page = |channel, rows: &str, sent, total, more| {
        format!(
            r#"{{"type":"catch_up","channel":"{channel}","from":null,"to":9,"rows":[{rows}],"gone":[],"sent":{sent},"total":{total},"more":{more}}}"#
        )
    };
    let at = |received, total| Phase::CatchingUp { received, total };
    let note = |number| format!(r#"[{number},"text"]"#);
    assert_eq!(frame(&page("notes", &note(1), 1, 2, true)), at(1, 2));
    assert_eq!(frame(&page("notes", &note(2), 2, 2, false)), at(2, 2));
    let item = r#"["id",1,1,null,"very_high",[],null,1,1,null]"#;
    assert_eq!(frame(&page("items", item, 1, 3, true)), at(3, 5));
}

#[test]
fn a_server_that_lets_a_client_in_and_closes_is_asked_less_and_less() {
    for code in [1006, 1011, 4401] {
        let mut world = World::new();
        let mut waits = Vec::new();
        for _ in 0..10 {
            world.live();
            world.close(code, "");
            let Phase::Offline { retry_at, .. } = world.phase() else { panic!("{code}") };
            waits.push(retry_at.as_millis() - world.now.wall.as_millis());
            world.wait(60_000);
        }
        assert!(waits.last() > Some(&5_000), "{code}: {waits:?}");
        // One that is there for a while is well again.
        world.live();
        world.wait(15_000);
        world.close(code, "");
        let Phase::Offline { retry_at, .. } = world.phase() else { panic!("{code}") };
        assert!(retry_at.as_millis() - world.now.wall.as_millis() <= 250);
    }
}
