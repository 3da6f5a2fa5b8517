//! Narrowing of active mode to the port that the client announced (rule O10).

use ftpguard_common::{
    abi::{Advice, SessionKey},
    ftp::argument::{Relation, Target},
    net::Port,
};

use super::Guard;
use crate::kernel::{KernelError, Maps};

impl Guard {
    /// Narrows the session's active mode to one port (rule O10), or widens it again where the
    /// port is [`Port::NONE`].
    pub(super) fn narrow(&mut self, key: &SessionKey, port: Port) -> Result<(), KernelError> {
        if port == Port::NONE {
            return match self.text.narrowed.remove(key) {
                Some(_) => Maps::forget(&mut self.kernel.maps.advice, key),
                None => Ok(()),
            };
        }
        let read = self.watcher.client_sequence(key).unwrap_or_default();
        self.text.narrowed.insert(*key, (port, read));
        self.tell_narrow(key, port, read)
    }

    /// Tells the kernel side how far narrowed sessions are read by now: it binds them only while
    /// there is nothing unread.
    pub(super) fn keep_narrow(&mut self) -> Result<(), KernelError> {
        let mut news = Vec::new();
        for (key, (port, told)) in &mut self.text.narrowed {
            if let Some(read) = self.watcher.client_sequence(key)
                && read != *told
            {
                *told = read;
                news.push((*key, *port, read));
            }
        }
        for (key, port, read) in news {
            self.tell_narrow(&key, port, read)?;
        }
        Ok(())
    }

    fn tell_narrow(&mut self, key: &SessionKey, port: Port, read: u32) -> Result<(), KernelError> {
        let advice = Advice {
            active_port: port,
            flags: 0,
            client_sequence: read,
        };
        self.advise(key, advice)
    }

    pub(super) fn advise(&mut self, key: &SessionKey, advice: Advice) -> Result<(), KernelError> {
        Ok(self.kernel.maps.advice.insert(key, advice, 0)?)
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
