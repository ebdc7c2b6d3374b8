//! Presence under what it was not made for: clients that mean ill, crowds, sockets that do not end, hooks
//! that fail.

use partysync::room::Incoming;
use partysync::testing::TestRoom;
use partysync::{
    Action, Connection, Limits, Presence, Protocol, Record, Result, Room, SyncServer, Timestamp,
};
use partysync_client::store::Saved;
use partysync_client::testing::{ClientId, World};
use partysync_client::{Input, Now, Other, Output, Peer, Phase, Timing};
use partysync_tests::crowd::request_by as by;
use serde_json::{Value as Json, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

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

#[derive(Default)]
struct Notes {
    limits: Limits,
    fails: Rc<Cell<u32>>,
    left: Rc<RefCell<Vec<Option<Json>>>>,
}

impl SyncServer for Notes {
    type Action = NoteAction;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }

    fn on_close(&self, _: &mut Room<'_, Self>, connection: &Connection) -> Result<()> {
        self.left.borrow_mut().push(connection.presence()?);
        Ok(())
    }

    fn presence(&self, room: &mut Room<'_, Self>, _topic: &str) -> Result<Presence> {
        if self.fails.get() > 0 {
            self.fails.set(self.fails.get() - 1);
            return Err(partysync::Error::retry("in a moment"));
        }
        match room.identity::<String>()?.as_deref() {
            None => Ok(Presence::shown()),
            Some("banned") => {
                let id = room.sender().map(|sender| sender.id().to_owned()).unwrap_or_default();
                room.close(&id, 4403, "banned")?;
                Presence::shown_as("banned")
            }
            Some(guest) if guest.starts_with("guest") => Ok(Presence::hidden()),
            Some(who) => Presence::shown_as(who),
        }
    }
}

fn others(world: &World<Notes>, client: ClientId) -> Vec<String> {
    let others: Vec<Other<String, Json>> = world.others(client);
    let mut others: Vec<_> = others.into_iter().map(|o| o.who).collect();
    others.sort();
    others
}

fn both() -> Result<(World<Notes>, ClientId, ClientId)> {
    let mut world = World::new(Notes::default())?;
    let (ada, bob) = (world.client_by(by("ada")), world.client_by(by("bob")));
    world.set_presence(ada, json!(1))?;
    world.set_presence(bob, json!(2))?;
    world.deliver()?;
    Ok((world, ada, bob))
}

fn join(room: &mut TestRoom<Notes>, id: &str, client: &str) -> Result<()> {
    room.connect_with(id, Protocol::V2, &by(id))?;
    let hello = json!({ "type": "hello", "client": client, "epoch": null, "channels": [] });
    room.frame(id, &hello.to_string()).map(drop)
}

fn say(room: &mut TestRoom<Notes>, id: &str, state: Json) -> Result<Vec<(String, String)>> {
    let frame = json!({ "type": "presence", "here": true, "state": state });
    room.frame(id, &frame.to_string())
}

/// What a client that is sent these frames knows: names to who they are and their states.
#[derive(Default)]
struct Knows(BTreeMap<String, (Json, Json)>);

impl Knows {
    fn hear(&mut self, me: &str, sent: &[(String, String)]) {
        for (_, text) in sent.iter().filter(|(to, _)| to == me) {
            let Ok(frame) = serde_json::from_str::<Json>(text) else { continue };
            if frame["type"] != "presence" {
                continue;
            }
            if frame["all"] == true {
                self.0.clear();
            }
            for gone in frame["gone"].as_array().into_iter().flatten() {
                self.0.remove(gone.as_str().unwrap());
            }
            for here in frame["here"].as_array().into_iter().flatten() {
                let id = here["id"].as_str().unwrap().to_owned();
                self.0.insert(id, (here["who"].clone(), here["state"].clone()));
            }
        }
    }

    fn who(&self) -> Vec<&str> {
        let mut who: Vec<_> = self.0.values().filter_map(|(who, _)| who.as_str()).collect();
        who.sort();
        who
    }
}

