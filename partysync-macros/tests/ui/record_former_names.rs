use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "todos", renamed_from = "todos", renamed_from = "to-dos")]
#[record(renamed_from = "tasks", renamed_from = "tasks")]
struct Table {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "todos", dropped = "Text", dropped = "old", dropped = "gone", dropped = "gone")]
#[record(dropped = "2nd")]
struct Dropped {
    #[record(key)]
    id: String,
    text: String,
    #[record(renamed_from = "old")]
    new: String,
}

#[derive(Record, Clone)]
#[record(table = "todos")]
struct Renamed {
    #[record(key)]
    id: String,
    #[record(renamed_from = "name", renamed_from = "title")]
    headline: String,
    #[record(renamed_from = "title")]
    subtitle: String,
    #[record(renamed_from = "no name")]
    other: String,
}

fn main() {}
