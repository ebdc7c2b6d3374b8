//! What `docs/` and the guide link to is there, and every page of the guide is in its summary.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The Markdown files below a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of a page that are text and not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Where the links of a page lead.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // What stands in backticks is code.
        let line: String = line.split('`').step_by(2).collect();
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(targets.map(str::to_owned));
        let sources = line.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(sources.map(str::to_owned));
    }
    found
}

/// The fragments by which the headings of a page are reached, as GitHub and mdBook make them.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let title = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    title.map(|title| title.chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Where the repository's files are on the web: what a page of the guide, which is a book of its own,
/// links to outside of it.
const REPOSITORY: &str = "https://github.com/partysync/partysync-rs/blob/main/";

/// What is wrong with a page's links.
fn broken(page: &Path, text: &str) -> Vec<String> {
    let wrong = links(text).into_iter().filter(|link| !leads_somewhere(page, text, link));
    wrong.map(|link| format!("{}: {link}", page.display())).collect()
}

fn leads_somewhere(page: &Path, text: &str, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = match file.strip_prefix(REPOSITORY) {
        Some(path) => root().join(path),
        None if link.contains("://") || link.starts_with("mailto:") => return true,
        None if file.is_empty() => page.to_owned(),
        None => page.parent().unwrap().join(file),
    };
    let Ok(target) = target.canonicalize() else { return false };
    let book = root().join("docs/guide/src");
    if page.starts_with(&book) && !target.starts_with(&book) && !file.starts_with(REPOSITORY) {
        return false;
    }
    if heading.is_empty() {
        return true;
    }
    let other = (target != page && target.is_file()).then(|| read(&target));
    headings(other.as_deref().unwrap_or(text)).contains(heading)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut files = pages(&root().join("docs"));
    files.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let wrong: Vec<_> = files.iter().flat_map(|page| broken(page, &read(page))).collect();
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = root().join("docs/guide/src/SUMMARY.md");
    let text = "# A title, `twice`\n[a](#a-title-twice) [b](#another) [c](nowhere.md) \
                [d](../book.toml) [e](records.md#no-such-heading) [f](https://a.example/#b)\n\
                [j](https://github.com/partysync/partysync-rs/blob/main/docs/queries.md#queries) \
                [k](https://github.com/partysync/partysync-rs/blob/main/docs/nothing.md)\n\
                `[g](nowhere.md)`\n```\n[h](nowhere.md)\n# no heading\n```\n[i](#no-heading)";
    let wrong = broken(&page, text);
    let links: Vec<_> = wrong.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let elsewhere = format!("{REPOSITORY}docs/nothing.md");
    let expected = [
        "#another",
        "nowhere.md",
        // A book does not have it.
        "../book.toml",
        "records.md#no-such-heading",
        &elsewhere,
        "#no-heading",
    ];
    assert_eq!(links, expected);
}

#[test]
fn every_page_of_the_guide_is_in_its_summary_and_the_readme_and_its_code_is_compiled() {
    let source = root().join("docs/guide/src");
    let summary = read(&source.join("SUMMARY.md"));
    let listed: BTreeSet<_> = links(&summary).into_iter().collect();
    let names = pages(&source).into_iter().filter_map(|page| {
        page.strip_prefix(&source).ok().map(|name| name.to_string_lossy().into_owned())
    });
    let there: BTreeSet<_> = names.filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(listed, there);
    let readme = links(&read(&root().join("README.md")));
    for page in &there {
        let link = format!("docs/guide/src/{page}");
        assert!(readme.contains(&link), "the README does not lead to {page}");
    }

    let doctests = read(&root().join("tests/guide/lib.rs"));
    let (_, doctests) = doctests.rsplit_once("pages!(").unwrap();
    let doctests: BTreeSet<_> = doctests.split(|c: char| !c.is_alphanumeric()).collect();
    for page in &there {
        let text = read(&source.join(page));
        assert!(!text.contains("```rust,ignore"), "{page}: code that is not compiled");
        let compiled = doctests.contains(page.trim_end_matches(".md"))
            // Its tests run: `tests/leptos/build.rs`.
            || page == "testing.md";
        assert!(compiled || !text.contains("```rust"), "nothing compiles the code of {page}");
    }
}
