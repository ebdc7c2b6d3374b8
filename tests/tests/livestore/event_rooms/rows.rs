//! What becomes of rows: events of others that come before, code that has changed, what is refused.

use super::{Item, ItemAction, ItemEvent, Items, Node, World, created};
use crate::harness::{STORE, event, request};
use partysync::livestore::EventRoom;
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::{Code, Protocol, Record};
use serde_json::{Value as Json, json};

#[test]
fn an_action_becomes_an_event_rows_and_a_push_and_rows_of_others() {
    let mut world = World::new(2);
    world.settle();
    world.nodes[0].create("a");
    assert_eq!(world.nodes[0].ids(), ["a"]);
    assert_eq!(world.nodes[0].pending().0, 1);
    world.settle();
    assert_eq!(world.nodes[1].ids(), ["a"]);
    let log = world.log();
    let args = json!({"id": "a", "text": "of n0"});
    assert_eq!(log, [("v1.Created".to_owned(), args, "client of n0-0".to_owned())]);
    world.check();
}

#[test]
fn events_of_others_come_before_those_that_are_not_pushed_yet() {
    let mut world = World::new(1);
    world.settle();
    world.foreign(&[created("a"), created("b"), ItemEvent::Placed { id: "b".into(), place: 1 }]);
    world.settle();
    // Meanwhile, on both sides.
    let node = &mut world.nodes[0];
    node.act(&ItemEvent::Renamed { id: "a".into(), text: "own".into() }).unwrap();
    node.act(&ItemEvent::Placed { id: "a".into(), place: 1 }).unwrap();
    node.act(&ItemEvent::Moved { id: "a".into(), to: "c".into() }).unwrap();
    assert_eq!(node.ids(), ["c"]);
    world.foreign(&[
        ItemEvent::Renamed { id: "a".into(), text: "foreign".into() },
        ItemEvent::Renamed { id: "b".into(), text: "renamed".into() },
        ItemEvent::Placed { id: "b".into(), place: 2 },
    ]);
    world.settle();
    let item = |id: &str, text: &str, place| Item { id: id.into(), text: text.into(), place };
    assert_eq!(world.nodes[0].rows(), [item("b", "renamed", Some(2)), item("c", "own", Some(1))]);
    world.check();
    let names: Vec<_> = world.log().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names[6..], ["v1.Renamed", "v1.Placed", "v1.Moved"]);
}

#[test]
fn rows_that_have_changed_something_unique_between_them_are_made_anew() {
    let mut world = World::new(1);
    let placed = |id: &str, place| ItemEvent::Placed { id: id.into(), place };
    world.foreign(&[created("a"), created("b"), placed("a", 1), placed("b", 2)]);
    world.settle();
    let swapped = ItemEvent::Swapped { id: "a".into(), with: "b".into() };
    world.nodes[0].act(&swapped).unwrap();
    world.foreign(&[created("c")]);
    world.settle();
    assert_eq!(world.nodes[0].rows()[0].place, Some(2));
    world.check();
}

#[test]
fn what_a_materializer_refuses_is_not_committed_and_has_no_effect_where_others_have() {
    let mut world = World::new(1);
    world.settle();
    let refused = ItemEvent::Refused { half: "half".into() };
    let error = world.nodes[0].act(&refused).unwrap_err();
    assert_eq!(error.code(), Code::Rejected);
    assert_eq!((world.nodes[0].ids().len(), world.nodes[0].pending().0), (0, 0));
    world.foreign(&[refused, created("a")]);
    let payload = json!({"storeId": STORE, "batch": [event(3)], "backendId": {"_tag": "None"}});
    world.store.call(&request("p", "Push", payload));
    world.settle();
    assert_eq!(world.nodes[0].ids(), ["a"]);
    let logs = &world.nodes[0].logs;
    assert!(logs.iter().any(|l| l.contains("half way")), "{logs:?}");
    assert!(logs.iter().any(|l| l.contains("`v1.Added`") && l.contains("not know")), "{logs:?}");
}

#[test]
fn an_event_that_not_everybody_could_pull_as_it_is_is_not_committed() {
    let mut world = World::new(1);
    let text = "x".repeat(900_001);
    let error = world.nodes[0].act(&ItemEvent::Renamed { id: "a".into(), text }).unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
    // Nor one that JavaScript would read as another.
    let place = (1 << 53) + 1;
    let error = world.nodes[0].act(&ItemEvent::Placed { id: "a".into(), place }).unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.message().contains("9007199254740993"), "{error}");
}

#[test]
fn what_no_backend_takes_is_not_committed() {
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let mut room = TestRoom::new(EventRoom::of_test(Items::default())).unwrap();
    let args = format!(r#"{{"id":"a","text":{deep}}}"#);
    // The type of the argument refuses it already: one that takes anything is the backend's to refuse.
    let name = "v1.Created".to_owned();
    assert!(room.act(ItemAction::Do { name, args }).is_err());
    let any = serde_json::from_str::<Json>(&deep).unwrap();
    let args = json!({ "any": any }).to_string();
    let name = "v1.Anything".to_owned();
    let error = room.act(ItemAction::Do { name, args }).unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.message().contains("too deep"), "{error}");
}

