//! What the room says to its backend, and what comes of answers that fail, or are not there.

use super::{Item, ItemAction, ItemEvent, Items, Node, World, created};
use crate::harness::{Plain, STORE, Store};
use partysync::livestore::{EventInput, EventOutput, EventRoom, EventServer, Input};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::{TestBackend, TestRoom};
use partysync::{Error, Handle, Result, Room, SyncServer};
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;

#[test]
fn a_backend_that_was_wiped_is_followed_and_given_what_it_never_had() {
    let mut world = World::new(2);
    world.settle();
    world.nodes[0].create("old");
    world.settle();
    world.nodes[0].create("not pushed");
    let now = std::mem::replace(&mut world.store, Store::another(Plain)).now;
    world.store.now = now;
    world.foreign(&[created("new")]);
    // Who is not told of it asks when it has something to say.
    world.nodes[1].create("of the other");
    world.settle();
    for node in &world.nodes {
        assert_eq!(node.ids(), ["new", "not pushed", "of the other"], "{}", node.name);
    }
    world.check();
}

#[test]
fn a_room_that_is_not_told_of_events_asks_for_them_while_somebody_is_connected() {
    let server = Items { poll_ms: Some(600_000), ..Items::default() };
    let mut world = World::new(0);
    world.nodes.push(Node::with("n0", server, Sqlite::in_memory().unwrap()));
    world.settle();
    world.foreign(&[created("a")]);
    // The backend has lost who follows it.
    world.store.calls.clear();
    let sql: &dyn Sql = &world.store.db;
    sql.exec("DELETE FROM _partysync_subscriber", &[]).unwrap();
    world.store.kill();
    world.advance(300_000);
    world.alarms();
    assert!(world.nodes[0].calls.is_empty());
    world.advance(300_000);
    world.alarms();
    world.settle();
    assert_eq!(world.nodes[0].ids(), ["a"]);
}

/// JavaScript writes half a letter where it has cut a text; by a pull it comes as U+FFFD.
#[test]
fn half_a_letter_is_the_same_by_calls_and_by_pulls() {
    let mut world = World::new(1);
    world.settle();
    let update = r#"{"_tag": "Chunk", "requestId": "0", "values": [{"backendId": "backend-1",
        "batch": [{"eventEncoded": {"name": "v1.Created", "seqNum": 1, "parentSeqNum": 0,
        "args": {"id": "\ud800", "text": "\ud83d\ude00"}, "clientId": "js", "sessionId": "s"}}]}]}"#;
    world.nodes[0].input(EventInput::Update(update.to_owned()));
    let rows = world.nodes[0].rows();
    assert_eq!((rows[0].id.as_str(), rows[0].text.as_str()), ("\u{fffd}", "😀"));
}

#[test]
fn many_own_events_are_pushed_while_others_push() {
    let mut world = World::new(1);
    world.settle();
    for n in 0..3_500 {
        world.nodes[0].create(&format!("{n:04}"));
    }
    // Each time before the rows are made anew, which takes four turns.
    for n in 0..10 {
        world.foreign(&[created(&format!("foreign {n}"))]);
        world.update(true, true);
        for _ in 0..4 {
            world.serve(0, usize::MAX);
            while let Some(answer) = world.nodes[0].answers.pop_front() {
                world.nodes[0].input(answer);
            }
        }
        world.advance(1_000);
    }
    let pushed = world.log().len() - 10;
    assert!(pushed >= 1_000, "{pushed}");
    world.settle();
    assert_eq!(world.log().len(), 3_510);
    world.check();
}

#[test]
fn a_log_that_is_emptied_is_told_to_rooms_that_only_follow() {
    let mut world = World::new(2);
    world.foreign(&[created("a"), created("b")]);
    world.settle();
    world.store.turn(Input::Empty("another".into()));
    assert_eq!(world.store.calls.len(), 2);
    // A call that fails is made again, also in another life of the store.
    world.update(false, false);
    world.store.kill();
    world.advance(60_000);
    world.store.turn(Input::Alarm);
    world.settle();
    assert!(world.nodes.iter().all(|node| node.ids().is_empty()));
    world.foreign(&[created("c")]);
    world.settle();
    assert!(world.nodes.iter().all(|node| node.ids() == ["c"]));
    world.check();
}

#[test]
fn an_applications_tests_have_a_backend_that_is_down_or_wiped_as_one_is() {
    let mut backend = TestBackend::of(STORE).unwrap();
    let mut rooms = [0, 1].map(|_| TestRoom::new(EventRoom::of_test(Items::default())).unwrap());
    let ids = |room: &TestRoom<EventRoom<Items>>| {
        room.rows::<Item>().unwrap().into_iter().map(|item| item.id).collect::<Vec<_>>()
    };
    rooms.iter_mut().for_each(|room| backend.sync(room).unwrap());
    backend.set_down(true);
    let create = |id: &str| ItemAction::Create { id: id.into(), text: String::new() };
    rooms[0].act(create("own")).unwrap();
    backend.sync(&mut rooms[0]).unwrap();
    assert!(backend.log().unwrap().is_empty());
    backend.set_down(false);
    backend.others([created("a"), ItemEvent::Refused { half: "half".into() }]).unwrap();
    rooms.iter_mut().for_each(|room| backend.sync(room).unwrap());
    for room in &rooms {
        assert_eq!(ids(room), ["a", "own"]);
    }
    assert_eq!(backend.log().unwrap().len(), 3);
    let logged = backend.take_logged();
    assert!(logged.iter().any(|log| log.contains("it is refused half way")), "{logged:?}");
    backend.wipe().unwrap();
    rooms.iter_mut().for_each(|room| backend.sync(room).unwrap());
    assert!(rooms.iter().all(|room| ids(room).is_empty()));
}

