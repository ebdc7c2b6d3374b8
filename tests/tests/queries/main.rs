//! Live queries: results equal those of SQLite over the rows that a client shows, and what is told
//! of their changes, put together in order, equals them.

mod oracle;
mod random;
mod typed;