#[test]
fn another_version_makes_rows_anew_in_parts_and_goes_on_after_a_restart() {
    let (mut world, file) = World::in_file();
    world.settle();
    for n in 0..25 {
        let events: Vec<_> = (0..100).map(|m| created(&format!("{n:02}-{m:02}"))).collect();
        world.foreign(&events);
    }
    world.settle();
    world.nodes[0].create("own");
    world.nodes.clear();
    let newer = Items { version: 1, ..Items::default() };
    world.nodes.push(Node::with("n0", newer, Sqlite::open(file.path()).unwrap()));
    assert!(world.nodes[0].again);
    assert_eq!(world.nodes[0].ids().len(), 1_000, "the first part");
    let error = world.nodes[0].act(&created("too early")).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    world.nodes[0].restart();
    assert_eq!(world.nodes[0].ids().len(), 2_000, "the second part, and not the first again");
    world.settle();
    let rows = world.nodes[0].rows();
    assert_eq!(rows.len(), 2_501);
    assert!(rows.iter().all(|row| row.text.ends_with('!')));
    assert_eq!(world.log().len(), 2_501);
}

#[test]
fn while_rows_are_made_anew_nobody_is_let_in_who_may_not_see_all() {
    let (mut world, file) = World::in_file();
    for n in 0..15 {
        let events: Vec<_> = (0..100).map(|m| created(&format!("{n:02}-{m:02}"))).collect();
        world.foreign(&events);
    }
    world.settle();
    world.nodes.clear();
    let newer = Items { version: 1, hides: true, ..Items::default() };
    world.nodes.push(Node::with("n0", newer, Sqlite::open(file.path()).unwrap()));
    assert!(world.nodes[0].again);
    let hello = json!({"type": "hello", "client": "c", "epoch": null, "channels": [
        {"channel": "items", "since": null, "schema": Item::SCHEMA.hash()}]});
    let join = |world: &mut World, id: &str| {
        let room = &mut world.nodes[0].room;
        room.connect(id, Protocol::V2).unwrap();
        room.frame(id, &hello.to_string()).unwrap()
    };
    let told = |sent: &[(String, String)], what: &str| sent.iter().any(|(_, f)| f.contains(what));
    let sent = join(&mut world, "early");
    assert!(told(&sent, "close ") && !told(&sent, "catch_up"), "{sent:?}");
    world.settle();
    let sent = join(&mut world, "late");
    assert!(!told(&sent, "close ") && told(&sent, "catch_up"), "{sent:?}");
}

#[test]
fn what_is_reset_starts_over_with_what_the_backend_has() {
    let (mut world, file) = World::in_file();
    world.settle();
    world.nodes[0].create("a");
    world.settle();
    world.nodes[0].create("never pushed");
    world.nodes.clear();
    let reset = Items { reset: "again", ..Items::default() };
    world.nodes.push(Node::with("n0", reset, Sqlite::open(file.path()).unwrap()));
    assert_eq!(world.nodes[0].ids(), [""; 0]);
    world.settle();
    assert_eq!(world.nodes[0].ids(), ["a"]);
    assert_eq!(world.log().len(), 1);
}

#[test]
fn a_migration_that_takes_triggers_away_loses_no_undo() {
    let (mut world, file) = World::in_file();
    world.foreign(&[created("a")]);
    world.settle();
    world.nodes.clear();
    // As a migration of the record does.
    let db = Sqlite::open(file.path()).unwrap();
    let sql: &dyn Sql = &db;
    for event in ["insert", "update", "moved", "delete"] {
        sql.exec(&format!("DROP TRIGGER _partysync_undo_items_{event}"), &[]).unwrap();
    }
    drop(db);
    let db = Sqlite::open(file.path()).unwrap();
    world.nodes.push(Node::with("n0", Items::default(), db));
    world.nodes[0].act(&ItemEvent::Moved { id: "a".into(), to: "b".into() }).unwrap();
    world.foreign(&[ItemEvent::Renamed { id: "a".into(), text: "renamed before".into() }]);
    world.settle();
    assert_eq!(world.nodes[0].rows()[0].text, "renamed before");
    world.check();
}

#[test]
fn many_events_of_a_rooms_own_are_made_rows_of_again_in_parts() {
    let mut world = World::new(1);
    world.foreign(&[created("first")]);
    world.settle();
    for n in 0..1_100 {
        world.nodes[0].create(&format!("{n:04}"));
    }
    // One that comes before all of them.
    world.foreign(&[ItemEvent::Renamed { id: "first".into(), text: "renamed".into() }]);
    world.update(true, true);
    assert!(world.nodes[0].again);
    assert_eq!(world.nodes[0].ids().len(), 1 + 1_000, "the first part");
    let error = world.nodes[0].act(&created("too early")).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    world.settle();
    assert_eq!(world.nodes[0].ids().len(), 1 + 1_100);
    assert_eq!(world.log().len(), 2 + 1_100);
    world.check();
}
