//! Narrowing of active mode: to the port that the client announced (rule O10), or to nothing
//! after `EPSV ALL` (rule C5).
//!
//! An honest client must never lose a transfer by it. An ftpd may connect while it handles a
//! command (rule O5), so a port binds only while no command that asks for another is unanswered
//! or unread, and not where text was lost.

use ftpguard_common::{
    abi::{Advice, SessionKey, advice_flags},
    ftp::argument::{Relation, Target},
    net::Port,
};

use super::Guard;
use crate::kernel::{KernelError, Maps};

impl Guard {
    /// Narrows the session's active mode to one port (rule O10), or widens it again where the
    /// port is [`Port::NONE`]. After `EPSV ALL` it is closed either way (rule C5).
    pub(super) fn narrow(&mut self, key: &SessionKey, port: Port) -> Result<(), KernelError> {
        let mut advice = Advice::default();
        if self.watcher.is_epsv_all(key) {
            advice.flags = advice_flags::EPSV_ALL;
        } else if !self.watcher.awaits_data_command(key) {
            advice.active_port = port;
        }
        if advice == Advice::default() {
            return match self.text.narrowed.remove(key) {
                Some(_) => Maps::forget(&mut self.kernel.maps.advice, key),
                None => Ok(()),
            };
        }
        advice.client_sequence = self.watcher.client_sequence(key).unwrap_or_default();
        self.text.narrowed.insert(*key, advice);
        self.advise(key, advice)
    }

    /// Captured bytes were lost, and nobody knows whose: nothing is narrow any more.
    pub(super) fn widen_all(&mut self) -> Result<(), KernelError> {
        for (key, _) in std::mem::take(&mut self.text.narrowed) {
            Maps::forget(&mut self.kernel.maps.advice, &key)?;
        }
        Ok(())
    }

    /// Tells the kernel side how far narrowed sessions are read by now: it binds them to their
    /// port only while there is nothing unread.
    pub(super) fn keep_narrow(&mut self) -> Result<(), KernelError> {
        let mut news = Vec::new();
        for (key, advice) in &mut self.text.narrowed {
            let read = self.watcher.client_sequence(key).unwrap_or_default();
            if read != advice.client_sequence {
                advice.client_sequence = read;
                news.push((*key, *advice));
            }
        }
        for (key, advice) in news {
            self.advise(&key, advice)?;
        }
        Ok(())
    }

    /// Tells the kernel side. Where it has no room, the session stays as it is: not narrowed.
    pub(super) fn advise(&mut self, key: &SessionKey, advice: Advice) -> Result<(), KernelError> {
        if !Maps::put(&mut self.kernel.maps.advice, key, &advice)? {
            self.text.narrowed.remove(key);
            log::debug!("no room to narrow a session");
        }
        Ok(())
    }
}

/// The port to which an accepted active command narrows: the client's own, or none where the
/// command names somebody else, a low port, or cannot be read (rules C4, O1).
pub(super) fn own_port(key: &SessionKey, target: Option<Target>) -> Port {
    match target {
        Some(target)
            if !target.port.is_low()
                && matches!(
                    target.relation(key.client),
                    Relation::Peer | Relation::Unspecified
                ) =>
        {
            target.port
        }
        Some(_) | None => Port::NONE,
    }
}
