//! What other clients of the same place make, tell and leave behind.

use super::*;

#[test]
fn what_is_settled_is_shown_until_its_rows_are_here() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    let a = saved_action(put("a", "x"));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq: 1, action: a })),
        now(1),
    );
    p.handle(Input::Disconnected(Cause::gone()), now(1)); // this tab is offline
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: Some(("e".into(), 4)),
        })),
        now(2),
    );
    assert_eq!(texts(&p), ["a=x"]);
    p.handle(
        Input::Store(StoreEvent::Note(Note::Settled { client: "A".into(), before: 2, last: None })),
        now(3),
    );
    assert_eq!(texts(&p), ["a=x"], "gone before its row came");
}

#[test]
fn what_a_client_that_is_gone_had_answered_is_shown_until_its_rows_are_here() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    let a = saved_action(put("a", "x"));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq: 1, action: a })),
        now(1),
    );
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: Some(("e".into(), 4)),
        })),
        now(2),
    );
    p.handle(Input::Store(StoreEvent::Orphan(Outbox::new("A"))), now(3));
    assert_eq!(texts(&p), ["a=x"], "gone before its row came");
}

#[test]
fn what_is_told_while_a_store_is_read_is_newer_than_what_it_held() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    stored_all(&mut p, 0);
    p.handle(
        Input::Store(StoreEvent::Broke(partysync::Error::new(partysync::Code::Store, "x"))),
        now(1),
    );
    p.handle(Input::Time, now(1));
    assert!(outs(&mut p).iter().any(|o| matches!(o, Output::OpenStore(_))));
    // The store has read A's outbox, and reads rows now; meanwhile A hears its answer, and its store is told.
    let mut other = Outbox::new("A");
    other.pending.insert(1, saved_action(put("a", "old")));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: Some(("e".into(), 4)),
        })),
        now(2),
    );
    p.handle(
        Input::Store(StoreEvent::Note(Note::Settled { client: "A".into(), before: 2, last: None })),
        now(2),
    );
    p.handle(Input::Opened(Ok(Saved { others: vec![other], ..Saved::default() })), now(3));
    stored_all(&mut p, 3);
    p.handle(Input::Frame(r#"{"type":"patch","from":3,"to":4,"changes":[{"channel":"notes","rows":[["a","old"]],"gone":[]}]}"#), now(4));
    p.handle(Input::Frame(r#"{"type":"patch","from":4,"to":5,"changes":[{"channel":"notes","rows":[["a","new"]],"gone":[]}]}"#), now(5));
    assert_eq!(texts(&p), ["a=new"], "pending elsewhere: {}", p.replica().pending_elsewhere());
}

#[test]
fn what_is_told_while_a_store_opens_slowly_stays_in_order() {
    let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
    outs(&mut p);
    let a = saved_action(put("a", "old"));
    p.handle(
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq: 1, action: a })),
        now(1),
    );
    p.handle(Input::Time, now(10_000)); // "the store takes long to open"
    p.handle(
        Input::Store(StoreEvent::Note(Note::Answered {
            client: "A".into(),
            seqs: vec![1],
            held_by: None,
        })),
        now(10_001),
    );
    p.handle(
        Input::Store(StoreEvent::Note(Note::Settled { client: "A".into(), before: 2, last: None })),
        now(10_002),
    );
    p.handle(Input::Opened(Ok(Saved::default())), now(10_003));
    assert_eq!(p.replica().pending_elsewhere(), 0, "{:?}", texts(&p));
}

