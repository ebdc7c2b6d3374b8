use partysync::Record;

#[derive(Clone)]
struct Address;

#[derive(Record, Clone)]
#[record(table = "people")]
struct Person {
    #[record(key)]
    id: String,
    address: Address,
}

fn main() {}
