//! What is stored is read so much at a time.

use super::*;

/// A client whose store holds three rows, of which it reads two at a time.
fn begun() -> Peer<NoteAction> {
    let timing = Timing { read_rows: 2, ..Timing::default() };
    let mut p = Peer::<NoteAction>::new([1, 2], timing, now(0));
    outs(&mut p);
    let row = |id: &str| (id.to_owned(), serde_json::json!([id, "kept"]));
    let channel = SavedChannel {
        epoch: "e".into(),
        version: Some(3),
        schema: Row::SCHEMA.hash(),
        view: None,
        rows: [row("a"), row("b"), row("c")].into(),
    };
    let saved = Saved { channels: [("notes".to_owned(), channel)].into(), ..Saved::default() };
    p.handle(Input::Opened(Ok(saved)), now(1));
    assert_eq!((p.status().phase, p.timeout()), (Phase::Loading, Some(0)));
    p
}

#[test]
fn stored_rows_are_read_so_many_at_a_time_and_shown_together() {
    let mut p = begun();
    p.act(put("b", "mine"), now(1)).unwrap();
    assert_eq!(texts(&p), ["b=mine"]);
    let seen = stored_all(&mut p, 1);
    assert!(!seen.iter().any(|o| matches!(o, Output::Connect | Output::Store(_))));
    p.handle(Input::Time, now(1));
    assert_eq!(texts(&p), ["a=kept", "b=mine", "c=kept"]);
    assert_eq!(p.replica().version("notes"), Some(3));
    let seen = stored_all(&mut p, 1);
    assert!(seen.contains(&Output::Connect));
    assert!(seen.iter().any(|o| matches!(o, Output::Store(_))), "the action is stored");
}

#[test]
fn a_store_that_breaks_meanwhile_is_opened_again() {
    let mut p = begun();
    let broke = partysync::Error::new(partysync::Code::Store, "closed");
    p.handle(Input::Store(StoreEvent::Broke(broke)), now(1));
    p.handle(Input::Time, now(1));
    assert_eq!(texts(&p).len(), 3);
    assert!(p.status().warning.is_some());
    p.handle(Input::Time, now(p.timeout().expect("it is opened again")));
    assert!(outs(&mut p).iter().any(|output| matches!(output, Output::OpenStore(_))));
}

#[test]
fn what_is_made_meanwhile_is_stored_though_the_client_is_closed() {
    let mut p = begun();
    p.act(put("d", "mine"), now(1)).unwrap();
    p.close();
    assert!(!p.is_done());
    p.handle(Input::Time, now(p.timeout().expect("it goes on")));
    let stored = |o: &Output| matches!(o, Output::Store(writes) if writes.iter().any(|w| matches!(w, Write::Act { .. })));
    assert!(stored_all(&mut p, 1).iter().any(stored));
    assert!(p.is_done());
}
