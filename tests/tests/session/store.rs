//! Stores that fail, are slow, or hold less than they did; and what others left behind in one.

use super::world::{Disk, World, pairs, put};
use partysync::Code;
use partysync_client::store::{Kept, Store, StoreEvent};
use partysync_client::{Input, Note, Phase};

/// What the store holds of pending actions, as their texts.
fn kept(world: &World) -> Vec<String> {
    let kept = world.store.kept().unwrap();
    let actions = kept.outboxes.values().flat_map(|outbox| outbox.pending.values());
    actions.map(|action| action.action["payload"]["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_action_is_stored_before_it_is_sent_and_shown_before_it_is_stored() {
    let mut world = World::new();
    world.live();
    world.disk = Disk::Slow;
    world.sent.clear();
    world.act(put("a", "1"));
    assert_eq!(world.shown(), pairs(&[("a", "1")]));
    assert_eq!(world.sent, [""; 0]);
    world.store_answers();
    assert_eq!(kept(&world), ["1"]);
    assert!(world.sent[0].contains("push"));
    // A store that never answers is told of, and not waited for for ever.
    world.deliver();
    world.store_answers();
    world.sent.clear();
    world.act(put("a", "2"));
    world.wait(11_000);
    assert_eq!(world.peer.status().warning.unwrap().code(), Code::Store);
    assert!(world.sent.iter().any(|sent| sent.contains("push")), "{:?}", world.sent);
    world.store_answers();
    assert_eq!(world.peer.status().warning, None);
}

#[test]
fn rows_are_shown_before_they_are_stored() {
    let mut world = World::new();
    world.room.act(put("a", "1")).unwrap();
    world.disk = Disk::Slow;
    world.live();
    assert_eq!(world.shown(), pairs(&[("a", "1")]));
    assert!(world.store.kept().unwrap().channels.is_empty());
    world.store_answers();
    assert_eq!(world.store.kept().unwrap().channels["notes"].rows.len(), 1);
}

/// Scenario A of finding C1: actions were stored, then the store failed, and what it lost count
/// of was done.
#[test]
fn a_store_that_failed_makes_nothing_be_done_twice() {
    let mut world = World::new();
    world.act(put("a", "1"));
    assert_eq!(kept(&world), ["1"]);
    world.disk = Disk::Fails;
    world.act(put("a", "2"));
    assert_eq!(world.peer.status().warning.unwrap().code(), Code::Store);
    world.live();
    world.deliver();
    assert_eq!(world.answers().len(), 2);
    assert_eq!((kept(&world), world.room.version()), (vec!["1".to_owned()], 2));
    // Somebody else goes on from there; doing the first one again would undo that.
    world.room.act(put("a", "3")).unwrap();
    world.disk = Disk::Works;
    world.restart();
    assert_eq!(world.shown(), pairs(&[("a", "1")]), "it is pending, as far as the store knows");
    world.live();
    world.deliver();
    assert_eq!((world.room.version(), world.peer.status().pending), (3, 0));
    assert_eq!((world.shown(), kept(&world)), (pairs(&[("a", "3")]), vec![]));
    assert_eq!(world.errors, []);
}

#[test]
fn a_store_that_is_set_back_makes_nothing_be_done_twice() {
    let mut world = World::new();
    world.act(put("a", "1"));
    let copy = world.store.kept().unwrap();
    world.live();
    world.act(put("b", "2"));
    world.deliver();
    assert_eq!(world.room.version(), 2);
    world.store.set_kept(copy).unwrap();
    world.restart();
    world.answers();
    // What it makes now is not taken for what it made then.
    let seq = world.act(put("b", "3"));
    world.live();
    world.deliver();
    assert_eq!(world.answers(), [(seq, Ok(()))]);
    assert_eq!(world.stored(), pairs(&[("a", "1"), ("b", "3")]));
    assert_eq!(world.room.version(), 3);
}

#[test]
fn a_store_that_failed_is_opened_again_and_given_all() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "answered"));
    world.deliver();
    world.cut();
    world.disk = Disk::Fails;
    world.act(put("b", "1"));
    world.wait(10_000);
    world.act(put("c", "2"));
    assert_eq!(kept(&world), [""; 0]);
    let mark = world.peer.mark();
    world.disk = Disk::Works;
    // A connection that is tried meanwhile changes nothing about it.
    while world.peer.status().warning.is_some() {
        let due = world.peer.timeout().expect("it is tried again");
        world.wait(due.saturating_sub(world.now.monotonic));
        if world.phase() == Phase::Connecting {
            world.cut();
        }
    }
    assert!(world.peer.is_stored(mark));
    assert_eq!(kept(&world), ["1", "2"]);
    assert_eq!(world.store.kept().unwrap().channels["notes"].rows.len(), 1);
    // It works from here on.
    world.act(put("d", "3"));
    assert_eq!(kept(&world), ["1", "2", "3"]);
}

