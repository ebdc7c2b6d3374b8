use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "todos; DROP TABLE todos")]
struct Injection {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "_partysync_meta")]
struct Reserved {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "names")]
struct Names {
    #[record(key)]
    id: String,
    #[record(rename = "2nd")]
    second: String,
    #[record(rename = "ID")]
    twin: String,
    #[record(renamed_from = "same")]
    same: String,
}

fn main() {}
