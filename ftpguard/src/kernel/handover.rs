//! XDP hooks that change hands at the end of a start.
//!
//! An interface has room for one XDP program, in one mode. Where a former state has it, or this
//! state in the other mode, it stays as it is until everything else is in place. Then all change
//! hands, one after the other; if one does not, those before it are given back.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use aya::programs::XdpMode;

use super::{
    error::KernelError,
    hook::{Fate, Hook},
    sys::{attach_xdp, detach_link, open_pin, pin, replace_program},
};
use crate::fault;

/// The XDP hook of one interface, as somebody holds it.
pub(super) struct Holder {
    /// The link.
    pub(super) link: OwnedFd,
    /// Where the link is pinned.
    pub(super) pin: PathBuf,
    /// Where the program is pinned that the link runs.
    pub(super) program: PathBuf,
}

/// One hook that is to change hands.
pub(super) struct Handover {
    interface: String,
    index: u32,
    mode: XdpMode,
    former_mode: XdpMode,
    holder: Holder,
    /// Where the link is to be pinned, if anywhere.
    pin: Option<PathBuf>,
    /// The link that takes the place of the holder's: another one in the other mode.
    fresh: Option<OwnedFd>,
    is_begun: bool,
}

impl Handover {
    /// The interface's hook is to be taken from this holder, who uses it in `former_mode`.
    pub(super) fn new(
        interface: &str,
        index: u32,
        [former_mode, mode]: [XdpMode; 2],
        holder: Holder,
        pin: Option<PathBuf>,
    ) -> Self {
        Self {
            interface: interface.to_owned(),
            index,
            mode,
            former_mode,
            holder,
            pin,
            fresh: None,
            is_begun: false,
        }
    }

    /// The number of the interface.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Puts the program in the place of the holder's. Where that fails, [`Self::give_back`] is to
    /// follow.
    pub(super) fn take(&mut self, program: BorrowedFd<'_>) -> Result<(), KernelError> {
        let failed = {
            let path = self.holder.pin.clone();
            move |source| KernelError::Pins { path, source }
        };
        let taken = if self.mode == self.former_mode {
            self.replace(program)
        } else {
            match self.end_former() {
                Ok(()) => return self.attach_anew(program),
                ended => ended,
            }
        };
        taken.map_err(failed)
    }

    fn replace(&mut self, program: BorrowedFd<'_>) -> io::Result<()> {
        fault::step(&format!("taking XDP on {} over", self.interface))?;
        self.is_begun = true;
        replace_program(self.holder.link.as_fd(), program)?;
        match &self.pin {
            Some(pin) => fs::rename(&self.holder.pin, pin),
            None => fs::remove_file(&self.holder.pin),
        }
    }

    /// From here until it is attached anew the last gate judges alone.
    fn end_former(&mut self) -> io::Result<()> {
        fault::step(&format!("ending XDP on {}", self.interface))?;
        self.is_begun = true;
        detach_link(self.holder.link.as_fd())?;
        fs::remove_file(&self.holder.pin)
    }

    fn attach_anew(&mut self, program: BorrowedFd<'_>) -> Result<(), KernelError> {
        let interface = &self.interface;
        let link = fault::step(&format!("XDP on {interface} in the other mode"))
            .and_then(|()| attach_xdp(program, self.index, self.mode))
            .map_err(|error| KernelError::xdp(interface, error.into()))?;
        let link = self.fresh.insert(link);
        if let Some(path) = &self.pin {
            pin(link.as_fd(), path).map_err(|source| KernelError::Pins {
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Puts the holder's program back where it was.
    pub(super) fn give_back(self) {
        if !self.is_begun {
            return;
        }
        let interface = self.interface.clone();
        if let Err(error) = self.restore() {
            log::error!(
                "XDP on {interface} cannot be given back: {error}; what comes by it is judged by \
                 the last gate only"
            );
        }
    }

    fn restore(self) -> io::Result<()> {
        let Holder {
            link,
            pin: former_pin,
            program,
        } = self.holder;
        let program = open_pin(&program)?;
        if self.mode == self.former_mode {
            replace_program(link.as_fd(), program.as_fd())?;
            return match &self.pin {
                _ if former_pin.exists() => Ok(()),
                Some(pin) => fs::rename(pin, &former_pin),
                None => pin(link.as_fd(), &former_pin),
            };
        }
        if let Some(fresh) = self.fresh {
            detach_link(fresh.as_fd())?;
        }
        // Their links hold nothing any more.
        for path in self.pin.iter().chain([&former_pin]) {
            let _ = fs::remove_file(path);
        }
        let link = attach_xdp(program.as_fd(), self.index, self.former_mode)?;
        pin(link.as_fd(), &former_pin)
    }

    /// It is this guard's from now on.
    pub(super) fn finish(self, fate: &Fate) -> Hook {
        let link = self.fresh.unwrap_or(self.holder.link);
        match self.pin {
            Some(pin) => Hook::pinned(pin, link, false, fate),
            None => Hook::descriptor(link, fate),
        }
    }
}
