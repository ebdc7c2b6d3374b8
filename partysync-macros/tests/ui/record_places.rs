use partysync::{Record, Timestamp};

#[derive(Record, Clone)]
#[record(table = "late_keys")]
struct LateKey {
    text: String,
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "split_keys")]
struct SplitKey {
    #[record(key)]
    id: String,
    text: String,
    #[record(key)]
    other: String,
}

#[derive(Record, Clone)]
#[record(table = "too_many_keys")]
struct TooManyKeys {
    #[record(key)]
    a: i64,
    #[record(key, index)]
    b: i64,
    #[record(key)]
    c: i64,
    #[record(key)]
    d: i64,
    #[record(key)]
    e: i64,
    #[record(key)]
    f: i64,
    #[record(key)]
    g: i64,
    #[record(key)]
    h: i64,
    #[record(key)]
    i: i64,
}

#[derive(Record, Clone)]
#[record(table = "early")]
struct EarlyDeletion {
    #[record(key)]
    id: String,
    #[record(deleted_at)]
    deleted_at: Option<Timestamp>,
    text: String,
}

#[derive(Record, Clone)]
#[record(table = "twice")]
struct TwoTimes {
    #[record(key)]
    id: String,
    #[record(created_at)]
    created_at: Timestamp,
    #[record(created_at)]
    born_at: Timestamp,
    #[record(created_at, updated_at)]
    both: Timestamp,
}

#[derive(Record, Clone)]
#[record(table = "pointless")]
struct Pointless {
    #[record(key, index)]
    id: String,
    #[record(created_at, unique)]
    created_at: Timestamp,
    #[record(updated_at, default = 0)]
    updated_at: Timestamp,
}

fn main() {}
