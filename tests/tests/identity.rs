//! Who is behind what: told by the worker, kept with the connection, known to the client's reducers.

use futures::FutureExt;
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Connection, Draft, Error, Handle, Identity, Protocol, Record, Reduce, Result,
    Room, SyncServer, params,
};
use partysync_client::store::{MemoryStore, SqliteStore};
use partysync_client::testing::Served;
use partysync_client::{Options, Phase, SyncClient};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct User {
    name: String,
    may_write: bool,
}

fn user(name: &str) -> User {
    User { name: name.into(), may_write: name != "guest" }
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    author: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(custom)]
    Write { id: String },
    #[action(custom)]
    SendAway { name: String },
}

/// Who writes is not said by the client.
fn author(user: Option<User>) -> Result<String> {
    match user {
        Some(user) if user.may_write => Ok(user.name),
        Some(user) => Err(Error::reject(format!("{} only reads", user.name))),
        None => Err(Error::reject("nobody only reads")),
    }
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, notes: &mut Draft<'_, Note>) -> Result<()> {
        let Self::Write { id } = self else { return Ok(()) };
        notes.put(&Note { id: id.clone(), author: author(notes.identity()?)? })
    }
}

#[derive(Default)]
struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        let author = author(room.identity()?)?;
        match action {
            NoteAction::Write { id } => {
                let sql = "INSERT INTO notes VALUES (?, ?)";
                room.sql().execute(sql, params![id, author]).map(drop)
            }
            NoteAction::SendAway { name } => {
                let of = |c: &Connection| c.identity::<User>().ok().flatten().map(|user| user.name);
                let gone = room.connections().filter(|c| of(c).as_ref() == Some(&name));
                let gone: Vec<_> = gone.map(|c| c.id().to_owned()).collect();
                gone.iter().try_for_each(|id| room.close(id, 4401, "log in again"))
            }
        }
    }

    fn on_connect(
        &self,
        room: &mut Room<'_, Self>,
        connection: &mut Connection,
        _: &http::Request<()>,
    ) -> Result<()> {
        assert_eq!(room.identity::<User>()?, connection.identity()?);
        match connection.identity::<User>()? {
            Some(user) if user.name == "banned" => Err(Error::reject("you were sent away")),
            _ => Ok(()),
        }
    }

    async fn on_request(
        &self,
        room: &Handle<Self>,
        _: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>> {
        room.run(move |room| {
            let name =
                room.identity::<User>()?.map_or_else(|| "nobody".to_owned(), |user| user.name);
            Ok(http::Response::new(name.into_bytes()))
        })
        .await
    }
}

fn authors(room: &TestRoom<Notes>) -> Vec<(String, String)> {
    let notes = room.rows::<Note>().unwrap();
    notes.into_iter().map(|note| (note.id, note.author)).collect()
}

fn write(id: &str) -> NoteAction {
    NoteAction::Write { id: id.into() }
}

#[test]
fn hooks_know_who_it_is_also_after_hibernation() {
    let mut room = TestRoom::new(Notes).unwrap();
    assert_eq!(room.act(write("0")).unwrap_err().message(), "nobody only reads");
    for name in ["ada", "bob", "guest"] {
        room.login(name, &user(name)).unwrap();
    }
    room.act_as("ada", write("1")).unwrap();
    room.hibernate().unwrap();
    room.act_as("bob", write("2")).unwrap();
    room.act_as("ada", write("3")).unwrap();
    assert_eq!(room.act_as("guest", write("4")).unwrap_err().message(), "guest only reads");
    let wanted = [("1", "ada"), ("2", "bob"), ("3", "ada")];
    assert_eq!(authors(&room), wanted.map(|(id, author)| (id.to_owned(), author.to_owned())));
    assert_eq!(room.act_as("carol", write("5")).unwrap_err().code(), Code::NotFound);
    assert_eq!(room.login("banned", &user("banned")).unwrap_err().code(), Code::Rejected);
    assert_eq!(room.act_as("banned", write("5")).unwrap_err().code(), Code::Rejected);
}

#[test]
fn a_request_has_its_own() {
    let mut room = TestRoom::new(Notes).unwrap();
    let mut request = http::Request::new(Vec::new());
    assert_eq!(room.request(request.clone()).unwrap().into_body(), b"nobody");
    Identity::new(&user("ada")).unwrap().put(&mut request);
    assert_eq!(room.request(request).unwrap().into_body(), b"ada");
}

