//! An issue tracker whose rows come as a server sends them, and six views of it: what `cargo xtask
//! bench queries` measures, natively and as wasm; and a table of many rows, with what its client does.

mod many;
mod tracker;
mod view;

pub use many::Many;
pub use tracker::{Input, Pair, Tracker};

#[cfg(target_arch = "wasm32")]
mod page {
    use super::{Input, Many, Tracker};
    use wasm_bindgen::prelude::*;

    /// The tracker, for JavaScript.
    #[wasm_bindgen]
    pub struct Bench(Tracker);

    #[wasm_bindgen]
    impl Bench {
        /// Reads the rows: an object of arrays of arrays.
        #[wasm_bindgen(constructor)]
        pub fn new(rows: &str) -> Self {
            Self(Tracker::new(&serde_json::from_str::<Input>(rows).expect("rows")))
        }

        /// Asks for a view, and reads it.
        pub fn hydrate(&mut self, view: &str) {
            self.0.hydrate(view);
        }

        /// Nobody asks for it any more.
        pub fn forget(&mut self) {
            self.0.forget();
        }

        /// Makes ready so many pairs of a row that comes and goes.
        pub fn prepare(&mut self, pairs: &str) {
            self.0.prepare(&serde_json::from_str::<Vec<_>>(pairs).expect("pairs"));
        }

        /// The next row comes, or goes, and what that changes is read.
        pub fn step(&mut self) {
            self.0.step();
        }

        /// What the view shows.
        #[must_use]
        pub fn result(&self) -> String {
            self.0.result().to_string()
        }
    }

    /// The table of many rows, for JavaScript.
    #[wasm_bindgen]
    pub struct ManyBench(Many);

    #[wasm_bindgen]
    impl ManyBench {
        /// Has so many rows come, and asks for the views.
        #[wasm_bindgen(constructor)]
        pub fn new(rows: usize) -> Self {
            let mut many = Many::new(rows);
            many.ask();
            Self(many)
        }

        /// Makes so many actions that stay without an answer.
        pub fn fill(&mut self, count: usize) {
            self.0.fill(count);
        }

        /// Makes a round ready; how many steps it has.
        pub fn prepare(&mut self, round: &str, n: usize) -> usize {
            self.0.prepare(round, n)
        }

        /// What the next step measures; nothing if it has no name.
        #[must_use]
        pub fn name(&self) -> String {
            self.0.name().to_owned()
        }

        /// The next step, until what it changes has been read.
        pub fn step(&mut self) {
            self.0.step();
        }

        /// What is shown.
        #[must_use]
        pub fn result(&self) -> String {
            self.0.result().to_string()
        }
    }
}
