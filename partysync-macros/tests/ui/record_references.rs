use partysync::{Record, Timestamp};

#[derive(Record, Clone)]
#[record(table = "cards")]
struct Card {
    #[record(key)]
    id: String,
    #[record(on_delete = "cascade")]
    of_nothing: String,
    #[record(references = "lists", on_delete = "set_null")]
    never_null: String,
    #[record(references = "lists", on_delete = "delete")]
    unknown: String,
    #[record(references = "lists", default = "a")]
    with_default: String,
    #[record(references = "lists", json)]
    as_json: String,
    #[record(references = "my lists")]
    no_name: String,
    #[record(references = "lists")]
    float: Option<f64>,
    #[record(created_at, references = "times")]
    created_at: Timestamp,
}

#[derive(Record, Clone)]
#[record(table = "cards")]
struct ToNobody {
    #[record(key)]
    id: String,
    #[record(references)]
    list: String,
}

fn main() {}
