//! Puts the command line over the file.

use std::path::{Path, PathBuf};

use super::{Config, DEFAULT_FILE, ExceptionRule, file::Source, file::Wrong};
use crate::cli::Given;

/// What the exception made of `--allow-connect` is called.
const COMMAND_LINE: &str = "command line";

/// Why nothing is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The file is wrong.
    File(Wrong),
    /// What the command line adds makes no sense: one line.
    CommandLine(String),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(wrong) => wrong.fmt(f),
            Self::CommandLine(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for Unusable {}

impl Given {
    /// The file that is read: the named one, or the default one.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.config
            .clone()
            .unwrap_or_else(|| Path::new(DEFAULT_FILE).to_owned())
    }

    /// The file read again, with the command line over it, over the defaults; checked.
    pub fn resolve(&self) -> Result<Config, Unusable> {
        let source = Source::read(&self.file(), self.config.is_some()).map_err(Unusable::File)?;
        self.over(source.as_ref())
    }

    /// The command line over this file, over the defaults; checked.
    pub fn over(&self, source: Option<&Source>) -> Result<Config, Unusable> {
        let mut config = match source {
            Some(source) => Config::from_source(source).map_err(Unusable::File)?,
            None => Config::default(),
        };
        self.put_over(&mut config)?;
        config
            .check()
            // The file alone was right.
            .map_err(|problem| Unusable::CommandLine(problem.message))?;
        Ok(config)
    }

    fn put_over(&self, config: &mut Config) -> Result<(), Unusable> {
        self.layer.clone().put_over(config);
        if !self.control_ports.is_empty() || !self.passive_ports.is_empty() {
            let [ftpd] = config.ftpd.as_mut_slice() else {
                return Err(Unusable::CommandLine(format!(
                    "{} has several tables [[ftpd]], and --control-port and --passive-ports do \
                     not say which they mean; change them in the file",
                    self.file().display()
                )));
            };
            if !self.control_ports.is_empty() {
                ftpd.control_ports.clone_from(&self.control_ports);
            }
            if !self.passive_ports.is_empty() {
                ftpd.passive_ports.clone_from(&self.passive_ports);
            }
        }
        if !self.allow_connect.is_empty() {
            config.exception.push(ExceptionRule {
                name: COMMAND_LINE.to_owned(),
                connect_to: self.allow_connect.clone(),
                data_from: Vec::new(),
                clients: Vec::new(),
            });
        }
        Ok(())
    }
}