#[test]
fn what_a_client_sends_is_nobody_s_identity() {
    let mut room = TestRoom::new(Notes).unwrap();
    let request = http::Request::builder()
        .header("partysync", r#"{"name":"ada","may_write":true}"#)
        .header("identity", r#"{"name":"ada","may_write":true}"#);
    room.connect_own(&request.body(()).unwrap()).unwrap();
    assert_eq!(room.act(write("1")).unwrap_err().message(), "nobody only reads");
}

#[test]
fn one_that_is_of_another_type_is_an_error_and_not_nobody() {
    let mut room = TestRoom::new(Notes).unwrap();
    room.login("ada", &["of", "an", "older", "version"]).unwrap_err();
    let error = Identity::new(&7).unwrap().read::<User>().unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(Connection::new("c", Protocol::V2).identity::<User>().unwrap().is_none());
}

type Client = SyncClient<NoteAction>;

/// Lets a room and its clients work until there is nothing to do.
fn run(served: &mut Served<Notes>, drivers: &mut [&mut (dyn Future<Output = ()> + Unpin)]) {
    loop {
        for driver in &mut *drivers {
            let _ = driver.now_or_never();
        }
        if !served.deliver().unwrap() {
            break;
        }
    }
}

fn note(client: &Client, id: &str) -> Option<String> {
    client.get::<Note>(id).unwrap().map(|note| note.author)
}

#[test]
fn the_client_s_reducers_know_it_and_without_a_network_too() {
    let kept = MemoryStore::new();
    let file = tempfile::tempdir().unwrap();
    type Make = Box<dyn Fn() -> Options>;
    let stores: [(&str, Make); 2] = [
        ("memory", Box::new(move || Options::new(kept.clone()))),
        (
            "sqlite",
            Box::new(move || {
                Options::new(
                    SqliteStore::open(
                        file.path().join("db"),
                        &partysync_client::Place::new(
                            "notes",
                            "room",
                            partysync_client::User::new("ada"),
                        ),
                    )
                    .unwrap(),
                )
            }),
        ),
    ];
    for (name, options) in stores {
        let mut served = Served::new(Notes).unwrap();
        let transport = served.transport();
        transport.login(&user("ada")).unwrap();
        let (client, driver) = Client::make("ws://x".into(), options(), transport);
        let mut driver = Box::pin(driver);
        wait(&mut served, &mut driver, || client.status().phase == Phase::Live);
        assert_eq!(client.identity::<User>().unwrap(), Some(user("ada")), "{name}");
        drop(client.send(write("1")));
        assert_eq!(note(&client, "1").as_deref(), Some("ada"), "{name}");
        wait(&mut served, &mut driver, || client.status().pending == 0);
        assert_eq!(note(&client, "1").as_deref(), Some("ada"), "{name}");
        client.close();
        wait(&mut served, &mut driver, || client.status().phase == Phase::Closed);
        futures::executor::block_on(driver);

        // Nobody answers any more.
        let away = Served::new(Notes).unwrap().transport();
        let (client, driver) = Client::make("ws://x".into(), options(), away);
        let mut driver = Box::pin(driver);
        wait(&mut served, &mut driver, || client.identity::<User>().unwrap().is_some());
        drop(client.send(write("2")));
        assert_eq!(note(&client, "2").as_deref(), Some("ada"), "{name}");
        client.close();
        futures::executor::block_on(driver);
    }
}

/// Stores work in threads of their own: the deadline is for failing tests only.
fn wait(
    served: &mut Served<Notes>,
    driver: &mut (dyn Future<Output = ()> + Unpin),
    done: impl Fn() -> bool,
) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed().as_secs() < 60, "it never comes");
        run(served, &mut [driver]);
        std::thread::yield_now();
    }
}

#[test]
fn who_connects_again_as_somebody_else_shows_what_is_pending_as_that_one() {
    let mut served = Served::new(Notes).unwrap();
    let transport = served.transport();
    transport.login(&user("guest")).unwrap();
    let (client, driver) = Client::make("ws://x".into(), Options::default(), transport.clone());
    let mut driver = Box::pin(driver);
    run(&mut served, &mut [&mut driver]);
    transport.login(&user("ada")).unwrap();
    let answer = client.send(write("1"));
    assert_eq!(note(&client, "1"), None, "a guest writes nothing");
    client.reconnect();
    run(&mut served, &mut [&mut driver]);
    assert_eq!(client.identity::<User>().unwrap(), Some(user("ada")));
    assert_eq!(answer.now_or_never(), Some(Ok(())));
    assert_eq!(note(&client, "1").as_deref(), Some("ada"));
}

#[test]
fn one_who_is_sent_away_is_asked_again_who_it_is() {
    let mut served = Served::new(Notes).unwrap();
    let (ada, bob) = (served.transport(), served.transport());
    ada.login(&user("ada")).unwrap();
    bob.login(&user("bob")).unwrap();
    let (ada, of_ada) = Client::make("ws://x".into(), Options::default(), ada);
    let (bobs, of_bob) = Client::make("ws://x".into(), Options::default(), bob.clone());
    let (mut of_ada, mut of_bob) = (Box::pin(of_ada), Box::pin(of_bob));
    run(&mut served, &mut [&mut of_ada, &mut of_bob]);
    assert_eq!(bobs.status().phase, Phase::Live);
    bob.login(&user("banned")).unwrap();
    drop(ada.send(NoteAction::SendAway { name: "bob".into() }));
    run(&mut served, &mut [&mut of_ada, &mut of_bob]);
    let Phase::Offline { error, .. } = bobs.status().phase else { panic!("he is there") };
    assert_eq!((error.code(), error.message()), (Code::Unauthorized, "log in again"));
    // Time stands still here.
    bobs.reconnect();
    run(&mut served, &mut [&mut of_ada, &mut of_bob]);
    let Phase::Refused(error) = bobs.status().phase else { panic!("{:?}", bobs.status().phase) };
    assert_eq!(error.message(), "you were sent away");
    assert_eq!(ada.status().phase, Phase::Live);
}

