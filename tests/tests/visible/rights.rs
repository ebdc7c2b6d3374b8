//! Rights that change, and what is no connection of v2: requests, the history, version 1.

use super::*;

#[test]
fn a_grant_begins_the_channel_anew_for_whom_it_is_alone() {
    let mut world = World::new(server(own));
    for who in ["ada", "bob"] {
        world.connect(who);
    }
    world.run(&[
        &put("a", "ada"),
        "INSERT INTO notes (id, owner, board, text) VALUES ('t', 'eve', 1, '')",
    ]);
    world.frames.clear();
    world.run(&["INSERT INTO grants VALUES (1, 'bob', 1)", "UPDATE notes SET text = 'new'"]);
    assert_eq!(world.closed.get("bob").map(String::as_str), Some("close 1012 restart"));
    assert_eq!(world.closed.get("ada"), None);
    // It was sent nothing more: not by a view that is not its own any more.
    assert!(world.frames.iter().all(|(who, _)| who != "bob"));
    world.connect("bob");
    assert_eq!(world.notes("bob"), ["t"]);
    let caught_up: Vec<_> =
        world.frames.iter().filter(|(who, f)| who == "bob" && f["type"] == "catch_up").collect();
    let begun: Vec<_> = caught_up.iter().filter(|(_, f)| f["from"].is_null()).collect();
    assert_eq!((caught_up.len(), begun.len()), (3, 1));
    assert_eq!(begun[0].1["channel"], "notes");
    // Taken back while it is away: it says by which view it has its rows.
    world.leave("bob");
    world.run(&["DELETE FROM grants"]);
    world.connect("bob");
    assert_eq!(world.notes("bob"), [] as [&str; 0]);
}

#[test]
fn rights_that_changed_while_a_room_slept_are_noticed() {
    let mut world = World::new(server(own));
    for who in ["ada", "bob"] {
        world.connect(who);
    }
    world.run(&[
        &put("a", "ada"),
        "INSERT INTO notes (id, owner, board, text) VALUES ('t', 'eve', 1, '')",
    ]);
    world.room.hibernate().unwrap();
    let sent = world.room.take_sent();
    world.take(sent);
    assert_eq!(world.closed, BTreeMap::new());
    // They are what they were: patches go on, by view.
    world.run(&["UPDATE notes SET text = 'new'"]);
    assert_eq!((world.notes("ada"), world.told("bob")), (vec!["a".to_owned()], vec![]));
    *world.visible.borrow_mut() =
        Box::new(|room, channel| match room.identity::<String>()?.as_deref() {
            Some("bob") => Ok(Visible::nothing()),
            _ => own(room, channel),
        });
    world.room.hibernate().unwrap();
    world.run(&["UPDATE notes SET text = 'newer'"]);
    assert_eq!(world.closed.keys().collect::<Vec<_>>(), ["bob"]);
}

#[test]
fn a_review_asks_again_what_is_in_no_record() {
    let secret: Rc<RefCell<bool>> = Rc::default();
    let open = secret.clone();
    let mut world =
        World::new(server(
            move |room, channel| {
                if *open.borrow() { Ok(Visible::all()) } else { own(room, channel) }
            },
        ));
    world.connect("ada");
    *secret.borrow_mut() = true;
    world.run(&[&put("b", "bob")]);
    assert_eq!((world.notes("ada"), world.closed.len()), (vec![], 0));
    world.run(&["review"]);
    assert_eq!(world.closed.get("ada").map(String::as_str), Some("close 1012 restart"));
    world.connect("ada");
    assert_eq!(world.notes("ada"), ["b"]);
}

#[test]
fn an_action_that_changes_the_rights_of_who_does_it_has_its_answer() {
    let mut room = TestRoom::new(server(own)).unwrap();
    room.login("ada", "ada").unwrap();
    let grant = |id: i64| {
        let sql = format!("INSERT INTO grants VALUES ({id}, 'ada', {id})");
        Any::from(GrantAction::Run { sql: vec![sql] })
    };
    room.act_as("ada", grant(1)).unwrap();
    room.act_as("ada", grant(2)).unwrap();
    assert_eq!(room.rows::<Grant>().unwrap().len(), 2);
    let answer = room.act_as("ada", grant(2)).unwrap_err();
    assert_eq!(answer.code(), Code::KeyExists);
}

#[test]
fn a_snapshot_is_what_its_caller_sees() {
    let mut world = World::new(server(own));
    world.run(&[
        &put("a", "ada"),
        &put("b", "bob"),
        "INSERT INTO users (name) VALUES ('ada'), ('bob')",
    ]);
    let mut ask = |who: Option<&str>| {
        let mut request = http::Request::new(Vec::new());
        if let Some(who) = who {
            Identity::new(who).unwrap().put(&mut request);
        }
        let answer = world.room.request(request).unwrap();
        serde_json::from_slice::<Json>(answer.body()).unwrap()
    };
    let keys = |answer: &Json, channel: &str| -> Vec<String> {
        let rows = answer["channels"][channel]["rows"].as_array().unwrap();
        rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
    };
    let ada = ask(Some("ada"));
    assert_eq!(
        (keys(&ada, "notes"), keys(&ada, "users")),
        (vec!["a".to_owned()], vec!["ada".to_owned()])
    );
    assert!(ada["channels"]["notes"]["view"].is_string());
    let nobody = ask(None);
    assert_eq!((keys(&nobody, "notes"), keys(&nobody, "users")), (vec![], vec![]));
    let root = ask(Some("root"));
    assert_eq!(keys(&root, "notes"), ["a", "b"]);
    assert!(root["channels"]["notes"]["view"].is_null());
}

