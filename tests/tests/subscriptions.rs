//! Subscriptions: wakes, cursors, leases, retries, and what becomes of them when the server ends
//! in between.

use futures::executor::block_on;
use futures::stream::TryStreamExt;
use partysync::sql::Sqlite;
use partysync::streams::{Body, Options, Post, SqlStore, Streams, full};
use partysync_tests::bench::Bench;
use serde_json::{Value as Json, json};
use std::rc::Rc;

struct Server {
    /// A database that outlives the server.
    disk: Rc<Sqlite>,
    bench: Bench,
    options: Options,
    streams: Streams<SqlStore<Rc<Sqlite>>, Bench>,
}

impl Server {
    fn new() -> Self {
        let disk = Rc::new(Sqlite::in_memory().unwrap());
        let bench = Bench::default();
        let options = Options { local_webhooks: true, ..Options::default() };
        let store = SqlStore::new(Rc::clone(&disk)).unwrap();
        let streams = Streams::new(store, bench.clone(), options.clone());
        Self { disk, bench, options, streams }
    }

    /// Ends and starts again, with what is on the disk.
    fn restart(&mut self) {
        self.bench.drop_tasks();
        let store = SqlStore::new(Rc::clone(&self.disk)).unwrap();
        self.streams = Streams::new(store, self.bench.clone(), self.options.clone());
    }

    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Json) -> (u16, Json) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("https://streams.example/v1/stream/{path}"))
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (parts, body) =
            block_on(self.streams.handle(request.body(full(body)).unwrap())).into_parts();
        let body = match body {
            Body::Full(bytes) => bytes,
            Body::Live(pieces) => block_on(pieces.try_concat()).unwrap(),
        };
        (parts.status.as_u16(), serde_json::from_slice(&body).unwrap_or(Json::Null))
    }

    fn put(&self, path: &str, body: &Json) -> (u16, Json) {
        self.ask("PUT", path, None, body)
    }

    fn post(&self, path: &str, body: &Json) -> (u16, Json) {
        self.ask("POST", path, None, body)
    }

    fn get(&self, path: &str) -> Json {
        self.ask("GET", path, None, &Json::Null).1
    }

    fn subscribe(&self, more: Json) {
        let mut config = json!({ "type": "webhook", "lease_ttl_ms": 10_000,
            "webhook": { "url": "https://worker.example/hook" } });
        let members = more.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(members);
        let (status, body) = self.put("__ds/subscriptions/s", &config);
        assert_eq!(status, 201, "{body}");
    }

    /// Lets the clock go to the alarm, and the alarm ring.
    fn alarm(&self) -> i64 {
        let millis = self.bench.alarm_in().expect("an alarm");
        self.bench.wait(millis.max(0));
        block_on(self.streams.wake()).unwrap();
        self.bench.run_tasks();
        millis
    }

    fn posted(&self) -> Vec<Json> {
        self.bench.run_tasks();
        let body = |post: Post| serde_json::from_slice(&post.body).unwrap();
        self.bench.take_posts().into_iter().map(body).collect()
    }

    fn cursor(&self, path: &str) -> String {
        let streams = self.get("__ds/subscriptions/s")["streams"].clone();
        let found = streams.as_array().unwrap().iter().find(|link| link["path"] == path).cloned();
        found.map_or(String::new(), |link| link["acked_offset"].as_str().unwrap().to_owned())
    }

    fn done(&self, wake: &Json, acks: &Json) -> (u16, Json) {
        let body = json!({ "wake_id": wake["wake_id"], "generation": wake["generation"],
            "acks": acks, "done": true });
        let token = wake["callback_token"].as_str();
        self.ask("POST", "__ds/subscriptions/s/callback", token, &body)
    }
}

fn acks(wake: &Json) -> Json {
    let ack = |s: &Json| json!({ "stream": s["path"], "offset": s["tail_offset"] });
    wake["streams"].as_array().unwrap().iter().map(ack).collect()
}

