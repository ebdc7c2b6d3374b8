//! What a room does at a time: [`Room::schedule`], [`Room::repeat`] and [`Room::cancel`].

use partysync::room::turn::{Local, Turn};
use partysync::room::{Effect, Event, Opening};
use partysync::sql::Sqlite;
use partysync::testing::TestRoom;
use partysync::{
    Action, Code, Draft, Error, Job, Record, Reduce, Repeat, Result, Room, SyncServer, Timestamp,
    params,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    number: i64,
    text: String,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Note)]
enum NoteAction {
    /// Has this done at a time.
    #[action(custom)]
    Plan { name: String, at: i64, task: Task },
    /// Takes a job back, and notes whether there was one.
    #[action(custom)]
    Cancel { name: String },
    /// Plans, and fails.
    #[action(custom)]
    PlanAndFail { name: String },
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Note>) -> Result<()> {
        Ok(())
    }
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
enum Task {
    Note(String),
    /// Works the third time.
    Stubborn,
    Cancel(String),
    /// Is put off for a minute.
    PutOff,
    /// Does itself again after so long, so often.
    Again(i64, u32),
}

#[derive(Default)]
struct Notes {
    heartbeat: Option<u64>,
}

fn note<S>(room: &Room<'_, S>, text: &str) -> Result<()> {
    let sql = "INSERT INTO notes (number, text) SELECT coalesce(max(number), 0) + 1, ? FROM notes";
    room.sql().exec(sql, &params![text])
}

impl SyncServer for Notes {
    type Action = NoteAction;

    fn on_start(&self, room: &mut Room<'_, Self>) -> Result<()> {
        if let Some(seconds) = self.heartbeat {
            let repeat = Repeat::every(Duration::from_secs(seconds))?;
            room.repeat(&repeat, "heartbeat", &Task::Note("beat".into()))?;
        }
        Ok(())
    }

    fn on_action(&self, room: &mut Room<'_, Self>, action: NoteAction) -> Result<()> {
        match action {
            NoteAction::Plan { name, at, task } => {
                room.schedule(Timestamp::from_millis(at), &name, &task)
            }
            NoteAction::Cancel { name } => {
                let known = room.cancel(&name)?;
                note(room, &format!("cancelled {known}"))
            }
            NoteAction::PlanAndFail { name } => {
                room.schedule(room.now(), &name, &Task::Note("never".into()))?;
                Err(Error::reject("it fails"))
            }
        }
    }

    fn on_job(&self, room: &mut Room<'_, Self>, job: &Job) -> Result<()> {
        match job.payload()? {
            Task::Note(text) => note(room, &text),
            Task::Stubborn => {
                note(room, &format!("try {}", job.attempts()))?;
                if job.attempts() < 2 { Err(Error::reject("not yet")) } else { Ok(()) }
            }
            Task::PutOff => room.put_off(job, room.now().plus_millis(60_000)).map(drop),
            Task::Cancel(name) => room.cancel(&name).map(drop),
            Task::Again(_, 0) => note(room, "over"),
            Task::Again(millis, left) => {
                let at = room.now().plus_millis(millis);
                room.schedule(at, job.name(), &Task::Again(millis, left - 1))
            }
        }
    }
}

fn plan(name: &str, at: i64, task: Task) -> NoteAction {
    NoteAction::Plan { name: name.into(), at, task }
}

fn texts(room: &TestRoom<Notes>) -> Vec<String> {
    room.rows::<Note>().unwrap().into_iter().map(|note| note.text).collect()
}

fn said(text: &str) -> Task {
    Task::Note(text.into())
}

#[test]
fn jobs_are_done_at_their_times_in_their_order() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let now = room.now().as_millis();
    room.act(plan("b", now + 2_000, said("second")))?;
    room.act(plan("a", now + 1_000, said("first")))?;
    room.act(plan("c", now - 5_000, said("at once")))?;
    assert_eq!(room.next_alarm(), Some(Timestamp::from_millis(0)));
    assert_eq!(room.jobs()?.len(), 3);
    room.run_for(0)?;
    assert_eq!(texts(&room), ["at once"]);
    room.run_for(1_999)?;
    assert_eq!(texts(&room), ["at once", "first"]);
    let left = room.jobs()?;
    assert_eq!(left[0].name(), "b");
    assert_eq!(left[0].due().as_millis(), now + 2_000);
    let sent = room.run_for(1)?;
    assert_eq!(texts(&room), ["at once", "first", "second"]);
    assert!(sent.iter().any(|(_, frame)| frame.contains("second")), "{sent:?}");
    assert_eq!((room.jobs()?, room.run_for(1_000_000)?.len()), (vec![], 0));
    Ok(())
}

