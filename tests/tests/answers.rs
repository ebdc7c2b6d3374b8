//! Actions that are answered with data: typed at the client, the same whenever they are asked for
//! again, forgotten when they were heard; and actions that are put off instead of refused.

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use partysync::livestore::{EventRoom, EventServer};
use partysync::sql::{Sql, Sqlite};
use partysync::testing::TestRoom;
use partysync::wire::v2::{Ack, ServerFrame};
use partysync::{
    Action, Code, Error, Event, Limits, Protocol, Record, Reduce, Result, Room, SyncServer, params,
};
use partysync_client::testing::{ClientId, Served, World};
use partysync_client::{Options, SyncClient};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::cell::Cell;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "tickets")]
struct Ticket {
    #[record(key)]
    id: String,
    number: i64,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Ticket)]
enum TicketAction {
    /// Answered with a [`Receipt`]: the number is another each time.
    #[action(custom)]
    Draw { id: String },
    /// As `Draw`, and its connection is closed before the answer is sent.
    #[action(custom)]
    DrawAndHangUp { id: String },
    /// Is answered, writes, and is refused then.
    #[action(custom)]
    Regret { id: String },
    /// Answered with a text of so many letters.
    #[action(custom)]
    Print { id: String, letters: usize },
    /// Answered with lists that lie so deep in each other.
    #[action(custom)]
    Nest { deep: usize },
    /// Answered with nothing.
    #[action(custom)]
    Discard { id: String },
    /// Answered when the counter is open, and put off before that.
    #[action(custom)]
    Ask { id: String },
}