#[test]
fn what_was_there_before_is_not_news_and_what_comes_is() {
    let server = Server::new();
    server.bench.set_answer(Some((200, "{}")));
    server.put("events/old", &json!([1, 2]));
    server.subscribe(json!({ "pattern": "events/*" }));
    assert_eq!(server.posted(), [] as [Json; 0]);
    server.post("events/old", &json!(3));
    server.put("other/x", &json!(1));
    let [wake] = &server.posted()[..] else { panic!("not one wake") };
    assert_eq!(wake["generation"], 1);
    assert_eq!(wake["streams"].as_array().unwrap().len(), 1);
    assert_eq!(wake["streams"][0]["path"], "events/old");
    assert_eq!(wake["streams"][0]["acked_offset"], "0000000000000000_0000000000000004");
    assert_eq!(wake["streams"][0]["tail_offset"], "0000000000000000_0000000000000006");
    // While it is at work nothing else wakes it; what came is the next wake.
    server.put("events/new", &json!("x"));
    assert_eq!(server.posted(), [] as [Json; 0]);
    assert_eq!(server.done(wake, &acks(wake)), (200, json!({ "ok": true, "next_wake": true })));
    let [next] = &server.posted()[..] else { panic!("not one wake") };
    assert_eq!(
        (&next["generation"], &next["streams"][0]["path"]),
        (&json!(2), &json!("events/new"))
    );
    // The first one is fenced off, however it comes.
    assert_eq!(server.done(wake, &acks(wake)).0, 409);
    let mixed = json!({ "wake_id": wake["wake_id"], "generation": 2, "callback_token": next["callback_token"] });
    assert_eq!(server.done(&mixed, &json!([])).1["error"]["code"], "FENCED");
    let older = json!({ "wake_id": next["wake_id"], "generation": 1, "callback_token": next["callback_token"] });
    assert_eq!(server.done(&older, &json!([])).1["error"]["code"], "FENCED");
    let (status, body) = server.ask("POST", "__ds/subscriptions/s/callback", None, &json!({}));
    assert_eq!((status, &body["error"]["code"]), (401, &json!("TOKEN_INVALID")));
    assert_eq!(server.done(next, &acks(next)).1["next_wake"], false);
    assert_eq!(server.posted(), [] as [Json; 0]);
}

