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
    #[action(update)]
    Update { text: Option<String> },
    #[action(update)]
    MaybeWhich { id: Option<String>, text: Option<String> },
}

fn main() {}
