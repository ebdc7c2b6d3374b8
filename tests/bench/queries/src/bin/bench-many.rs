//! The native half of the second table of `cargo xtask bench queries`: what a client of many rows
//! does, with few and with many actions pending, and what a row takes. Prints medians, in
//! microseconds, as JSON. `bench-many ROWS PENDING ROUNDS CLEARS`.

#[path = "../../../../src/bin/counting/mod.rs"]
mod counting;

use bench_queries::Many;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::time::Instant;

fn in_use() -> f64 {
    counting::in_use() as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The medians of what these rounds measure.
fn measure(many: &mut Many, rounds: &[(&str, usize)]) -> Json {
    let mut times = BTreeMap::<_, Vec<f64>>::new();
    for (round, count) in rounds {
        for n in 0..*count {
            for _ in 0..many.prepare(round, n) {
                let name = many.name();
                let start = Instant::now();
                many.step();
                times.entry(name).or_default().push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    times.remove("");
    times
        .into_iter()
        .map(|(name, times)| (name.to_owned(), json!(median(times))))
        .collect::<Map<_, _>>()
        .into()
}

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [rows, pending, rounds, clears] = arguments[..] else { panic!("four numbers") };
    let before = in_use();
    // What it keeps for its own use is small, and the same for each row: it is measured apart.
    let mut many = Many::new(rows);
    let (own, loaded) = (many.own_bytes() as f64, in_use());
    many.ask();
    let asked = in_use();
    let few = [("update", rounds), ("conflict", rounds), ("custom", rounds), ("clear", clears)];
    let alone = measure(&mut many, &few);
    many.fill(pending);
    let crowded = measure(&mut many, &few[..3]);
    let per_row = |bytes: f64| bytes / rows as f64;
    let figures = json!({
        "alone": alone,
        "crowded": crowded,
        "pending": pending,
        "rows": rows,
        "row_bytes": per_row(loaded - before - own),
        "index_bytes": per_row(asked - loaded),
        "row_json_bytes": many.row_json_bytes(),
        "result": many.result(),
    });
    println!("{figures}");
}
