use partysync::{Action, Record};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum TodoAction {
    #[action(custom)]
    Clear,
}

fn main() {}
