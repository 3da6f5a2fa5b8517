//! Reading the file. Every error is one line with the place: `FILE:LINE:COLUMN: what; remedy`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{Config, KEYS, Layer, Problem};

/// The most bytes of a file.
const MAX_FILE: u64 = 1 << 20;

/// A file that was read, kept to find places in.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

/// Why a file is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The file.
    pub path: PathBuf,
    /// Line and column, counted from 1, where there is a place.
    pub place: Option<(usize, usize)>,
    /// What, and how to put it right.
    pub message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for Wrong {}

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(&'static str),
    /// An element, counted from 0.
    Place(usize),
}

impl Step {
    pub(super) const fn key(name: &'static str) -> Self {
        Self::Key(name)
    }
}

impl Source {
    /// Reads the file. `None` where it is missing and need not be there.
    pub fn read(path: &Path, must_exist: bool) -> Result<Option<Self>, Wrong> {
        let wrong = |message| Wrong {
            path: path.to_owned(),
            place: None,
            message,
        };
        let length = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(wrong("is a folder; name the file in it".to_owned()));
            }
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {
                return Ok(None);
            }
            Err(error) => return Err(wrong(unreadable(&error))),
        };
        if length > MAX_FILE {
            return Err(wrong(format!(
                "has {length} bytes, which is no configuration; the most is {MAX_FILE}"
            )));
        }
        let text = fs::read_to_string(path).map_err(|error| wrong(unreadable(&error)))?;
        Ok(Some(Self {
            path: path.to_owned(),
            text,
        }))
    }

    /// What the file says.
    pub fn parse(&self) -> Result<Layer, Wrong> {
        toml::from_str(&self.text).map_err(|error| Wrong {
            path: self.path.clone(),
            place: error.span().map(|span| self.place_of(span.start)),
            message: one_line(error.message()),
        })
    }

    /// The problem with its place in this file, or where none of the values on the way to it
    /// stands in the file, without.
    #[must_use]
    pub fn locate(&self, problem: &Problem) -> Wrong {
        Wrong {
            path: self.path.clone(),
            place: find(&self.text, &problem.place).map(|at| self.place_of(at)),
            message: problem.message.clone(),
        }
    }

    /// Line and column of a byte, counted from 1; columns count characters.
    fn place_of(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        (
            before.matches('\n').count() + 1,
            before.get(start..).unwrap_or("").chars().count() + 1,
        )
    }
}

/// Where the value lies, or the last value on the way to it that is there.
fn find(text: &str, place: &[Step]) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut steps = place.iter();
    let Some(Step::Key(first)) = steps.next() else {
        return None;
    };
    let mut value = table.get_ref().get(*first)?;
    for step in steps {
        let next = match (step, value.get_ref()) {
            (Step::Key(name), DeValue::Table(table)) => table.get(*name),
            (Step::Place(place), DeValue::Array(array)) => array.get(*place),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span().start)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system's errors are many; the rest is told in its words"
)]
fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "does not exist; name another with --config, or drop the option".to_owned()
        }
        io::ErrorKind::PermissionDenied => "cannot be read: no permission; run as root".to_owned(),
        io::ErrorKind::InvalidData => "is not UTF-8 text; save it as such".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// The parser's words on one line, with a remedy where it knows none.
fn one_line(message: &str) -> String {
    let line = join(message);
    let misplaced = line
        .strip_prefix("unknown key `")
        .and_then(|rest| rest.split_once('`'))
        .filter(|(name, _)| KEYS.iter().any(|key| key.name == *name));
    match misplaced {
        // In TOML what follows a table's head belongs to the table.
        Some((name, _)) => format!(
            "`{name}` holds for the whole file, not for one table; write it above the first [[...]]"
        ),
        None => line,
    }
}

fn join(message: &str) -> String {
    message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
        // The file has keys; fields are the words of the parser.
        .replace("unknown field", "unknown key")
        .replace("missing field", "missing key")
}

impl Config {
    /// What the file says, over the defaults; checked.
    pub fn from_source(source: &Source) -> Result<Self, Wrong> {
        let mut config = Self::default();
        source.parse()?.put_over(&mut config);
        config.check().map_err(|problem| source.locate(&problem))?;
        Ok(config)
    }
}
