//! Tests of a room, and of a room with its clients. Nothing here needs a network, and nothing waits.

use crate::Notes;
use app_shared::{MAX_TEXT, Note, NoteAction};
use partysync::testing::TestRoom;
use partysync::{Code, Result};
use partysync_client::testing::World;

fn add(id: &str, text: &str) -> NoteAction {
    NoteAction::Add {
        id: id.into(),
        text: text.into(),
    }
}

#[test]
fn a_note_has_some_text_and_not_too_much() -> Result<()> {
    let mut room = TestRoom::new(Notes)?;
    for text in [" ", &"x".repeat(MAX_TEXT + 1)] {
        assert_eq!(room.act(add("a", text)).unwrap_err().code(), Code::Rejected);
    }
    assert!(room.rows::<Note>()?.is_empty());
    room.act(add("a", &"ü".repeat(MAX_TEXT)))?;
    assert_eq!(room.rows::<Note>()?.len(), 1);
    Ok(())
}

#[test]
fn what_is_written_offline_is_sent_later() -> Result<()> {
    let mut world = World::new(Notes)?;
    let (ada, bob) = (world.client(), world.client());
    world.deliver()?;
    world.cut(ada)?;
    world.act(ada, add("a", "milk"))?;
    // Ada sees it at once; Bob does when she is back.
    assert!(world.is_pending::<Note>(ada, "a"));
    assert!(world.rows::<Note>(bob)?.is_empty());
    world.advance(60_000)?;
    world.deliver()?;
    assert!(!world.is_pending::<Note>(ada, "a"));
    assert_eq!(world.rows::<Note>(bob)?, world.rows::<Note>(ada)?);
    Ok(())
}

#[test]
fn what_the_server_rejects_is_taken_back() -> Result<()> {
    let mut world = World::new(Notes)?;
    let ada = world.client();
    world.deliver()?;
    let seq = world.act(ada, add("a", " "))?;
    assert_eq!(world.rows::<Note>(ada)?.len(), 1);
    world.deliver()?;
    let error = world
        .answer(ada, seq)
        .and_then(|answer| answer.as_ref().err());
    assert_eq!(
        error.map(|error| error.message()),
        Some("A note needs some text")
    );
    assert!(world.rows::<Note>(ada)?.is_empty());
    Ok(())
}
