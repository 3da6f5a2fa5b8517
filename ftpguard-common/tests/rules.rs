//! Each rule of docs/threat-model.md is in the name of a test: at the beginning, or at the end.
//! The table there names tests that exist.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Where the repository begins.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn every_rule_has_a_test() {
    let tests = tests_by_rule();
    let rules = rules();
    assert_eq!(rules.len(), 72, "{rules:?}");
    for rule in &rules {
        println!("{rule}: {}", tests.get(rule).map_or(0, BTreeSet::len));
    }
    let without: Vec<&str> = rules
        .iter()
        .filter(|&rule| !tests.contains_key(rule))
        .map(String::as_str)
        .collect();
    assert!(without.is_empty(), "no test is named after {without:?}");
}

/// The table at the end of the model has a row for each rule, in the model's order, and its tests
/// exist and are named after the rule.
#[test]
fn the_table_of_rules_names_tests_that_exist() {
    let tests = tests_by_rule();
    let model = read("docs/threat-model.md");
    let mut rows = Vec::new();
    for line in model.lines() {
        let Some((rule, named)) = row(line) else {
            continue;
        };
        for test in named {
            assert!(
                tests.get(rule).is_some_and(|tests| tests.contains(test)),
                "{rule}: no test {test}"
            );
        }
        rows.push(rule);
    }
    assert_eq!(rows, rules());
}

#[test]
fn names_are_taken_apart() {
    let text = "#[test]\nfn s1_r22_cut_k3() {}\nfn c1_helper() {}\n    #[test]\n    fn plain(";
    assert_eq!(names_of_tests(text), ["s1_r22_cut_k3", "plain"]);
    assert_eq!(cited("s1_r22_cut_k3"), ["S1", "R22", "K3"]);
    assert_eq!(cited("cut_k3_s1"), ["S1", "K3"]);
    assert!(cited("plain_s1_words").is_empty());
}

#[test]
fn rows_are_taken_apart() {
    let one = "| K4 | only `uses`: `k4_one`, `k4_two` |";
    assert_eq!(row(one), Some(("K4", vec!["k4_one", "k4_two"])));
    assert_eq!(row("| M3 | not kept |"), Some(("M3", Vec::new())));
    assert_eq!(row("| T1 | theft | A1 | I-rules |"), None);
    assert_eq!(row("a line"), None);
}

/// The tests that are named after each rule.
fn tests_by_rule() -> BTreeMap<String, BTreeSet<String>> {
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources() {
        for test in names_of_tests(&fs::read_to_string(&file).unwrap()) {
            for rule in cited(&test) {
                tests.entry(rule).or_default().insert(test.clone());
            }
        }
    }
    tests
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The ids of the rules that begin a line so: `- **S1** `. Attackers (A1, ...) are none.
fn rules() -> Vec<String> {
    let model = read("docs/threat-model.md");
    let ids = model.lines().filter_map(|line| {
        let (id, _) = line.strip_prefix("- **")?.split_once("**")?;
        is_rule(id).then(|| id.to_owned())
    });
    ids.filter(|id| !id.starts_with('A')).collect()
}

/// Rule and tests of a row of two columns; a test is a name in backquotes that cites a rule.
fn row(line: &str) -> Option<(&str, Vec<&str>)> {
    let (rule, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
    let tests = rest.strip_suffix(" |")?;
    if !is_rule(rule) || tests.contains(" | ") {
        return None;
    }
    let quoted = tests.split('`').skip(1).step_by(2);
    Some((
        rule,
        quoted.filter(|name| !cited(name).is_empty()).collect(),
    ))
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

/// The rules with which a name begins or ends.
fn cited(name: &str) -> Vec<String> {
    let words: Vec<String> = name.split('_').map(str::to_ascii_uppercase).collect();
    let first = words.iter().take_while(|word| is_rule(word)).count();
    let last = words.iter().rev().take_while(|word| is_rule(word)).count();
    // A name of nothing else is counted once.
    let rest = words.len() - last.min(words.len() - first);
    let ends = words.get(rest..).unwrap_or_default().iter().rev();
    words.iter().take(first).chain(ends).cloned().collect()
}
