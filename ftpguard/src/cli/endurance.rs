//! Where pins lie, and who asks about them.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{AskArgs, DEFAULT_RUNTIME_DIR, RunArgs};
use crate::{config::Config, kernel::Pins};

/// What `status` and `detach` take.
#[derive(Args, Clone, Debug)]
pub struct EnduringAskArgs {
    /// Whom to ask, and how to print.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Folder of the guard's pins [default: as for `run`]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
}

impl RunArgs {
    /// Where pins lie.
    #[must_use]
    pub fn pins(&self, config: &Config) -> Pins {
        let folder = pin_folder(self.pin_dir.as_deref(), &self.runtime_dir);
        if config.pin {
            Pins::In(folder)
        } else {
            Pins::Formerly(folder)
        }
    }
}

impl EnduringAskArgs {
    /// Where the pins of the guard in question lie.
    #[must_use]
    pub fn pin_folder(&self) -> PathBuf {
        pin_folder(self.pin_dir.as_deref(), &self.ask.runtime_dir)
    }
}

/// Guards with different runtime folders have different pins, without being told.
fn pin_folder(chosen: Option<&Path>, runtime: &Path) -> PathBuf {
    const FILE_SYSTEM: &str = "/sys/fs/bpf";
    if let Some(folder) = chosen {
        return folder.to_owned();
    }
    if runtime == Path::new(DEFAULT_RUNTIME_DIR) {
        return Path::new(FILE_SYSTEM).join("ftpguard");
    }
    // A BPF file system takes no dots in names.
    let name: String = runtime
        .to_string_lossy()
        .chars()
        .map(|character| match character {
            '/' | '.' => '-',
            other => other,
        })
        .collect();
    Path::new(FILE_SYSTEM).join(format!("ftpguard{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_follow_the_runtime_folder() {
        let default = pin_folder(None, Path::new("/run/ftpguard"));
        assert_eq!(default, Path::new("/sys/fs/bpf/ftpguard"));
        let other = pin_folder(None, Path::new("/tmp/a.b/guard-1"));
        assert_eq!(other, Path::new("/sys/fs/bpf/ftpguard-tmp-a-b-guard-1"));
        let chosen = pin_folder(Some(Path::new("/bpf/x")), Path::new("/tmp"));
        assert_eq!(chosen, Path::new("/bpf/x"));
    }
}
