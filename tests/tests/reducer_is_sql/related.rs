//! The same of tables that refer to each other, and of reducers over several of them: what goes with a
//! row, what is cleared, and what is refused, with the same code.

use super::*;
use partysync::sql::Value;
use partysync::{Code, Draft, Key, Reduce, Schema, Tables, params};
use std::collections::BTreeMap;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "lists")]
struct List {
    #[record(key)]
    id: i64,
    #[record(default = 0)]
    n: i64,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "cards")]
struct Card {
    #[record(key)]
    id: i64,
    #[record(references = "lists", on_delete = "cascade", index)]
    list: i64,
    #[record(references = "cards", on_delete = "set_null")]
    parent: Option<i64>,
    #[record(updated_at)]
    updated_at: Timestamp,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "comments")]
struct Comment {
    #[record(key)]
    id: i64,
    #[record(references = "cards", on_delete = "cascade")]
    card: Option<i64>,
    #[record(references = "comments", on_delete = "cascade")]
    reply_to: Option<i64>,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "pins")]
struct Pin {
    #[record(key)]
    id: i64,
    #[record(references = "cards")]
    card: Option<i64>,
    #[record(references = "comments", on_delete = "cascade")]
    comment: Option<i64>,
    #[record(references = "lists", on_delete = "set_null")]
    list: Option<i64>,
}

/// Who has given a card how many points.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "votes")]
struct Vote {
    #[record(key, references = "cards", on_delete = "cascade")]
    card: i64,
    #[record(key, index)]
    user: String,
    #[record(default = 1)]
    points: i64,
    #[record(references = "lists", on_delete = "set_null")]
    list: Option<i64>,
    #[record(updated_at)]
    updated_at: Timestamp,
}

/// What belongs to two cards, and is deleted softly.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "links")]
struct Link {
    #[record(key)]
    from: i64,
    #[record(key)]
    to: i64,
    #[record(default = "")]
    kind: String,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = List)]
enum ListAction {
    #[action(insert)]
    Create { id: i64, n: i64 },
    #[action(delete)]
    Delete { id: i64 },
    #[action(custom)]
    DeleteBelow { n: i64 },
    /// Its cards go to another list, which counts them.
    #[action(custom)]
    MoveAll { from: i64, to: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Card)]
enum CardAction {
    #[action(insert)]
    Create { id: i64, list: i64, parent: Option<i64> },
    #[action(upsert)]
    Put { id: i64, list: i64 },
    #[action(update)]
    Move { id: i64, list: Option<i64>, parent: Option<Option<i64>> },
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Comment)]
enum CommentAction {
    #[action(insert)]
    Create { id: i64, card: Option<i64>, reply_to: Option<i64> },
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Pin)]
enum PinAction {
    #[action(insert)]
    Create { id: i64, card: Option<i64>, comment: Option<i64>, list: Option<i64> },
    #[action(delete)]
    Delete { id: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Vote)]
enum VoteAction {
    // The fields of a key come in any order.
    #[action(insert)]
    Create { user: String, card: i64, list: Option<i64> },
    #[action(upsert)]
    Put { card: i64, user: String, points: i64 },
    #[action(update)]
    Change { card: i64, user: String, points: Option<i64> },
    #[action(delete)]
    Delete { user: String, card: i64 },
    /// All votes of a user's go to another card, where that has none of theirs.
    #[action(custom)]
    Move { user: String, to: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Link)]