fn deep(levels: usize) -> Json {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn deep_state_throws_everybody_else_out() -> Result<()> {
    let (mut world, ada, bob) = both()?;
    world.advance(60)?;
    world.set_presence(bob, deep(126))?;
    world.deliver()?;
    for _ in 0..20 {
        world.advance(5_000)?;
        world.deliver()?;
    }
    let errors: Vec<_> = world.errors(ada).iter().map(ToString::to_string).collect();
    assert!(errors.is_empty(), "ada was thrown out {} times", errors.len());
    assert_eq!(world.status(ada)?.phase, Phase::Live);
    Ok(())
}

#[test]
fn deep_state_leaves_a_ghost_when_the_room_has_slept() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let mut ada = Knows::default();
    join(&mut room, "ada", "ada")?;
    ada.hear("ada", &say(&mut room, "ada", json!(1))?);
    join(&mut room, "bob", "bob")?;
    ada.hear("ada", &say(&mut room, "bob", json!(2))?);
    ada.hear("ada", &say(&mut room, "bob", deep(126))?);
    room.hibernate()?;
    let sent = room.take_sent();
    println!("{sent:?}");
    ada.hear("ada", &sent);
    room.disconnect("bob")?;
    ada.hear("ada", &room.take_sent());
    ada.hear("ada", &room.run_for(600_000)?);
    assert_eq!(ada.who(), ["ada"]);
    Ok(())
}

fn fnv(text: &[u8]) -> u32 {
    text.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

/// A client's id that has the same name as another's, given that name only.
fn same_name(name: &str) -> String {
    let target = u32::from_str_radix(&name[..8], 16).unwrap();
    let mut inverse: u32 = 1;
    for _ in 0..6 {
        inverse = inverse.wrapping_mul(2_u32.wrapping_sub(0x0100_0193_u32.wrapping_mul(inverse)));
    }
    let chars: Vec<u8> = (b'!'..=b'~').filter(|c| *c != b'"' && *c != b'\\').collect();
    let three = || {
        let chars = &chars;
        chars.iter().flat_map(move |a| {
            chars.iter().flat_map(move |b| chars.iter().map(move |c| [*a, *b, *c]))
        })
    };
    let forth: HashMap<u32, [u8; 3]> = three().map(|text| (fnv(&text), text)).collect();
    let back = |text: &[u8; 3]| {
        text.iter().rev().fold(target, |h, b| h.wrapping_mul(inverse) ^ u32::from(*b))
    };
    let (start, end) =
        three().find_map(|end| Some((forth.get(&back(&end))?, end))).expect("there are many");
    String::from_utf8([start.as_slice(), &end].concat()).unwrap()
}

#[test]
fn somebody_takes_the_name_of_another() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let mut ada = Knows::default();
    join(&mut room, "ada", "ada")?;
    ada.hear("ada", &say(&mut room, "ada", json!(1))?);
    let secret = "9f86d081884c7d659a2feaa0c55ad015";
    join(&mut room, "bob", secret)?;
    ada.hear("ada", &say(&mut room, "bob", json!(2))?);
    assert_eq!(ada.who(), ["ada", "bob"]);
    // Mallory was told Bob's name, as all are; not his secret.
    let name = room.connection("bob").unwrap().client().unwrap();
    let forged = same_name(&name);
    println!("{name} is the name of {secret} and of {forged}");
    join(&mut room, "mallory", &forged)?;
    let sent = say(&mut room, "mallory", json!(3))?;
    assert_eq!(room.connection("mallory").unwrap().client().unwrap(), name);
    ada.hear("ada", &sent);
    println!("mallory is here: ada sees {:?}", ada.who());
    room.disconnect("mallory")?;
    ada.hear("ada", &room.take_sent());
    assert_eq!(ada.who(), ["ada", "bob"]);
    Ok(())
}

#[test]
fn in_a_full_room_who_comes_back_is_still_shown() -> Result<()> {
    let limits = Limits { present: 2, ..Limits::default() };
    let mut room = TestRoom::new(Notes { limits, ..Notes::default() })?;
    let mut ada = Knows::default();
    for id in ["ada", "bob"] {
        join(&mut room, id, id)?;
        ada.hear("ada", &say(&mut room, id, json!(1))?);
    }
    // The first socket is half open.
    join(&mut room, "bob", "bob").ok();
    join(&mut room, "bob again", "bob")?;
    ada.hear("ada", &say(&mut room, "bob again", json!(1))?);
    room.disconnect("bob")?;
    ada.hear("ada", &room.take_sent());
    assert_eq!(ada.who(), ["ada", "bob again"]);
    Ok(())
}

