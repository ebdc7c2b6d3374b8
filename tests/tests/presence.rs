//! Who is here: what connections say of themselves, and what each is told of the others.

use partysync::testing::TestRoom;
use partysync::{Action, Code, Limits, Presence, Protocol, Record, Result, Room, SyncServer, wire};
use partysync_client::testing::{ClientId, World};
use partysync_client::{Other, Phase, Timing};
use partysync_tests::crowd::request_by as by;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(insert)]
    Create { id: String },
}

/// Tells who is here, but nobody of a guest.
#[derive(Default)]
struct Notes {
    limits: Limits,
}

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }

    fn on_hello(&self, room: &mut Room<'_, Self>) -> Result<()> {
        let who = room.identity::<String>()?.unwrap_or_default();
        if who == "bad" {
            room.broadcast(&"never")?;
            return Err(partysync::Error::reject("no greeting"));
        }
        let known = room.sender().is_some_and(|sender| sender.client().is_some());
        let id = room.sender().map(|sender| sender.id().to_owned()).unwrap_or_default();
        let among = room.connections().any(|connection| connection.id() == id);
        room.send(&id, &json!({ "hello": who, "known": known, "among": among }))
    }

    fn presence(&self, room: &mut Room<'_, Self>, topic: &str) -> Result<Presence> {
        match room.identity::<String>()?.as_deref() {
            None => Ok(Presence::shown()),
            Some("guest") => Ok(Presence::hidden()),
            Some("bad") => Err(partysync::Error::reject("not you")),
            // Eve is at the garden only.
            Some("eve") if topic == "house" => Ok(Presence::hidden()),
            Some(who) => Presence::shown_as(who),
        }
    }
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Pointer {
    x: i32,
}

/// What a client knows of the others.
fn others(world: &World<Notes>, client: ClientId) -> Vec<(String, i32)> {
    let others: Vec<Other<String, Pointer>> = world.others(client);
    let mut others: Vec<_> = others.into_iter().map(|o| (o.who, o.state.x)).collect();
    others.sort();
    others
}

fn both() -> Result<(World<Notes>, ClientId, ClientId)> {
    let mut world = World::new(Notes::default())?;
    let (ada, bob) = (world.client_by(by("ada")), world.client_by(by("bob")));
    world.set_presence(ada, Pointer { x: 1 })?;
    world.set_presence(bob, Pointer { x: 2 })?;
    world.deliver()?;
    Ok((world, ada, bob))
}

#[test]
fn each_is_told_of_the_others_what_they_say_and_who_they_are() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    assert_eq!(others(&world, ada), [("bob".to_owned(), 2)]);
    assert_eq!(others(&world, bob), [("ada".to_owned(), 1)]);
    assert_eq!((world.connections(ada), world.connections(bob)), (3, 3), "with the room's own");
    world.advance(60)?;
    world.set_presence(bob, Pointer { x: 3 })?;
    world.deliver()?;
    assert_eq!(others(&world, ada), [("bob".to_owned(), 3)]);
    // One that has not said that it is here is told of nobody.
    let eve = world.client_by(by("eve"));
    world.deliver()?;
    assert_eq!((others(&world, eve), world.connections(eve)), (vec![], 0));
    assert_eq!(world.connections(ada), 4);
    world.set_presence::<Pointer>(bob, None)?;
    world.deliver()?;
    assert_eq!((others(&world, ada), others(&world, bob)), (vec![], vec![]));
    assert_eq!(world.connections(ada), 4, "it is still connected");
    Ok(())
}