#[test]
fn what_is_made_under_a_clock_that_is_behind_is_not_older_than_the_room() {
    // The client's clock stands at 1 s; the room is five minutes ahead.
    let mut served = Served::new(Notes).unwrap();
    served.room().advance_millis(5 * 60 * 1000);
    let transport = served.transport();
    transport.login(&user("ada")).unwrap();
    let store = MemoryStore::new();
    let (client, driver) = Client::make("ws://x".into(), Options::new(store.clone()), transport);
    let mut driver = Box::pin(driver);
    run(&mut served, &mut [&mut driver]);
    drop(client.send(write("1")));
    let _ = (&mut driver).now_or_never();
    let kept = store.kept().unwrap();
    let made = kept.outboxes.values().flat_map(|outbox| outbox.pending.values());
    let made: Vec<_> = made.map(|action| action.made_at).collect();
    assert_eq!(made, [served.room().now()]);
}

#[test]
fn a_rejection_that_nobody_has_read_is_told_to_all() {
    let mut served = Served::new(Notes).unwrap();
    let (client, driver) = Client::make("ws://x".into(), Options::default(), served.transport());
    let mut driver = Box::pin(driver);
    run(&mut served, &mut [&mut driver]);
    let mut updates = client.updates();
    let mut errors = |served: &mut Served<Notes>| {
        run(served, &mut [&mut driver]);
        let mut errors = Vec::new();
        while let Some(update) = updates.try_recv() {
            errors.extend(update.errors.into_iter().map(|error| error.message().to_owned()));
        }
        errors
    };
    let answers = [client.send(write("1")), client.send(write("2"))];
    assert_eq!(errors(&mut served), [""; 0]);
    let [read, unread] = answers;
    assert!(read.now_or_never().unwrap().is_err());
    drop(unread);
    assert_eq!(errors(&mut served), ["nobody only reads"]);
    assert_eq!(errors(&mut served), [""; 0]);
}

/// A room that looks at the request itself.
struct Asking;

impl SyncServer for Asking {
    type Action = NoteAction;

    fn on_action(&self, _: &mut Room<'_, Self>, _: NoteAction) -> Result<()> {
        Ok(())
    }

    fn on_connect(
        &self,
        _: &mut Room<'_, Self>,
        _: &mut Connection,
        request: &http::Request<()>,
    ) -> Result<()> {
        let header = request.headers().get("x-user").is_some_and(|user| user == "ada");
        match header && request.uri().query() == Some("token=1") {
            true => Ok(()),
            false => Err(Error::new(Code::Unauthorized, "log in first")),
        }
    }
}

#[test]
fn a_room_in_tests_is_given_what_the_address_has_and_says_who_may_log_in() {
    let mut served = Served::new(Asking).unwrap();
    let address = |user: &'static str| {
        partysync_client::Endpoint::new(move || async move {
            Ok(partysync_client::Address::new("ws://room.test/x?token=1").header("x-user", user))
        })
    };
    for user in ["ada", "bob"] {
        let (client, driver) = Client::make(address(user), Options::default(), served.transport());
        let mut driver = Box::pin(driver);
        let mut run =
            || while (&mut driver).now_or_never().is_none() && served.deliver().unwrap() {};
        run();
        if user == "ada" {
            assert_eq!(client.status().phase, Phase::Live);
            continue;
        }
        // Other credentials might be there by now; they are asked for once.
        let phase = client.status().phase;
        let Phase::Offline { error, .. } = phase else { panic!("{phase:?}") };
        assert_eq!((error.code(), error.message()), (Code::Unauthorized, "log in first"));
    }
}

#[test]
fn nobody_is_nobody_before_and_after_hibernation() {
    let mut room = TestRoom::new(Notes).unwrap();
    room.login("ada", &None::<User>).unwrap();
    for _ in 0..2 {
        assert_eq!(room.act_as("ada", write("1")).unwrap_err().message(), "nobody only reads");
        room.hibernate().unwrap();
    }
}

#[test]
fn an_identity_of_another_type_is_not_quoted() {
    let error = Identity::new("ada@example.com").unwrap().read::<u64>().unwrap_err();
    assert!(!error.message().contains("ada"), "{error}");
}
