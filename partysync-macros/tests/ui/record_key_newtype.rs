use partysync::{Column, Record};

#[derive(Column, Clone)]
struct Weight(f64);

#[derive(Record, Clone)]
#[record(table = "weights")]
struct Weighed {
    #[record(key)]
    weight: Weight,
}

fn main() {}
