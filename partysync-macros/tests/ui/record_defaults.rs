use partysync::Record;

const ZERO: i64 = 0;

#[derive(Record, Clone)]
#[record(table = "defaults")]
struct Defaults {
    #[record(key)]
    id: String,
    #[record(default = ZERO)]
    constant: i64,
    #[record(default = "0")]
    text_for_integer: i64,
    #[record(default = 1)]
    integer_for_bool: bool,
    #[record(default = 1)]
    integer_for_float: f64,
    #[record(default = true)]
    bool_for_text: Option<String>,
    #[record(default = 'c')]
    char_for_text: String,
    #[record(default = 99999999999999999999)]
    too_large: i64,
    #[record(json, default = 0)]
    json: Vec<String>,
    #[record(default = "00")]
    bytes: [u8; 1],
    #[record(default = -1.5)]
    large: u64,
    #[record(default = -1)]
    negative: u64,
    #[record(default = 128)]
    small: Option<i8>,
}

#[derive(Record, Clone)]
#[record(table = "defaults")]
struct Unread {
    #[record(key)]
    id: String,
    #[record(default)]
    nothing: i64,
    #[record(default = 1, default = 2)]
    twice: i64,
}

fn main() {}
