use partysync::{Action, Record};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
    text: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum TodoAction {
    Nothing { id: String },
    #[action(insert, upsert)]
    TwoThings { id: String },
    #[action(delete)]
    DeleteMaybe { id: Option<String> },
    #[action(insert)]
    Twin { id: String },
    #[action(insert, rename = "twin")]
    Other { id: String },
    #[action(insert)]
    TwoOfOne {
        id: String,
        #[action(rename = "id")]
        key: String,
    },
}

fn main() {}