/// What the client shows at once.
impl Reduce for TicketAction {
    fn reduce_custom(&self, tickets: &mut partysync::Draft<'_, Ticket>) -> Result<()> {
        match self {
            Self::Draw { id } | Self::DrawAndHangUp { id } | Self::Ask { id } => {
                tickets.put(&Ticket { id: id.clone(), number: 0 })
            }
            _ => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Receipt {
    id: String,
    number: i64,
}

fn receipt(id: &str, number: i64) -> Receipt {
    Receipt { id: id.into(), number }
}

#[derive(Default)]
struct Counter {
    limits: Limits,
    open: Cell<bool>,
    asked: Cell<u32>,
}

impl Counter {
    fn draw(&self, room: &mut Room<'_, Self>, id: &str) -> Result<()> {
        let next = "SELECT coalesce(max(number), 0) + 1 FROM tickets";
        let number: i64 = room.sql().query_one(next, [], |row| row.get(0))?;
        let draw = "INSERT INTO tickets (id, number) VALUES (?, ?)";
        room.sql().execute(draw, params![id, number])?;
        room.answer(&receipt(id, number))
    }
}

impl SyncServer for Counter {
    type Action = TicketAction;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: TicketAction) -> Result<()> {
        match action {
            TicketAction::Draw { id } => self.draw(room, &id),
            TicketAction::DrawAndHangUp { id } => {
                self.draw(room, &id)?;
                let own = room.sender().map(|sender| sender.id().to_owned()).unwrap_or_default();
                room.close(&own, 4000, "later")
            }
            TicketAction::Regret { id } => {
                self.draw(room, &id)?;
                Err(Error::reject("never mind"))
            }
            TicketAction::Print { id, letters } => {
                room.sql().execute("INSERT INTO tickets VALUES (?, 0)", params![id])?;
                room.answer("not yet")?;
                room.answer(&"x".repeat(letters))
            }
            TicketAction::Nest { deep } => {
                room.answer(&(0..deep).fold(Json::Null, |within, _| json!([within])))
            }
            TicketAction::Discard { id } => {
                room.answer(&())?;
                room.sql().execute("DELETE FROM tickets WHERE id = ?", params![id]).map(drop)
            }
            TicketAction::Ask { id } => {
                self.asked.set(self.asked.get() + 1);
                self.draw(room, &id)?;
                if self.open.get() { Ok(()) } else { Err(Error::retry("nobody is here yet")) }
            }
        }
    }

    fn on_message(&self, room: &mut Room<'_, Self>, message: Json) -> Result<()> {
        room.answer(&message)
    }
}

fn draw(id: &str) -> TicketAction {
    TicketAction::Draw { id: id.into() }
}

/// A connection that follows all channels.
fn connect(room: &mut TestRoom<Counter>, id: &str, client: &str) {
    room.connect(id, Protocol::V2).unwrap();
    let schema = Ticket::SCHEMA.hash();
    let hello = json!({"type": "hello", "client": client, "epoch": null, "channels": [
        {"channel": "tickets", "since": null, "schema": schema}]});
    room.frame(id, &hello.to_string()).unwrap();
}

fn push(answered: u64, from: u64, actions: &[TicketAction]) -> String {
    let action = |(seq, action): (u64, &TicketAction)| json!({"seq": seq, "channel": "tickets", "action": action.to_json().unwrap()});
    let actions: Vec<_> = (from..).zip(actions).map(action).collect();
    json!({"type": "push", "answered": answered, "actions": actions}).to_string()
}

/// The answers among what was sent to a connection.
fn acks(sent: &[(String, String)], id: &str) -> Vec<Ack> {
    let to = sent.iter().filter(|(to, text)| to == id && !text.starts_with("close "));
    let patches = to.filter_map(|(_, text)| match ServerFrame::parse(text).unwrap() {
        Some(ServerFrame::Patch(patch)) => Some(patch.acks),
        _ => None,
    });
    patches.flatten().collect()
}

/// The seqs whose results are kept.
fn kept(room: &TestRoom<Counter>) -> Vec<i64> {
    let kept = "SELECT seq FROM _partysync_result ORDER BY client, seq";
    room.sql().query_map(kept, [], |row| row.get(0)).unwrap()
}

fn there(room: &TestRoom<Counter>) -> Vec<String> {
    room.rows::<Ticket>().unwrap().into_iter().map(|ticket| ticket.id).collect()
}

#[test]
fn a_result_arrives_as_the_type_that_is_asked_for() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    assert_eq!(room.act_for::<Receipt>(draw("a")), Ok(receipt("a", 1)));
    assert_eq!(room.act(draw("b")), Ok(()));
    assert_eq!(room.act_for::<Option<Receipt>>(draw("c")), Ok(Some(receipt("c", 3))));
    // The later one counts.
    let print = TicketAction::Print { id: "d".into(), letters: 2 };
    assert_eq!(room.act_for::<String>(print), Ok("xx".to_owned()));
    let discard = TicketAction::Discard { id: "a".into() };
    assert_eq!(room.act_for::<Option<Receipt>>(discard.clone()), Ok(None));
    assert_eq!(room.act_for::<()>(discard), Ok(()));
    room.login("ada", "ada").unwrap();
    assert_eq!(room.act_as_for::<Receipt>("ada", draw("e")), Ok(receipt("e", 4)));
}

#[test]
fn a_client_awaits_a_result_or_lets_it_go() {
    let mut served = Served::new(Counter::default()).unwrap();
    let transport = served.transport();
    let (client, driver) =
        SyncClient::make(Served::<Counter>::endpoint(), Options::default(), transport);
    let (mut pool, own) = (LocalPool::new(), client.clone());
    pool.spawner().spawn_local(driver).unwrap();
    drop(client.send(draw("nobody's")));
    let plain = client.send(draw("plain"));
    let wrong = client.send(draw("wrong")).result::<i64>();
    let refused = client.send(TicketAction::Regret { id: "r".into() }).result::<Receipt>();
    let typed = async move {
        let receipt: Receipt = own.send(draw("typed")).result().await?;
        Ok(receipt)
    };
    let typed = pool.spawner().spawn_local_with_handle(typed).unwrap();
    pool.run_until_stalled();
    while served.deliver().unwrap() {
        pool.run_until_stalled();
    }
    assert_eq!(pool.run_until(plain), Ok(()));
    assert_eq!(pool.run_until(typed), Ok::<_, Error>(receipt("typed", 4)));
    assert_eq!(pool.run_until(refused), Err(Error::reject("never mind")));
    // It was done all the same, and says so.
    let error = pool.run_until(wrong).unwrap_err();
    assert_eq!(error.code(), Code::ResultMismatch);
    assert!(error.message().starts_with("the action was done, but its result is no `i64`"));
    assert_eq!(client.rows::<Ticket>().len(), 4);
}

#[test]
fn a_client_that_asks_for_a_result_where_there_is_none_hears_so() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    let discard = TicketAction::Discard { id: "a".into() };
    let error = room.act_for::<Receipt>(discard).unwrap_err();
    assert_eq!(error.code(), Code::ResultMismatch);
    assert!(error.message().contains("it gave no result"), "{error}");
}