#[test]
fn those_at_the_same_topic_are_told_of_each_other_and_of_nobody_else() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    let eve = world.client_by(by("eve"));
    world.set_presence_at(ada, "house", Pointer { x: 1 })?;
    world.set_presence_at(bob, "garden", Pointer { x: 2 })?;
    world.set_presence_at(eve, "garden", Pointer { x: 3 })?;
    world.deliver()?;
    assert_eq!(others(&world, ada), []);
    assert_eq!(others(&world, bob), [("eve".to_owned(), 3)]);
    assert_eq!(others(&world, eve), [("bob".to_owned(), 2)]);
    // One goes over: gone here, and come there.
    world.set_presence_at(bob, "house", Pointer { x: 4 })?;
    assert_eq!(others(&world, bob), [], "it shows nobody of where it was");
    world.deliver()?;
    assert_eq!(others(&world, eve), []);
    assert_eq!(others(&world, ada), [("bob".to_owned(), 4)]);
    assert_eq!(others(&world, bob), [("ada".to_owned(), 1)]);
    // The server says who may be where.
    world.set_presence_at(eve, "house", Pointer { x: 5 })?;
    world.deliver()?;
    assert_eq!((others(&world, eve), world.connections(eve)), (vec![], 4));
    assert_eq!(others(&world, ada), [("bob".to_owned(), 4)]);
    // After a sleep, and a state that changes, all is as before.
    world.room().hibernate()?;
    world.advance(60)?;
    world.set_presence_at(bob, "house", Pointer { x: 6 })?;
    world.deliver()?;
    assert_eq!((others(&world, ada), others(&world, eve)), (vec![("bob".to_owned(), 6)], vec![]));
    world.set_presence_at(ada, &"x".repeat(200), Pointer { x: 1 })?;
    world.deliver()?;
    assert_eq!(world.errors(ada)[0].code(), Code::TooLarge);
    Ok(())
}

#[test]
fn who_loses_its_connection_is_gone_and_comes_back_by_the_same_name() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    let name = |world: &World<Notes>| world.others::<Json, Json>(ada).pop().map(|o| o.id);
    let before = name(&world);
    world.cut(bob)?;
    world.deliver()?;
    assert_eq!(others(&world, ada), []);
    // What it knew is shown for a moment, until it is back.
    assert_eq!(others(&world, bob), [("ada".to_owned(), 1)]);
    world.advance(1_000)?;
    world.deliver()?;
    assert_eq!(others(&world, ada), [("bob".to_owned(), 2)]);
    assert_eq!((name(&world), others(&world, bob)), (before, vec![("ada".to_owned(), 1)]));
    Ok(())
}

#[test]
fn without_a_connection_others_are_forgotten_after_a_moment() -> Result<()> {
    let (mut world, _, bob) = both()?;
    world.set_offline(bob, true)?;
    world.advance(4_999)?;
    assert_eq!(others(&world, bob), [("ada".to_owned(), 1)]);
    world.advance(1)?;
    assert_eq!((others(&world, bob), world.connections(bob)), (vec![], 0));
    world.set_offline(bob, false)?;
    world.advance(15_000)?;
    world.deliver()?;
    assert_eq!(others(&world, bob), [("ada".to_owned(), 1)]);
    Ok(())
}

#[test]
fn one_who_is_sent_away_is_told_of_nobody() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    let id = world.room().run(|room| {
        let bob = room
            .connections()
            .find(|c| c.identity::<String>().ok().flatten().as_deref() == Some("bob"));
        let id = bob.map(|bob| bob.id().to_owned()).unwrap_or_default();
        room.close(&id, wire::CLOSE_REFUSED, "away")?;
        Ok(id)
    })?;
    world.deliver()?;
    assert!(matches!(world.status(bob)?.phase, Phase::Refused(_)), "{id}");
    assert_eq!((others(&world, ada), others(&world, bob)), (vec![], vec![]));
    Ok(())
}

#[test]
fn a_guest_is_counted_and_no_more() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    let guest = world.client_by(by("guest"));
    world.set_presence(guest, Pointer { x: 7 })?;
    world.deliver()?;
    assert_eq!(others(&world, guest), []);
    assert_eq!((world.connections(guest), world.connections(ada)), (4, 4));
    assert_eq!(others(&world, ada), [("bob".to_owned(), 2)]);
    // What others do is none of its business.
    world.advance(60)?;
    world.set_presence(bob, Pointer { x: 3 })?;
    world.deliver()?;
    assert_eq!((others(&world, guest), world.errors(guest)), (vec![], vec![]));
    Ok(())
}

#[test]
fn what_a_client_may_not_say_is_told_to_it_and_to_nobody_else() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    let bad = world.client_by(by("bad"));
    world.set_presence(bad, Pointer { x: 9 })?;
    world.deliver()?;
    let codes = |world: &mut World<Notes>, client| -> Vec<Code> {
        world.errors(client).into_iter().map(|error| error.code()).collect()
    };
    // Its greeting has failed, too.
    assert_eq!(codes(&mut world, bad), [Code::Rejected, Code::Rejected]);
    assert_eq!((others(&world, bad), world.connections(bad)), (vec![], 0));
    world.advance(60)?;
    world.set_presence(bob, "x".repeat(3_000))?;
    world.deliver()?;
    assert_eq!(codes(&mut world, bob), [Code::TooLarge]);
    assert_eq!(others(&world, ada), [("bob".to_owned(), 2)], "what it said before holds");
    Ok(())
}

