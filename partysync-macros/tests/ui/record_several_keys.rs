use partysync::{Action, Record};

#[derive(Record, Clone)]
#[record(table = "votes")]
struct Vote {
    #[record(key)]
    card: String,
    #[record(key)]
    user: String,
    points: i64,
}

#[derive(Record, Clone)]
#[record(table = "files")]
struct File {
    #[record(key)]
    folder: i64,
    #[record(key)]
    digest: Vec<u8>,
}

#[derive(Action, Clone, Debug)]
#[action(record = Vote)]
enum VoteAction {
    #[action(upsert)]
    Put { card: String, points: i64 },
    #[action(delete)]
    Delete { user: String },
    #[action(delete)]
    DeleteMore { card: String, user: String, points: i64 },
}

fn main() {}
