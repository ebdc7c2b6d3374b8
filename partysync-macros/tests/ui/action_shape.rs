use partysync::{Action, Record};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
struct Struct {
    id: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum Empty {}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum Generic<T> {
    #[action(delete)]
    Delete { id: T },
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum Tuple {
    #[action(delete)]
    Delete(String),
}

fn main() {}
