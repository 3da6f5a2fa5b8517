//! Each rule about text (S, C and R of docs/threat-model.md) is in the name of a test.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where the repository begins.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn every_rule_about_text_has_a_test() {
    let rules = rules();
    assert_eq!(rules.len(), 10 + 9 + 9, "{rules:?}");
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        for test in names_of_tests(&fs::read_to_string(&file).unwrap()) {
            for rule in cited(&test) {
                tests.entry(rule).or_default().push(test.clone());
            }
        }
    }
    for rule in &rules {
        let tests = tests.get(rule).map(Vec::len).unwrap_or_default();
        println!("{rule}: {tests}");
    }
    let without: Vec<&String> = rules
        .iter()
        .filter(|&rule| !tests.contains_key(rule))
        .collect();
    assert!(without.is_empty(), "no test is named after {without:?}");
}

#[test]
fn names_are_taken_apart() {
    let text = "#[test]\nfn s1_r22_cut_k3() {}\nfn c1_helper() {}\n    #[test]\n    fn plain(";
    assert_eq!(names_of_tests(text), ["s1_r22_cut_k3", "plain"]);
    assert_eq!(cited("s1_r22_cut_k3"), ["S1", "R22"]);
    assert!(cited("plain").is_empty());
}

/// The ids of the rules that begin a line so: `- **S1** `.
fn rules() -> Vec<String> {
    let model = fs::read_to_string(Path::new(ROOT).join("docs/threat-model.md")).unwrap();
    let ids = model.lines().filter_map(|line| {
        let (id, _) = line.strip_prefix("- **")?.split_once("**")?;
        is_rule(id).then(|| id.to_owned())
    });
    ids.filter(|id| id.starts_with(['S', 'C', 'R'])).collect()
}

fn is_rule(id: &str) -> bool {
    let mut characters = id.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_uppercase())
        && !characters.as_str().is_empty()
        && characters.all(|character| character.is_ascii_digit())
}

/// Every Rust file of the crates.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["ftpguard", "ftpguard-common", "tests"]
        .iter()
        .map(|folder| Path::new(ROOT).join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

/// The names of the functions that follow a line with `#[test]`.
fn names_of_tests(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if is_test && let Some((name, _)) = rest.split_once('(') {
                names.push(name.to_owned());
            }
            is_test = false;
        }
    }
    names
}

/// The rules with which a name begins.
fn cited(name: &str) -> Vec<String> {
    name.split('_')
        .map(str::to_ascii_uppercase)
        .take_while(|word| is_rule(word))
        .collect()
}
