//! One program on one hook, and what becomes of it when the daemon ends.

use std::{
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use aya::programs::{links::FdLink, tc::SchedClassifierLink};

/// What becomes of hooks that are dropped. Shared by all hooks of one guard.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

impl Fate {
    const STARTING: u8 = 0;
    const RUNNING: u8 = 1;
    const KEPT: u8 = 2;

    /// The start succeeded: from now on what is dropped is detached.
    pub(super) fn running(&self) {
        self.0.store(Self::RUNNING, Ordering::Relaxed);
    }

    /// The kernel goes on guarding without the daemon.
    pub(super) fn keep(&self) {
        self.0.store(Self::KEPT, Ordering::Relaxed);
    }

    /// Whether something that this guard made itself (`inherited` false) or found stays.
    pub(super) fn stays(&self, inherited: bool) -> bool {
        match self.0.load(Ordering::Relaxed) {
            // A start that fails leaves what was there before it, and nothing else.
            Self::STARTING => inherited,
            Self::RUNNING => false,
            _ => true,
        }
    }
}

/// One program on one hook.
pub(super) struct Hook {
    held: Option<Held>,
    inherited: bool,
    fate: Fate,
}

enum Held {
    /// Ends with the process.
    Link { _link: FdLink },
    /// The same.
    Descriptor { _link: OwnedFd },
    /// Ends with its pin.
    Pinned { path: PathBuf, _link: OwnedFd },
    /// A TC filter, which ends when it is removed.
    Filter(SchedClassifierLink),
}

impl Hook {
    pub(super) fn link(link: FdLink, fate: &Fate) -> Self {
        Self::new(Held::Link { _link: link }, false, fate)
    }

    pub(super) fn descriptor(link: OwnedFd, fate: &Fate) -> Self {
        Self::new(Held::Descriptor { _link: link }, false, fate)
    }

    pub(super) fn pinned(path: PathBuf, link: OwnedFd, inherited: bool, fate: &Fate) -> Self {
        Self::new(Held::Pinned { path, _link: link }, inherited, fate)
    }

    pub(super) fn filter(link: SchedClassifierLink, inherited: bool, fate: &Fate) -> Self {
        Self::new(Held::Filter(link), inherited, fate)
    }

    /// Priority and handle where this is a TC filter.
    pub(super) fn filter_place(&self) -> Option<(u16, u32)> {
        let Some(Held::Filter(filter)) = &self.held else {
            return None;
        };
        Some((filter.priority().ok()?, filter.handle().ok()?.into()))
    }

    fn new(held: Held, inherited: bool, fate: &Fate) -> Self {
        Self {
            held: Some(held),
            inherited,
            fate: fate.clone(),
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        let stays = self.fate.stays(self.inherited);
        match self.held.take() {
            // The pin first: the link ends with its last descriptor, before this returns.
            Some(Held::Pinned { path, .. }) if !stays => {
                if let Err(error) = fs::remove_file(&path) {
                    log::debug!("{}: {error}", path.display());
                }
            }
            Some(Held::Filter(filter)) if stays => std::mem::forget(filter),
            Some(
                Held::Pinned { .. } | Held::Filter(_) | Held::Link { .. } | Held::Descriptor { .. },
            )
            | None => {}
        }
    }
}
