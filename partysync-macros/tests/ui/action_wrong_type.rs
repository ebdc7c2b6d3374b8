use partysync::{Action, Record};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
    completed: bool,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum TodoAction {
    #[action(update)]
    Update { id: String, completed: Option<String> },
}

fn main() {}
