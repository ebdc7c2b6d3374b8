//! What a world does with its clients.

use super::*;
use partysync::{Action, Connection, Handle, Room};

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String },
}

struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;
    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        action.apply(room.sql())
    }
    fn on_message(&self, room: &mut Room<'_, Self>, message: Json) -> Result<()> {
        room.broadcast(&message)
    }
    fn on_close(&self, room: &mut Room<'_, Self>, _: &Connection) -> Result<()> {
        room.broadcast(&"one has gone")
    }
    async fn on_request(
        &self,
        room: &Handle<Self>,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| {
            let id = String::from_utf8_lossy(request.body()).into_owned();
            put(&id).apply(room.sql())?;
            Ok(http::Response::new(Vec::new()))
        })
        .await
    }
}

fn put(id: &str) -> NoteAction {
    NoteAction::Put { id: id.into() }
}

#[test]
fn a_client_that_begins_anew_offline_shows_what_its_store_holds() -> Result<()> {
    let mut world = World::new(Notes)?;
    let (ada, bob) = (world.client(), world.client());
    world.deliver()?;
    world.set_offline(ada, true)?;
    world.act(ada, put("hers"))?;
    world.restart(ada)?;
    assert_eq!((world.rows::<Note>(ada)?.len(), world.status(ada)?.pending), (1, 1));
    world.advance(60 * 60 * 1000)?;
    world.deliver()?;
    assert_eq!(world.rows::<Note>(bob)?, []);
    world.set_offline(ada, false)?;
    for _ in 0..3 {
        world.advance(20_000)?;
        world.deliver()?;
    }
    assert_eq!(world.rows::<Note>(bob)?.len(), 1);
    // What the room does by itself reaches both.
    world.room().act(put("the room's"))?;
    world.deliver()?;
    assert_eq!((world.rows::<Note>(ada)?.len(), world.rows::<Note>(bob)?.len()), (2, 2));
    // A store that fails goes on failing.
    world.store_fails(ada, true);
    world.restart(ada)?;
    assert!(world.status(ada)?.warning.is_some());
    Ok(())
}

#[test]
fn messages_reach_those_that_are_live_and_none_is_sent_by_one_that_is_not() -> Result<()> {
    let mut world = World::new(Notes)?;
    let (ada, bob) = (world.client(), world.client());
    assert_eq!(world.message(ada, &"too early"), Ok(false));
    world.deliver()?;
    assert_eq!(world.message(ada, &"hello"), Ok(true));
    world.deliver()?;
    assert_eq!(world.messages(bob), ["hello"]);
    assert_eq!(world.messages(bob), [""; 0]);
    world.cut(bob)?;
    world.message(ada, &"anybody?")?;
    world.deliver()?;
    assert_eq!(world.messages(ada), ["hello", "one has gone", "anybody?"]);
    assert_eq!(world.messages(bob), [""; 0]);
    Ok(())
}

#[test]
fn what_a_closed_connection_and_a_request_have_sent_is_delivered() -> Result<()> {
    let mut world = World::new(Notes)?;
    let (ada, bob) = (world.client(), world.client());
    world.deliver()?;
    world.cut(bob)?;
    world.deliver()?;
    assert_eq!(world.messages(ada), ["one has gone"]);
    world.room().request(http::Request::new(b"a".to_vec()))?;
    world.deliver()?;
    assert_eq!(world.rows::<Note>(ada)?, [Note { id: "a".into() }]);
    Ok(())
}
