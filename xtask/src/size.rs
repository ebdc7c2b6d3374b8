//! What a worker or a page is made of: the bytes of its wasm by section, by crate and by function, and the
//! crates that its constant data is for.

use crate::build::{page_with_names, worker_with_names};
use crate::fixture::Fixture;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;
use wasmparser::{DataKind, FunctionBody, KnownCustom, Name, Operator, Parser, Payload};

/// What the parts of the standard library are listed as.
const STANDARD: &str = "std";

/// What a wasm is made of, in bytes before compression.
#[derive(Default)]
struct Parts {
    total: u64,
    /// By the name of the section; without the section of names.
    sections: BTreeMap<String, u64>,
    functions: Vec<Function>,
    /// Constant data: where in memory, and what.
    data: Vec<(u32, Vec<u8>)>,
}

struct Function {
    name: String,
    bytes: u64,
    /// The numbers in its code that may be addresses.
    addresses: Vec<u32>,
}

/// Builds the fixture with the names of functions, and prints what its worker, or its page, is
/// made of.
pub(crate) fn size(fixture: &Fixture, page: bool, rows: usize) -> Result<()> {
    let wasm = if page {
        page_with_names(fixture)?
    } else {
        worker_with_names(fixture)?;
        fixture.worker.folder.join("build/index_bg.wasm")
    };
    let parts = read(&wasm)?;
    print!("{}", report(&parts, rows));
    Ok(())
}

fn read(path: &Path) -> Result<Parts> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    parts(&bytes)
}

/// Takes a wasm apart.
fn parts(bytes: &[u8]) -> Result<Parts> {
    let mut parts = Parts { total: bytes.len() as u64, ..Parts::default() };
    let (mut imported, mut bodies, mut names) = (0, Vec::new(), BTreeMap::new());
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        match &payload {
            Payload::CodeSectionEntry(body) => {
                bodies.push((length(body.range()), addresses(body)?));
            }
            Payload::DataSection(segments) => {
                for segment in segments.clone() {
                    let segment = segment?;
                    if let DataKind::Active { offset_expr, .. } = &segment.kind
                        && let Operator::I32Const { value } =
                            offset_expr.get_operators_reader().read()?
                    {
                        parts.data.push((value.cast_unsigned(), segment.data.to_vec()));
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    imported += u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(subsections) = section.as_known() {
                    parts.total -= length(section.range());
                    for name in subsections {
                        let Name::Function(functions) = name? else { continue };
                        for name in functions {
                            let name = name?;
                            names.insert(name.index, name.name.to_owned());
                        }
                    }
                    continue;
                }
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            *parts.sections.entry(section(id).to_owned()).or_default() += length(range);
        }
    }
    for (index, (bytes, addresses)) in (imported..).zip(bodies) {
        let name = readable(&names.remove(&index).unwrap_or_default());
        parts.functions.push(Function { name, bytes, addresses });
    }
    Ok(parts)
}

/// The numbers of a function's code that may be addresses: constants, and what loads add to one.
fn addresses(body: &FunctionBody<'_>) -> Result<Vec<u32>> {
    // One more than the last `char`: often compared with.
    const CHARS: u32 = char::MAX as u32 + 1;
    let mut found = Vec::new();
    for operator in body.get_operators_reader()? {
        match operator? {
            Operator::I32Const { value } => found.push(value.cast_unsigned()),
            Operator::I32Load { memarg }
            | Operator::I64Load { memarg }
            | Operator::I32Load8U { memarg }
            | Operator::I32Load16U { memarg } => found.extend(u32::try_from(memarg.offset)),
            _ => {}
        }
    }
    found.retain(|address| *address != CHARS);
    Ok(found)
}

/// The bytes of constant data by the crate whose code refers to them, or to what refers to them.
/// What no address leads to belongs to what is before it.
fn data_by_crate(parts: &Parts) -> BTreeMap<String, u64> {
    let within = |address: u32| {
        parts.data.iter().any(|(start, bytes)| {
            address.checked_sub(*start).is_some_and(|at| (at as usize) < bytes.len())
        })
    };
    let mut owners: BTreeMap<u32, String> = BTreeMap::new();
    for function in &parts.functions {
        let owner = crate_of(&function.name);
        for address in function.addresses.iter().filter(|address| within(**address)) {
            let found = owners.entry(*address).or_insert_with(|| owner.clone());
            if found == STANDARD {
                found.clone_from(&owner);
            }
        }
    }
    loop {
        let mut more = Vec::new();
        for (start, bytes) in &parts.data {
            for (at, word) in (*start..).zip(bytes.windows(4)).filter(|(at, _)| at % 4 == 0) {
                let pointer = word.try_into().map_or(0, u32::from_le_bytes);
                if within(pointer)
                    && !owners.contains_key(&pointer)
                    && let Some((_, owner)) = owners.range(..=at).next_back()
                {
                    more.push((pointer, owner.clone()));
                }
            }
        }
        if more.is_empty() {
            break;
        }
        owners.extend(more);
    }
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for (start, bytes) in &parts.data {
        let end = start.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let (mut from, mut owner) = (*start, STANDARD);
        if let Some((_, before)) = owners.range(..=*start).next_back() {
            owner = before;
        }
        for (address, next) in owners.range(start + 1..end) {
            *sizes.entry(owner.to_owned()).or_default() += u64::from(address - from);
            (from, owner) = (*address, next);
        }
        *sizes.entry(owner.to_owned()).or_default() += u64::from(end - from);
    }
    sizes
}

/// How many bytes a range of the file has.
fn length(range: std::ops::Range<u64>) -> u64 {
    range.end - range.start
}

/// The name of a section.
fn section(id: u8) -> &'static str {
    match id {
        0 => "custom",
        1 => "types",
        2 => "imports",
        3 | 10 => "code",
        6 => "globals",
        7 => "exports",
        9 => "table of functions",
        11 => "data",
        _ => "other",
    }
}

fn report(parts: &Parts, rows: usize) -> String {
    let mut out = String::new();
    let mut table = |title: &str, sizes: Vec<(String, u64)>, rows: usize| {
        let mut sizes = sizes;
        sizes.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        out.push_str(&format!("\n{title}\n"));
        let rest: u64 = sizes.iter().skip(rows).map(|(_, bytes)| bytes).sum();
        let count = sizes.len().saturating_sub(rows);
        let rest = (count > 0).then(|| (format!("{count} others"), rest));
        for (name, bytes) in sizes.iter().take(rows).chain(&rest) {
            let share = 100.0 * *bytes as f64 / parts.total as f64;
            out.push_str(&format!("{bytes:>9}  {share:>5.1} %  {name}\n"));
        }
    };
    let sections = parts.sections.iter().map(|(name, bytes)| (name.clone(), *bytes)).collect();
    table(&format!("sections of {} bytes", parts.total), sections, usize::MAX);
    let (mut crates, mut functions) = (BTreeMap::new(), BTreeMap::new());
    for Function { name, bytes, .. } in &parts.functions {
        *crates.entry(crate_of(name)).or_default() += bytes;
        *functions.entry(name.clone()).or_default() += bytes;
    }
    table("code by crate", crates.into_iter().collect(), usize::MAX);
    table("data by the crate that refers to it", data_by_crate(parts).into_iter().collect(), rows);
    table("largest functions (those of one name together)", functions.into_iter().collect(), rows);
    out
}

/// A name without the hashes of crates, which stand in brackets.
fn readable(name: &str) -> String {
    let mut out = String::new();
    let mut parts = name.split('[');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest))
                if hash.len() > 10 && hash.bytes().all(|b| b.is_ascii_hexdigit()) =>
            {
                out.push_str(rest);
            }
            _ => {
                out.push('[');
                out.push_str(part);
            }
        }
    }
    out
}

