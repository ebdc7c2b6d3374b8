use partysync::{Action, Draft, Record, Reduce, Result};

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Todo {
    #[record(key)]
    id: String,
}

#[derive(Clone, Debug)]
enum Priority {
    Low,
    High,
}

#[derive(Action, Clone, Debug)]
#[action(record = Todo)]
enum TodoAction {
    #[action(custom)]
    Raise { ids: Vec<String>, to: Priority },
}

impl Reduce for TodoAction {
    fn reduce_custom(&self, _: &mut Draft<'_, Todo>) -> Result<()> {
        Ok(())
    }
}

fn main() {}
