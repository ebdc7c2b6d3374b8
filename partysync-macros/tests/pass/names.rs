//! Derived code meets no name of the user's, wherever the library is, and warns of nothing.

#![deny(warnings)]

mod reexported {
    pub use ::partysync as sync;
}

/// Not the library.
mod partysync {}

use reexported::sync::{Action, Column, Draft, Event, Record, Reduce, Result, Timestamp};

#[derive(Column, Clone, PartialEq, Debug)]
#[column(crate = "crate::reexported::sync")]
struct Id(u64);

#[derive(Column, Clone, PartialEq, Debug)]
#[column(crate = "crate::reexported::sync")]
enum Hidden {
    One,
    Two,
}

// More visible than the types of its columns.
#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "things", crate = "reexported::sync")]
pub struct Thing {
    #[record(key)]
    id: Id,
    hidden: Hidden,
    #[record(default = "-")]
    name: std::borrow::Cow<'static, str>,
    hash: Option<[u8; 4]>,
    #[record(default = -9223372036854775808)]
    least: i64,
    #[record(default = 9223372036854775807)]
    size: u64,
    #[record(created_at)]
    created_at: Timestamp,
}

impl Thing {
    pub fn column_id(&self) -> &'static str {
        "mine"
    }

    pub fn column_hidden(&self) -> &'static str {
        "mine"
    }
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(record = Thing, crate = "reexported::sync")]
enum ThingAction {
    #[action(insert)]
    Add { id: Id, hidden: Hidden, hash: Option<[u8; 4]> },
    #[action(custom)]
    Other { size: u64, hash: [u8; 4] },
}

impl ThingAction {
    fn operation(&self) -> u8 {
        1
    }

    fn __operation(&self) -> u8 {
        2
    }
}

impl Reduce for ThingAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Thing>) -> Result<()> {
        Ok(())
    }
}

#[derive(Action, Clone, PartialEq, Debug)]
#[action(channels, crate = "reexported::sync")]
enum AppAction {
    Things(ThingAction),
}

// Types that come from another macro's caller.
macro_rules! record {
    ($record:ident, $action:ident, $key:tt) => {
        #[derive(Record, Clone, PartialEq, Debug)]
        #[record(table = "made", crate = "reexported::sync")]
        pub struct $record {
            #[record(key)]
            id: $key,
        }

        #[derive(Action, Clone, PartialEq, Debug)]
        #[action(record = $record, crate = "reexported::sync")]
        pub enum $action {
            #[action(insert)]
            Add { id: $key },
        }
    };
}
record!(Made, MadeAction, i64);

// Fields that are called what derived code might call its own.
#[derive(Record, Clone)]
#[record(table = "cells", crate = "reexported::sync")]
struct Cells {
    #[record(key)]
    cells: i64,
    payload: String,
    args: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Cells, crate = "reexported::sync")]
enum CellsAction {
    #[action(insert)]
    Insert { cells: i64, payload: String, args: String },
    #[action(update)]
    Update { cells: i64, payload: Option<String> },
}

#[derive(Event, Clone)]
#[event(crate = "reexported::sync")]
enum CellsEvent {
    Made { args: String, payload: String, name: String, event: String },
}

fn main() {
    let thing = Thing {
        id: Id(7),
        hidden: Hidden::Two,
        name: "name".into(),
        hash: Some([1, 2, 3, 4]),
        least: 0,
        size: 5,
        created_at: Timestamp::from_millis(1),
    };
    assert_eq!(Thing::from_row(thing.to_row().unwrap()).unwrap(), thing);
    assert_eq!((thing.column_id(), thing.column_hidden()), ("mine", "mine"));
    let action = ThingAction::Add { id: Id(1), hidden: Hidden::One, hash: Some([0, 1, 2, 255]) };
    assert_eq!((action.operation(), action.__operation()), (1, 2));
    let json = action.to_json().unwrap();
    assert_eq!(
        json.to_string(),
        r#"{"payload":{"hash":"000102FF","hidden":"one","id":1},"type":"add"}"#
    );
    let other = ThingAction::Other { size: 3, hash: [1, 1, 1, 1] };
    let action = AppAction::from(other.clone());
    let json = action.to_json().unwrap();
    assert_eq!(AppAction::from_json("things", &json.to_string()).unwrap(), AppAction::Things(other));
    assert_eq!(MadeAction::Add { id: 1 }.channel(), Made::SCHEMA.table);
    let cells = Cells { cells: 1, payload: "p".into(), args: "a".into() };
    let Cells { cells, payload, args } = cells;
    let update = CellsAction::Update { cells, payload: Some(payload.clone()) };
    assert!(update.to_json().unwrap().to_string().contains(r#""payload":"p""#));
    drop(CellsAction::Insert { cells, payload, args });
    let [args, payload, name, event] = ["1", "2", "3", "4"].map(str::to_owned);
    let made = CellsEvent::Made { args, payload, name, event }.args().unwrap().unwrap();
    assert_eq!(made.to_string(), r#"{"args":"1","event":"4","name":"3","payload":"2"}"#);
}
