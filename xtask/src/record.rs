//! `cargo xtask record`: transcripts of real ftpds and clients.

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use ftpguard_tests::{
    record::{self, FTPDS},
    tool::Tool,
};

use crate::{
    exec::{as_root, is_root, run},
    setup,
};

/// What `record` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Record only transcripts whose file name contains this
    filter: Option<String>,
}

/// Records each ftpd with each client. What is written is to be looked through: the events are
/// what the reader makes of it today, and only the ports are compared with the wire.
pub(crate) fn record(arguments: &Arguments) -> Result<ExitCode> {
    if !is_root() {
        setup::setup()?;
        let this = env::current_exe().context("finding this program")?;
        run(as_root(this, &[]).arg("record").args(&arguments.filter))?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts/recorded");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for kind in FTPDS {
        for tool in Tool::ALL {
            let name = record::file_name(kind, tool);
            if arguments
                .filter
                .as_ref()
                .is_some_and(|filter| !name.contains(filter))
            {
                continue;
            }
            let text = record::record(kind, tool).with_context(|| name.clone())?;
            let path = folder.join(&name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("{name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