#[test]
fn pointers_that_move_all_the_time_are_told_of_now_and_then() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    let mut told = Vec::new();
    for x in 0..120 {
        world.set_presence(bob, Pointer { x })?;
        world.deliver()?;
        let now = others(&world, ada)[0].1;
        if told.last() != Some(&now) {
            told.push(now);
        }
        world.advance(1)?;
    }
    world.advance(60)?;
    world.deliver()?;
    assert_eq!(others(&world, ada)[0].1, 119, "the last one arrives");
    assert!(told.len() <= 3, "{told:?}");
    Ok(())
}

#[test]
fn who_is_alone_tells_the_room_when_it_pings_and_others_when_they_come() -> Result<()> {
    let mut world = World::new(Notes::default())?;
    let ada = world.client_by(by("ada"));
    world.set_presence(ada, Pointer { x: 1 })?;
    world.deliver()?;
    let known = |world: &mut World<Notes>| {
        world.room().run(|room| {
            let mut states = room.connections().filter_map(|c| c.presence::<Pointer>().transpose());
            states.next().transpose()
        })
    };
    world.set_presence(ada, Pointer { x: 2 })?;
    world.advance(10_000)?;
    world.deliver()?;
    assert_eq!(known(&mut world)?, Some(Pointer { x: 1 }));
    world.advance(Timing::default().ping_ms - 9_999)?;
    world.deliver()?;
    assert_eq!(known(&mut world)?, Some(Pointer { x: 2 }));
    world.set_presence(ada, Pointer { x: 3 })?;
    let bob = world.client_by(by("bob"));
    world.set_presence(bob, Pointer { x: 4 })?;
    world.deliver()?;
    world.advance(60)?;
    world.deliver()?;
    assert_eq!(others(&world, bob), [("ada".to_owned(), 3)]);
    Ok(())
}

#[test]
fn a_client_is_greeted_when_it_has_said_hello() -> Result<()> {
    let mut world = World::new(Notes::default())?;
    let (ada, bad) = (world.client_by(by("ada")), world.client_by(by("bad")));
    world.deliver()?;
    let greeting = json!({ "hello": "ada", "known": true, "among": true });
    assert_eq!(world.messages(ada), [greeting]);
    assert_eq!(world.messages(bad), Vec::<Json>::new());
    assert_eq!(world.status(bad)?.phase, Phase::Live, "it is let in");
    Ok(())
}

/// A client of a test's room, by hand.
fn join(room: &mut TestRoom<Notes>, id: &str, client: &str) -> Result<()> {
    room.connect_with(id, Protocol::V2, &by(id))?;
    let hello = json!({ "type": "hello", "client": client, "epoch": null, "channels": [] });
    room.frame(id, &hello.to_string()).map(drop)
}

fn say(room: &mut TestRoom<Notes>, id: &str, x: i32) -> Result<Vec<(String, Json)>> {
    let frame = json!({ "type": "presence", "here": true, "state": { "x": x } });
    Ok(presence(room.frame(id, &frame.to_string())?))
}

/// The frames of this kind, by whom they are sent to.
fn presence(sent: Vec<(String, String)>) -> Vec<(String, Json)> {
    let json = |(to, text): (String, String)| Some((to, serde_json::from_str::<Json>(&text).ok()?));
    sent.into_iter().filter_map(json).filter(|(_, frame)| frame["type"] == "presence").collect()
}

/// What a client is called, as it is told.
fn name(sent: &[(String, Json)], id: &str) -> Json {
    let mut own = sent.iter().filter(|(to, frame)| to == id && frame.get("own").is_some());
    own.next().map(|(_, frame)| frame["own"].clone()).unwrap_or_default()
}

