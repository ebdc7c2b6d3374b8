use partysync::{Record, Timestamp};

#[derive(Record, Clone)]
#[record(table = "optional_keys")]
struct OptionalKey {
    #[record(key)]
    id: Option<String>,
}

#[derive(Record, Clone)]
#[record(table = "float_keys")]
struct FloatKey {
    #[record(key)]
    id: f64,
}

#[derive(Record, Clone)]
#[record(table = "times")]
struct WrongTimes {
    #[record(key)]
    id: String,
    #[record(created_at)]
    created_at: i64,
    #[record(updated_at)]
    updated_at: Option<Timestamp>,
    #[record(deleted_at)]
    deleted_at: Timestamp,
}

#[derive(Record, Clone)]
#[record(table = "numbers")]
struct WrongNumbers {
    #[record(key)]
    id: u64,
    size: usize,
    maybe: Option<i128>,
    twice: Option<Option<i64>>,
}

fn main() {}