#[test]
fn each_action_of_a_push_has_its_own_result_and_a_refused_one_has_none() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    connect(&mut room, "c", "client");
    let regret = || TicketAction::Regret { id: "r".into() };
    let discard = TicketAction::Discard { id: "?".into() };
    let actions = [draw("a"), regret(), draw("b"), discard, regret(), draw("c")];
    let sent = acks(&room.frame("c", &push(0, 1, &actions)).unwrap(), "c");
    let results: Vec<_> = sent.iter().map(|ack| ack.result.clone()).collect();
    let given = |id, number| Some(json!({"id": id, "number": number}));
    assert_eq!(results, [given("a", 1), None, given("b", 2), None, None, given("c", 3)]);
    let codes: Vec<_> = sent.iter().map(|ack| ack.code.as_deref()).collect();
    let rejected = Some("rejected");
    assert_eq!(codes, [None, rejected, None, None, rejected, None]);
    assert_eq!(
        (there(&room), kept(&room)),
        (vec!["a".into(), "b".into(), "c".into()], vec![1, 3, 6])
    );
}

/// What an action is answered when its answer was lost, and something has happened to the room.
fn again(happens: impl FnOnce(TestRoom<Counter>) -> TestRoom<Counter>) {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    connect(&mut room, "c", "client");
    let actions = [draw("a"), TicketAction::Regret { id: "r".into() }, draw("b")];
    let first = acks(&room.frame("c", &push(0, 1, &actions)).unwrap(), "c");
    // Later ones are answered as well, and nothing is heard of any.
    room.frame("c", &push(0, 4, &[draw("c")])).unwrap();
    room.disconnect("c").unwrap();
    let mut room = happens(room);
    room.act(draw("of another")).unwrap();
    connect(&mut room, "again", "client");
    let second = acks(&room.frame("again", &push(0, 1, &actions)).unwrap(), "again");
    assert_eq!(first, second);
    assert_eq!(second[2].result, Some(json!({"id": "b", "number": 2})));
    let third = acks(&room.frame("again", &push(0, 4, &[draw("c")])).unwrap(), "again");
    assert_eq!(third[0].result, Some(json!({"id": "c", "number": 3})));
    assert_eq!(there(&room), ["a", "b", "c", "of another"]);
}

#[test]
fn an_action_whose_answer_was_lost_is_given_the_same_result() {
    again(|room| room);
}

#[test]
fn it_is_given_the_same_when_the_room_has_slept() {
    again(|mut room| {
        room.hibernate().unwrap();
        room
    });
}

#[test]
fn it_is_given_the_same_when_the_room_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("room.sqlite");
    let open = || TestRoom::with(Counter::default(), Sqlite::open(&path).unwrap()).unwrap();
    let mut room = open();
    connect(&mut room, "c", "client");
    let actions = [draw("a"), draw("b")];
    let first = acks(&room.frame("c", &push(0, 1, &actions)).unwrap(), "c");
    drop(room);
    let mut room = open();
    connect(&mut room, "c", "client");
    let second = acks(&room.frame("c", &push(0, 1, &actions)).unwrap(), "c");
    assert_eq!((first.len(), &first), (2, &second));
    assert_eq!(second[1].result, Some(json!({"id": "b", "number": 2})));
}

