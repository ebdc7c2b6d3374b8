//! A record may have functions with the names of its fields: their constants are called otherwise.

#![deny(warnings)]

use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
    #[record(constant = "text_column")]
    text: String,
    #[record(rename = "is_done", constant = "r#final")]
    done: bool,
}

impl Todo {
    fn text(&self) -> &str {
        &self.text
    }

    fn done() -> bool {
        true
    }
}

fn main() {
    let todo = Todo { id: "a".into(), text: "b".into(), done: Todo::done() };
    assert_eq!(todo.text(), "b");
    let query = Todo::query().filter(Todo::text_column.eq("b").and(Todo::r#final.eq(todo.done)));
    assert!(query.order_by(Todo::id.asc()).plan().is_ok());
    assert_eq!((Todo::text_column.name(), Todo::r#final.name()), ("text", "is_done"));
}
