//! Processes of an ftpd that the kernel side could not know: a service manager started them
//! (rule F2).

use ftpguard_common::{
    abi::{Endpoint, Origin},
    event::Event,
};

use super::Guard;
use crate::{
    adopt::latecomers::{Stranger, adopt_ancestors, look_again},
    events::Happening,
    kernel::Maps,
    state,
};

impl Guard {
    /// A process without known ancestors reads a control connection.
    pub(super) fn adopt_ancestors(&mut self, pid: u32, event: &Event) {
        let session = state::session_key(event);
        match adopt_ancestors(&mut self.kernel, pid, &session, event.session) {
            Ok(added) => log::debug!("process {pid}: {added} ancestors adopted"),
            Err(error) => log::error!("process {pid}: {error}"),
        }
    }

    /// Whether a listener that the kernel side took for foreign is foreign.
    pub(super) fn is_foreign(&mut self, pid: u32, event: &Event) -> bool {
        let endpoint = Endpoint::new(event.local, event.local_port);
        let uses = u32::from(self.config.uses);
        match look_again(&mut self.kernel, &endpoint, pid, uses) {
            Ok(Stranger::Foreign) => true,
            Ok(Stranger::Elsewhere | Stranger::Ours(None)) => false,
            Ok(Stranger::Ours(Some(pinhole))) => {
                // It may be used already.
                if let Ok(Some(made)) = Maps::find(&self.kernel.maps.pinholes, &pinhole) {
                    self.state.pinhole_made(&pinhole, &made);
                }
                self.journal.tell(Happening::PinholeMade {
                    way: super::text::way(&pinhole),
                    origin: Origin::Adopted.label().into(),
                });
                false
            }
            Err(error) => {
                log::error!("process {pid}: {error}");
                true
            }
        }
    }
}