#[test]
fn frames_are_as_the_protocol_says() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let early = room.connect_with("early", Protocol::V2, &by("ada"));
    early?;
    let sent = room.frame("early", r#"{"type":"presence","here":true}"#)?;
    assert!(sent[0].1.contains(r#""code":"hello_first""#), "{sent:?}");
    let sent = room.frame("early", r#"{"type":"presence"}"#)?;
    assert!(sent[0].1.contains(r#""code":"invalid_frame""#), "{sent:?}");
    for id in ["ada", "bob"] {
        join(&mut room, id, id)?;
    }
    let own = |own: &Json| json!({ "type": "presence", "own": own, "connections": 3 });
    let all =
        |here: Json| json!({ "type": "presence", "all": true, "here": here, "connections": 3 });
    let sent = say(&mut room, "ada", 1)?;
    let ada = name(&sent, "ada");
    let here_ada = json!({ "id": ada, "who": "ada", "state": { "x": 1 } });
    let to = |who: &str, frame: Json| (who.to_owned(), frame);
    assert_eq!(sent, [to("ada", own(&ada)), to("ada", all(json!([here_ada])))]);
    let sent = say(&mut room, "bob", 2)?;
    let bob = name(&sent, "bob");
    let here_bob = json!({ "id": bob, "who": "bob", "state": { "x": 2 } });
    let news = json!({ "type": "presence", "here": [here_bob], "connections": 3 });
    let both = all(json!([here_ada, here_bob]));
    assert_eq!(sent, [to("ada", news), to("bob", own(&bob)), to("bob", both)]);
    // The same once more is no news, and nobody hears of itself.
    assert_eq!(say(&mut room, "bob", 2)?, []);
    assert_eq!(say(&mut room, "bob", 3)?.len(), 1);
    room.disconnect("bob")?;
    let gone = json!({ "type": "presence", "gone": [bob], "connections": 2 });
    assert_eq!(presence(room.take_sent()), [("ada".to_owned(), gone)]);
    Ok(())
}

#[test]
fn a_room_that_has_slept_knows_who_is_here() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let mut names = Vec::new();
    for (id, x) in [("ada", 1), ("bob", 2)] {
        join(&mut room, id, id)?;
        names.push(name(&say(&mut room, id, x)?, id));
    }
    room.take_sent();
    room.hibernate()?;
    assert_eq!(presence(room.take_sent()), [], "nobody is told what they know");
    room.hibernate()?;
    join(&mut room, "eve", "eve")?;
    let sent = say(&mut room, "eve", 3)?;
    let (_, all) = &sent[sent.len() - 1];
    let states: Vec<_> =
        all["here"].as_array().into_iter().flatten().map(|h| &h["state"]["x"]).collect();
    assert_eq!(states, [1, 2, 3], "{sent:?}");
    room.hibernate()?;
    room.disconnect("bob")?;
    let told = presence(room.take_sent());
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].1["gone"], json!([names[1]]));
    Ok(())
}

#[test]
fn a_connection_that_is_silent_is_closed_and_one_that_pings_is_not() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    for id in ["ada", "bob"] {
        join(&mut room, id, id)?;
        say(&mut room, id, 1)?;
    }
    let mut closed = Vec::new();
    for _ in 0..10 {
        closed.extend(room.run_for(20_000)?.into_iter().filter(|(_, t)| t.starts_with("close")));
        // The runtime answers, and the room sleeps in between.
        room.frame("ada", wire::PING)?;
        room.hibernate()?;
    }
    assert_eq!(closed, [("bob".to_owned(), "close 1012 silent".to_owned())]);
    // Nobody has to be told of anybody: the room sleeps.
    assert_eq!(room.next_alarm(), None);
    Ok(())
}

#[test]
fn a_newcomer_is_not_told_of_one_who_was_silent_while_it_was_alone() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    join(&mut room, "ada", "ada")?;
    let ada = name(&say(&mut room, "ada", 1)?, "ada");
    assert_eq!(room.next_alarm(), None, "nobody has to be told of anybody");
    room.run_for(200_000)?;
    join(&mut room, "bob", "bob")?;
    let frame = json!({ "type": "presence", "here": true, "state": { "x": 2 } });
    let sent = room.frame("bob", &frame.to_string())?;
    assert!(sent.contains(&("ada".to_owned(), "close 1012 silent".to_owned())), "{sent:?}");
    let last = presence(sent).into_iter().rfind(|(to, _)| to == "bob");
    assert_eq!(last.map(|(_, frame)| frame["gone"].clone()), Some(json!([ada])));
    Ok(())
}

