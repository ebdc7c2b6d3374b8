use partysync::Record;

#[derive(Record, Clone)]
struct NoTable {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(tabel = "typos")]
struct UnknownOnStruct {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = 7)]
struct TableIsNoString {
    #[record(key)]
    id: String,
}

#[derive(Record, Clone)]
#[record(table = "typos")]
struct UnknownOnField {
    #[record(key)]
    id: String,
    #[record(idnex)]
    text: String,
    #[record(unique, unique)]
    name: String,
}

fn main() {}