#[test]
fn a_client_that_was_hung_up_on_hears_its_result_when_it_is_back() -> Result<()> {
    let mut world = World::new(Counter::default())?;
    let ada = world.client();
    world.deliver()?;
    let seq = world.act(ada, TicketAction::DrawAndHangUp { id: "a".into() })?;
    world.deliver()?;
    assert_eq!(world.result::<Receipt>(ada, seq), None);
    world.room().act(draw("of another"))?;
    come_back(&mut world)?;
    assert_eq!(world.result(ada, seq), Some(Ok(receipt("a", 1))));
    assert_eq!(there(world.room()), ["a", "of another"]);
    Ok(())
}

/// Connections that were lost are there again, and what waited for them is sent.
fn come_back(world: &mut World<Counter>) -> Result<()> {
    for _ in 0..3 {
        world.advance(60_000)?;
        world.deliver()?;
    }
    Ok(())
}

#[test]
fn the_result_of_an_earlier_life_of_the_page_is_told_to_nobody() -> Result<()> {
    let mut world = World::new(Counter::default())?;
    let ada = world.client();
    world.deliver()?;
    let seq = world.act(ada, TicketAction::DrawAndHangUp { id: "a".into() })?;
    world.deliver()?;
    world.restart(ada)?;
    come_back(&mut world)?;
    assert_eq!((world.status(ada)?.pending, world.result::<Receipt>(ada, seq)), (0, None));
    assert_eq!((world.errors(ada), there(world.room())), (vec![], vec!["a".to_owned()]));
    Ok(())
}

#[test]
fn a_result_is_kept_until_its_client_has_heard_it() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    let made = |room: &TestRoom<Counter>| {
        let made = "SELECT count(*) FROM sqlite_master WHERE name = '_partysync_result'";
        room.sql().query_one(made, [], |row| row.get::<i64>(0)).unwrap()
    };
    room.act(TicketAction::Discard { id: "a".into() }).unwrap();
    assert_eq!(made(&room), 0);
    connect(&mut room, "c", "client");
    room.frame("c", &push(0, 1, &[draw("1"), draw("2"), draw("3")])).unwrap();
    connect(&mut room, "d", "other");
    room.frame("d", &push(0, 1, &[draw("o")])).unwrap();
    assert_eq!((made(&room), kept(&room)), (1, vec![1, 2, 3, 1]));
    // Asked for again before it was heard.
    room.frame("c", &push(1, 2, &[draw("2")])).unwrap();
    assert_eq!(kept(&room), [2, 3, 1]);
    // Nothing of it is in memory: it is looked up.
    room.hibernate().unwrap();
    let quiet = TicketAction::Discard { id: "?".into() };
    room.frame("c", &push(3, 4, std::slice::from_ref(&quiet))).unwrap();
    assert_eq!(kept(&room), [1]);
    room.frame("c", &push(4, 5, &[draw("5")])).unwrap();
    room.frame("c", &push(5, 6, &[quiet])).unwrap();
    assert_eq!(kept(&room), [1]);
}

#[test]
fn a_client_of_ours_says_what_it_has_heard() -> Result<()> {
    let mut world = World::new(Counter::default())?;
    let ada = world.client();
    world.deliver()?;
    let ask = |world: &mut World<Counter>, ada: ClientId, id: &str| -> Result<_> {
        let seq = world.act(ada, draw(id))?;
        world.deliver()?;
        Ok(world.result::<Receipt>(ada, seq))
    };
    for (id, number) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(ask(&mut world, ada, id)?, Some(Ok(receipt(id, number))));
        assert_eq!(kept(world.room()), [number]);
    }
    Ok(())
}

#[test]
fn results_are_forgotten_with_their_client() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    connect(&mut room, "c", "client");
    room.frame("c", &push(0, 1, &[draw("1")])).unwrap();
    room.disconnect("c").unwrap();
    let day = 24 * 60 * 60 * 1000;
    room.run_for(60 * day).unwrap();
    assert_eq!(kept(&room), [1]);
    room.run_for(31 * day).unwrap();
    assert_eq!(kept(&room), [0; 0]);
}

