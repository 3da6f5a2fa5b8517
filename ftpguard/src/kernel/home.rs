//! Where the kernel side lives on while no daemon runs: pins in a BPF file system.
//!
//! ```text
//! /sys/fs/bpf/ftpguard/             --pin-dir; locked by the daemon that uses it
//!     state-0123456789abcdef/       one set of maps, and everything that works with it
//!         maps/SESSIONS ...
//!         programs/on_socket_called ..., guard_ingress
//!         hooks/on_socket_called ..., connect4, connect6, lookup, xdp-native-2, tc-in-2, tc-out-2
//! ```
//!
//! The number of a state stands for the layout of its maps and for everything that is written to
//! them once. A daemon with the same number takes the state over as it is; another one makes a
//! state of its own beside it, adopts what is open, and removes the former when nothing needs it
//! any more. So an upgrade never reads what it does not understand.
//!
//! A set of hooks is good as soon as the socket observer is complete: it alone keeps the maps
//! true. One that is not was left by a start that was killed, and is removed.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::programs::links::FdLink;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use super::{
    error::KernelError,
    handover::Holder,
    hook::{Fate, Hook},
    sys::{link_info, open_pin, pin, replace_program},
};
use crate::fault;

pub(super) use super::dismantle::dismantle;
pub use super::dismantle::{Detached, detach};

/// Where pins lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pins {
    /// Nowhere: everything ends with the process.
    Nowhere,
    /// Nowhere from now on; what lies in this folder is taken over and removed.
    Formerly(PathBuf),
    /// In this folder.
    In(PathBuf),
}

/// The pins of one guard.
pub(super) struct Home {
    root: Option<Root>,
    /// This guard's state; `None` where nothing is pinned.
    state: Option<PathBuf>,
    /// States that this guard replaces.
    former: Vec<PathBuf>,
    /// Whether the state was there before.
    inherited: bool,
    /// The hooks that were asked for; `None` once everything is in place.
    claimed: Option<Vec<String>>,
    fate: Fate,
}

struct Root {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Folders of a state.
pub(super) mod room {
    pub(in crate::kernel) const MAPS: &str = "maps";
    pub(in crate::kernel) const PROGRAMS: &str = "programs";
    pub(in crate::kernel) const HOOKS: &str = "hooks";
}

/// Names of states begin so.
pub(super) const STATE: &str = "state-";

/// The name of the program behind XDP hooks.
const XDP: &str = "guard_ingress";

/// Names of the observer's hooks begin so.
pub(super) const OBSERVER: &str = "on_";

impl Home {
    /// Opens the folder, removes what a killed start left in it, and makes the state with this
    /// number unless it is there.
    pub(super) fn open(
        pins: &Pins,
        number: u64,
        observer: &[&str],
        fate: &Fate,
    ) -> Result<Self, KernelError> {
        let mut home = Self {
            root: None,
            state: None,
            former: Vec::new(),
            inherited: false,
            claimed: Some(Vec::new()),
            fate: fate.clone(),
        };
        let folder = match pins {
            Pins::Nowhere => return Ok(home),
            Pins::Formerly(folder) if !folder.exists() => return Ok(home),
            Pins::Formerly(folder) | Pins::In(folder) => folder,
        };
        let failed = |source| KernelError::Pins {
            path: folder.clone(),
            source,
        };
        if matches!(pins, Pins::In(_)) {
            make_folder(folder).map_err(failed)?;
        }
        home.root = Some(Root {
            path: folder.clone(),
            _lock: lock(folder)?,
        });
        fault::step("opening the pins").map_err(failed)?;
        for state in states(folder).map_err(failed)? {
            if is_complete(&state, observer) {
                home.former.push(state);
            } else {
                log::info!("removing {}, which is not complete", state.display());
                dismantle(&state).map_err(failed)?;
            }
        }
        if matches!(pins, Pins::In(_)) {
            let own = folder.join(format!("{STATE}{number:016x}"));
            home.inherited = home.former.contains(&own);
            home.former.retain(|state| *state != own);
            for room in [room::MAPS, room::PROGRAMS, room::HOOKS] {
                make_folder(&own.join(room)).map_err(failed)?;
            }
            home.state = Some(own);
        }
        Ok(home)
    }

    /// Whether the state's maps were there before, and are true.
    pub(super) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Whether everything is in place: nobody hands anything over any more.
    pub(super) fn is_finished(&self) -> bool {
        self.claimed.is_none()
    }

