//! `ftpguard check`: is the configuration valid? The kernel is not touched.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::Config;
use crate::cli::CheckArgs;

/// Says that the configuration is valid, or why it is not.
pub fn say(args: &CheckArgs) -> Result<()> {
    let config = args.given.resolve()?;
    let file = args.given.file();
    let text = if args.show {
        let heading = format!("What holds with {} and the options given.", file.display());
        config.render(&heading)?
    } else {
        summary(&file, file.exists(), &config)
    };
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("writing to standard output")
}

/// One line for the file, one for each FTP server.
fn summary(file: &Path, exists: bool, config: &Config) -> String {
    let mut text = if exists {
        format!("{}: valid, mode {}\n", file.display(), config.mode.label())
    } else {
        format!(
            "{}: not there, the defaults hold, mode {}\n",
            file.display(),
            config.mode.label()
        )
    };
    for ftpd in &config.ftpd {
        let _ = writeln!(
            text,
            "  {}: control ports {}, passive ports {}{}",
            ftpd.name,
            words(&ftpd.control_ports),
            words(&ftpd.passive_ports),
            ftpd.mode
                .map(|mode| format!(", mode {}", mode.label()))
                .unwrap_or_default(),
        );
    }
    text
}

fn words<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "not declared".to_owned();
    }
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_file_is_summed_up() {
        let mut config = Config::default();
        let path = Path::new("/etc/ftpguard/ftpguard.toml");
        if let [ftpd] = config.ftpd.as_mut_slice() {
            ftpd.passive_ports = vec!["50000-50099".parse().expect("a range")];
        }
        config.ftpd.push(super::super::Ftpd {
            name: "second".to_owned(),
            control_ports: vec![990, 2121],
            passive_ports: Vec::new(),
            public_addresses: Vec::new(),
            mode: Some(crate::config::ModeArg::Monitor),
        });
        assert_eq!(
            summary(path, true, &config),
            "\
/etc/ftpguard/ftpguard.toml: valid, mode enforce
  ftpd: control ports 21, passive ports 50000-50099
  second: control ports 990 2121, passive ports not declared, mode monitor
"
        );
        assert!(
            summary(path, false, &config)
                .starts_with("/etc/ftpguard/ftpguard.toml: not there, the defaults hold, mode")
        );
    }
}
