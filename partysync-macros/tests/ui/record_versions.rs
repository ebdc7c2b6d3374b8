use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "first", version = 0)]
struct Zero {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "second", version = "2")]
struct Text {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "third", version = 2, compatible = 3)]
struct Later {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "fourth", version = 2, version = 3)]
struct Twice {
    #[record(key)]
    id: String,
}

fn main() {}
