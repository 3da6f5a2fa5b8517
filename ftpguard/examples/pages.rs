//! Writes the manual pages and the completions, made of the command line's definition, into the
//! folder named as the only argument. `cargo xtask dist` runs it.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _, builder::Resettable};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use ftpguard::cli::{Cli, Exit};

fn main() -> Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).context("name a folder")?);
    let (manual, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&manual, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let command = Cli::command();
    write_page(&manual, "ftpguard", command.clone())?;
    for subcommand in command.get_subcommands() {
        let name = format!("ftpguard-{}", subcommand.get_name());
        write_page(&manual, &name, subcommand.clone())?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "ftpguard", &completions)
            .with_context(|| format!("writing completions for {shell}"))?;
    }
    Ok(())
}

/// Writes `name`.8: a command of administrators.
fn write_page(folder: &Path, name: &str, command: Command) -> Result<()> {
    let path = folder.join(format!("{name}.8"));
    let command = command
        .display_name(name.to_owned())
        .bin_name(name.replacen('-', " ", 1))
        .version(env!("CARGO_PKG_VERSION"))
        // The page has a section for it.
        .after_help(Resettable::Reset);
    let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    Man::new(command)
        .title(name)
        .section("8")
        .manual("ftpguard")
        .render(&mut file)
        .and_then(|()| writeln!(file, ".SH \"EXIT STATUS\"\n{}", exit_status()))
        .with_context(|| format!("writing {}", path.display()))
}

/// Every exit status, as roff.
fn exit_status() -> String {
    let row = |exit: Exit| format!(".TP\n{}\n{}", exit.status(), exit.meaning());
    Exit::ALL.map(row).join("\n")
}
