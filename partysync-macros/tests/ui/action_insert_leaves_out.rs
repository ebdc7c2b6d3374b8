use partysync::{Action, Record, Timestamp};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
    text: String,
    #[record(default = false)]
    completed: bool,
    note: Option<String>,
    author: String,
    #[record(created_at)]
    created_at: Timestamp,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum TodoAction {
    #[action(insert)]
    Create { id: String, text: String },
    #[action(upsert)]
    Put { id: String, author: String },
    #[action(insert)]
    Complete { id: String, text: String, author: String },
    #[action(update)]
    Edit { id: String, text: Option<String> },
}

fn main() {}