#[test]
fn a_push_that_is_refused_comes_again_later_each_time_and_by_the_alarm() {
    let mut world = World::new(1);
    world.settle();
    world.nodes[0].create("a");
    let mut waits = Vec::new();
    for _ in 0..9 {
        let (number, _) = world.nodes[0].calls.pop_front().expect("a call");
        let error = EventInput::Ended(number, Err(Error::retry("it cannot be reached")));
        world.nodes[0].input(error);
        let began = world.nodes[0].room.now();
        while world.nodes[0].calls.is_empty() {
            let at = world.nodes[0].room.next_alarm().expect("an alarm");
            let wait = at.as_millis() - world.nodes[0].room.now().as_millis();
            world.advance(wait.max(1));
            world.nodes[0].ring();
        }
        waits.push(world.nodes[0].room.now().as_millis() - began.as_millis());
    }
    assert_eq!(waits[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits[8], 60_000);
    world.settle();
    assert_eq!(world.log().len(), 1);
}

#[test]
fn a_room_that_sleeps_with_events_to_push_is_woken_by_its_alarm() {
    let mut world = World::new(1);
    world.settle();
    let node = &mut world.nodes[0];
    // The process ends before anything is pushed.
    node.room.act(ItemAction::Create { id: "a".into(), text: String::new() }).unwrap();
    assert!(node.room.next_alarm().is_some());
    node.room.hibernate().unwrap();
    world.advance(60_000);
    world.alarms();
    world.settle();
    assert_eq!(world.log().len(), 1);
}

#[test]
fn a_room_that_has_nothing_to_do_does_not_ring() {
    let mut world = World::new(1);
    world.settle();
    world.nodes[0].create("a");
    world.settle();
    // What the framework forgets after days is its own business.
    let rings = |world: &World| {
        let (at, now) = (world.nodes[0].room.next_alarm(), world.nodes[0].room.now());
        at.is_some_and(|at| at.as_millis() - now.as_millis() < 24 * 60 * 60 * 1_000)
    };
    assert!(!rings(&world));
    // Also when it has slept, and asked whether it lacks anything.
    world.nodes[0].restart();
    world.settle();
    assert!(!rings(&world));
}

#[test]
fn a_log_that_lacks_events_is_not_asked_for_them_without_a_wait() {
    let mut world = World::new(1);
    world.settle();
    world.foreign(&[created("a"), created("b"), created("c")]);
    world.store.calls.clear();
    let lost = "DELETE FROM eventlog_7_store_1 WHERE seqNum = 2";
    let sql: &dyn Sql = &world.store.db;
    sql.exec(lost, &[]).unwrap();
    world.nodes[0].restart();
    let mut calls = 0;
    for _ in 0..100 {
        calls += usize::from(!world.nodes[0].calls.is_empty());
        world.serve(0, usize::MAX);
        world.hear(0);
    }
    // What is there before the gap is taken, and then it waits.
    assert!(calls <= 3, "{calls}");
    let logs = &world.nodes[0].logs;
    assert!(logs.iter().any(|log| log.contains("lacks events")), "{logs:?}");
}

#[test]
fn an_alarm_of_the_applications_that_fails_keeps_no_push_waiting() {
    #[derive(Default)]
    struct Fails;
    impl SyncServer for Fails {
        type Action = ItemAction;
        fn on_action(&self, room: &mut Room<'_, Self>, action: ItemAction) -> Result<()> {
            let ItemAction::Create { id, text } = action else { return Ok(()) };
            room.set_alarm(room.now());
            self.commit(room, ItemEvent::Created { id, text })
        }
        fn on_alarm(&self, _: &mut Room<'_, Self>) -> Result<()> {
            Err(Error::reject("never"))
        }
    }
    impl EventServer for Fails {
        type Event = ItemEvent;
        fn materialize(&self, sql: &dyn Sql, event: &ItemEvent) -> Result<()> {
            Items::default().materialize(sql, event)
        }
    }
    let mut room = TestRoom::new(EventRoom::of_test(Fails)).unwrap();
    room.act(ItemAction::Create { id: "a".into(), text: String::new() }).unwrap();
    for _ in 0..12 {
        let at = room.next_alarm().expect("an alarm");
        assert!(at.as_millis() - room.now().as_millis() <= 30_000, "the push waits for the alarm");
        room.advance_millis((at.as_millis() - room.now().as_millis()).max(0));
        room.alarm().unwrap();
    }
    let outputs = room.input(EventInput::Go).unwrap();
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, EventOutput::Log(_, log) if log.contains("never"))),
        "{outputs:?}"
    );
}

