use partysync::{Action, Column, Record};

#[derive(Record, Clone)]
#[record(table = "todos", crate = "not a path")]
struct Todo {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "todos", crate = partysync)]
struct NoString {
    #[record(key)]
    id: String,
}

#[derive(Action, Clone, Debug)]
#[action(record = Other, crate = "partysync", crate = "partysync")]
enum Twice {
    #[action(delete)]
    Delete { id: String },
}

#[derive(Column, Clone)]
#[column(krate = "partysync")]
struct Id(String);

fn main() {}