enum LinkAction {
    #[action(insert)]
    Create { from: i64, to: i64 },
    #[action(upsert)]
    Put { from: i64, to: i64, kind: String },
    #[action(update)]
    Change { from: i64, to: i64, kind: String },
    #[action(delete)]
    Delete { from: i64, to: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum BoardAction {
    // What refers comes before what it refers to.
    Links(LinkAction),
    Votes(VoteAction),
    Pins(PinAction),
    Comments(CommentAction),
    Cards(CardAction),
    Lists(ListAction),
}

impl Reduce for ListAction {
    fn reduce_custom(&self, lists: &mut Draft<'_, List>) -> Result<()> {
        match *self {
            Self::DeleteBelow { n } => lists.delete_where(|list| list.n < n),
            Self::MoveAll { from, to } => {
                let mut cards = lists.of::<Card>();
                let (all, mut moved) = (cards.rows()?, 0);
                for card in all.iter().filter(|card| card.list == from) {
                    cards.update(card.id, |card| card.list = to)?;
                    moved += 1;
                }
                lists.update(to, |list| list.n += moved).map(drop)
            }
            _ => Ok(()),
        }
    }
}

impl Reduce for VoteAction {
    fn reduce_custom(&self, votes: &mut Draft<'_, Vote>) -> Result<()> {
        let Self::Move { user, to } = self else { return Ok(()) };
        for vote in votes.rows()?.into_iter().filter(|vote| vote.user == *user) {
            let moved = Vote { card: *to, updated_at: votes.now(), ..vote.clone() };
            if votes.get((*to, user))?.is_none() {
                votes.put(&moved)?;
                votes.delete((vote.card, user))?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Board;

impl SyncServer for Board {
    type Action = BoardAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: BoardAction) -> Result<()> {
        let sql = room.sql();
        match action {
            BoardAction::Lists(ListAction::DeleteBelow { n }) => {
                sql.execute("DELETE FROM lists WHERE n < ?", params![n]).map(drop)
            }
            BoardAction::Lists(ListAction::MoveAll { from, to }) => {
                let count = "SELECT count(*) FROM cards WHERE list = ?";
                let moved: i64 = sql.query_one(count, params![from], |row| row.get(0))?;
                sql.execute("UPDATE cards SET list = ? WHERE list = ?", params![to, from])?;
                let add = "UPDATE lists SET n = n + ? WHERE id = ?";
                sql.execute(add, params![moved, to]).map(drop)
            }
            BoardAction::Votes(VoteAction::Move { user, to }) => {
                let one = "UPDATE votes SET card = ?1 WHERE user = ?2 AND card = (SELECT min(card) \
                           FROM votes WHERE user = ?2) AND NOT EXISTS \
                           (SELECT 1 FROM votes WHERE user = ?2 AND card = ?1)";
                sql.execute(one, params![to, user]).map(drop)
            }
            action => action.apply(sql),
        }
    }
}

/// The rows of a room, for a reducer that tells its error.
struct Rows {
    now: Timestamp,
    rows: BTreeMap<(String, Key), Vec<Value>>,
}

impl Rows {
    fn of(room: &TestRoom<Board>, now: Timestamp) -> Self {
        let mut rows = Self { now, rows: BTreeMap::new() };
        rows.read::<List>(room);
        rows.read::<Card>(room);
        rows.read::<Comment>(room);
        rows.read::<Pin>(room);
        rows.read::<Vote>(room);
        rows.read::<Link>(room);
        rows
    }

    fn read<R: Record>(&mut self, room: &TestRoom<Board>) {
        for row in alive::<R>(room) {
            self.rows.insert((R::SCHEMA.table.to_owned(), row.key()), row.to_row().unwrap());
        }
    }
}

/// The rows that clients see.
fn alive<R: Record>(room: &TestRoom<Board>) -> Vec<R> {
    let mut rows = room.rows::<R>().unwrap();
    rows.retain(|row| !R::SCHEMA.is_deleted(&row.to_row().unwrap()));
    rows
}

impl Tables for Rows {
    fn schemas(&self) -> &'static [&'static Schema] {
        BoardAction::CHANNELS
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn get(&self, channel: &str, key: &Key) -> Option<Vec<Value>> {
        self.rows.get(&(channel.to_owned(), key.clone())).cloned()
    }

    fn set(&mut self, channel: &str, key: Key, row: Option<Vec<Value>>) {
        let at = (channel.to_owned(), key);
        match row {
            Some(row) => self.rows.insert(at, row),
            None => self.rows.remove(&at),
        };
    }

    fn keys(&self, channel: &str) -> Vec<Key> {
        let keys = self.rows.keys().filter(|(table, _)| table == channel);
        keys.map(|(_, key)| key.clone()).collect()
    }
}

fn action() -> impl Strategy<Value = BoardAction> {
    let id = || 0..4_i64;
    let or = || proptest::option::of(0..4_i64);
    let list = prop_oneof![
        3 => (id(), 0..6_i64).prop_map(|(id, n)| ListAction::Create { id, n }),
        2 => id().prop_map(|id| ListAction::Delete { id }),
        1 => (0..4_i64).prop_map(|n| ListAction::DeleteBelow { n }),
        1 => (id(), id()).prop_map(|(from, to)| ListAction::MoveAll { from, to }),
    ];
    let card = prop_oneof![
        2 => (id(), id(), or())
            .prop_map(|(id, list, parent)| CardAction::Create { id, list, parent }),
        1 => (id(), id()).prop_map(|(id, list)| CardAction::Put { id, list }),
        2 => (id(), or(), proptest::option::of(or()))
            .prop_map(|(id, list, parent)| CardAction::Move { id, list, parent }),
        1 => id().prop_map(|id| CardAction::Delete { id }),
    ];
    let comment = prop_oneof![
        3 => (id(), or(), or())
            .prop_map(|(id, card, reply_to)| CommentAction::Create { id, card, reply_to }),
        1 => id().prop_map(|id| CommentAction::Delete { id }),
    ];
    let pin = prop_oneof![
        1 => (id(), or(), or(), or())
            .prop_map(|(id, card, comment, list)| PinAction::Create { id, card, comment, list }),
        1 => id().prop_map(|id| PinAction::Delete { id }),
    ];
    let user = || proptest::sample::select(vec!["", "a", "b\"]", "B"]).prop_map(str::to_owned);
    let vote = prop_oneof![
        3 => (id(), user(), or())
            .prop_map(|(card, user, list)| VoteAction::Create { card, user, list }),
        2 => (id(), user(), id())
            .prop_map(|(card, user, points)| VoteAction::Put { card, user, points }),
        2 => (id(), user(), or())
            .prop_map(|(card, user, points)| VoteAction::Change { card, user, points }),
        1 => (id(), user()).prop_map(|(card, user)| VoteAction::Delete { card, user }),
        1 => (id(), user()).prop_map(|(to, user)| VoteAction::Move { user, to }),
    ];
    let link = prop_oneof![
        2 => (id(), id()).prop_map(|(from, to)| LinkAction::Create { from, to }),
        1 => (id(), id(), user())
            .prop_map(|(from, to, kind)| LinkAction::Put { from, to, kind }),
        1 => (id(), id(), user())
            .prop_map(|(from, to, kind)| LinkAction::Change { from, to, kind }),
        2 => (id(), id()).prop_map(|(from, to)| LinkAction::Delete { from, to }),
    ];
    prop_oneof![
        3 => vote.prop_map(BoardAction::Votes),
        2 => link.prop_map(BoardAction::Links),
        3 => list.prop_map(BoardAction::Lists),
        4 => card.prop_map(BoardAction::Cards),
        3 => comment.prop_map(BoardAction::Comments),
        2 => pin.prop_map(BoardAction::Pins),
    ]
}

proptest! {
    #[test]
    fn what_reducers_of_several_tables_show_is_what_the_sql_writes(
        actions in proptest::collection::vec((action(), 0_i64..3), 0..40),
    ) {
        let mut room = TestRoom::new(Board).unwrap();
        let mut now = Now { monotonic: 0, wall: Timestamp::from_millis(1_000) };
        let mut peer = Peer::<BoardAction>::new([1, 2], Timing::default(), now);
        for (action, wait) in actions {
            room.advance_millis(wait);
            now.wall = now.wall.plus_millis(wait);
            let reduced = action.reduce(&mut Rows::of(&room, now.wall));
            peer.act(action.clone(), now).unwrap();
            let done = room.act(action.clone());
            let code = |result: Result<()>| result.map_err(|error| error.code());
            prop_assert_eq!(code(reduced), code(done), "{:?}", action);
            let replica = peer.replica();
            prop_assert_eq!(replica.rows::<List>().unwrap(), room.rows::<List>().unwrap());
            prop_assert_eq!(replica.rows::<Card>().unwrap(), room.rows::<Card>().unwrap());
            prop_assert_eq!(replica.rows::<Comment>().unwrap(), room.rows::<Comment>().unwrap());
            prop_assert_eq!(replica.rows::<Pin>().unwrap(), room.rows::<Pin>().unwrap());
            prop_assert_eq!(replica.rows::<Vote>().unwrap(), room.rows::<Vote>().unwrap());
            prop_assert_eq!(replica.rows::<Link>().unwrap(), alive::<Link>(&room));
        }
    }
}

/// A comment, its reply, the reply to that and so on, all of them deleted with the first.
fn delete_chain(length: i64) -> (Result<()>, Result<()>) {
    let mut room = TestRoom::new(Board).unwrap();
    let create = |id: i64, reply_to| CommentAction::Create { id, card: None, reply_to };
    for id in 0..length {
        room.act(create(id, (id > 0).then(|| id - 1)).into()).unwrap();
    }
    let delete = BoardAction::from(CommentAction::Delete { id: 0 });
    let reduced = delete.reduce(&mut Rows::of(&room, Timestamp::from_millis(1)));
    (reduced, room.act(delete))
}

#[test]
fn a_cascade_that_is_too_deep_for_sqlite_is_refused_by_both() {
    let code = |result: Result<()>| result.map_err(|error| error.code());
    for (length, outcome) in [(9, Ok(())), (10, Ok(())), (11, Err(Code::Sql)), (12, Err(Code::Sql))]
    {
        let (reduced, done) = delete_chain(length);
        assert_eq!((code(reduced), code(done)), (outcome, outcome), "{length}");
    }
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "topics")]
struct Topic {
    #[record(key)]
    id: i64,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "posts")]
struct Post {
    #[record(key)]
    id: i64,
    #[record(references = "topics", on_delete = "cascade")]
    topic: i64,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Topic)]
enum TopicAction {
    #[action(insert)]
    Create { id: i64 },
    #[action(delete)]
    Delete { id: i64 },
    #[action(custom)]
    DeleteAll,
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Post)]
enum PostAction {
    #[action(insert)]
    Create { id: i64, topic: i64 },
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels)]
enum ForumAction {
    Topics(TopicAction),
    Posts(PostAction),
}

