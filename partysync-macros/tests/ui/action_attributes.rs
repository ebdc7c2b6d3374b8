use partysync::{Action, Record};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, Debug)]
enum NoRecord {
    #[action(delete)]
    Delete { id: String },
}

#[derive(Action, Clone, Debug)]
#[action(records = Todo)]
enum UnknownOnEnum {
    #[action(delete)]
    Delete { id: String },
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo, channels)]
enum Both {
    #[action(delete)]
    Delete { id: String },
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum UnknownOnVariant {
    #[action(remove)]
    Delete { id: String },
    #[action(delete)]
    Other {
        #[action(key)]
        id: String,
    },
    #[action(delete, rename = "one", rename = "two")]
    Renamed {
        #[action(json, json)]
        id: String,
    },
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo, record = Todo)]
enum RecordTwice {
    #[action(delete)]
    Delete { id: String },
}

fn main() {}
