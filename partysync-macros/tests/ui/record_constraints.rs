use partysync::Record;

#[derive(Record, Clone)]
#[record(table = "cards")]
#[record(index = "list, plaec", index = "list", unique = "list, list")]
#[record(unique = "list, place", unique = "list, place")]
#[record(check = "", check = "length(list", check = "place > 0; DROP TABLE cards")]
#[record(check = "place > 0 -- always", check = "place < 9", check = "list <> '-- it''s (' AND place < ?")]
struct Card {
    #[record(key)]
    id: String,
    list: String,
    #[record(check = "place < 9")]
    place: i64,
}

#[derive(Record, Clone)]
#[record(table = "cards", unique)]
struct OfNoColumns {
    #[record(key)]
    id: String,
}

fn main() {}