#[test]
fn a_job_is_in_place_of_one_of_its_name_and_can_be_taken_back() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let at = room.now().as_millis() + 1_000;
    room.act(NoteAction::Cancel { name: "a".into() })?;
    room.act(plan("a", at, said("one")))?;
    room.act(plan("a", at + 1_000, said("two")))?;
    room.act(plan("b", at, said("three")))?;
    room.act(NoteAction::Cancel { name: "b".into() })?;
    room.run_for(10_000)?;
    assert_eq!(texts(&room), ["cancelled false", "cancelled true", "two"]);
    assert_eq!(room.take_logged(), Vec::<String>::new());
    Ok(())
}

#[test]
fn what_an_action_plans_the_next_of_the_same_push_can_take_back() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let at = room.now().as_millis() + 1_000;
    let actions = [plan("a", at, said("never")), NoteAction::Cancel { name: "a".into() }];
    let actions = actions.iter().zip(1..).map(|(action, seq)| {
        let action = action.to_json().unwrap();
        serde_json::json!({"seq": seq, "channel": "notes", "action": action})
    });
    let actions: Vec<_> = actions.collect();
    let push = serde_json::json!({"type": "push", "answered": 0, "actions": actions});
    room.frame("self", &push.to_string())?;
    assert_eq!(room.jobs()?, []);
    room.run_for(10_000)?;
    assert_eq!(texts(&room), ["cancelled true"]);
    Ok(())
}

#[test]
fn what_fails_plans_nothing() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let fails = NoteAction::PlanAndFail { name: "a".into() };
    assert_eq!(room.act(fails.clone()).unwrap_err().code(), Code::Rejected);
    assert_eq!(room.jobs()?, []);
    let at = room.now().as_millis() + 1_000;
    room.act(plan("a", at, said("kept")))?;
    assert!(room.act(fails).is_err());
    room.run_for(10_000)?;
    assert_eq!(texts(&room), ["kept"]);
    Ok(())
}

#[test]
fn one_that_fails_writes_nothing_is_logged_and_done_again() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let at = room.now();
    room.act(plan("a", at.as_millis(), Task::Stubborn))?;
    room.act(plan("b", at.as_millis(), said("not held up")))?;
    room.run_for(0)?;
    assert_eq!(texts(&room), ["not held up"]);
    let logged = room.take_logged();
    assert_eq!(logged.len(), 1);
    assert!(logged[0].contains("the job `a`") && logged[0].contains("2000 ms"), "{logged:?}");
    let job = &room.jobs()?[0];
    assert_eq!((job.attempts(), job.due(), job.at()), (1, at, at.plus_millis(2_000)));
    room.hibernate()?;
    room.run_for(2_000)?;
    assert_eq!(room.jobs()?[0].attempts(), 2);
    room.run_for(4_000)?;
    assert_eq!(texts(&room), ["not held up", "try 2"]);
    assert_eq!(room.jobs()?, []);
    Ok(())
}

#[test]
fn a_job_may_plan_itself_again_and_take_others_back() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let now = room.now().as_millis();
    room.act(plan("a", now, Task::Cancel("b".into())))?;
    room.act(plan("b", now, said("never")))?;
    room.act(plan("c", now, Task::Again(500, 3)))?;
    room.run_for(1_499)?;
    assert_eq!(texts(&room), Vec::<String>::new());
    room.run_for(1)?;
    assert_eq!(texts(&room), ["over"]);
    Ok(())
}

#[test]
fn a_room_that_slept_does_what_was_due() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let open = || Sqlite::open(folder.path().join("room.sqlite"));
    let mut room = TestRoom::with(Notes::default(), open()?)?;
    let at = room.now().as_millis() + 1_000;
    room.act(plan("a", at, said("late")))?;
    drop(room);
    let mut room = TestRoom::with(Notes::default(), open()?)?;
    room.run_for(60_000)?;
    assert_eq!(texts(&room), ["late"]);
    Ok(())
}

