use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "tuples")]
struct Tuple(String);

#[derive(Record, Clone)]
#[record(table = "enums")]
enum Enum {
    A,
}

#[derive(Record, Clone)]
#[record(table = "generics")]
struct Generic<T> {
    #[record(key)]
    id: T,
}

#[derive(Record, Clone)]
#[record(table = "keyless")]
struct Keyless {
    text: String,
}

fn main() {}
