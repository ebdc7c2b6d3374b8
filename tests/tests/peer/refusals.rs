//! What a server says before it lets a client in.

use super::*;

#[test]
fn why_a_room_cannot_be_opened_is_the_status_and_no_error_at_each_attempt() {
    let mut p = fresh(0);
    outs(&mut p);
    let mut t = 1;
    for _ in 0..5 {
        p.handle(Input::Connected, now(t));
        let frame = r#"{"type":"error","code":"migration","message":"its log says why"}"#;
        p.handle(Input::Frame(frame), now(t));
        let (code, reason) = (4500, "migration".to_owned());
        p.handle(Input::Disconnected(Cause::Code { code, reason }), now(t));
        let errors = outs(&mut p).into_iter().filter(|output| matches!(output, Output::Error(_)));
        assert_eq!(errors.count(), 0);
        let Phase::Offline { error, .. } = p.status().phase else { panic!("{:?}", p.status()) };
        assert_eq!((error.code().as_str(), error.message()), ("migration", "its log says why"));
        t = p.timeout().unwrap();
        p.handle(Input::Time, now(t));
    }
    // Once it is let in, an error is one.
    live(&mut p, "null", "[]", 0, t);
    let error = r#"{"type":"error","code":"invalid_frame","message":"what?"}"#;
    p.handle(Input::Frame(error), now(t));
    assert!(outs(&mut p).iter().any(|output| matches!(output, Output::Error(_))));
}

#[test]
fn what_was_said_on_one_connection_is_not_why_another_ends() {
    let mut p = fresh(0);
    p.handle(Input::Connected, now(1));
    let frame = r#"{"type":"error","code":"migration","message":"its log says why"}"#;
    p.handle(Input::Frame(frame), now(1));
    p.reconnect(now(2));
    live(&mut p, "null", "[]", 0, 3);
    p.handle(Input::Disconnected(Cause::gone()), now(4));
    let Phase::Offline { error, .. } = p.status().phase else { panic!("{:?}", p.status()) };
    assert_eq!(error.message(), "the connection broke");
}