#[test]
fn what_is_repeated_keeps_its_rhythm() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let open = || Sqlite::open(folder.path().join("room.sqlite"));
    let mut room = TestRoom::with(Notes { heartbeat: Some(10) }, open()?)?;
    room.run_for(25_000)?;
    assert_eq!(texts(&room).len(), 2);
    // Opening asks for it again, and does not put it off.
    room.hibernate()?;
    room.run_for(5_000)?;
    assert_eq!(texts(&room).len(), 3);
    // What was slept through is done once.
    room.advance_millis(95_000);
    room.alarm()?;
    assert_eq!(texts(&room).len(), 4);
    assert_eq!(room.jobs()?[0].due(), Timestamp::from_millis(131_000));
    drop(room);
    // Another rhythm begins anew.
    let room = TestRoom::with(Notes { heartbeat: Some(3_600) }, open()?)?;
    let [job] = &room.jobs()?[..] else { panic!("one job") };
    assert_eq!(job.repeat(), Some(&Repeat::every(Duration::from_secs(3_600))?));
    assert!(job.due().as_millis() > 3_600_000);
    Ok(())
}

#[test]
fn names_and_payloads_have_limits() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let (at, long) = (room.now().as_millis(), "x".repeat(1 << 16));
    let mut refused = |action| room.act(action).unwrap_err();
    assert_eq!(refused(plan("", at, said("a"))).code(), Code::InvalidValue);
    assert_eq!(refused(plan(&"é".repeat(257), at, said("a"))).code(), Code::InvalidValue);
    room.act(plan(&"é".repeat(256), at, said("a")))?;
    let mut refused = |action| room.act(action).unwrap_err();
    assert_eq!(refused(plan("a", at, said(&long))).code(), Code::InvalidValue);
    // A Durable Object reads no larger integers, and has no dates so far away.
    for far in [i64::MAX, 1 << 53, 9_000_000_000_000] {
        assert_eq!(refused(plan("a", far, said("never"))).code(), Code::InvalidValue);
    }
    room.act(plan("past", i64::MIN, said("at once")))?;
    assert_eq!(room.jobs()?[0].due(), Timestamp::from_millis(0));
    Ok(())
}

#[test]
fn what_a_hook_takes_back_itself_is_not_there_and_hurts_nobody() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    room.run(|room| {
        let sql = room.sql();
        let failed = sql.transaction(&mut || {
            room.schedule(room.now(), "a", &said("never"))?;
            Err(Error::reject("not this"))
        });
        assert!(failed.is_err());
        assert_eq!(room.job("a")?, None);
        Ok(())
    })?;
    assert_eq!(room.jobs()?, []);
    room.act(plan("b", 0, said("kept")))?;
    room.run_for(0)?;
    assert_eq!(texts(&room), ["kept"]);
    Ok(())
}

#[test]
fn what_is_put_off_is_finished_only_by_what_it_has_begun() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    let at = room.now().as_millis();
    room.act(plan("a", at, Task::PutOff))?;
    room.run_for(0)?;
    let first = room.jobs()?.remove(0);
    assert_eq!(
        (first.attempts(), first.due().as_millis(), first.at().as_millis()),
        (1, at, at + 60_000)
    );
    room.run_for(60_000)?;
    let second = room.jobs()?.remove(0);
    assert_eq!((second.attempts(), second.due()), (2, first.due()));
    // The first one comes to its end late.
    assert!(!room.run(move |room| room.finish(&first))?);
    assert_eq!(room.jobs()?, std::slice::from_ref(&second));
    assert!(room.run(move |room| room.finish(&second))?);
    assert_eq!(room.jobs()?, []);
    Ok(())
}

#[test]
fn a_repeated_job_that_is_put_off_is_repeated_when_it_is_finished() -> Result<()> {
    let mut room = TestRoom::new(Notes::default())?;
    room.run(|room| room.repeat(&Repeat::every(Duration::from_secs(600))?, "a", &Task::PutOff))?;
    let due = room.jobs()?[0].due();
    room.run_for(600_000)?;
    let job = room.jobs()?.remove(0);
    assert_eq!((job.attempts(), job.due()), (1, due));
    room.run(move |room| room.finish(&job))?;
    let next = room.jobs()?.remove(0);
    assert_eq!((next.attempts(), next.due()), (0, due.plus_millis(600_000)));
    Ok(())
}

