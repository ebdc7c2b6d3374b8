//! What readers get, and what it costs.

use super::support::{ask, follow};
use partysync::streams::{MemoryStore, Options, Streams};
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
