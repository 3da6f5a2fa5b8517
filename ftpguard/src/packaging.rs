//! Tests of what is shipped beside the binary: the unit, and the pages of the documentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::cli;

/// The top of the workspace.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn unit() -> String {
    read(&top().join("packaging/ftpguard.service"))
}

/// Every page of documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "packaging"] {
        for entry in fs::read_dir(top().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

#[test]
fn the_units_commands_are_understood() {
    let unit = unit();
    let mut commands = 0;
    for line in unit.lines() {
        let Some((setting, command)) = line.split_once('=') else {
            continue;
        };
        if !setting.starts_with("Exec") {
            continue;
        }
        commands += 1;
        let words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(words[0], "/usr/bin/ftpguard", "{line}");
        cli::parse(words).unwrap_or_else(|error| panic!("{line}: {error:?}"));
    }
    assert!(commands > 0, "{unit}");
}

#[test]
fn every_capability_of_the_unit_is_explained() {
    let unit = unit();
    let bounded = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("a bounding set");
    let page = read(&top().join("docs/capabilities.md"));
    for capability in bounded.split_whitespace() {
        let row = format!("\n| `{capability}` | ");
        assert!(page.contains(&row), "{capability} has no row");
    }
}

/// The targets of a page's links: `](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(place, _)| {
        let rest = &text[place + 2..];
        rest.find(')').map(|end| &rest[..end])
    })
}

/// The anchors of a page: its headings as GitHub writes them.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let text = read(&page);
        for link in links(&text) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a folder").join(file)
            };
            let shown = page.display();
            assert!(target.exists(), "{shown}: nothing at {link}");
            if !anchor.is_empty() {
                let there = anchors(&read(&target));
                assert!(there.contains(anchor), "{shown}: {link}, but {there:?}");
            }
        }
    }
    assert!(seen > 15, "{seen} links");
}

/// No page is an orphan: the README or another page leads to it.
#[test]
fn every_page_is_linked() {
    let pages = pages();
    let linked: BTreeSet<PathBuf> = pages
        .iter()
        .flat_map(|page| {
            let folder = page.parent().expect("a folder").to_owned();
            links(&read(page))
                .map(|link| folder.join(link.split('#').next().unwrap_or(link)))
                .filter_map(|path| path.canonicalize().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    for page in pages {
        let path = page.canonicalize().expect("a page");
        let is_readme = path.file_name().is_some_and(|name| name == "README.md");
        assert!(is_readme || linked.contains(&path), "{}", page.display());
    }
}

/// How often each source file below a folder says `unsafe`, comments left out.
fn unsafe_places(folder: &Path, counts: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                unsafe_places(&path, counts);
            }
            continue;
        }
        // This file only speaks of it.
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if !is_source || path.ends_with("packaging.rs") {
            continue;
        }
        let count = read(&path)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| {
                let code = ["unsafe {", "unsafe(", "unsafe impl ", "unsafe fn "];
                code.map(|word| line.matches(word).count())
                    .iter()
                    .sum::<usize>()
            })
            .sum();
        if count > 0 {
            let name = path.strip_prefix(top()).expect("below the workspace");
            counts.insert(name.display().to_string(), count);
        }
    }
}

#[test]
fn every_unsafe_place_is_in_the_inventory() {
    let mut counts = BTreeMap::new();
    for package in ["ftpguard", "ftpguard-common", "ftpguard-ebpf"] {
        unsafe_places(&top().join(package), &mut counts);
    }
    let listed: BTreeMap<String, usize> = read(&top().join("docs/unsafe.md"))
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').skip(1).map(str::trim);
            let file = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((file.to_owned(), cells.next()?.parse().ok()?))
        })
        .collect();
    assert!(counts.len() > 20, "{counts:?}");
    assert_eq!(
        counts, listed,
        "sources on the left, docs/unsafe.md on the right"
    );
    // The others cannot hold any.
    for root in [
        "xtask/src/main.rs",
        "tests/src/lib.rs",
        "ftpguard-common/src/ftp/mod.rs",
    ] {
        let text = read(&top().join(root));
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root}");
    }
}

/// The text of all source files, with each line that a backslash continues joined to the next.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "packaging.rs")
        {
            let source = read(&path);
            let mut continued = false;
            for line in source.lines() {
                let line = if continued { line.trim_start() } else { line };
                continued = line.ends_with('\\');
                text.push_str(line.trim_end_matches('\\'));
                if !continued {
                    text.push('\n');
                }
            }
        }
    }
    text
}

/// The messages that the page on troubleshooting explains are those that the program has.
#[test]
fn troubleshooting_explains_messages_that_exist() {
    let page = read(&top().join("docs/troubleshooting.md"));
    let sources = sources(&top().join("ftpguard/src"));
    let mut explained = 0;
    for line in page.lines() {
        let Some(message) = line
            .strip_prefix("### `")
            .and_then(|rest| rest.strip_suffix('`'))
        else {
            continue;
        };
        explained += 1;
        for part in message.split("...").map(str::trim) {
            assert!(sources.contains(part), "{message}: no {part:?} anywhere");
        }
    }
    assert!(explained > 30, "{explained} messages");
}
