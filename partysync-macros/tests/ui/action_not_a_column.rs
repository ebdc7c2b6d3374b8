use partysync::{Action, Record};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
    #[record(json)]
    tags: Vec<String>,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum TodoAction {
    #[action(insert)]
    Create { id: String, tags: Vec<String> },
}

fn main() {}
