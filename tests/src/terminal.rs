//! A real terminal: a window of tmux, with its own server.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::process::{self, Finished, Process};

/// How long a screen may take until it is as expected.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a command of tmux may take.
const SHORT: Duration = Duration::from_secs(10);

/// A window in which a program runs. It ends, with the program, when this value is dropped.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Opens a window of this size with the program in it. `folder` takes the server's socket.
    pub fn open(folder: &Path, (width, height): (u16, u16), program: &[&str]) -> Result<Self> {
        let terminal = Self {
            socket: folder.join("tmux"),
        };
        let (width, height) = (width.to_string(), height.to_string());
        let mut arguments = vec!["new-session", "-d", "-x", &width, "-y", &height, "--"];
        arguments.extend(program);
        terminal.tmux(&arguments)?.success("tmux")?;
        Ok(terminal)
    }

    /// What the window shows.
    pub fn screen(&self) -> Result<String> {
        let shown = self.tmux(&["capture-pane", "-p"])?;
        Ok(shown.success("tmux capture-pane")?.stdout)
    }

    /// Waits until the window shows all of these texts, and returns what it shows.
    pub fn wait_for(&self, texts: &[&str]) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if texts.iter().all(|text| screen.contains(text)) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                bail!("not all of {texts:?} within {PATIENCE:?}:\n{screen}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses a key, as tmux names it.
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key])?
            .success("tmux send-keys")
            .map(drop)
    }

    /// Gives the window another size.
    pub fn resize(&self, (width, height): (u16, u16)) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height])?
            .success("tmux resize-window")
            .map(drop)
    }

    /// Waits until the program has ended, and the window with it.
    pub fn wait_until_closed(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.tmux(&["has-session"])?.status.success() {
            if Instant::now() > deadline {
                bail!("still there after {PATIENCE:?}:\n{}", self.screen()?);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn tmux(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket);
        command.args(["-f", "/dev/null"]).args(arguments);
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        Process::spawn(&mut command)?.wait(SHORT)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).arg("kill-server");
        // It has ended already where the program has.
        let _ = process::run(&mut command, SHORT);
    }
}