#[test]
fn states_of_many_are_told_in_one_frame_after_a_moment() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    for id in ["ada", "bob", "eve"] {
        join(&mut room, id, id)?;
        say(&mut room, id, 1)?;
    }
    assert_eq!(say(&mut room, "ada", 2)?.len(), 2, "the first one is told at once");
    for (id, x) in [("bob", 2), ("ada", 3), ("bob", 3), ("ada", 4)] {
        assert_eq!(say(&mut room, id, x)?, []);
    }
    assert_eq!(room.run_for(49)?, []);
    let sent = presence(room.run_for(1)?);
    assert_eq!(sent.len(), 3, "{sent:?}");
    let states: Vec<_> = sent[0].1["here"].as_array().into_iter().flatten().collect();
    let states: Vec<_> = states.iter().map(|here| &here["state"]["x"]).collect();
    assert_eq!(states, [4, 3], "the last of each");
    assert_eq!(room.run_for(10_000)?, []);
    Ok(())
}

#[test]
fn a_client_that_comes_again_before_its_end_is_heard_of_is_one_still() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    join(&mut room, "ada", "ada")?;
    say(&mut room, "ada", 1)?;
    join(&mut room, "bob", "bob")?;
    let bob = name(&say(&mut room, "bob", 2)?, "bob");
    // The first socket of the same client is half open.
    join(&mut room, "bob again", "bob")?;
    let sent = say(&mut room, "bob again", 3)?;
    let (_, all) = &sent[sent.len() - 1];
    assert_eq!(all["here"].as_array().map(Vec::len), Some(2), "{sent:?}");
    assert_eq!(name(&sent, "bob again"), bob);
    room.take_sent();
    room.disconnect("bob")?;
    let told = presence(room.take_sent());
    assert!(told.iter().all(|(_, frame)| frame.get("gone").is_none()), "{told:?}");
    room.disconnect("bob again")?;
    assert_eq!(presence(room.take_sent())[0].1["gone"], json!([bob]));
    Ok(())
}

#[test]
fn in_a_full_room_who_comes_is_counted_and_shown_when_there_is_a_place() -> Result<()> {
    let limits = Limits { present: 2, ..Limits::default() };
    let mut room = TestRoom::new(Notes { limits })?;
    for id in ["ada", "bob"] {
        join(&mut room, id, id)?;
        say(&mut room, id, 1)?;
    }
    join(&mut room, "eve", "eve")?;
    let counted = json!({ "type": "presence", "all": true, "connections": 4 });
    let sent = say(&mut room, "eve", 1)?;
    assert!(sent.contains(&("eve".to_owned(), counted)), "{sent:?}");
    assert_eq!(say(&mut room, "eve", 2)?, []);
    room.take_sent();
    room.hibernate()?;
    room.disconnect("bob")?;
    let sent = presence(room.take_sent());
    let to_ada = sent.iter().find(|(to, _)| to == "ada");
    assert_eq!(to_ada.map(|(_, frame)| &frame["here"][0]["state"]["x"]), Some(&json!(2)));
    let to_eve = sent.iter().rfind(|(to, _)| to == "eve");
    assert_eq!(to_eve.map(|(_, frame)| frame["here"].as_array().map(Vec::len)), Some(Some(2)));
    Ok(())
}

#[test]
fn clients_of_version_1_are_counted() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    join(&mut room, "ada", "ada")?;
    say(&mut room, "ada", 1)?;
    room.take_sent();
    room.connect("old", Protocol::V1)?;
    let counted = json!({ "type": "presence", "connections": 3 });
    assert_eq!(presence(room.take_sent()), [("ada".to_owned(), counted)]);
    // One that says nothing is nobody yet.
    room.connect("mute", Protocol::V2)?;
    assert_eq!(presence(room.take_sent()), []);
    room.disconnect("old")?;
    let counted = json!({ "type": "presence", "connections": 2 });
    assert_eq!(presence(room.take_sent()), [("ada".to_owned(), counted)]);
    Ok(())
}

#[test]
fn a_crowd_that_comes_costs_those_who_are_here_little() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    join(&mut room, "ada", "ada")?;
    say(&mut room, "ada", 1)?;
    room.take_sent();
    let mut told = 0;
    for number in 0..2_000 {
        room.connect(&format!("old {number}"), Protocol::V1)?;
        told += presence(room.take_sent()).len();
    }
    assert!((64..400).contains(&told), "{told}");
    Ok(())
}
