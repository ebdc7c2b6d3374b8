//! Pending actions over several tables that refer to each other: those that are done again one by one
//! show what all of them show when they are done anew.

use super::overlay::NewRows;
use super::tests::{answer, leaves_nothing, new, other, other_acts};
use super::{Replica, Row};
use partysync::sql::Value;
use partysync::{Action, Draft, Key, Record, Reduce, Result, Timestamp};
use proptest::prelude::*;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "folders")]
struct Folder {
    #[record(key)]
    id: i64,
    n: i64,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: i64,
    #[record(references = "folders", on_delete = "cascade")]
    folder: i64,
    #[record(references = "notes", on_delete = "set_null")]
    next: Option<i64>,
    #[record(default = 0)]
    n: i64,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(table = "seals")]
struct Seal {
    #[record(key)]
    id: i64,
    #[record(references = "notes")]
    note: i64,
    #[record(references = "folders", on_delete = "set_null")]
    folder: Option<i64>,
}

#[derive(Action, Clone, Debug)]
#[action(record = Folder)]
enum FolderAction {
    #[action(insert)]
    Insert { id: i64, n: i64 },
    #[action(update)]
    Update { id: i64, n: Option<i64> },
    #[action(delete)]
    Delete { id: i64 },
    /// Those of its notes that are below go, and the folder.
    #[action(custom)]
    Empty { id: i64, below: i64 },
    /// Seals of some notes go, and the folder.
    #[action(custom)]
    Unseal { id: i64, below: i64 },
    #[action(custom)]
    Clear { below: i64 },
    /// One goes if another is there, whose notes are counted.
    #[action(custom)]
    Merge { from: i64, to: i64 },
}

#[derive(Action, Clone, Debug)]
#[action(record = Note)]
enum NoteAction {
    #[action(upsert)]
    Put { id: i64, folder: i64, next: Option<i64>, n: i64 },
    #[action(update)]
    Move { id: i64, folder: Option<i64>, next: Option<Option<i64>> },
    #[action(delete)]
    Delete { id: i64 },
    #[action(custom)]
    Count { to: i64 },
}

#[derive(Action, Clone, Debug)]
#[action(record = Seal)]
enum SealAction {
    #[action(insert)]
    Insert { id: i64, note: i64, folder: Option<i64> },
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, Debug)]
#[action(channels)]
enum Any {
    Folders(FolderAction),
    Notes(NoteAction),
    Seals(SealAction),
}