#[test]
fn a_failed_delivery_is_tried_again_later_and_later_also_after_a_crash() {
    let mut server = Server::new();
    server.subscribe(json!({ "streams": ["a"] }));
    server.put("a", &json!(1));
    let first = server.posted();
    assert_eq!(first.len(), 1);
    assert_eq!(server.get("__ds/subscriptions/s")["status"], "failed");
    let mut waits = Vec::new();
    for round in 0..8 {
        // What fails is a refused connection, an error, and a redirect, which is not followed.
        server.bench.set_answer([None, Some((500, "")), Some((302, ""))][round % 3]);
        if round == 4 {
            server.restart();
        }
        waits.push(server.alarm());
        let again = server.posted();
        assert_eq!(again.len(), 1, "round {round}");
        assert_eq!(again[0]["wake_id"], first[0]["wake_id"]);
    }
    for (wait, whole) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        assert!((whole * 800..=whole * 1200).contains(wait), "{waits:?}");
    }
    server.bench.set_answer(Some((200, r#"{"done":true}"#)));
    server.alarm();
    assert_eq!(server.posted().len(), 1);
    assert_eq!(server.get("__ds/subscriptions/s")["status"], "active");
    assert_eq!(server.cursor("a"), "0000000000000000_0000000000000002");
    assert_eq!(server.bench.alarm_in(), None, "nothing is left to do");
}

#[test]
fn no_more_webhooks_than_allowed_are_posted_at_once_and_none_is_left_out() {
    let server = Server::new();
    server.bench.limit_posts(2);
    server.bench.set_answer(Some((200, r#"{"done":true}"#)));
    for n in 0..5 {
        let config = json!({ "type": "webhook", "pattern": "**",
            "webhook": { "url": "https://worker.example/hook" } });
        assert_eq!(server.put(&format!("__ds/subscriptions/{n}"), &config).0, 201);
    }
    server.put("wakes", &json!([]));
    let config = json!({ "type": "pull-wake", "pattern": "**", "wake_stream": "wakes" });
    assert_eq!(server.put("__ds/subscriptions/pull", &config).0, 201);
    server.put("a", &json!(1));
    assert_eq!(server.bench.waiting_tasks(), 2);
    // The others wait for these, and the alarm does not ring for them at once.
    server.put("b", &json!(1));
    assert_eq!(server.bench.waiting_tasks(), 2);
    assert_eq!(server.bench.alarm_in(), Some(1_000));
    let posted = server.posted();
    let mut who: Vec<_> = posted.iter().map(|post| post["subscription_id"].to_string()).collect();
    who.sort();
    assert_eq!(who, ["\"0\"", "\"1\"", "\"2\"", "\"3\"", "\"4\""]);
    assert_eq!(server.bench.alarm_in(), None);
}

#[test]
fn a_crash_before_a_delivery_loses_no_wake() {
    let mut server = Server::new();
    server.bench.set_answer(Some((200, r#"{"done":true}"#)));
    server.subscribe(json!({ "pattern": "**" }));
    server.put("a", &json!(1));
    // The task that would deliver ends with the process.
    server.restart();
    assert_eq!(server.posted(), [] as [Json; 0]);
    block_on(server.streams.wake()).unwrap();
    assert_eq!(server.posted().len(), 1);
    assert_eq!(server.cursor("a"), "0000000000000000_0000000000000002");
}

#[test]
fn what_comes_while_a_webhook_is_done_with_the_rest_is_the_next_wake() {
    let server = Server::new();
    server.bench.set_answer(Some((200, r#"{"done":true}"#)));
    server.subscribe(json!({ "streams": ["a"] }));
    server.put("a", &json!(1));
    assert_eq!(server.posted().len(), 1);
    server.post("a", &json!(2));
    let posted = server.posted();
    assert_eq!((posted.len(), &posted[0]["generation"]), (1, &json!(2)));
    assert_eq!(server.cursor("a"), "0000000000000000_0000000000000004");
}

#[test]
fn a_lease_that_is_over_gives_the_work_to_another() {
    let server = Server::new();
    server.bench.set_answer(Some((200, "{}")));
    server.subscribe(json!({ "streams": ["a"] }));
    server.put("a", &json!([1, 2]));
    let first = server.posted().remove(0);
    // A sign of life makes the lease longer.
    server.bench.wait(9_000);
    let body = json!({ "wake_id": first["wake_id"], "generation": 1,
        "acks": [{ "stream": "a", "offset": "0000000000000000_0000000000000002" }] });
    let token = first["callback_token"].as_str();
    assert_eq!(server.ask("POST", "__ds/subscriptions/s/callback", token, &body).0, 200);
    // A cursor never goes back.
    let mut back = body.clone();
    back["acks"][0]["offset"] = "0000000000000000_0000000000000000".into();
    assert_eq!(server.ask("POST", "__ds/subscriptions/s/callback", token, &back).0, 200);
    assert_eq!(server.cursor("a"), "0000000000000000_0000000000000002");
    assert_eq!(server.alarm(), 10_000);
    let second = server.posted().remove(0);
    assert_eq!(second["generation"], 2);
    // From where the first one had come.
    assert_eq!(second["streams"][0]["acked_offset"], "0000000000000000_0000000000000002");
    assert_eq!(server.done(&first, &acks(&first)).0, 409);
    assert_eq!(server.done(&second, &acks(&second)).0, 200);
}

#[test]
fn workers_race_for_a_pull_wake_and_one_gets_it() {
    let server = Server::new();
    server.put("wakes", &json!([]));
    let config = json!({ "type": "pull-wake", "pattern": "**", "wake_stream": "wakes", "lease_ttl_ms": 5_000 });
    assert_eq!(server.put("__ds/subscriptions/s", &config).0, 201);
    let claim =
        |worker: &str| server.post("__ds/subscriptions/s/claim", &json!({ "worker": worker }));
    assert_eq!(claim("early").1["error"]["code"], "NO_PENDING_WORK");
    server.put("a", &json!(1));
    let wakes = server.get("wakes");
    assert_eq!((wakes.as_array().unwrap().len(), &wakes[0]["generation"]), (1, &json!(1)));
    let (status, claimed) = claim("one");
    assert_eq!(status, 200);
    let (status, busy) = claim("two");
    assert_eq!((status, &busy["error"]["current_holder"]), (409, &json!("one")));
    let of = |what: &str, wake: &Json, more: Json| {
        let mut body = json!({ "wake_id": wake["wake_id"], "generation": wake["generation"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = format!("__ds/subscriptions/s/{what}");
        server.ask("POST", &path, wake["token"].as_str(), &body)
    };
    // Given back: there is another wake for whoever comes.
    assert_eq!(of("release", &claimed, json!({})).0, 204);
    assert_eq!(server.get("wakes").as_array().unwrap().len(), 2);
    assert_eq!(of("release", &claimed, json!({})).0, 409);
    let (_, second) = claim("two");
    assert_eq!(second["generation"], 2);
    // The lease is over, and nobody has looked yet: the next one gets it.
    server.bench.wait(5_001);
    let (status, third) = claim("three");
    assert_eq!((status, &third["generation"]), (200, &json!(3)));
    assert_eq!(of("ack", &second, json!({ "done": true })).0, 409);
    let done = of("ack", &third, json!({ "acks": acks(&third), "done": true }));
    assert_eq!(done, (200, json!({ "ok": true, "next_wake": false })));
    // Its own wakes did not wake it.
    assert_eq!(server.cursor("wakes"), "");
}

#[test]
fn a_deleted_subscription_wakes_nobody_and_takes_no_acks() {
    let server = Server::new();
    server.bench.set_answer(Some((200, "{}")));
    server.subscribe(json!({ "streams": ["a"] }));
    server.put("a", &json!(1));
    let wake = server.posted().remove(0);
    assert_eq!(server.ask("DELETE", "__ds/subscriptions/s", None, &Json::Null).0, 204);
    assert_eq!(server.done(&wake, &acks(&wake)).0, 404);
    server.post("a", &json!(2));
    assert_eq!(server.posted(), [] as [Json; 0]);
    assert_eq!(server.bench.alarm_in(), None);
}

#[test]
fn a_stream_that_is_gone_is_no_work() {
    let server = Server::new();
    server.bench.set_answer(Some((200, "{}")));
    server.subscribe(json!({ "pattern": "**" }));
    server.put("a", &json!(1));
    server.put("b", &json!(1));
    let wake = server.posted().remove(0);
    server.ask("DELETE", "a", None, &Json::Null);
    let only_b = json!([{ "stream": "b", "offset": "0000000000000000_0000000000000002" }]);
    assert_eq!(server.done(&wake, &only_b).1["next_wake"], false);
    // Another stream at the same path begins anew.
    server.put("a", &json!("again"));
    let next = server.posted().remove(0);
    assert_eq!(next["streams"][0]["acked_offset"], "0000000000000000_0000000000000000");
    // What a fork at that path has from its source is no news.
    server.ask("DELETE", "a", None, &Json::Null);
    let fork = http::Request::put("https://streams.example/v1/stream/a")
        .header("stream-forked-from", "/v1/stream/b");
    let made = block_on(server.streams.handle(fork.body(full(Vec::new())).unwrap()));
    assert_eq!(made.status(), 201);
    assert_eq!(server.done(&next, &json!([])).1["next_wake"], false);
}

#[test]
fn explicit_links_come_and_go_and_leave_the_pattern_s() {
    let server = Server::new();
    server.put("events/a", &json!(1));
    server.subscribe(json!({ "pattern": "events/*", "streams": ["events/a"] }));
    let kind = |path: &str| {
        let streams = server.get("__ds/subscriptions/s")["streams"].clone();
        let found = streams.as_array().unwrap().iter().find(|link| link["path"] == path).cloned();
        found.map(|link| link["link_type"].as_str().unwrap().to_owned())
    };
    assert_eq!(kind("events/a").as_deref(), Some("explicit"));
    let remove = |path: &str| {
        server.ask("DELETE", &format!("__ds/subscriptions/s/streams/{path}"), None, &Json::Null).0
    };
    assert_eq!(remove("events%2Fa"), 204);
    assert_eq!(kind("events/a").as_deref(), Some("glob"));
    assert_eq!(server.post("__ds/subscriptions/s/streams", &json!({ "streams": ["x/y"] })).0, 204);
    assert_eq!(kind("x/y").as_deref(), Some("explicit"));
    assert_eq!((remove("x/y"), remove("x/y")), (204, 204));
    assert_eq!(kind("x/y"), None);
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let server = Server::new();
    let hook = json!({ "url": "https://worker.example/" });
    for (config, code) in [
        (json!({}), "INVALID_REQUEST"),
        (json!({ "type": "webhook", "webhook": hook }), "INVALID_REQUEST"),
        (json!({ "type": "webhook", "pattern": "*" }), "INVALID_REQUEST"),
        (json!({ "type": "pull-wake", "pattern": "*" }), "INVALID_REQUEST"),
        (json!({ "type": "smoke", "pattern": "*", "webhook": hook }), "INVALID_REQUEST"),
        (json!({ "type": "webhook", "pattern": "", "webhook": hook }), "INVALID_REQUEST"),
        (json!({ "type": "webhook", "streams": ["../x"], "webhook": hook }), "INVALID_REQUEST"),
        (json!({ "type": "webhook", "streams": ["__ds/x"], "webhook": hook }), "INVALID_REQUEST"),
        (
            json!({ "type": "webhook", "pattern": "*", "webhook": hook, "lease_ttl_ms": 999 }),
            "INVALID_REQUEST",
        ),
        (
            json!({ "type": "webhook", "pattern": "*", "webhook": hook, "lease_ttl_ms": 600_001 }),
            "INVALID_REQUEST",
        ),
        (json!({ "type": "pull-wake", "streams": ["w"], "wake_stream": "w" }), "INVALID_REQUEST"),
        (
            json!({ "type": "webhook", "pattern": "*", "webhook": { "url": "https://10.0.0.1/" } }),
            "WEBHOOK_URL_REJECTED",
        ),
    ] {
        let (status, body) = server.put("__ds/subscriptions/s", &config);
        assert_eq!((status, &body["error"]["code"]), (400, &json!(code)), "{config}");
    }
    assert_eq!(server.ask("GET", "__ds/subscriptions/s", None, &Json::Null).0, 404);
    assert_eq!(server.put("__ds/subscriptions/a%2Fb", &json!({})).0, 400);
    assert_eq!(server.put("__ds/anything", &json!(1)).0, 404);
    server.subscribe(json!({ "pattern": "*" }));
    let other = json!({ "type": "webhook", "pattern": "**", "webhook": hook });
    assert_eq!(
        server.put("__ds/subscriptions/s", &other).1["error"]["code"],
        "SUBSCRIPTION_ALREADY_EXISTS"
    );
}

#[test]
fn an_operator_who_has_become_stricter_is_obeyed() {
    let mut server = Server::new();
    server.bench.set_answer(Some((200, "{}")));
    server.subscribe(json!({ "pattern": "*", "webhook": { "url": "http://127.0.0.1:1/" } }));
    server.options.local_webhooks = false;
    server.restart();
    server.put("a", &json!(1));
    assert_eq!(server.posted(), [] as [Json; 0]);
    assert_eq!(server.get("__ds/subscriptions/s")["status"], "failed");
}

#[test]
fn keys_are_replaced_and_old_ones_published_for_a_day() {
    let mut server = Server::new();
    let kids = |server: &Server| -> Vec<String> {
        let keys = server.get("__ds/jwks.json")["keys"].clone();
        keys.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let first = kids(&server);
    assert_eq!(first.len(), 1);
    server.restart();
    assert_eq!(kids(&server), first, "a key outlives the process");
    server.subscribe(json!({ "pattern": "*" }));
    let signed_with = |server: &Server| {
        server.post("a", &json!(1));
        server.bench.run_tasks();
        let post = server.bench.take_posts().remove(0);
        let (_, signature) = &post.headers[0];
        signature.split("kid=").nth(1).unwrap().split(',').next().unwrap().to_owned()
    };
    server.bench.set_answer(Some((200, r#"{"done":true}"#)));
    server.put("a", &json!([]));
    assert_eq!(signed_with(&server), first[0]);
    // After thirty days a new one signs, and the old one can still be verified for one more.
    server.bench.wait(31 * 24 * 3600 * 1000);
    let second = signed_with(&server);
    assert_ne!(second, first[0]);
    assert_eq!(kids(&server).len(), 2);
    assert!(kids(&server).contains(&first[0]));
    server.bench.wait(25 * 3600 * 1000);
    assert_eq!(kids(&server), [second.as_str()], "the first was published long enough");
    server.streams.rotate_keys().unwrap();
    assert_eq!(kids(&server).len(), 2);
    assert!(kids(&server).contains(&second));
    // One that others know signs nothing any more, and verifies nothing.
    let known: Vec<_> = kids(&server);
    server.streams.revoke_keys().unwrap();
    let third = kids(&server);
    assert_eq!(third.len(), 1);
    assert!(!known.contains(&third[0]));
    assert_eq!(signed_with(&server), third[0]);
}
