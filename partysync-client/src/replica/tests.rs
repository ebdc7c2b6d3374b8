//! Pending actions that are done again one by one show what all of them show when they are done
//! anew.

use super::overlay::NewRows;
use super::pending::{Pending, Whose};
use super::{Changed, Changes, Replica, Row};
use crate::store::SavedAction;
use partysync::sql::Value;
use partysync::{Action, Draft, Error, Key, Record, Reduce, Result, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: i64,
    n: i64,
}

/// What reducers do with the rows that they read.
#[derive(Action, Clone, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(insert)]
    Insert { id: i64, n: i64 },
    #[action(update)]
    Update { id: i64, n: Option<i64> },
    #[action(delete)]
    Delete { id: i64 },
    #[action(custom)]
    Put { id: i64, n: i64 },
    #[action(custom)]
    Add { id: i64, to: i64 },
    #[action(custom)]
    Sum { to: i64 },
    #[action(custom)]
    Clear { below: i64 },
    #[action(custom)]
    ClearAndCopy { below: i64, id: i64, to: i64 },
    #[action(custom)]
    PutAndClear { id: i64, n: i64, below: i64 },
    #[action(custom)]
    ClearAndSum { below: i64, to: i64 },
    #[action(custom)]
    ClearUnless { below: i64, id: i64 },
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, draft: &mut Draft<'_, Note>) -> Result<()> {
        let sum = |draft: &mut Draft<'_, Note>, to: i64| {
            let n = draft.rows()?.iter().fold(0_i64, |sum, note| sum.wrapping_add(note.n));
            draft.put(&Note { id: to, n })
        };
        match *self {
            Self::Put { id, n } => draft.put(&Note { id, n })?,
            Self::Add { id, to } => {
                let n = draft.get(id)?.ok_or_else(|| Error::reject("it is gone"))?.n;
                draft.update(to, |note| note.n = note.n.wrapping_add(n))?;
            }
            Self::Sum { to } => sum(draft, to)?,
            Self::Clear { below } => draft.delete_where(|note| note.n < below)?,
            Self::ClearAndCopy { below, id, to } => {
                draft.delete_where(|note| note.n < below)?;
                if let Some(note) = draft.get(id)? {
                    draft.put(&Note { id: to, n: note.n })?;
                }
            }
            Self::PutAndClear { id, n, below } => {
                draft.put(&Note { id, n })?;
                draft.delete_where(|note| note.n < below)?;
                draft.delete_where(|note| note.n > below + 4)?;
            }
            Self::ClearAndSum { below, to } => {
                draft.delete_where(|note| note.n < below)?;
                sum(draft, to)?;
            }
            Self::ClearUnless { below, id } => {
                draft.delete_where(|note| note.n < below)?;
                if draft.get(id)?.is_some() {
                    return Err(Error::reject("it is there"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What happens to a replica.
#[derive(Clone, Debug)]
enum Step {
    Act(NoteAction),
    /// One of two other clients acts.
    OtherActs(bool, NoteAction),
    /// Rows are confirmed, and an action of this client is answered.
    Confirm(Vec<(i64, Option<i64>)>, Option<usize>),
    /// What is shown of a row is confirmed, with the answer to the oldest action.
    ConfirmShown(i64),
    OtherRefused(bool, u64),
    OtherDone(bool, u64),
    HandBack,
}

fn action() -> impl Strategy<Value = NoteAction> {
    use NoteAction::*;
    let (id, n) = (|| 0..6_i64, || 0..8_i64);
    prop_oneof![
        2 => (id(), n()).prop_map(|(id, n)| Insert { id, n }),
        4 => (id(), n()).prop_map(|(id, n)| Update { id, n: Some(n) }),
        2 => id().prop_map(|id| Delete { id }),
        2 => (id(), n()).prop_map(|(id, n)| Put { id, n }),
        4 => (id(), id()).prop_map(|(id, to)| Add { id, to }),
        1 => id().prop_map(|to| Sum { to }),
        2 => n().prop_map(|below| Clear { below }),
        2 => (n(), id(), id()).prop_map(|(below, id, to)| ClearAndCopy { below, id, to }),
        2 => (id(), n(), n()).prop_map(|(id, n, below)| PutAndClear { id, n, below }),
        1 => (n(), id()).prop_map(|(below, to)| ClearAndSum { below, to }),
        2 => (n(), id()).prop_map(|(below, id)| ClearUnless { below, id }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let rows = prop::collection::vec((0..6_i64, prop::option::weighted(0.8, 0..8_i64)), 0..4);
    prop_oneof![
        5 => action().prop_map(Step::Act),
        3 => (any::<bool>(), action()).prop_map(|(who, action)| Step::OtherActs(who, action)),
        4 => (rows, prop::option::of(0..3_usize)).prop_map(|(rows, n)| Step::Confirm(rows, n)),
        2 => (0..6_i64).prop_map(Step::ConfirmShown),
        1 => (any::<bool>(), 1..9_u64).prop_map(|(who, seq)| Step::OtherRefused(who, seq)),
        1 => (any::<bool>(), 1..9_u64).prop_map(|(who, seq)| Step::OtherDone(who, seq)),
        1 => Just(Step::HandBack),
    ]
}

fn cells(id: i64, n: i64) -> Row {
    vec![Value::Integer(id), Value::Integer(n)].into()
}

type Client = Replica<NoteAction>;

/// A client that has rows of a room.
pub(super) fn new<A: Action>() -> Replica<A> {
    let mut client = Replica::new("own".into());
    client.epoch = Some("e".to_owned());
    client.tables.values_mut().for_each(|table| table.version = Some(1));
    client
}

/// Rows are confirmed, and an action of this client is answered.
pub(super) fn answer<A: Action>(
    client: &mut Replica<A>,
    new: NewRows,
    answered: Option<usize>,
) -> Changes {
    let own = client.queues.last_mut().unwrap();
    let seq = answered.and_then(|n| own.pending.get(n)).map(|pending| pending.seq);
    let gone: Vec<Pending<_>> = seq.and_then(|seq| own.take(seq)).into_iter().collect();
    client.confirm(new, gone)
}

/// Another client.
pub(super) fn other(who: bool) -> &'static str {
    if who { "one" } else { "two" }
}

/// Another client acts; `seq` counts what they do.
pub(super) fn other_acts<A: Action>(
    client: &mut Replica<A>,
    who: bool,
    action: &A,
    seq: &mut u64,
) -> Changes {
    *seq += 1;
    let saved = SavedAction {
        channel: action.channel().to_owned(),
        action: action.to_json().unwrap(),
        made_at: Timestamp::default(),
        suspicion: Default::default(),
    };
    client.other_acted(other(who), *seq, &saved)
}

/// When all is answered, nothing stays behind.
pub(super) fn leaves_nothing<A: Action>(mut client: Replica<A>) -> TestCaseResult {
    while client.queues.last().unwrap().pending.front().is_some() {
        answer(&mut client, NewRows::new(), Some(0));
    }
    client.queues.retain(|queue| queue.whose == Whose::Own);
    client.replay();
    prop_assert!(client.index.is_empty());
    prop_assert!(client.tables.values().all(|table| table.overlay.is_empty()));
    Ok(())
}

fn confirm(client: &mut Client, rows: &[(i64, Option<i64>)], answered: Option<usize>) -> Changes {
    let mut new = NewRows::new();
    let channel = new.entry("notes").or_default();
    channel.extend(rows.iter().map(|(id, n)| (Key::from(*id), n.map(|n| cells(*id, n)))));
    answer(client, new, answered)
}

fn apply(client: &mut Client, step: &Step, seq: &mut u64) -> Changes {
    match step {
        Step::Act(action) => {
            let json = action.to_json().unwrap();
            client.act(action.clone(), json, Timestamp::default()).changes
        }
        Step::OtherActs(who, action) => other_acts(client, *who, action, seq),
        Step::Confirm(rows, answered) => confirm(client, rows, *answered),
        Step::ConfirmShown(id) => {
            let shown = client.get::<Note>(&Key::from(*id)).unwrap();
            confirm(client, &[(*id, shown.map(|note| note.n))], Some(0))
        }
        Step::OtherRefused(who, seq) => client.other_answered(other(*who), &[*seq], None),
        Step::OtherDone(who, seq) => {
            let held_by = ("e".to_owned(), 1);
            client.other_answered(other(*who), &[*seq], Some(&held_by))
        }
        Step::HandBack => client.hand_back(),
    }
}

/// Rows as they are shown, and the keys that are pending.
fn shown(client: &Client) -> (BTreeMap<Key, Note>, BTreeSet<Key>) {
    let rows = client.rows::<Note>().unwrap();
    let pending = (0..6).map(Key::from).filter(|key| client.is_pending("notes", key)).collect();
    (rows.into_iter().map(|note| (note.key(), note)).collect(), pending)
}

proptest! {
    #[test]
    fn actions_that_are_done_again_alone_show_what_all_show_anew(
        steps in prop::collection::vec(step(), 1..24)
    ) {
        let (mut client, mut anew) = (new::<NoteAction>(), new());
        let (mut seq, mut same) = (0, 0);
        let mut before = shown(&client);
        for step in &steps {
            let changes = apply(&mut client, step, &mut seq);
            apply(&mut anew, step, &mut same);
            anew.replay();
            let after = shown(&client);
            prop_assert_eq!(&after, &shown(&anew), "{:?}", step);
            let differs = |key: &Key| {
                before.0.get(key) != after.0.get(key)
                    || before.1.contains(key) != after.1.contains(key)
            };
            let expected: BTreeSet<Key> = (0..6).map(Key::from).filter(differs).collect();
            let told = match changes.get("notes") {
                Some(Changed::Keys(keys)) => keys.clone(),
                Some(Changed::All) => expected.clone(),
                None => BTreeSet::new(),
            };
            prop_assert_eq!(told, expected, "{:?}", step);
            before = after;
        }
        leaves_nothing(client)?;
    }
}
