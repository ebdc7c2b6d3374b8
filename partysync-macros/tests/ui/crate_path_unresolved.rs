use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "todos", crate = "crate::nowhere")]
struct Todo {
    #[record(key)]
    id: String,
}

fn main() {}
