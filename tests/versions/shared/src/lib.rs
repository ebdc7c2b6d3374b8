//! One application in two versions: what was renamed, an enum with another variant, JSON of another
//! shape, and a column that was dropped. A page follows one of the four.

pub mod before;
pub mod now;