/// The crate that a function counts for: the first that its name (without hashes) names. The
/// standard library, and what calls into JavaScript or is called from there, only where it names
/// no other: what they do is what they are generic over.
fn crate_of(name: &str) -> String {
    const PARTS: [&str; 6] = ["core", "alloc", "std", "hashbrown", "dlmalloc", "__rustc"];
    const GLUE: [&str; 2] = ["js_sys", "wasm_bindgen"];
    let (mut standard, mut glue) = (false, None);
    for found in crates(name) {
        if PARTS.contains(&found) {
            standard = true;
        } else if GLUE.contains(&found) {
            glue = glue.or(Some(found));
        } else {
            return found.to_owned();
        }
    }
    glue.unwrap_or(if standard { STANDARD } else { "exports and intrinsics" }).to_owned()
}

/// The crates that a name names: each first part of a path.
fn crates(name: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    name.match_indices("::").filter_map(move |(at, _)| {
        let before = name.get(..at)?;
        let start = before.rfind(|c| !is_part(c)).map_or(0, |at| at + 1);
        let (path, part) = (before.get(..start)?, before.get(start..)?);
        let first =
            !path.ends_with("::") && part.starts_with(|c: char| c == '_' || c.is_lowercase());
        first.then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_counts_for_the_first_crate_that_is_not_the_standard_library() {
        let of = |name| crate_of(&readable(name));
        assert_eq!(of("url::parser::Parser::parse_host"), "url");
        assert_eq!(of("<todo_shared::Todo as serde::Serialize>::serialize"), "todo_shared");
        assert_eq!(of("<alloc::vec::Vec<T> as serde_json::Read>::next"), "serde_json");
        assert_eq!(of("core::ptr::drop_in_place<alloc::vec::Vec<url::Url>>"), "url");
        assert_eq!(of("js_sys::futures::future_to_promise::<todo_worker::fetch>"), "todo_worker");
        assert_eq!(of("js_sys::futures::queue::Queue::new"), "js_sys");
        assert_eq!(of("core[c5930c85a12de822]::fmt::write"), "std");
        assert_eq!(of("memcpy"), "exports and intrinsics");
    }

    #[test]
    fn data_counts_for_the_crate_that_leads_to_it() {
        let function = |name: &str, address| Function {
            name: name.to_owned(),
            bytes: 1,
            addresses: vec![address],
        };
        // A word of `a` that is the address of the last four bytes; five bytes of `core`.
        let bytes = [108, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let parts = Parts {
            functions: vec![function("a::f", 100), function("core::g", 104), function("b::h", 7)],
            data: vec![(100, bytes[..].to_vec())],
            ..Parts::default()
        };
        let sizes: Vec<_> = data_by_crate(&parts).into_iter().collect();
        assert_eq!(sizes, [("a".to_owned(), 9), ("std".to_owned(), 4)]);
    }

    #[test]
    fn what_a_wasm_is_made_of_is_all_of_it() {
        // A module with one function of two instructions, `f` by its name.
        let module = [
            b"\0asm\x01\0\0\0".as_slice(),
            b"\x01\x04\x01\x60\0\0",
            b"\x03\x02\x01\0",
            b"\x0a\x05\x01\x03\0\x01\x0b",
            b"\0\x0b\x04name\x01\x04\x01\0\x01f",
        ]
        .concat();
        let parts = parts(&module).unwrap();
        let functions: Vec<_> = parts.functions.iter().map(|f| (&*f.name, f.bytes)).collect();
        assert_eq!(functions, [("f", 3)]);
        assert_eq!(parts.sections.get("types"), Some(&4));
        assert_eq!(parts.sections.get("code"), Some(&7));
    }
}
