//! What a client is doing, as the developers' panel shows it.

use futures::FutureExt;
use partysync::{Action, Draft, Record, Reduce, Room, SyncServer};
use partysync::{Result, Timestamp};
use partysync_client::devtools::{Direction, Inspection};
use partysync_client::testing::Served;
use partysync_client::{Options, Phase, SyncClient};

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: String },
    #[action(custom)]
    Leave,
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Note>) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Notes;

impl SyncServer for Notes {
    type Action = NoteAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        match action {
            NoteAction::Leave => {
                let own = room.sender().map(|sender| sender.id().to_owned());
                own.map_or(Ok(()), |own| room.close(&own, 4403, "as you wish"))
            }
            action => action.apply(room.sql()),
        }
    }
}

fn kinds(now: &Inspection) -> Vec<String> {
    let way = |direction| match direction {
        Direction::In => "<",
        Direction::Out => ">",
        Direction::Connection => "",
    };
    now.frames.iter().map(|frame| format!("{}{}", way(frame.direction), frame.kind)).collect()
}

#[test]
fn frames_versions_what_is_pending_and_queries_are_told() -> Result<()> {
    let mut served = Served::new(Notes)?;
    let (endpoint, transport) = (Served::<Notes>::endpoint(), served.transport());
    let (client, driver) = SyncClient::<NoteAction>::make(endpoint, Options::default(), transport);
    let mut driver = Box::pin(driver);
    let before = client.inspect();
    assert_eq!(before.frames, []);
    assert_eq!((before.status.phase, before.channels[0].version), (Phase::Loading, None));
    let notes = client.query(&Note::query().limit(10))?;
    let count = client.totals(&Note::query().count())?;

    let mut run = || -> Result<()> {
        while (&mut driver).now_or_never().is_none() && served.deliver()? {}
        Ok(())
    };
    run()?;
    let now = client.inspect();
    assert_eq!(kinds(&now), ["connect", "open", ">hello", "<welcome", "<catch_up"]);
    assert_eq!((now.status.phase, now.channels[0].version), (Phase::Live, Some(0)));
    assert_eq!(now.epoch.as_deref(), Some("epoch"));
    assert!(now.frames[2].bytes > 50 && now.frames[2].at == Timestamp::from_millis(1_000));
    assert_eq!((now.answer_ms, now.pending.len()), (None, 0));

    drop(client.send(NoteAction::Put { id: "a".into() }));
    let made = client.inspect();
    let [pending] = &made.pending[..] else { panic!("{:?}", made.pending) };
    assert_eq!((&*pending.action, &*pending.channel, pending.elsewhere), ("put", "notes", false));
    assert_eq!(made.queries.iter().map(|query| query.rows).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(made.channels[0].rows, 0, "it is not confirmed yet");
    run()?;
    let done = client.inspect();
    assert_eq!(kinds(&done)[5..], [">push", ">ping", "<patch", "<pong"]);
    assert_eq!((done.channels[0].version, done.channels[0].rows), (Some(1), 1));
    assert_eq!((done.answer_ms, done.ping_ms, done.pending.len()), (Some(0), Some(0), 0));
    let [rows, totals] = &done.queries[..] else { panic!("{:?}", done.queries) };
    assert_eq!((&*rows.table, rows.limit, rows.totals), ("notes", Some(10), false));
    assert_eq!((&*totals.table, totals.limit, totals.totals), ("notes", None, true));
    // Of a query that nobody holds any more nothing is told.
    drop((notes, count));
    assert_eq!(client.inspect().queries, []);
    Ok(())
}

#[test]
fn of_many_frames_the_last_are_kept_and_why_a_connection_has_ended() -> Result<()> {
    let mut served = Served::new(Notes)?;
    let (endpoint, transport) = (Served::<Notes>::endpoint(), served.transport());
    let (client, driver) = SyncClient::<NoteAction>::make(endpoint, Options::default(), transport);
    let mut driver = Box::pin(driver);
    for n in 0..40 {
        drop(client.send(NoteAction::Put { id: n.to_string() }));
        while (&mut driver).now_or_never().is_none() && served.deliver()? {}
    }
    let frames = kinds(&client.inspect());
    assert_eq!(frames.len(), 50);
    assert_eq!(frames[46..], [">push", ">ping", "<patch", "<pong"]);
    drop(client.send(NoteAction::Leave));
    while (&mut driver).now_or_never().is_none() && served.deliver()? {}
    assert_eq!(kinds(&client.inspect()).last().map(String::as_str), Some("close 4403"));
    Ok(())
}