#[test]
fn a_store_that_cannot_be_opened_at_first_is_opened_later_with_what_it_holds() {
    let mut world = World::new();
    world.act(put("a", "from before"));
    world.restart();
    world.act(put("b", "from before, too"));
    world.disk = Disk::Fails;
    world.restart();
    assert_eq!(world.shown(), []);
    world.act(put("c", "now"));
    world.live();
    world.deliver();
    world.disk = Disk::Works;
    world.wait(1_000);
    world.deliver();
    assert_eq!(
        world.stored(),
        pairs(&[("a", "from before"), ("b", "from before, too"), ("c", "now")])
    );
    assert_eq!((world.shown(), kept(&world)), (world.stored(), vec![]));
}

#[test]
fn what_a_client_left_behind_is_done_once_and_before_what_is_made_now() {
    let mut world = World::new();
    world.live();
    world.act(put("a", "sent"));
    // The room has done it, and the answer is lost.
    world.cut();
    world.act(put("b", "refuse"));
    world.act(put("c", "left behind"));
    world.restart();
    assert_eq!(world.shown(), pairs(&[("a", "sent"), ("b", "refuse"), ("c", "left behind")]));
    assert_eq!(world.peer.status().pending, 3);
    let seq = world.act(put("c", "now"));
    world.sent.clear();
    world.live();
    world.deliver();
    assert_eq!(world.stored(), pairs(&[("a", "sent"), ("c", "now")]));
    assert_eq!((world.shown(), world.room.version()), (world.stored(), 3));
    // Whoever made it is gone: its rejection is told to all.
    assert_eq!(world.errors.iter().map(|e| e.code()).collect::<Vec<_>>(), [Code::Rejected]);
    assert_eq!(world.answers(), [(seq, Ok(()))]);
    assert_eq!(world.store.kept().unwrap().outboxes, Kept::default().outboxes);
}

#[test]
fn what_another_living_client_makes_is_shown_until_the_rows_hold_it() {
    let mut world = World::new();
    let mut other = World::new();
    other.restart();
    world.live();
    other.act(put("a", "theirs"));
    other.act(put("b", "refuse"));
    for note in std::mem::take(&mut other.notes) {
        world.handle(Input::Store(StoreEvent::Note(note)));
    }
    assert_eq!(world.shown(), pairs(&[("a", "theirs"), ("b", "refuse")]));
    assert!(world.is_pending("a"));
    // It is theirs to send, and theirs to wait for.
    assert_eq!((world.peer.status().pending, world.peer.replica().pending_elsewhere()), (0, 2));
    assert!(!world.sent.iter().any(|sent| sent.contains("push")));
    let client = other.peer.replica().client().to_owned();
    let answered =
        |seq, held_by| Note::Answered { client: client.clone(), seqs: vec![seq], held_by };
    let epoch = world.peer.replica().epoch().unwrap().to_owned();
    let notes = [answered(1, Some((epoch, 1))), answered(2, None)];
    for note in notes {
        world.handle(Input::Store(StoreEvent::Note(note)));
    }
    assert_eq!(world.shown(), pairs(&[("a", "theirs")]), "the rows do not hold it yet");
    world.receive(
        r#"{"type":"patch","from":0,"to":1,"changes":[{"channel":"notes","rows":[["a","theirs"]],"gone":[]}]}"#,
    );
    assert_eq!(world.shown(), pairs(&[("a", "theirs")]));
    assert!(!world.is_pending("a"));
}

#[test]
fn deleting_what_is_kept_ends_the_clients_that_use_it() {
    let mut world = World::new();
    world.live();
    let other = world.store.clone();
    drop(other.delete());
    world.handle(Input::Store(StoreEvent::Deleted));
    assert_eq!(world.phase(), Phase::Closed);
    let closed = world.peer.act(put("a", "1"), world.now).unwrap_err();
    assert_eq!(closed.code(), Code::Closed);
}

#[test]
fn an_action_that_no_room_would_read_is_refused_at_once() {
    let mut world = World::new();
    let large = "x".repeat(2 << 20);
    let error = world.peer.act(put("a", &large), world.now).unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
    assert_eq!((world.shown(), world.peer.status().pending), (vec![], 0));
}

#[test]
fn what_is_on_its_way_to_the_store_when_a_client_is_closed_still_gets_there() {
    let mut world = World::new();
    world.disk = Disk::Slow;
    world.act(put("a", "1"));
    world.act(put("b", "2"));
    world.peer.close();
    assert!(!world.peer.is_done());
    world.store_answers();
    assert!(world.peer.is_done());
    assert_eq!(kept(&world), ["1", "2"]);
    // Not when it was closed because what is kept was deleted.
    let mut world = World::new();
    world.disk = Disk::Slow;
    world.act(put("a", "1"));
    world.act(put("b", "2"));
    world.handle(Input::Store(StoreEvent::Deleted));
    world.disk = Disk::Works;
    world.store_answers();
    assert!(world.peer.is_done() && !kept(&world).contains(&"2".to_owned()));
}

#[test]
fn a_client_that_is_closed_does_not_wait_for_ever_for_a_store_that_hangs() {
    let mut world = World::new();
    world.disk = Disk::Slow;
    world.act(put("a", "1"));
    world.peer.close();
    assert!(!world.peer.is_done());
    let due = world.peer.timeout().expect("it is waited for, for a while");
    world.now.monotonic = due;
    world.handle(Input::Time);
    // Nothing rings again and again.
    assert_eq!((world.peer.is_done(), world.peer.timeout()), (true, None));
}