#[test]
fn what_another_tab_makes_in_turn_costs_what_it_touches() {
    const N: u64 = 200;
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    let append = || saved_action(NoteAction::Append { id: "a".into(), text: "x".into() });
    for seq in 1..=N {
        let note = Note::Acted { client: "A".into(), seq, action: append() };
        p.handle(Input::Store(StoreEvent::Note(note)), now(1));
    }
    assert_eq!(texts(&p), [format!("a={}", "x".repeat(200))]);
    assert!(u64::from(REDUCED.get()) <= N + 1, "{} runs for {N} actions", REDUCED.get());
    // Half of them are answered, in two frames of the other tab.
    REDUCED.set(0);
    let patch = |from: u64, to: u64, xs: usize| {
        let row = format!(r#"[["a","{}"]]"#, "x".repeat(xs));
        format!(
            r#"{{"type":"patch","from":{from},"to":{to},"changes":[{{"channel":"notes","rows":{row},"gone":[]}}]}}"#
        )
    };
    p.handle(Input::Frame(&patch(3, 4, 50)), now(2));
    p.handle(Input::Frame(&patch(4, 5, 100)), now(2));
    for (seqs, version) in [((1..=50).collect(), 4), ((51..=100).collect(), 5)] {
        let held_by = Some(("e".into(), version));
        let note = Note::Answered { client: "A".into(), seqs, held_by };
        p.handle(Input::Store(StoreEvent::Note(note)), now(3));
    }
    assert_eq!(texts(&p), [format!("a={}", "x".repeat(200))]);
    assert!(u64::from(REDUCED.get()) <= 4 * N, "{} runs", REDUCED.get());
}

#[test]
fn what_another_tab_made_before_it_was_heard_of_is_shown_too() {
    let outbox = |seqs: std::ops::RangeInclusive<u64>| {
        let mut outbox = Outbox::new("A");
        let action = |seq| (seq, saved_action(put(&format!("{seq}"), "x")));
        outbox.pending.extend(seqs.map(action));
        outbox
    };
    let acted = |seq: u64| {
        let action = saved_action(put(&format!("{seq}"), "x"));
        Input::Store(StoreEvent::Note(Note::Acted { client: "A".into(), seq, action }))
    };
    // As it is read, and when it took so long that this client went on without.
    for late in [false, true] {
        let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
        outs(&mut p);
        let t = if late { 10_000 } else { 1 };
        p.handle(Input::Time, now(t));
        p.handle(acted(3), now(t));
        p.handle(
            Input::Opened(Ok(Saved { others: vec![outbox(1..=2)], ..Saved::default() })),
            now(t),
        );
        assert_eq!(texts(&p), ["1=x", "2=x", "3=x"], "late: {late}");
        assert_eq!(p.replica().pending_elsewhere(), 3);
    }
}

#[test]
fn what_was_adopted_is_not_let_go_by_who_does_not_know_of_it() {
    let mut p = fresh(0);
    let mut outbox = Outbox::new("X");
    outbox.pending.insert(3, saved_action(put("c", "x")));
    outbox.pending.insert(4, saved_action(put("d", "x")));
    p.handle(Input::Store(StoreEvent::Orphan(outbox)), now(1));
    // Whoever had the outbox before has emptied it up to 3, and knows of no 4.
    let settled = Note::Settled { client: "X".into(), before: 4, last: Some(3) };
    p.handle(Input::Store(StoreEvent::Note(settled)), now(2));
    assert_eq!(texts(&p), ["d=x"]);
    assert_eq!(p.replica().pending(), 1);
}

#[test]
fn what_was_taken_over_from_a_store_of_ones_own_is_kept_through_a_refusal() {
    let mut p = Peer::<NoteAction>::new([1, 2], Timing::default(), now(0));
    outs(&mut p);
    let mut outbox = Outbox::new("before");
    outbox.pending.insert(1, saved_action(put("a", "x")));
    let saved = Saved { alone: true, outboxes: vec![outbox], ..Saved::default() };
    p.handle(Input::Opened(Ok(saved)), now(0));
    p.handle(Input::Disconnected(Cause::Status(403)), now(1));
    assert!(matches!(p.status().phase, Phase::Refused(_)));
    let told = stored_all(&mut p, 1);
    assert!(!told.iter().any(|output| matches!(output, Output::TakeOver(_))));
    assert_eq!(p.status().pending, 1, "nobody else will send it");
    p.reconnect(now(2));
    live(&mut p, "null", "[]", 3, 2);
    let sent = stored_all(&mut p, 3);
    let pushed =
        |o: &Output| matches!(o, Output::Send(text) if text.contains(r#""client":"before""#));
    assert!(sent.iter().any(pushed), "{sent:?}");
}

#[test]
fn a_store_that_was_emptied_is_given_what_was_adopted_too() {
    let mut p = fresh(0);
    let mut o = Outbox::new("A");
    o.pending.insert(1, saved_action(put("a", "x")));
    p.handle(Input::Store(StoreEvent::Orphan(o)), now(1));
    stored_all(&mut p, 1);
    p.handle(
        Input::Store(StoreEvent::Broke(partysync::Error::new(partysync::Code::Store, "evicted"))),
        now(1),
    );
    p.handle(Input::Time, now(1));
    outs(&mut p);
    p.handle(Input::Opened(Ok(Saved::default())), now(2)); // made anew, empty
    let w = stored_all(&mut p, 2);
    let mut kept = Kept::default();
    for o in w {
        if let Output::Store(w) = o {
            w.into_iter().for_each(|w| kept.apply(w));
        }
    }
    assert_eq!(p.replica().pending(), 1);
    assert!(p.status().warning.is_none());
    assert_eq!(kept.outboxes.len(), 1, "no warning, and the adopted action is in no store");
}

#[test]
fn what_is_taken_over_is_shown_before_what_was_committed_later() {
    let mut p = fresh(0);
    live(&mut p, "null", "[]", 3, 0);
    for (seq, text) in [(1, "first"), (2, "second"), (3, "third")] {
        let action = saved_action(put("a", text));
        let note = Note::Acted { client: "A".into(), seq, action };
        p.handle(Input::Store(StoreEvent::Note(note)), now(1));
    }
    p.handle(Input::Disconnected(Cause::gone()), now(1)); // this tab is offline
    let held_by = Some(("e".into(), 6));
    let note = Note::Answered { client: "A".into(), seqs: vec![1, 2, 3], held_by };
    p.handle(Input::Store(StoreEvent::Note(note)), now(2));
    assert_eq!(texts(&p), ["a=third"]);
    // Its store has failed, and holds the first of them without its answer.
    let mut outbox = Outbox::new("A");
    outbox.pending.insert(1, saved_action(put("a", "first")));
    p.handle(Input::Store(StoreEvent::Orphan(outbox)), now(3));
    assert_eq!(texts(&p), ["a=third"], "it is shown as it was before");
}
