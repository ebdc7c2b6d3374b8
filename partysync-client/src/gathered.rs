//! [`gathered`]: a `collect` for trees that costs a page less.

/// All of these, put in one after the other. `collect` into a `BTreeMap` or a `BTreeSet` sorts
/// them first, and each type's sort is some 5 KiB of wasm.
pub(crate) fn gathered<C: Default + Extend<T>, T>(items: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(items);
    all
}