#[test]
fn a_request_from_outside_hands_nothing_in() {
    let mut world = World::new(1);
    let response = world.nodes[0].room.request(http::Request::new(b"Go".to_vec())).unwrap();
    assert_eq!(response.status(), 404);
}

#[test]
fn a_push_of_many_goes_in_parts() {
    let mut world = World::new(1);
    world.settle();
    for n in 0..250 {
        world.nodes[0].create(&format!("{n:03}"));
    }
    world.settle();
    assert_eq!(world.log().len(), 250);
    world.check();
}

#[test]
fn an_answer_that_cannot_be_read_is_a_failure_and_asked_for_again_later() {
    let mut world = World::new(1);
    world.foreign(&[created("a")]);
    let (number, _) = world.nodes[0].calls.pop_front().expect("a pull");
    let chunk = r#"{"_tag":"Chunk","requestId":"0","values":[{"batch":[{"eventEncoded":5}]}]}"#;
    world.nodes[0].input(EventInput::Message(number, chunk.to_owned()));
    let exit = r#"{"_tag":"Exit","requestId":"0","exit":{"_tag":"Success"}}"#;
    world.nodes[0].input(EventInput::Message(number, exit.to_owned()));
    world.nodes[0].input(EventInput::Ended(number, Ok(())));
    assert!(world.nodes[0].calls.is_empty(), "it waits");
    let logs = &world.nodes[0].logs;
    assert!(logs.iter().any(|log| log.contains("cannot be read")), "{logs:?}");
    world.settle();
    assert_eq!(world.nodes[0].ids(), ["a"]);
    world.check();
}

#[test]
fn a_push_that_is_refused_in_unknown_words_is_followed_by_a_pull() {
    let mut world = World::new(1);
    world.settle();
    world.nodes[0].create("own");
    world.foreign(&[created("a")]);
    // The room is not told of it.
    world.store.calls.clear();
    let (number, call) = world.nodes[0].calls.pop_front().expect("a push");
    assert!(call.contains("SyncDoRpc.Push"), "{call}");
    let failure = json!({"_tag": "Exit", "requestId": "1", "exit": {"_tag": "Failure",
        "cause": {"_tag": "Fail", "error": {"_tag": "SomeOtherError", "message": "behind"}}}});
    world.nodes[0].input(EventInput::Message(number, failure.to_string()));
    world.nodes[0].input(EventInput::Ended(number, Ok(())));
    assert!(world.nodes[0].calls.is_empty(), "it waits");
    world.advance(1_000);
    world.nodes[0].ring();
    let (_, call) = &world.nodes[0].calls[0];
    assert!(call.contains("SyncDoRpc.Pull"), "{call}");
    world.settle();
    assert_eq!(world.nodes[0].ids(), ["a", "own"]);
    world.check();
}

#[test]
fn what_a_handle_commits_is_pushed_as_what_a_hook_commits() {
    #[derive(Default)]
    struct Posts;
    impl SyncServer for Posts {
        type Action = ItemAction;
        fn on_action(&self, _: &mut Room<'_, Self>, _: ItemAction) -> Result<()> {
            Err(Error::reject("post it"))
        }
        async fn on_request(
            &self,
            room: &Handle<Self>,
            request: http::Request<Vec<u8>>,
        ) -> Result<http::Response<Vec<u8>>> {
            let id = String::from_utf8_lossy(request.body()).into_owned();
            let begun = room
                .run(move |room| {
                    Self.commit(room, ItemEvent::Created { id, text: String::new() })?;
                    Ok(room.handle())
                })
                .await?;
            // A handle of what a handle does is one as well.
            let count = "SELECT count(*) FROM items";
            let count: i64 =
                begun.run(|room| room.sql().query_one(count, [], |row| row.get(0))).await?;
            Ok(http::Response::new(count.to_string().into_bytes()))
        }
    }
    impl EventServer for Posts {
        type Event = ItemEvent;
        fn materialize(&self, sql: &dyn Sql, event: &ItemEvent) -> Result<()> {
            Items::default().materialize(sql, event)
        }
    }
    let mut backend = TestBackend::new().unwrap();
    let mut room = TestRoom::new(EventRoom::of_test(Posts)).unwrap();
    backend.sync(&mut room).unwrap();
    let asked = Rc::new(Cell::new(false));
    let asks = asked.clone();
    room.server().on_commit(move || asks.set(true));
    let answer = room.request(http::Request::new(b"a".to_vec())).unwrap();
    assert_eq!((answer.status().as_u16(), &**answer.body()), (200, &b"1"[..]));
    assert!(asked.get() && room.next_alarm().is_some());
    backend.sync(&mut room).unwrap();
    assert_eq!(backend.log().unwrap()[0].1["id"], "a");
}