#[test]
fn a_client_that_never_says_what_it_has_heard_leaves_no_more_than_a_push() {
    let limits = Limits { push_actions: 10, ..Limits::default() };
    let mut room = TestRoom::new(Counter { limits, ..Counter::default() }).unwrap();
    connect(&mut room, "c", "client");
    for seq in 1..=40 {
        let sent = room.frame("c", &push(0, seq, &[draw(&seq.to_string())])).unwrap();
        assert_eq!(acks(&sent, "c").len(), 1);
    }
    assert_eq!(kept(&room), (31..=40).collect::<Vec<_>>());
}

#[test]
fn a_result_that_is_too_large_refuses_the_action() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    let print = |id: &str, letters| TicketAction::Print { id: id.into(), letters };
    // Two quotes are a part of it.
    let most = 64 * 1024 - 2;
    assert_eq!(room.act_for::<String>(print("a", most)).unwrap().len(), most);
    let error = room.act(print("b", most + 1)).unwrap_err();
    let message = "a result of 65537 bytes; the limit is 65536";
    assert_eq!((error.code(), error.message()), (Code::TooLarge, message));
    assert_eq!(there(&room), ["a"]);
    assert_eq!(room.act(TicketAction::Nest { deep: 64 }), Ok(()));
    let error = room.act(TicketAction::Nest { deep: 65 }).unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
    let limits = Limits { result_bytes: 10, ..Limits::default() };
    let mut room = TestRoom::new(Counter { limits, ..Counter::default() }).unwrap();
    assert_eq!(room.act(print("a", 9)).unwrap_err().code(), Code::TooLarge);
    room.act(print("a", 8)).unwrap();
}

#[test]
fn only_an_action_is_answered_with_something() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    let error = room.run(|room| room.answer(&7)).unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("only `on_action`"), "{error}");
    let sent = room.frame("self", r#"{"type":"message","data":7}"#).unwrap();
    assert!(sent[0].1.contains("Something went wrong"), "{sent:?}");
}

#[test]
fn a_call_of_version_1_is_answered_with_its_rows() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    room.connect("v1", Protocol::V1).unwrap();
    let action = draw("a").to_json().unwrap();
    let call = json!({"id": "1", "channel": "tickets", "rpc": true, "action": action});
    let sent = room.frame("v1", &call.to_string()).unwrap();
    let own = sent.iter().find(|(to, _)| to == "v1").map(|(_, text)| text).unwrap();
    let answer: Json = serde_json::from_str(own).unwrap();
    assert_eq!(answer["result"], json!([["a", 1, null]]));
}

#[test]
fn large_results_of_a_push_come_in_several_frames() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    connect(&mut room, "c", "client");
    let print = |n: u64| TicketAction::Print { id: n.to_string(), letters: 60_000 };
    let actions: Vec<_> = (1..=100).map(print).collect();
    for _ in 0..2 {
        let sent = room.frame("c", &push(0, 1, &actions)).unwrap();
        let largest = sent.iter().map(|(_, text)| text.len()).max();
        assert!(largest < Some(700_000), "{largest:?}");
        let acks = acks(&sent, "c");
        assert_eq!(
            acks.iter().map(|ack| ack.seq).collect::<Vec<_>>(),
            (1..=100).collect::<Vec<_>>()
        );
        assert!(acks.iter().all(|ack| ack.result.is_some()));
        // The second time it has lost its answers.
        room.disconnect("c").unwrap();
        connect(&mut room, "c", "client");
    }
}

#[test]
fn who_does_not_read_large_results_comes_again_for_the_rest() {
    let mut room = TestRoom::new(Counter::default()).unwrap();
    let print = |n: u64| TicketAction::Print { id: n.to_string(), letters: 60_000 };
    let (mut answered, mut connections) = (0, 0);
    while answered < 500 {
        connections += 1;
        assert!(connections < 10, "it got no further than {answered}");
        connect(&mut room, "c", "client");
        // It pushes on, and never says what it has read. The room holds 8 MiB for it at most.
        for pushes in 0.. {
            assert!(pushes < 5, "it is not sent away");
            let actions: Vec<_> = (answered + 1..=500).take(100).map(print).collect();
            if actions.is_empty() {
                break;
            }
            let sent = room.frame("c", &push(answered, answered + 1, &actions)).unwrap();
            for ack in acks(&sent, "c") {
                assert_eq!(ack.seq, answered + 1);
                assert!(ack.result.is_some(), "{}", ack.seq);
                answered = ack.seq;
            }
            if sent.iter().any(|(_, text)| text == "close 4429 slow_reader") {
                break;
            }
        }
        room.disconnect("c").unwrap();
    }
    assert!(connections > 1);
    assert_eq!(there(&room).len(), 500);
}

