//! Makes the code of a page of the guide a test: `docs/guide/src/testing.md`. Doctests do not run
//! what has `#[test]`. The first block of code is what is tested; each other one is a module beside
//! it, as in a file of one's own.

use std::fmt::Write;
use std::path::Path;

fn main() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/src/testing.md");
    println!("cargo::rerun-if-changed={}", page.display());
    let text = std::fs::read_to_string(&page).unwrap();
    let mut code = String::new();
    let mut modules = 0;
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == "```rust") {
        let block = lines.by_ref().take_while(|line| *line != "```");
        if code.is_empty() {
            block.for_each(|line| writeln!(code, "{line}").unwrap());
            continue;
        }
        modules += 1;
        writeln!(code, "mod part_{modules} {{").unwrap();
        block.for_each(|line| writeln!(code, "    {line}").unwrap());
        writeln!(code, "}}").unwrap();
    }
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(Path::new(&out).join("testing.rs"), code).unwrap();
}