#[test]
fn who_was_not_shown_is_when_there_is_a_place() -> Result<()> {
    let limits = Limits { present: 2, ..Limits::default() };
    let mut world = World::new(Notes { limits, ..Notes::default() })?;
    let names = ["ada", "bob", "eve"];
    let clients: Vec<_> = names.iter().map(|name| world.client_by(by(name))).collect();
    for client in &clients {
        world.set_presence(*client, json!(1))?;
        world.deliver()?;
    }
    world.set_presence::<Json>(clients[1], None)?;
    for _ in 0..20 {
        world.deliver()?;
        world.advance(20_000)?;
    }
    world.deliver()?;
    assert_eq!(
        (others(&world, clients[0]), others(&world, clients[2])),
        (vec!["eve".to_owned()], vec!["ada".to_owned()])
    );
    Ok(())
}

#[test]
fn a_guest_knows_how_many_there_are() -> Result<()> {
    let mut world = World::new(Notes::default())?;
    let guest = world.client_by(by("guest"));
    world.set_presence(guest, json!(1))?;
    world.deliver()?;
    let before = world.connections(guest);
    let more: Vec<_> = (0..5).map(|_| world.client_by(by("guest"))).collect();
    for client in more {
        world.set_presence(client, json!(1))?;
    }
    for _ in 0..20 {
        world.deliver()?;
        world.advance(20_000)?;
    }
    world.deliver()?;
    assert_eq!(world.connections(guest), before + 5);
    Ok(())
}