impl Reduce for TopicAction {
    fn reduce_custom(&self, topics: &mut Draft<'_, Topic>) -> Result<()> {
        topics.delete_where(|_| true)
    }
}

struct Forum;

impl SyncServer for Forum {
    type Action = ForumAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: ForumAction) -> Result<()> {
        match action {
            ForumAction::Topics(TopicAction::DeleteAll) => {
                room.sql().execute("UPDATE topics SET deleted_at = 1", params![]).map(drop)
            }
            action => action.apply(room.sql()),
        }
    }
}

#[test]
fn a_row_that_is_softly_deleted_is_referred_to_as_before() {
    let mut room = TestRoom::new(Forum).unwrap();
    let now = Now { monotonic: 0, wall: Timestamp::from_millis(1_000) };
    let mut peer = Peer::<ForumAction>::new([1, 2], Timing::default(), now);
    for action in [
        TopicAction::Create { id: 1 }.into(),
        TopicAction::Create { id: 2 }.into(),
        PostAction::Create { id: 1, topic: 1 }.into(),
        TopicAction::Delete { id: 1 }.into(),
        // Of a topic that the client has no more.
        PostAction::Create { id: 2, topic: 1 }.into(),
        TopicAction::DeleteAll.into(),
        PostAction::Create { id: 3, topic: 2 }.into(),
    ] {
        let action: ForumAction = action;
        peer.act(action.clone(), now).unwrap();
        room.act(action).unwrap();
        assert_eq!(peer.replica().rows::<Post>().unwrap(), room.rows::<Post>().unwrap());
    }
    assert!(peer.replica().rows::<Topic>().unwrap().is_empty());
    assert_eq!(room.rows::<Post>().unwrap().len(), 3);
}
