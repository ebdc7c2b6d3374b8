use partysync::Column;

#[derive(Column)]
struct Two(String, String);

#[derive(Column)]
struct Named {
    name: String,
}

#[derive(Column)]
struct Generic<T>(T);

#[derive(Column)]
enum WithFields {
    A,
    B(String),
}

#[derive(Column)]
enum Empty {}

#[derive(Column)]
enum Twins {
    One,
    #[column(rename = "one")]
    Other,
    #[column(name = "x")]
    Third,
    #[column(rename = "a", rename = "b")]
    Fourth,
}

#[derive(Column)]
union Union {
    a: u8,
}

fn main() {}