#[test]
fn one_that_does_not_read_is_no_ghost() -> Result<()> {
    let limits = Limits { pending_bytes: 0, page_bytes: 1024, ..Limits::default() };
    let mut room = TestRoom::new(Notes { limits, ..Notes::default() })?;
    let mut eve = Knows::default();
    for id in ["ada", "bob", "eve"] {
        join(&mut room, id, id)?;
        eve.hear("eve", &say(&mut room, id, json!(1))?);
    }
    let mut closed = false;
    for n in 0..60 {
        let mut sent = say(&mut room, "bob", json!(format!("{n}{}", "x".repeat(900))))?;
        sent.extend(room.run_for(60)?);
        eve.hear("eve", &sent);
        closed = sent.iter().any(|(to, text)| to == "ada" && text.starts_with("close 4429"));
        if closed {
            break;
        }
        for reads in ["eve", "bob"] {
            eve.hear("eve", &room.frame(reads, r#"{"type":"read","bytes":10000}"#)?);
        }
    }
    assert!(closed);
    println!("in the turn that has closed ada: {:?}", eve.who());
    // Nothing happens for ten seconds: the object sleeps. Ada's network is gone, so her close comes
    // late.
    room.hibernate()?;
    eve.hear("eve", &room.take_sent());
    eve.hear("eve", &room.run_for(40_000)?);
    room.disconnect("ada")?;
    eve.hear("eve", &room.take_sent());
    eve.hear("eve", &say(&mut room, "bob", json!(5))?);
    assert_eq!(eve.who(), ["bob", "eve"]);
    Ok(())
}

fn at(millis: u64) -> Now {
    Now { monotonic: millis, wall: Timestamp::from_millis(1_000_000 + millis as i64) }
}

#[test]
fn who_waits_for_an_answer_still_pings() -> Result<()> {
    // As the patience is after four slow answers.
    let timing = Timing { answer_ms: 160_000, ..Timing::default() };
    let mut peer = Peer::<NoteAction>::new([1, 2], timing, at(0));
    let mut pings = Vec::new();
    let mut outputs = |peer: &mut Peer<NoteAction>, now: u64| {
        while let Some(output) = peer.poll_output() {
            match output {
                Output::Send(text) if text == partysync::wire::PING => pings.push(now),
                Output::Store(_) => peer.handle(Input::Stored(Ok(())), at(now)),
                _ => {}
            }
        }
    };
    peer.handle(Input::Opened(Ok(Saved::default())), at(0));
    peer.handle(Input::Connected, at(0));
    peer.handle(
        Input::Frame(r#"{"type":"welcome","epoch":"e","version":1,"connection":"c","now":0}"#),
        at(1),
    );
    peer.handle(Input::Frame(r#"{"type":"catch_up","channel":"notes","from":null,"to":1,"rows":[],"gone":[],"sent":0,"total":0,"more":false}"#), at(1));
    peer.set_presence(Some((String::new(), json!(1))), at(1));
    outputs(&mut peer, 1);
    assert_eq!(peer.status().phase, Phase::Live);
    peer.act(NoteAction::Create { id: "a".into() }, at(2))?;
    outputs(&mut peer, 2);
    // The server's `before_action` takes 100 s. Pings are answered.
    for now in (100..100_000).step_by(100) {
        if peer.timeout().is_some_and(|due| due <= now) {
            peer.handle(Input::Time, at(now));
        }
        if now % 1_000 == 0 {
            peer.handle(Input::Frame(partysync::wire::PONG), at(now));
        }
        outputs(&mut peer, now);
    }
    assert!(
        pings.windows(2).all(|two| two[1] - two[0] < 75_000) && pings.last() > Some(&25_000),
        "pings at {pings:?}"
    );
    Ok(())
}

#[test]
fn on_close_knows_what_somebody_said() -> Result<()> {
    let server = Notes::default();
    let left = server.left.clone();
    let mut room = TestRoom::new(server)?;
    join(&mut room, "ada", "ada")?;
    say(&mut room, "ada", json!({ "card": "7" }))?;
    room.disconnect("ada")?;
    assert_eq!(*left.borrow(), [Some(json!({ "card": "7" }))]);
    Ok(())
}

#[test]
fn all_who_come_at_once_fit_into_memory() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let ids: Vec<_> = (0..200).map(|n| format!("c{n}")).collect();
    for id in &ids {
        join(&mut room, id, id)?;
    }
    // After a restart all of them come back at once: one turn.
    let frame = json!({ "type": "presence", "here": true, "state": "x".repeat(2_000) }).to_string();
    let frames: Vec<_> = ids.iter().map(|id| (id.as_str(), Incoming::Text(&frame))).collect();
    let sent = room.frames(&frames)?;
    let bytes: usize = sent.iter().map(|(_, text)| text.len()).sum();
    assert!(bytes < 32 << 20, "{} MiB of frames in one turn", bytes >> 20);
    Ok(())
}

#[test]
fn who_could_not_be_shown_once_is_shown_later() -> Result<()> {
    let server = Notes::default();
    let fails = server.fails.clone();
    let mut world = World::new(server)?;
    let (ada, bob) = (world.client_by(by("ada")), world.client_by(by("bob")));
    world.set_presence(ada, json!(1))?;
    world.deliver()?;
    fails.set(1);
    world.set_presence(bob, json!(1))?;
    for _ in 0..30 {
        world.deliver()?;
        world.advance(20_000)?;
    }
    world.deliver()?;
    assert_eq!(others(&world, ada), ["bob"]);
    Ok(())
}

#[test]
fn who_is_closed_by_the_hook_is_not_here() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let mut ada = Knows::default();
    join(&mut room, "ada", "ada")?;
    ada.hear("ada", &say(&mut room, "ada", json!(1))?);
    join(&mut room, "banned", "banned")?;
    let sent = say(&mut room, "banned", json!(2))?;
    assert!(sent.iter().any(|(to, text)| to == "banned" && text.starts_with("close 4403")));
    ada.hear("ada", &sent);
    // Its socket's end is never heard of: its network is gone.
    for n in 0..30 {
        ada.hear("ada", &say(&mut room, "ada", json!(n))?);
        ada.hear("ada", &room.run_for(20_000)?);
    }
    assert_eq!(ada.who(), ["ada"]);
    Ok(())
}

#[test]
fn coming_and_going_costs_little() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    for n in 0..200 {
        let id = format!("c{n}");
        join(&mut room, &id, &id)?;
        say(&mut room, &id, json!("x".repeat(2_000)))?;
    }
    let (mut asked, mut sent, mut frames) = (0, 0, 0);
    let began = std::time::Instant::now();
    for _ in 0..20 {
        for text in [r#"{"type":"presence","here":false}"#, r#"{"type":"presence","here":true}"#] {
            asked += text.len();
            let told = room.frame("c0", text)?;
            frames += told.len();
            sent += told.iter().map(|(_, text)| text.len()).sum::<usize>();
            room.frame("c0", r#"{"type":"read","bytes":10000000}"#)?;
        }
    }
    let took = began.elapsed();
    assert!(
        sent < asked * 1_000,
        "{asked} bytes in, {sent} bytes out in {frames} frames, {took:?}"
    );
    Ok(())
}

#[test]
fn states_are_throttled_by_the_room() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    for n in 0..200 {
        let id = format!("c{n}");
        join(&mut room, &id, &id)?;
        say(&mut room, &id, json!(1))?;
    }
    // All in one millisecond; the burst that a connection may have is 10,000.
    let frames: usize =
        (0..100).map(|n| say(&mut room, "c0", json!(n)).map_or(0, |sent| sent.len())).sum();
    assert!(frames < 5_000, "{frames} frames for 100 states within a millisecond");
    Ok(())
}