#[test]
fn an_action_that_is_put_off_stays_pending_and_is_done_later() -> Result<()> {
    let mut world = World::new(Counter::default())?;
    let ada = world.client();
    world.deliver()?;
    let first = world.act(ada, draw("first"))?;
    let ask = world.act(ada, TicketAction::Ask { id: "asked".into() })?;
    let behind = world.act(ada, draw("behind"))?;
    world.deliver()?;
    // What came before it is done; nothing of it is written, and what came after it waits.
    assert_eq!(there(world.room()), ["first"]);
    assert_eq!((world.answer(ada, first), world.answer(ada, ask)), (Some(&Ok(())), None));
    assert_eq!(world.status(ada)?.pending, 2);
    assert!(world.is_pending::<Ticket>(ada, "asked") && world.is_pending::<Ticket>(ada, "behind"));
    come_back(&mut world)?;
    assert_eq!((there(world.room()), world.status(ada)?.pending), (vec!["first".to_owned()], 2));
    assert!(world.room().server().asked.get() > 1);
    world.room().server().open.set(true);
    come_back(&mut world)?;
    assert_eq!(world.result(ada, ask), Some(Ok(receipt("asked", 2))));
    assert_eq!(world.result(ada, behind), Some(Ok(receipt("behind", 3))));
    let shown = world.rows::<Ticket>(ada)?;
    assert_eq!((shown.len(), world.status(ada)?.pending), (3, 0));
    // However long it takes, it is not given up.
    assert!(world.abandoned(ada).is_empty());
    Ok(())
}

/// A room whose rows are made of events.
struct Sourced;

#[derive(Event, Clone)]
enum TicketEvent {
    Drawn { id: String, number: i64 },
}

impl SyncServer for Sourced {
    type Action = TicketAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: TicketAction) -> Result<()> {
        let (TicketAction::Draw { id } | TicketAction::Regret { id }) = &action else {
            return Ok(());
        };
        let next = "SELECT coalesce(max(number), 0) + 1 FROM tickets";
        let number = room.sql().query_one(next, [], |row| row.get(0))?;
        self.commit(room, TicketEvent::Drawn { id: id.clone(), number })?;
        room.answer(&receipt(id, number))?;
        match action {
            TicketAction::Regret { .. } => Err(Error::reject("never mind")),
            _ => Ok(()),
        }
    }
}

impl EventServer for Sourced {
    type Event = TicketEvent;

    fn materialize(&self, sql: &dyn Sql, event: &TicketEvent) -> Result<()> {
        let TicketEvent::Drawn { id, number } = event;
        sql.exec("INSERT OR REPLACE INTO tickets (id, number) VALUES (?, ?)", &params![id, *number])
    }
}

#[test]
fn an_action_of_an_event_sourced_room_is_answered_with_a_result() {
    let mut room = TestRoom::new(EventRoom::of_test(Sourced)).unwrap();
    assert_eq!(room.act_for::<Receipt>(draw("a")), Ok(receipt("a", 1)));
    let regret = TicketAction::Regret { id: "r".into() };
    assert_eq!(room.act_for::<Receipt>(regret), Err(Error::reject("never mind")));
    // Its answer is lost, and it is asked for again.
    let push = push(0, 1, &[draw("b")]);
    let lost = room.login("lost", "lost").and_then(|()| room.frame("lost", &push)).unwrap();
    room.hibernate().unwrap();
    let heard = room.frame("lost", &push).unwrap();
    assert_eq!(acks(&lost, "lost"), acks(&heard, "lost"));
    assert_eq!(acks(&heard, "lost")[0].result, Some(json!({"id": "b", "number": 2})));
    assert_eq!(room.rows::<Ticket>().unwrap().len(), 2);
}