impl Reduce for FolderAction {
    fn reduce_custom(&self, folders: &mut Draft<'_, Folder>) -> Result<()> {
        match *self {
            Self::Empty { id, below } => {
                let mut notes = folders.of::<Note>();
                notes.delete_where(|note| note.folder == id && note.n < below)?;
                folders.delete(id)
            }
            Self::Unseal { id, below } => {
                folders.of::<Seal>().delete_where(|seal| seal.note < below)?;
                folders.delete(id)
            }
            Self::Clear { below } => folders.delete_where(|folder| folder.n < below),
            Self::Merge { from, to } => {
                let mut notes = 0;
                folders.of::<Note>().each(|note| notes += i64::from(note.folder == from))?;
                if folders.update(to, |folder| folder.n += notes)? {
                    folders.delete(from)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Reduce for NoteAction {
    fn reduce_custom(&self, notes: &mut Draft<'_, Note>) -> Result<()> {
        if let Self::Count { to } = *self {
            let n = i64::try_from(notes.rows()?.len()).unwrap();
            notes.of::<Folder>().put(&Folder { id: to, n })?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Act(Any),
    OtherActs(bool, Any),
    /// Rows are confirmed, and an action of this client is answered.
    Confirm(Vec<Confirmed>, Option<usize>),
    OtherRefused(bool, u64),
    HandBack,
}

/// The table, the key and the other cells.
type Confirmed = (usize, i64, Option<[i64; 3]>);

const KEYS: i64 = 4;

fn action() -> impl Strategy<Value = Any> {
    let (id, n) = (|| 0..KEYS, || 0..4_i64);
    let or = || prop::option::of(0..KEYS);
    let folder = prop_oneof![
        2 => (id(), n()).prop_map(|(id, n)| FolderAction::Insert { id, n }),
        1 => (id(), n()).prop_map(|(id, n)| FolderAction::Update { id, n: Some(n) }),
        3 => id().prop_map(|id| FolderAction::Delete { id }),
        2 => (id(), n()).prop_map(|(id, below)| FolderAction::Empty { id, below }),
        2 => (id(), n()).prop_map(|(id, below)| FolderAction::Unseal { id, below }),
        2 => n().prop_map(|below| FolderAction::Clear { below }),
        2 => (id(), id()).prop_map(|(from, to)| FolderAction::Merge { from, to }),
    ];
    let note = prop_oneof![
        3 => (id(), id(), or(), n())
            .prop_map(|(id, folder, next, n)| NoteAction::Put { id, folder, next, n }),
        2 => (id(), or(), prop::option::of(or()))
            .prop_map(|(id, folder, next)| NoteAction::Move { id, folder, next }),
        3 => id().prop_map(|id| NoteAction::Delete { id }),
        1 => id().prop_map(|to| NoteAction::Count { to }),
    ];
    let seal = prop_oneof![
        (id(), id(), or()).prop_map(|(id, note, folder)| SealAction::Insert { id, note, folder }),
        id().prop_map(|id| SealAction::Delete { id }),
    ];
    prop_oneof![
        3 => folder.prop_map(Any::Folders),
        3 => note.prop_map(Any::Notes),
        1 => seal.prop_map(Any::Seals),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let row = (0..3_usize, 0..KEYS, prop::option::weighted(0.8, prop::array::uniform3(0..KEYS)));
    let rows = prop::collection::vec(row, 0..4);
    prop_oneof![
        5 => action().prop_map(Step::Act),
        2 => (any::<bool>(), action()).prop_map(|(who, action)| Step::OtherActs(who, action)),
        5 => (rows, prop::option::of(0..3_usize)).prop_map(|(rows, n)| Step::Confirm(rows, n)),
        1 => (any::<bool>(), 1..9_u64).prop_map(|(who, seq)| Step::OtherRefused(who, seq)),
        1 => Just(Step::HandBack),
    ]
}

fn cells(table: usize, id: i64, [a, b, c]: [i64; 3]) -> Row {
    let maybe = |n: i64| if n == 0 { Value::Null } else { Value::Integer(n) };
    let [id, first, third] = [id, a, c].map(Value::Integer);
    match table {
        0 => vec![id, first].into(),
        1 => vec![id, first, maybe(b), third].into(),
        _ => vec![id, first, maybe(b)].into(),
    }
}

fn confirm(client: &mut Replica<Any>, rows: &[Confirmed], answered: Option<usize>) {
    let mut new = NewRows::new();
    for (table, id, row) in rows {
        let channel = new.entry(Any::CHANNELS[*table].table).or_default();
        channel.insert(Key::from(*id), row.map(|row| cells(*table, *id, row)));
    }
    answer(client, new, answered);
}

fn apply(client: &mut Replica<Any>, step: &Step, seq: &mut u64) {
    match step {
        Step::Act(action) => {
            client.act(action.clone(), action.to_json().unwrap(), Timestamp::default());
        }
        Step::OtherActs(who, action) => {
            other_acts(client, *who, action, seq);
        }
        Step::Confirm(rows, answered) => confirm(client, rows, *answered),
        Step::OtherRefused(who, seq) => {
            client.other_answered(other(*who), &[*seq], None);
        }
        Step::HandBack => {
            client.hand_back();
        }
    }
}

type Shown = (Vec<Folder>, Vec<Note>, Vec<Seal>);

fn shown(client: &Replica<Any>) -> Shown {
    (client.rows().unwrap(), client.rows().unwrap(), client.rows().unwrap())
}

#[test]
fn a_note_that_comes_into_a_folder_that_is_being_deleted_goes_with_it() {
    let mut client = new();
    confirm(&mut client, &[(0, 1, Some([0; 3])), (1, 1, Some([1, 0, 0]))], None);
    let delete = Any::from(FolderAction::Delete { id: 1 });
    apply(&mut client, &Step::Act(delete), &mut 0);
    assert_eq!(shown(&client), Shown::default());
    // Another client's, which was there before the delete is.
    confirm(&mut client, &[(1, 2, Some([1, 1, 0]))], None);
    assert_eq!(shown(&client), Shown::default());
    // The delete is refused: all is there again.
    confirm(&mut client, &[], Some(0));
    assert_eq!((shown(&client).0.len(), shown(&client).1.len()), (1, 2));
}

#[test]
fn a_row_that_was_swept_stays_away_when_another_is_judged() {
    let mut client = new();
    confirm(&mut client, &[(0, 1, Some([0; 3])), (2, 1, Some([0, 1, 0]))], None);
    let unseal = Any::from(FolderAction::Unseal { id: 1, below: 1 });
    apply(&mut client, &Step::Act(unseal), &mut 0);
    assert_eq!(shown(&client), Shown::default());
    // The first one referred to the folder, too.
    confirm(&mut client, &[(2, 2, Some([0, 0, 0]))], None);
    assert_eq!(shown(&client), Shown::default());
}

proptest! {
    #[test]
    fn actions_over_several_tables_show_what_all_show_anew(
        steps in prop::collection::vec(step(), 1..24)
    ) {
        let (mut client, mut anew) = (new::<Any>(), new());
        let (mut seq, mut same) = (0, 0);
        for step in &steps {
            apply(&mut client, step, &mut seq);
            apply(&mut anew, step, &mut same);
            anew.replay();
            prop_assert_eq!(shown(&client), shown(&anew), "{:?}", step);
        }
        leaves_nothing(client)?;
    }
}
