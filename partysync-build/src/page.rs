//! A page: a wasm module, what loads it, and its static files.

use crate::process::run;
use crate::{Crate, Profile, Tools};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a page into its folder `dist`: `app.js`, `app_bg.wasm`, and the files of `static`.
///
/// # Errors
/// It does not compile, or a tool fails.
pub fn build_page(page: &Crate, tools: &Tools, target: &Path, profile: Profile) -> Result<()> {
    let made = target.join("pages").join(&page.package);
    page_wasm(page, tools, target, &made, profile)?;
    let mut files = BTreeMap::new();
    for folder in [made, page.folder.join("static")] {
        read(&folder, Path::new(""), &mut files)?;
    }
    // A name that is another when any file is, so that a browser never shows files of two builds
    // together. A page that its worker renders has neither file.
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    let build = format!("{:016x}", hasher.finish());
    for name in ["index.html", "sw.js"] {
        if let Some(file) = files.get_mut(Path::new(name)) {
            *file = String::from_utf8_lossy(file).replace("__BUILD__", &build).into_bytes();
        }
    }
    put(&page.folder.join("dist"), &files)
}

/// Files, by their paths.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Reads a folder, which is to be at this path, with all that is in it.
fn read(folder: &Path, at: &Path, files: &mut Files) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let at = at.join(path.file_name().context("a file has a name")?);
        if path.is_dir() {
            read(&path, &at, files)?;
        } else {
            files.insert(at, std::fs::read(&path)?);
        }
    }
    Ok(())
}

/// Has a folder hold these files and no others. Files that are as they were are not written: who
/// watches the folder hears of what changed. What names the others is written last.
fn put(folder: &Path, files: &Files) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut ordered: Vec<_> = files.iter().collect();
    ordered.sort_by_key(|(name, _)| name.as_path() == Path::new("index.html"));
    for (name, file) in ordered {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if std::fs::read(&path).ok().as_ref() != Some(file) {
            std::fs::write(&path, file)?;
        }
    }
    let mut there = Files::new();
    read(folder, Path::new(""), &mut there)?;
    for name in there.keys().filter(|name| !files.contains_key(*name)) {
        std::fs::remove_file(folder.join(name))?;
    }
    Ok(())
}

/// Builds a page's wasm, and what loads it, in the folder `out`; returns the wasm's path.
///
/// # Errors
/// It does not compile, or a tool fails.
pub fn page_wasm(
    page: &Crate,
    tools: &Tools,
    target: &Path,
    out: &Path,
    profile: Profile,
) -> Result<PathBuf> {
    let names = target.join("names");
    let target = if profile == Profile::Names { &names } else { target };
    page.cargo(target, profile)?;
    let (compiled, wasm) = (page.wasm(target, profile), out.join("app_bg.wasm"));
    // What it was made of lies beside what was made: this takes a second or more.
    let (made_of, stamp) = (page.made_of(target, profile)?, out.with_extension("made-of"));
    if profile == Profile::Dev
        && wasm.is_file()
        && std::fs::read_to_string(&stamp).is_ok_and(|was| was == made_of)
    {
        return Ok(wasm);
    }
    // A build that is stopped half-way leaves nothing that could be taken for this.
    let _ = std::fs::remove_file(&stamp);
    if out.is_dir() {
        std::fs::remove_dir_all(out)?;
    }
    std::fs::create_dir_all(out)?;
    run(Command::new(&tools.wasm_bindgen)
        .args(["--target", "web", "--no-typescript", "--out-name", "app", "--out-dir"])
        .arg(out)
        .arg(&compiled))?;
    match profile {
        Profile::Dev => {}
        Profile::Release | Profile::Names => {
            tools.wasm_opt(&wasm, &["-Oz", profile.names()])?;
        }
    }
    std::fs::write(stamp, made_of)?;
    Ok(wasm)
}

/// Puts what the compiler said where the page is.
pub(crate) fn show_failure(page: &Crate, output: &str) -> Result<()> {
    let text = output.replace('&', "&amp;").replace('<', "&lt;");
    let dist = page.folder.join("dist");
    std::fs::create_dir_all(&dist)?;
    Ok(std::fs::write(dist.join("index.html"), FAILURE.replace("__OUTPUT__", &text))?)
}

/// Has a `head` and a `body`, so that wrangler reloads it.
const FAILURE: &str = r#"<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>It does not compile</title>
    <style>
      :root { color-scheme: light dark; }
      body { margin: 0; padding: 2rem; font: 16px/1.5 system-ui, sans-serif; }
      h1 { margin: 0 0 1rem; font-size: 1.25rem; }
      pre {
        margin: 0;
        padding: 1rem;
        overflow-x: auto;
        border-radius: 8px;
        background: light-dark(#f4f4f5, #1c1c20);
        font: 13px/1.5 ui-monospace, monospace;
      }
    </style>
  </head>
  <body>
    <h1>It does not compile</h1>
    <pre>__OUTPUT__</pre>
  </body>
</html>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_copied_and_what_is_there_no_more_is_removed() {
        let folder = std::env::temp_dir().join(format!("partysync-page-{}", std::process::id()));
        let file = |name: &str, text: &str| (PathBuf::from(name), text.as_bytes().to_vec());
        let first = Files::from([file("index.html", "a"), file("snippets/x/inline.js", "b")]);
        put(&folder, &first).unwrap();
        let mut found = Files::new();
        read(&folder, Path::new(""), &mut found).unwrap();
        assert_eq!(found, first);
        let second = Files::from([file("index.html", "c"), file("img/icon.svg", "d")]);
        put(&folder, &second).unwrap();
        let mut found = Files::new();
        read(&folder, Path::new(""), &mut found).unwrap();
        assert_eq!(found, second);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
