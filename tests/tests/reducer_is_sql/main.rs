//! The client's reducer and the server's SQL do the same: for any actions, the rows that a
//! replica shows before the server answers are the rows that the server then has.

mod related;

use lab_shared::{Item, ItemAction, ItemId, LabAction, Level, Note, NoteAction};
use partysync::testing::TestRoom;
use partysync::{Action, Record, Result, Room, SyncServer, Timestamp};
use partysync_client::{Now, Output, Peer, Timing};
use proptest::prelude::*;

#[derive(Default)]
struct Plain;

impl SyncServer for Plain {
    type Action = LabAction;

    fn on_action(&self, room: &mut Room<'_, Self>, action: LabAction) -> Result<()> {
        action.apply(room.sql())
    }
}

fn id() -> impl Strategy<Value = ItemId> {
    // Few keys, so that actions meet.
    prop_oneof![Just("a"), Just("b"), Just("ü"), Just("")].prop_map(|id| ItemId(id.into()))
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("SQLite stores NaN as NULL", |x| !x.is_nan()),
        Just(f64::INFINITY)
    ]
}

fn text() -> impl Strategy<Value = String> + Clone {
    "[^\0]{0,12}"
}

fn item_action() -> impl Strategy<Value = ItemAction> {
    let level = prop_oneof![Just(Level::Low), Just(Level::VeryHigh)];
    let tags = proptest::collection::vec(text(), 0..3);
    prop_oneof![
        // Names are unique, which only the server can know: here they stay away.
        id().prop_map(|id| ItemAction::Create { id, name: None }),
        (id(), any::<i64>(), float(), any::<Option<Vec<u8>>>(), level, tags.clone()).prop_map(
            |(id, big, ratio, bytes, level, tags)| ItemAction::Put {
                id,
                big,
                ratio,
                bytes,
                level,
                tags
            }
        ),
        (id(), any::<Option<i64>>(), proptest::option::of(tags))
            .prop_map(|(id, big, tags)| { ItemAction::Change { id, big, name: Some(None), tags } }),
        id().prop_map(|id| ItemAction::Change { id, big: None, name: None, tags: None }),
        id().prop_map(|id| ItemAction::Delete { id }),
    ]
}

fn action() -> impl Strategy<Value = LabAction> {
    let number = prop_oneof![Just(0), Just(i64::MAX), Just(i64::MIN), Just((1 << 53) + 1)];
    prop_oneof![
        4 => item_action().prop_map(LabAction::Items),
        1 => (number.clone(), text()).prop_map(|(number, text)| NoteAction::Write { number, text }.into()),
        1 => number.prop_map(|number| NoteAction::Erase { number }.into()),
    ]
}

#[test]
fn what_is_no_number_is_refused_by_both_where_null_is() {
    let mut room = TestRoom::new(Plain).unwrap();
    let now = Now { monotonic: 0, wall: Timestamp::from_millis(1_000) };
    let mut peer = Peer::<LabAction>::new([1, 2], Timing::default(), now);
    for ratio in [f64::NAN, 1.0, f64::NAN] {
        let (id, level) = (ItemId("a".into()), Level::Low);
        let put = ItemAction::Put { id, big: 1, ratio, bytes: None, level, tags: Vec::new() };
        let action = LabAction::Items(put);
        peer.act(action.clone(), now).unwrap();
        assert_eq!(room.act(action).is_err(), ratio.is_nan());
        let rows = room.rows::<Item>().unwrap();
        assert_eq!(peer.replica().rows::<Item>().unwrap(), rows);
        assert!(rows.iter().all(|item| item.ratio == 1.0));
    }
}

proptest! {
    #[test]
    fn what_the_reducer_shows_is_what_the_sql_writes(
        actions in proptest::collection::vec((action(), 0_i64..3), 0..40),
    ) {
        let mut room = TestRoom::new(Plain).unwrap();
        let mut now = Now { monotonic: 0, wall: Timestamp::from_millis(1_000) };
        let mut peer = Peer::<LabAction>::new([1, 2], Timing::default(), now);
        for (action, wait) in actions {
            room.advance_millis(wait);
            now.wall = now.wall.plus_millis(wait);
            peer.act(action.clone(), now).unwrap();
            let outputs = std::iter::from_fn(|| peer.poll_output());
            let changed = outputs.filter(|output| matches!(output, Output::Changed(_))).count();
            let refused = room.act(action).is_err();
            // What the server refuses, the reducer did not do.
            prop_assert!(!refused || changed == 0);
            let replica = peer.replica();
            let live = |item: &Item| item.deleted_at.is_none();
            let items: Vec<Item> = room.rows::<Item>().unwrap().into_iter().filter(live).collect();
            prop_assert_eq!(&replica.rows::<Item>().unwrap(), &items);
            prop_assert_eq!(replica.rows::<Note>().unwrap(), room.rows::<Note>().unwrap());
        }
    }

    #[test]
    fn an_action_survives_json(action in action()) {
        let json = action.to_json().unwrap().to_string();
        let back = LabAction::from_json(action.channel(), &json);
        prop_assert_eq!(&back.unwrap(), &action);
        // With serde the channel travels along.
        let text = serde_json::to_string(&action).unwrap();
        let start = format!(r#"{{"channel":"{}","action":"#, action.channel());
        prop_assert!(text.starts_with(&start), "{}", text);
        prop_assert_eq!(serde_json::from_str::<LabAction>(&text).unwrap(), action);
    }

    #[test]
    fn a_row_survives_sql_and_json(
        id in text(), big in any::<i64>(), ratio in float(), bytes in any::<Option<Vec<u8>>>(),
        tags in proptest::collection::vec(text(), 0..4), name in proptest::option::of(text()),
        times in any::<(i64, i64, Option<i64>)>(),
    ) {
        let item = Item {
            id: ItemId(id), big, ratio, bytes, level: Level::VeryHigh, tags, name,
            // A time of 0 is one that the SQL forgot: the framework puts its own in.
            created_at: Timestamp::from_millis(times.0.max(1)),
            updated_at: Timestamp::from_millis(times.1.max(1)),
            deleted_at: times.2.map(Timestamp::from_millis),
        };
        // Through JSON, as text on a wire.
        let row = item.to_row().unwrap();
        let json = Item::SCHEMA.row_to_json(&row).unwrap().to_string();
        let cells = Item::SCHEMA.row_from_json(&serde_json::from_str(&json).unwrap()).unwrap();
        prop_assert_eq!(&Item::from_row(cells).unwrap(), &item);
        // Through SQLite, and out of it as the JSON that SQLite builds.
        let room = TestRoom::new(Plain).unwrap();
        let holders = vec!["?"; row.len()].join(", ");
        room.sql().execute(&format!("INSERT INTO items VALUES ({holders})"), row).unwrap();
        prop_assert_eq!(room.rows::<Item>().unwrap(), vec![item]);
    }
}
