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
    #[action(insert)]
    Create { id: String },
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum MoreTodoAction {
    #[action(delete)]
    Delete { id: String },
}

#[derive(Action, Clone, Debug)]
#[action(channels)]
enum AppAction {
    Todos(TodoAction),
    More(MoreTodoAction),
}

fn main() {}
