//! MessagePack in msgpackr's record dialect, which LiveStore speaks over Durable Object RPC.
//!
//! Objects are records: a shape, which is a list of keys, is defined where it is first used
//! (`d4 72 id keys values…`) and named by its id, 0x40 to 0x7f, afterwards (`id values…`). A shape
//! may be defined anew under an id that is taken. So these bytes are no small integers: those from
//! 64 on are written as `cc`. `undefined` is `d4 00 00`. Integers beyond 32 bits are written as
//! floating-point numbers. Source: captures of msgpackr 1.12 with `useRecords`, and the
//! specification of MessagePack.
//!
//! What is read becomes JSON, and what is written was JSON: a store's machine knows nothing else.

mod read;
mod write;

pub use read::{decode, decode_begun};
pub use write::encode;

/// The ids of shapes.
const FIRST: u8 = 0x40;
const LAST: u8 = 0x7f;
/// The type of the extension that defines a shape.
const RECORD: u8 = 0x72;
/// How deep values lie in each other at most.
const DEPTH: usize = 100;