#[test]
fn a_v1_client_is_sent_what_it_sees_and_starts_over_with_what_it_has() {
    let mut world = World::new(server(own));
    world.run(&[&put("a", "ada"), &put("b", "bob")]);
    world.connect_as("ada", Protocol::V1).unwrap();
    let frame = |world: &mut World, frame: Json| {
        let sent = world.room.frame("ada", &frame.to_string()).unwrap();
        let own = sent.into_iter().filter(|(to, _)| to == "ada");
        own.map(|(_, text)| serde_json::from_str::<Json>(&text).unwrap()).collect::<Vec<_>>()
    };
    let answer = frame(&mut world, json!({"channel": "notes", "sync": true, "from": null}));
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert_eq!(answer[0]["payload"].as_array().unwrap().len(), 1);
    assert_eq!(answer[0]["payload"][0][0], "a");
    // A row that leaves is deleted for good; of others nothing is said. A call's own rows, too.
    let call = |sql: &str| {
        let action = json!({"type": "run", "payload": {"sql": [sql]}});
        json!({"channel": "notes", "rpc": true, "id": "1", "action": action})
    };
    let answer = frame(&mut world, call("UPDATE notes SET owner = 'bob' WHERE id = 'a'"));
    assert_eq!(answer[0]["type"], "success");
    assert_eq!(answer[0]["result"], json!([["a", null, null, null, null, 1001]]));
    let answer = frame(&mut world, call("UPDATE notes SET text = 'secret'"));
    assert_eq!((answer.len(), &answer[0]["result"]), (1, &json!([])));
    let answer = frame(&mut world, call("UPDATE notes SET owner = 'ada' WHERE id = 'b'"));
    assert_eq!(answer[0]["result"][0][0], "b");
    // What it has may be of another view: nobody can tell.
    let answer = frame(&mut world, json!({"channel": "notes", "sync": true, "from": 1000}));
    assert_eq!((&answer[0]["type"], answer.len()), (&json!("delete-all"), 2));
    assert_eq!(answer[1]["payload"].as_array().unwrap().len(), 1);
    // So it is where it sees all now, and is closed when its rights change; also after a sleep.
    let sent =
        world.room.frame("ada", &call("INSERT INTO grants VALUES (1, 'ada', 5)").to_string());
    assert!(sent.unwrap().contains(&("ada".into(), "close 1012 restart".into())));
}

#[test]
fn a_v1_client_keeps_its_view_when_a_room_sleeps() {
    let mut world = World::new(server(own));
    world.run(&[&put("a", "ada"), &put("b", "bob")]);
    world.connect_as("ada", Protocol::V1).unwrap();
    world.room.hibernate().unwrap();
    let act = |world: &mut World, sql: &str| {
        world.room.act(NoteAction::Run { sql: vec![sql.to_owned()] }.into()).unwrap();
        world.room.take_sent().into_iter().filter(|(to, _)| to == "ada").collect::<Vec<_>>()
    };
    assert_eq!(act(&mut world, "UPDATE notes SET text = 'x' WHERE id = 'b'"), []);
    assert_eq!(act(&mut world, "UPDATE notes SET text = 'x' WHERE id = 'a'").len(), 1);
    *world.visible.borrow_mut() = Box::new(|_, _| Ok(Visible::all()));
    world.room.hibernate().unwrap();
    let sent = act(&mut world, "UPDATE notes SET text = 'y'");
    assert_eq!(sent, [("ada".to_owned(), "close 1012 restart".to_owned())]);
}

#[test]
fn the_history_is_for_those_who_see_everything() {
    let (server, db) = (server(own), Sqlite::in_memory().unwrap());
    let opening = Opening { fresh_epoch: "e".into(), ..Opening::default() };
    let now = Timestamp::from_millis(1);
    let mut machine = Machine::open(&server, &db, now, opening).unwrap();
    machine.handle(&server, &db, now, Event::Alarm);
    let mut sees = |who: Option<&str>| {
        let mut request = http::Request::new(());
        if let Some(who) = who {
            Identity::new(who).unwrap().put(&mut request);
        }
        machine.sees_all(&server, &db, &request).map_err(|error| error.code())
    };
    assert_eq!(sees(Some("root")), Ok(()));
    assert_eq!(sees(Some("ada")), Err(Code::Forbidden));
    assert_eq!(sees(None), Err(Code::Forbidden));
}
