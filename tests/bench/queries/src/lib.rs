//! An issue tracker whose rows come as a server sends them, and six views of it: what `cargo xtask
//! bench queries` measures, natively and as wasm.

mod tracker;

pub use tracker::{Input, Pair, Tracker};

#[cfg(target_arch = "wasm32")]
mod page {
    use super::{Input, Tracker};
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
}
