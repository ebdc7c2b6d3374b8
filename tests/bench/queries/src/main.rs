//! The native half of `cargo xtask bench queries`: reads rows and pairs from standard input, prints
//! the medians of each view's times and what it shows as JSON.

use bench_queries::{Input, Pair, Tracker};
use serde::Deserialize;
use serde_json::{Map, json};
use std::time::Instant;

#[derive(Deserialize)]
struct Work {
    rows: Input,
    /// For each view the rows that come and go.
    views: Vec<(String, Vec<Pair>)>,
    hydrations: usize,
}

/// The median of some times, in microseconds.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(body: impl FnOnce()) -> f64 {
    let start = Instant::now();
    body();
    start.elapsed().as_secs_f64() * 1e6
}

fn main() {
    let work: Work = serde_json::from_reader(std::io::stdin().lock()).expect("work");
    let mut tracker = Tracker::new(&work.rows);
    let mut views = Map::new();
    for (view, pairs) in &work.views {
        // Indexes are made, which the others find.
        let first = micros(|| tracker.hydrate(view));
        let hydrate = (0..work.hydrations).map(|_| {
            tracker.forget();
            micros(|| tracker.hydrate(view))
        });
        let hydrate = median(hydrate.collect());
        let before = tracker.result();
        tracker.prepare(pairs);
        let pair = |_| {
            micros(|| {
                tracker.step();
                tracker.step();
            })
        };
        let pair = median((0..pairs.len()).map(pair).collect());
        assert_eq!(tracker.result(), before, "{view} after pairs of add and remove");
        views.insert(
            view.clone(),
            json!({"first": first, "hydrate": hydrate, "pair": pair, "result": before}),
        );
        tracker.forget();
    }
    println!("{}", json!(views));
}
