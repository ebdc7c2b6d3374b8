//! Sort keys: values as bytes, whose order is that of the values, as SQLite has it.

use crate::replica::Row;
use partysync::sql::Value;

/// Some values, one behind the other, as bytes. One that begins with another belongs to its group.
pub(crate) type SortKey = Box<[u8]>;

pub(super) fn cell(row: &Row, column: usize) -> &Value {
    row.get(column).unwrap_or(&Value::Null)
}

/// One value.
pub(super) fn bytes(value: &Value) -> SortKey {
    let mut key = Vec::new();
    push(&mut key, value, false);
    key.into()
}

/// Where a row is in the order of these columns, and which of them are from the largest on. Those of
/// its key are the last.
pub(super) fn sort_key(row: &Row, columns: impl IntoIterator<Item = (usize, bool)>) -> SortKey {
    let mut key = Vec::with_capacity(48);
    for (column, descending) in columns {
        push(&mut key, cell(row, column), descending);
    }
    key.into()
}

/// The columns of a key, which has so many.
pub(super) fn key_columns(keys: usize) -> impl Iterator<Item = (usize, bool)> {
    (0..keys).map(|column| (column, false))
}

/// The key of a row, which has so many columns.
pub(super) fn key(row: &Row, keys: usize) -> SortKey {
    sort_key(row, key_columns(keys))
}

/// Puts a value behind others.
pub(crate) fn push(key: &mut Vec<u8>, value: &Value, descending: bool) {
    let start = key.len();
    match value {
        Value::Null => key.push(1),
        Value::Integer(n) => {
            key.push(2);
            key.extend((n.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        }
        Value::Real(x) => {
            key.push(3);
            // `-0.0` is `0.0`.
            let bits = (x + 0.0).to_bits();
            let ordered = if bits >> 63 == 1 { !bits } else { bits | (1 << 63) };
            key.extend(ordered.to_be_bytes());
        }
        Value::Text(text) => {
            key.push(4);
            push_bytes(key, text.as_bytes());
        }
        Value::Blob(bytes) => {
            key.push(5);
            push_bytes(key, bytes);
        }
    }
    if descending {
        key.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
    }
}

/// Ends with two zeros, so that what is shorter comes first; a zero in it is followed by 255.
fn push_bytes(key: &mut Vec<u8>, bytes: &[u8]) {
    for (n, part) in bytes.split(|byte| *byte == 0).enumerate() {
        if n > 0 {
            key.extend([0, 255]);
        }
        key.extend(part);
    }
    key.extend([0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn key(values: &[(Value, bool)]) -> Vec<u8> {
        let mut key = Vec::new();
        values.iter().for_each(|(value, descending)| push(&mut key, value, *descending));
        key
    }

    fn order(one: &Value, two: &Value) -> Ordering {
        match (one, two) {
            (Value::Integer(one), Value::Integer(two)) => one.cmp(two),
            (Value::Real(one), Value::Real(two)) => one.partial_cmp(two).unwrap(),
            (Value::Text(one), Value::Text(two)) => one.cmp(two),
            (Value::Blob(one), Value::Blob(two)) => one.cmp(two),
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            _ => panic!("a column has one type"),
        }
    }

    fn pair() -> impl Strategy<Value = (Value, Value)> {
        let null = Just(Value::Null);
        let few = prop::sample::select(vec![0_u8, 1, 254, 255]);
        let bytes = || prop::collection::vec(few.clone(), 0..4).prop_map(Value::Blob);
        let text = || "[\0a\u{10ffff}]{0,3}".prop_map(Value::Text);
        let real = || any::<f64>().prop_filter("a number", |x| !x.is_nan()).prop_map(Value::Real);
        let integer = || any::<i64>().prop_map(Value::Integer);
        prop_oneof![
            (integer(), integer()),
            (real(), real()),
            (text(), text()),
            (bytes(), bytes()),
            (null.clone(), text()),
            (integer(), null),
            Just((Value::Real(0.0), Value::Real(-0.0))),
        ]
    }

    proptest! {
        #[test]
        fn bytes_are_in_the_order_of_the_values(
            pairs in prop::collection::vec((pair(), any::<bool>()), 1..4)
        ) {
            let of = |second: bool| -> Vec<_> {
                let value = |(one, two): &(Value, Value)| if second { two.clone() } else { one.clone() };
                pairs.iter().map(|(pair, descending)| (value(pair), *descending)).collect()
            };
            let orders = pairs.iter().map(|((one, two), descending)| {
                let order = order(one, two);
                if *descending { order.reverse() } else { order }
            });
            let expected = orders.fold(Ordering::Equal, Ordering::then);
            prop_assert_eq!(key(&of(false)).cmp(&key(&of(true))), expected);
        }
    }
}
