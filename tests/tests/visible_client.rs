//! Clients that see different rows: by which view theirs are they keep, and say when they come again.

use futures::executor::block_on;
use partysync::{Action, Record, Result, Room, SyncServer, Visible, params};
use partysync_client::store::{SqliteStore, Store};
use partysync_client::testing::{ClientId, World};
use partysync_client::{Input, Now, Output, Peer, Timing};
use partysync_tests::crowd::request_by as by;
use serde_json::{Value as Json, json};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    #[record(scope)]
    owner: String,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "roles")]
struct Role {
    #[record(key)]
    who: String,
    sees_all: bool,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String, owner: String },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Role)]
enum RoleAction {
    #[action(upsert)]
    Set { who: String, sees_all: bool },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum Any {
    Note(NoteAction),
    Role(RoleAction),
}

struct Server;

impl SyncServer for Server {
    type Action = Any;

    fn on_action(&self, room: &mut Room<'_, Self>, action: Any) -> Result<()> {
        action.apply(room.sql())
    }

    fn visible(&self, room: &Room<'_, Self>, channel: &str) -> Result<Visible> {
        let Some(who) = room.identity::<String>()? else { return Ok(Visible::all()) };
        let all = "SELECT sees_all FROM roles WHERE who = ?";
        let all = room.sql().query_opt(all, params![&who], |row| row.get::<bool>(0))?;
        Ok(match channel {
            "notes" if all != Some(true) => Visible::rows("owner = ?", params![who]),
            _ => Visible::all(),
        })
    }
}

fn put(id: &str, owner: &str) -> Any {
    NoteAction::Put { id: id.into(), owner: owner.into() }.into()
}

fn role(who: &str, sees_all: bool) -> Any {
    RoleAction::Set { who: who.into(), sees_all }.into()
}

fn notes(world: &World<Server>, client: ClientId) -> Vec<String> {
    world.rows::<Note>(client).unwrap().into_iter().map(|note| note.id).collect()
}

/// Lets frames arrive, and those that are to come again do so.
fn settle(world: &mut World<Server>) {
    for _ in 0..3 {
        world.deliver().unwrap();
        world.advance(5_000).unwrap();
    }
    world.deliver().unwrap();
}

#[test]
fn a_client_shows_what_it_may_see_as_its_rights_change() {
    let mut world = World::new(Server).unwrap();
    let (ada, root) = (world.client_by(by("ada")), world.client());
    settle(&mut world);
    for (id, owner) in [("a", "ada"), ("b", "bob")] {
        world.act(root, put(id, owner)).unwrap();
    }
    settle(&mut world);
    assert_eq!(
        (notes(&world, ada), notes(&world, root)),
        (vec!["a".into()], vec!["a".into(), "b".into()])
    );
    // By its own action, whose answer it gets when it has come again.
    let seq = world.act(ada, role("ada", true)).unwrap();
    settle(&mut world);
    assert_eq!(world.answer(ada, seq), Some(&Ok(())));
    assert_eq!(notes(&world, ada), ["a", "b"]);
    world.act(root, role("ada", false)).unwrap();
    settle(&mut world);
    assert_eq!(notes(&world, ada), ["a"]);
}

#[test]
fn rights_that_changed_while_a_client_was_away_are_what_it_comes_back_to() {
    let mut world = World::new(Server).unwrap();
    let (ada, root) = (world.client_by(by("ada")), world.client());
    for action in [put("a", "ada"), put("b", "bob"), role("ada", true)] {
        world.act(root, action).unwrap();
    }
    settle(&mut world);
    assert_eq!(notes(&world, ada), ["a", "b"]);
    world.set_offline(ada, true).unwrap();
    world.act(root, role("ada", false)).unwrap();
    settle(&mut world);
    // A new life of the client, from its store.
    world.restart(ada).unwrap();
    settle(&mut world);
    assert_eq!(notes(&world, ada), ["a", "b"]);
    world.set_offline(ada, false).unwrap();
    settle(&mut world);
    assert_eq!(notes(&world, ada), ["a"]);
    world.restart(ada).unwrap();
    settle(&mut world);
    assert_eq!(notes(&world, ada), ["a"]);
}

/// What a client says of its channels in `hello`, and what it has stored then.
struct Life {
    peer: Peer<Any>,
    time: u64,
}

impl Life {
    fn new(store: &SqliteStore) -> Self {
        let mut peer = Peer::new([1, 2], Timing::default(), now(0));
        let client = peer.replica().client().to_owned();
        peer.handle(Input::Opened(block_on(store.open(&client))), now(1));
        let mut life = Self { peer, time: 1 };
        life.outputs(store);
        life
    }

    fn take(&mut self, store: &SqliteStore, input: Input<'_>) -> Vec<Json> {
        self.time += 1;
        self.peer.handle(input, now(self.time));
        self.outputs(store)
    }

    /// Carries out what it wants done; gives what it sends.
    fn outputs(&mut self, store: &SqliteStore) -> Vec<Json> {
        let mut sent = Vec::new();
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Send(text) => sent.extend(serde_json::from_str(&text).ok()),
                Output::Store(writes) => {
                    let stored = block_on(store.write(writes));
                    self.peer.handle(Input::Stored(stored), now(self.time));
                }
                _ => {}
            }
        }
        sent
    }
}

fn now(millis: u64) -> Now {
    Now { monotonic: millis, wall: partysync::Timestamp::from_millis(millis.cast_signed()) }
}

#[test]
fn a_client_says_by_which_view_it_has_its_rows_also_in_its_next_life() {
    let store = SqliteStore::in_memory().unwrap();
    let mut life = Life::new(&store);
    let views = |hello: &[Json]| -> Vec<Json> {
        let channels = hello[0]["channels"].as_array().unwrap().iter();
        channels.map(|channel| json!([channel["since"], channel["view"]])).collect()
    };
    let hello = life.take(&store, Input::Connected);
    assert_eq!(views(&hello), [json!([null, null]), json!([null, null])]);
    let welcome = |version: u64| json!({"type": "welcome", "epoch": "e", "version": version, "connection": "c", "now": 1});
    let page = |channel: &str, from: Json, view: Json, rows: Json| {
        let sent = rows.as_array().unwrap().len();
        json!({"type": "catch_up", "channel": channel, "from": from, "view": view, "to": 3,
               "rows": rows, "gone": [], "sent": sent, "total": sent, "more": false})
    };
    for frame in [
        welcome(3),
        page("notes", json!(null), json!("v1"), json!([["a", "ada"], ["b", "bob"]])),
        page("roles", json!(null), json!(null), json!([])),
    ] {
        life.take(&store, Input::Frame(&frame.to_string()));
    }
    let mut life = Life::new(&store);
    let hello = life.take(&store, Input::Connected);
    assert_eq!(views(&hello), [json!([3, "v1"]), json!([3, null])]);
    // Another view, at the same version: it takes the place of the rows, in the store as well.
    for frame in [
        welcome(3),
        page("notes", json!(null), json!("v2"), json!([["a", "ada"]])),
        page("roles", json!(3), json!(null), json!([])),
    ] {
        life.take(&store, Input::Frame(&frame.to_string()));
    }
    assert_eq!(life.peer.replica().keys("notes"), [partysync::Key::from("a")]);
    let kept = store.read().unwrap();
    let notes = &kept.channels["notes"];
    assert_eq!((notes.view.as_deref(), notes.rows.len()), (Some("v2"), 1));
    let mut life = Life::new(&store);
    assert_eq!(views(&life.take(&store, Input::Connected)), [json!([3, "v2"]), json!([3, null])]);
}
