//! A new application, from `templates/app`: what `cargo generate` makes, on this checkout.

use crate::root;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// What of the template is the template's own.
const NOT_COPIED: [&str; 1] = ["cargo-generate.toml"];

/// What the template says of where the crates are.
const RELEASED: &str = "git = \"https://github.com/partysync/partysync-rs\"";

/// Writes an application of this name into a folder that is empty or not there yet.
pub(crate) fn new(name: &str, folder: &Path) -> Result<()> {
    ensure!(
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.ends_with('-')
            && name.len() <= 63,
        "`{name}` cannot be the name of a worker: 63 characters of a-z, 0-9 and `-`, a letter first"
    );
    if folder.is_dir() && std::fs::read_dir(folder)?.next().is_some() {
        bail!("{} is not empty", folder.display());
    }
    let root = root()?;
    copy(&root.join("templates/app"), folder, name)?;
    let manifest = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    // With slashes on every system, as TOML wants.
    let checkout = root.display().to_string().replace('\\', "/");
    let lines = text.lines().map(|line| match line.split_once(" = {") {
        Some((package, _)) if line.contains(RELEASED) => {
            line.replace(RELEASED, &format!("path = \"{checkout}/{package}\"")) + "\n"
        }
        _ => format!("{line}\n"),
    });
    std::fs::write(&manifest, lines.collect::<String>())?;
    // The versions that are tested together here.
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    println!("{name} is in {}: `cargo xtask dev` serves it", folder.display());
    Ok(())
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, file) = (entry.path(), entry.file_name());
        if NOT_COPIED.iter().any(|own| file == *own) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(file), name)?;
        } else {
            let text = std::fs::read_to_string(&path)?.replace("{{project-name}}", name);
            std::fs::write(to.join(file), text)?;
        }
    }
    Ok(())
}