    /// Whether anything of an earlier daemon's is in force.
    pub(super) fn follows_another(&self) -> bool {
        self.inherited || !self.former.is_empty()
    }

    /// The folder, where there is one.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.state.as_ref()?;
        Some(&self.root.as_ref()?.path)
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> Option<PathBuf> {
        Some(self.state.as_ref()?.join(room::MAPS).join(name))
    }

    /// What names this guard's TC filters where the kernel has no links for them.
    pub(super) fn filter_handle(&self) -> u32 {
        self.state
            .as_deref()
            .map_or(1, super::dismantle::filter_handle)
    }

    /// A program that other hooks of this guard need by name.
    pub(super) fn program(
        &self,
        name: &str,
        fresh: BorrowedFd<'_>,
    ) -> Result<OwnedFd, KernelError> {
        let Some(state) = &self.state else {
            return fresh.try_clone_to_owned().map_err(KernelError::Descriptor);
        };
        let path = state.join(room::PROGRAMS).join(name);
        if !path.exists() {
            pin(fresh, &path).map_err(pins_error(&path))?;
        }
        open_pin(&path).map_err(pins_error(&path))
    }

    /// The hook of this name, if the state has it and it still holds on to `target`. A program
    /// that is given takes the place of the one that is there.
    pub(super) fn inherit(
        &mut self,
        name: &str,
        target: Option<u64>,
        program: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Hook>, KernelError> {
        if let Some(claimed) = &mut self.claimed {
            claimed.push(name.to_owned());
        }
        let Some(path) = self.hook(name).filter(|path| path.exists()) else {
            return Ok(None);
        };
        let failed = pins_error(&path);
        let link = open_pin(&path).map_err(&failed)?;
        let info = link_info(link.as_fd()).map_err(&failed)?;
        if target.is_some_and(|target| target != info.target() && target != info.cgroup) {
            // What it was attached to is gone.
            drop(Hook::pinned(path, link, false, &self.fate));
            return Ok(None);
        }
        fault::step(&format!("taking over {name}")).map_err(&failed)?;
        if let Some(program) = program {
            replace_program(link.as_fd(), program).map_err(&failed)?;
        }
        Ok(Some(Hook::pinned(path, link, true, &self.fate)))
    }

    /// Holds a link that was just attached, and pins it.
    pub(super) fn settle(&mut self, name: &str, link: FdLink) -> Result<Hook, KernelError> {
        let Some(path) = self.hook(name) else {
            return Ok(Hook::link(link, &self.fate));
        };
        let failed = pins_error(&path);
        fault::step(&format!("pinning {name}")).map_err(&failed)?;
        // Of a hook that is gone.
        let _ = fs::remove_file(&path);
        link.pin(&path)
            .map_err(|error| failed(io::Error::other(error)))?;
        let link = open_pin(&path).map_err(&failed)?;
        Ok(Hook::pinned(path, link, false, &self.fate))
    }

    /// Who holds the hook of this name, which has room for one program only: a former state, or
    /// with `own` this one.
    pub(super) fn holder(
        &self,
        name: &str,
        target: u64,
        own: bool,
    ) -> Result<Option<Holder>, KernelError> {
        let own = self.state.iter().filter(|_| own);
        for state in self.former.iter().chain(own) {
            let pin = state.join(room::HOOKS).join(name);
            if !pin.exists() {
                continue;
            }
            let failed = pins_error(&pin);
            let link = open_pin(&pin).map_err(&failed)?;
            if link_info(link.as_fd()).map_err(&failed)?.target() == target {
                let program = state.join(room::PROGRAMS).join(XDP);
                return Ok(Some(Holder { link, pin, program }));
            }
        }
        Ok(None)
    }

    /// Pins the program behind the XDP hooks, so that a start that fails can give them back. One
    /// that is pinned already may still be behind them: it stays, unless `replace` says that it is
    /// not.
    pub(super) fn keep_xdp(
        &self,
        program: BorrowedFd<'_>,
        replace: bool,
    ) -> Result<(), KernelError> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let folder = state.join(room::PROGRAMS);
        let path = folder.join(XDP);
        if !path.exists() {
            return pin(program, &path).map_err(pins_error(&path));
        }
        if replace {
            let next = folder.join(format!("{XDP}-next"));
            let _ = fs::remove_file(&next);
            pin(program, &next)
                .and_then(|()| fs::rename(&next, &path))
                .map_err(pins_error(&next))?;
        }
        Ok(())
    }

