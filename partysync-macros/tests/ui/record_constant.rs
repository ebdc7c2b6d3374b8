use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "todos")]
struct NoString {
    #[record(key)]
    id: String,
    #[record(constant = text_column)]
    text: String,
}

#[derive(Record, Clone)]
#[record(table = "names")]
struct Names {
    #[record(key)]
    id: String,
    #[record(constant = "not a name")]
    text: String,
    #[record(constant = "type")]
    kind: String,
    #[record(json, constant = "tags_column")]
    tags: Vec<String>,
    #[record(constant = "id")]
    first: i64,
    #[record(constant = "second")]
    third: i64,
    second: i64,
}

fn main() {}
