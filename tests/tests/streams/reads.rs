//! What readers get, and what it costs.

use super::support::{Chunks, ask, follow, send};
use futures::future::FutureExt;
use futures::stream::StreamExt;
use partysync::sql::Sqlite;
use partysync::streams::{Body, MemoryStore, Options, Position, Sealed, Streams};
use partysync_tests::bench::Bench;

#[test]
fn the_text_of_a_closed_stream_comes_whole_over_many_pages() {
    for page_bytes in 4..9 {
        let options = Options { page_bytes, ..Options::default() };
        let streams = Streams::new(MemoryStore::new(), Bench::default(), options);
        let text = "aé日本😀".repeat(20);
        let closed = [("content-type", "text/plain"), ("stream-closed", "true")];
        assert_eq!(ask(&streams, "PUT", "log", &closed, &text).status, 201);
        let heard = follow(&streams, "log", "-1").unwrap();
        assert!(heard.data.len() > 20, "it came in {} events", heard.data.len());
        assert_eq!(heard.data.concat(), text);
        assert!(heard.closed);
    }
}

#[test]
fn half_a_character_at_the_end_of_a_closed_stream_is_shown_as_what_it_is() {
    let streams = Streams::new(MemoryStore::new(), Bench::default(), Options::default());
    let text = [("content-type", "text/plain")];
    ask(&streams, "PUT", "source", &text, "a日");
    // A fork of text may end anywhere.
    let fork = [
        ("stream-forked-from", "/v1/stream/source"),
        ("stream-fork-offset", "0000000000000000_0000000000000003"),
    ];
    assert_eq!(ask(&streams, "PUT", "fork", &fork, "").status, 201);
    // While it is open, the rest of the character may come.
    assert_eq!(follow(&streams, "fork", "-1").unwrap().data.concat(), "a");
    assert_eq!(ask(&streams, "POST", "fork", &[("stream-closed", "true")], "").status, 204);
    let heard = follow(&streams, "fork", "-1").unwrap();
    assert_eq!((heard.data.concat().as_str(), heard.closed), ("a\u{fffd}", true));
}

#[test]
fn a_reader_at_the_end_reads_no_chunk_and_one_at_a_fork_s_start_only_the_fork() {
    let chunks = Chunks::default();
    let store = Sealed::new(Sqlite::in_memory().unwrap(), chunks.clone(), "object").unwrap();
    let bench = Bench::default();
    let streams = Streams::new(store, bench.clone(), Options::default());
    let json = [("content-type", "application/json")];
    let long = format!("\"{}\"", "x".repeat(200));
    ask(&streams, "PUT", "log", &json, &long);
    bench.run_tasks();
    let end =
        ask(&streams, "HEAD", "log", &[], "").header("stream-next-offset").unwrap().to_owned();
    let fork = [("stream-forked-from", "/v1/stream/log")];
    assert_eq!(ask(&streams, "PUT", "fork", &fork, "[7]").status, 201);
    assert!(chunks.gets.replace(0) > 0, "nothing was sealed");

    let at_end = format!("log?offset={end}");
    assert_eq!(ask(&streams, "GET", &at_end, &[], "").text(), "[]");
    assert_eq!(ask(&streams, "GET", "log?offset=now", &[], "").text(), "[]");
    assert!(follow(&streams, "log", &end).unwrap().up_to_date);
    assert_eq!(ask(&streams, "GET", &format!("fork?offset={end}"), &[], "").text(), "[7]");
    assert_eq!(follow(&streams, "fork", &end).unwrap().data, ["[7]"]);
    ask(&streams, "POST", "log", &[("stream-closed", "true")], "");
    assert_eq!(ask(&streams, "GET", &format!("{at_end}&live=long-poll"), &[], "").status, 204);
    assert_eq!(chunks.gets.get(), 0);

    // Elsewhere it takes a look to know whether a message begins there.
    let inside = ask(&streams, "GET", "log?offset=0000000000000000_0000000000000007", &[], "");
    assert_eq!((inside.status.as_u16(), chunks.gets.get()), (400, 1));
}

#[test]
fn a_live_reader_that_waits_at_the_end_reads_what_comes_and_no_chunk() {
    let chunks = Chunks::default();
    let store = Sealed::new(Sqlite::in_memory().unwrap(), chunks.clone(), "object").unwrap();
    let bench = Bench::default();
    let streams = Streams::new(store, bench.clone(), Options::default());
    let json = [("content-type", "application/json")];
    ask(&streams, "PUT", "log", &json, &format!("\"{}\"", "x".repeat(200)));
    bench.run_tasks();
    assert!(chunks.gets.replace(0) > 0, "nothing was sealed");

    let Body::Live(mut events) =
        send(&streams, "GET", "log?offset=now&live=sse", &[], "").into_body()
    else {
        panic!("server-sent events are a live body")
    };
    let mut next = || events.next().now_or_never();
    assert!(next().is_some(), "where the end is");
    assert!(next().is_none(), "it waits");
    let mut poll = Box::pin(streams.long_poll("log", Position::Now));
    assert!(poll.as_mut().now_or_never().is_none(), "it waits");
    ask(&streams, "POST", "log", &json, "7");
    let told = String::from_utf8(next().unwrap().unwrap().unwrap()).unwrap();
    assert!(told.starts_with("event: data\ndata:[7]\n"), "{told}");
    let page = poll.now_or_never().unwrap().unwrap();
    assert_eq!(page.bytes, b"7\x1e");
    assert_eq!(chunks.gets.get(), 0);
}