    /// The hooks of this state that nobody asked for any more. They go when they are dropped after
    /// [`Self::finish`], and stay when they are dropped before.
    pub(super) fn unclaimed(&self) -> Result<Vec<Hook>, KernelError> {
        let Some(state) = &self.state else {
            return Ok(Vec::new());
        };
        let folder = state.join(room::HOOKS);
        let claimed = self.claimed.as_deref().unwrap_or_default();
        let mut unclaimed = Vec::new();
        for name in names(&folder).map_err(pins_error(&folder))? {
            if !claimed.contains(&name) {
                let path = folder.join(&name);
                let link = open_pin(&path).map_err(pins_error(&path))?;
                unclaimed.push(Hook::pinned(path, link, true, &self.fate));
            }
        }
        Ok(unclaimed)
    }

    /// Everything is in place: removes what is left of former states. From now on what is dropped
    /// is detached.
    pub(super) fn finish(&mut self) {
        self.fate.running();
        // What is attached from now on is this guard's, and there are no bounds to how often.
        self.claimed = None;
        for state in std::mem::take(&mut self.former) {
            // What cannot be removed is in force beside this guard, and no less true: its own
            // observer keeps its own maps. The end of this guard or the next start tries again.
            if let Err(error) =
                fault::step("removing an earlier state").and_then(|()| dismantle(&state).map(drop))
            {
                log::error!("{} cannot be removed: {error}", state.display());
                self.former.push(state);
            }
        }
    }

    /// Where the hook of this name is pinned.
    pub(super) fn hook(&self, name: &str) -> Option<PathBuf> {
        Some(self.state.as_ref()?.join(room::HOOKS).join(name))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(root) = &self.root else {
            return;
        };
        let own = self.state.iter().map(|state| (state, self.inherited));
        let former = self.former.iter().map(|state| (state, true));
        for (state, inherited) in former.chain(own) {
            if !self.fate.stays(inherited)
                && let Err(error) = dismantle(state)
            {
                log::warn!("{}: {error}", state.display());
            }
        }
        // Stays where there is still something in it.
        let _ = fs::remove_dir(&root.path);
    }
}

fn pins_error(path: &Path) -> impl Fn(io::Error) -> KernelError + use<> {
    let path = path.to_owned();
    move |source| KernelError::Pins {
        path: path.clone(),
        source,
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Locks the folder for as long as the process uses it.
pub(super) fn lock(folder: &Path) -> Result<Flock<File>, KernelError> {
    let failed = pins_error(folder);
    if statfs(folder)
        .map_err(|errno| failed(errno.into()))?
        .filesystem_type()
        != BPF_FS_MAGIC
    {
        return Err(KernelError::NoBpfFileSystem(folder.to_owned()));
    }
    let file = File::open(folder).map_err(&failed)?;
    check_owner(&file, folder).map_err(&failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            KernelError::PinsInUse(folder.to_owned())
        } else {
            failed(errno.into())
        }
    })
}

/// What lies in the folder is taken over, and removed, by name: it must be nobody else's.
fn check_owner(file: &File, folder: &Path) -> io::Result<()> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(folder)?);
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(io::Error::other("it is a link to somewhere else"));
    }
    if opened.uid() != geteuid().as_raw() || opened.mode() & OTHERS_MAY_WRITE != 0 {
        return Err(io::Error::other(format!(
            "it belongs to user {}, or others may write in it; look who made it, and remove it",
            opened.uid()
        )));
    }
    Ok(())
}

/// The states in a folder.
pub(super) fn states(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(names(folder)?
        .into_iter()
        .filter(|name| name.starts_with(STATE))
        .map(|name| folder.join(name))
        .collect())
}

/// What a folder holds; nothing where there is none.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn is_complete(state: &Path, observer: &[&str]) -> bool {
    observer
        .iter()
        .all(|name| state.join(room::HOOKS).join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interface that comes and goes, or refuses a program every ten seconds for years.
    #[test]
    fn what_is_attached_later_is_not_remembered() {
        let fate = Fate::default();
        let mut home = Home::open(&Pins::Nowhere, 1, &[], &fate).expect("no folder is needed");
        let inherit = |home: &mut Home, name: &str| {
            let hook = home.inherit(name, None, None).expect("nothing to read");
            assert!(hook.is_none());
        };
        inherit(&mut home, "tc-in-2");
        assert_eq!(home.claimed.as_deref(), Some(&["tc-in-2".to_owned()][..]));
        assert!(!home.is_finished());
        home.finish();
        inherit(&mut home, "tc-in-3");
        assert_eq!(home.claimed, None);
        assert!(home.is_finished());
    }
}
