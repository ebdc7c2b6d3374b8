//! A client that begins with rows, as of a page that a server has rendered.

use super::*;
use partysync::wire::snapshot::{Channel, Snapshot};
use serde_json::json;

fn rows(version: u64, text: &str) -> Snapshot {
    let rows = vec![json!(["a", text])];
    let channel = Channel { schema: Row::SCHEMA.hash(), version, view: Some("v".into()), rows };
    let channels = [("notes".to_owned(), channel)].into();
    Snapshot { room: String::new(), epoch: "e".into(), channels }
}

fn begun(snapshot: Snapshot) -> Peer<NoteAction> {
    let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
    p.begin_with(snapshot);
    outs(&mut p);
    p
}

fn stored(epoch: &str, version: u64) -> Saved {
    let channel = SavedChannel {
        epoch: epoch.into(),
        version: Some(version),
        schema: Row::SCHEMA.hash(),
        view: None,
        rows: [("a".to_owned(), json!(["a", "stored"]))].into(),
    };
    Saved { channels: [("notes".to_owned(), channel)].into(), ..Saved::default() }
}

/// What is stored of rows.
fn kept(p: &mut Peer<NoteAction>) -> Vec<(Option<u64>, u64, usize)> {
    let rows = stored_all(p, 1).into_iter().filter_map(|output| match output {
        Output::Store(writes) => Some(writes),
        _ => None,
    });
    let rows = rows.flatten().filter_map(|write| match write {
        Write::Rows(RowsWrite { from, to, rows, .. }) => Some((from, to, rows.len())),
        _ => None,
    });
    rows.collect()
}

#[test]
fn rows_are_shown_at_once_and_kept_in_a_store_that_has_none() {
    let mut p = begun(rows(7, "given"));
    assert_eq!(texts(&p), ["a=given"]);
    assert!(p.replica().is_complete("notes"));
    assert_eq!(p.status().phase, Phase::Loading);
    p.act(put("b", "mine"), now(1)).unwrap();
    assert_eq!(texts(&p), ["a=given", "b=mine"]);
    p.handle(Input::Opened(Ok(Saved::default())), now(1));
    assert_eq!(kept(&mut p), [(None, 7, 1)]);
    // It goes on from there.
    p.handle(Input::Connected, now(2));
    let hello = outs(&mut p).into_iter().find_map(|output| match output {
        Output::Send(text) => serde_json::from_str::<serde_json::Value>(&text).ok(),
        _ => None,
    });
    let channel = &hello.unwrap()["channels"][0];
    assert_eq!((&channel["since"], &channel["view"]), (&json!(7), &json!("v")));
}

#[test]
fn of_two_copies_the_newer_is_shown() {
    for (saved, shown, writes) in [
        (stored("e", 6), "a=given", vec![(None, 7, 1)]),
        (stored("e", 7), "a=stored", vec![]),
        (stored("e", 9), "a=stored", vec![]),
        (stored("another", 9), "a=given", vec![]),
    ] {
        let mut p = begun(rows(7, "given"));
        p.handle(Input::Opened(Ok(saved)), now(1));
        assert_eq!(texts(&p), [shown]);
        assert_eq!(kept(&mut p), writes);
    }
}

#[test]
fn rows_of_other_columns_are_passed_over() {
    let mut other = rows(7, "given");
    other.channels.get_mut("notes").unwrap().schema = "another".into();
    let mut broken = rows(7, "given");
    broken.channels.get_mut("notes").unwrap().rows = vec![json!(["a"])];
    let mut elsewhere = rows(7, "given");
    let channel = elsewhere.channels.remove("notes").unwrap();
    elsewhere.channels.insert("elsewhere".into(), channel);
    for snapshot in [other, broken, elsewhere, Snapshot::default()] {
        let mut p = begun(snapshot);
        assert!(texts(&p).is_empty() && !p.replica().is_complete("notes"));
        p.handle(Input::Opened(Ok(stored("another", 9))), now(1));
        assert_eq!(texts(&p), ["a=stored"]);
    }
}

#[test]
fn a_store_that_cannot_be_opened_takes_nothing_away() {
    let mut p = begun(rows(7, "given"));
    let failed = partysync::Error::new(partysync::Code::Store, "no");
    p.handle(Input::Opened(Err(failed)), now(1));
    assert_eq!(texts(&p), ["a=given"]);
    p.handle(Input::Time, now(p.timeout().unwrap()));
    assert!(outs(&mut p).iter().any(|output| matches!(output, Output::OpenStore(_))));
    p.handle(Input::Opened(Ok(Saved::default())), now(3));
    assert!(kept(&mut p).contains(&(None, 7, 1)));
}

#[test]
fn rows_that_the_store_knows_to_be_gone_are_gone_from_results_too() {
    let mut p = begun(rows(7, "given"));
    let live = p.query(&Row::query()).unwrap();
    let count = p.totals(&Row::query().count()).unwrap();
    assert_eq!((live.len(), count.count()), (1, 1));
    let mut saved = stored("e", 9);
    saved.channels.get_mut("notes").unwrap().rows.clear();
    p.handle(Input::Opened(Ok(saved)), now(1));
    assert_eq!((live.len(), count.count()), (0, 0));
    assert!(outs(&mut p).iter().any(|output| matches!(output, Output::Changed(_))));
}

#[test]
fn which_of_two_epochs_is_the_rooms_is_seen_before_one_is_stored() {
    let welcome = |epoch: &str| {
        format!(r#"{{"type":"welcome","epoch":"{epoch}","version":7,"connection":"c","now":0}}"#)
    };
    for (epoch, writes) in [("e", vec![(None, 7, 1)]), ("another", vec![])] {
        let mut p = begun(rows(7, "given"));
        p.handle(Input::Opened(Ok(stored("another", 9))), now(1));
        assert_eq!(texts(&p), ["a=given"]);
        assert_eq!(kept(&mut p), []);
        p.handle(Input::Connected, now(2));
        p.handle(Input::Frame(&welcome(epoch)), now(3));
        assert_eq!(p.replica().epoch(), Some(epoch));
        assert_eq!(kept(&mut p), writes);
    }
}

#[test]
fn a_store_that_opens_late_does_not_change_what_was_said_to_the_server() {
    let mut p = begun(rows(7, "given"));
    p.handle(Input::Opened(Err(partysync::Error::new(partysync::Code::Store, "no"))), now(1));
    p.handle(Input::Connected, now(2));
    p.handle(Input::Time, now(p.timeout().unwrap()));
    p.handle(Input::Opened(Ok(stored("e", 9))), now(3));
    assert_eq!((p.replica().version("notes"), texts(&p)), (Some(7), vec!["a=given".to_owned()]));
}

#[test]
fn what_is_given_late_is_passed_over() {
    let mut p = begun(Snapshot::default());
    p.act(put("b", "mine"), now(1)).unwrap();
    p.begin_with(rows(7, "given"));
    assert_eq!(texts(&p), ["b=mine"]);
}