#[test]
fn a_job_whose_turn_was_lost_counts_as_failed_and_the_others_are_done_one_by_one() {
    let mut room = Counted::new();
    room.schedule(0, 3);
    room.take(2_000_000, Event::AlarmAgain);
    let version = |room: &Counted| room.room.machine().unwrap().version();
    // Had the second been it, the third would not have been lost with it.
    assert_eq!(version(&room), 1);
    room.take(2_000_000, Event::Alarm);
    assert_eq!(version(&room), 2);
    room.take(2_001_999, Event::Alarm);
    assert_eq!(version(&room), 2);
    room.take(2_002_000, Event::Alarm);
    assert_eq!(version(&room), 3);
    // One that nothing is due for puts nothing off.
    room.schedule(5_000_000, 1);
    room.take(3_000_000, Event::AlarmAgain);
    room.take(6_000_000, Event::Alarm);
    assert_eq!(version(&room), 4);
}

struct Forgetful;

impl SyncServer for Forgetful {
    type Action = NoteAction;

    fn on_action(&self, room: &mut Room<'_, Self>, _: NoteAction) -> Result<()> {
        room.schedule(room.now(), "a", &())
    }
}

#[test]
fn a_job_that_nobody_does_is_kept_and_told_of() -> Result<()> {
    let mut room = TestRoom::new(Forgetful)?;
    room.act(NoteAction::Cancel { name: String::new() })?;
    room.run_for(0)?;
    assert_eq!(room.jobs()?.len(), 1);
    assert!(room.take_logged()[0].contains("no `on_job`"));
    Ok(())
}

/// A room whose effects are counted.
struct Counted {
    db: Sqlite,
    room: Local<Notes>,
    alarms: Vec<Option<Timestamp>>,
}

impl Counted {
    fn new() -> Self {
        let db = Sqlite::in_memory().unwrap();
        Self { db, room: Local::new(Notes::default()), alarms: Vec::new() }
    }

    fn opening() -> Opening {
        Opening { fresh_epoch: "epoch".into(), ..Opening::default() }
    }

    fn take(&mut self, now: i64, event: Event<'_, NoteAction>) {
        let now = Timestamp::from_millis(now);
        let turn = self.room.turn(&self.db, now, Self::opening, [event]).unwrap();
        self.carry_out(turn);
    }

    fn carry_out(&mut self, turn: Turn<Notes>) {
        assert_eq!(turn.aborted, None);
        for effect in turn.effects {
            if let Effect::SetAlarm(at) = effect {
                self.alarms.push(at);
            }
        }
    }

    /// Schedules so many in one event; whether the last of them is there then.
    fn schedule(&mut self, first: i64, count: i64) -> bool {
        let schedule = move |_: &Notes, room: &mut Room<'_, Notes>| {
            for n in first..first + count {
                let at = Timestamp::from_millis(1_000_000 + n);
                room.schedule(at, &format!("{n}"), &Task::Note(n.to_string()))?;
            }
            Ok(room.job(&format!("{}", first + count - 1))?.is_some())
        };
        let now = Timestamp::from_millis(1_000);
        let done = self.room.run(&self.db, now, Self::opening, None, schedule);
        let (turn, planned) = done.unwrap();
        self.carry_out(turn);
        planned.unwrap()
    }
}

#[test]
fn ten_thousand_of_them_are_one_alarm() {
    let mut room = Counted::new();
    // In one event, and in an event each.
    assert!(room.schedule(0, 9_000));
    assert_eq!(room.alarms.len(), 1);
    for n in 9_000..10_000 {
        assert!(room.schedule(n, 1));
    }
    assert_eq!(room.alarms, [Some(Timestamp::from_millis(1_000_000))]);
    // They are due at once: so many are done in a turn.
    room.alarms.clear();
    let mut turns = 0;
    while room.room.machine().unwrap().version() < 10_000 {
        room.take(2_000_000, Event::Alarm);
        turns += 1;
        assert!(turns <= 100, "{} are done", room.room.machine().unwrap().version());
    }
    assert_eq!(turns, 100);
}
