use partysync::{Record, Timestamp};

#[derive(Record, Clone)]
#[record(table = "notes")]
struct Note {
    #[record(key)]
    id: String,
    #[record(scope)]
    ratio: f64,
    #[record(scope)]
    bytes: Option<Vec<u8>>,
    #[record(scope, json)]
    members: Vec<String>,
}

#[derive(Record, Clone)]
#[record(table = "times")]
struct Times {
    #[record(key)]
    id: String,
    #[record(updated_at, scope)]
    updated_at: Timestamp,
}

fn main() {}
