//! Late start (rule K10): sessions and listeners that were open before the guard.
//!
//! The socket observer is attached first, so nothing that happens from then on is missed. Then
//! /proc is read ([`snapshot`]), what follows from it is decided ([`decide`]), and written
//! without touching what the kernel side knows already ([`apply`]). This is repeated until a
//! round adds nothing: what a process did between being read and being written is seen in the
//! next one. At the end what is known is compared with the open sockets: what closed meanwhile is
//! not kept. Only then are the hooks attached that deny.

pub(crate) mod alive;
pub mod apply;
pub mod decide;
pub mod latecomers;
pub mod snapshot;

use anyhow::{Context as _, Result};
use ftpguard_common::{
    abi::{Admission, Endpoint, Listener, SessionKey},
    net::Port,
};

use self::{apply::Applied, decide::Rules, snapshot::Reader};
use crate::{
    fault,
    kernel::{Kernel, KernelError, Maps},
};

/// How often /proc is read at most. Two rounds are the rule; a busy ftpd may need a third.
const MAX_ROUNDS: usize = 5;

/// Adopts what is open already. Gives the sessions that were adopted, with their ids.
pub fn adopt(
    kernel: &mut Kernel,
    reader: &Reader,
    rules: &Rules,
) -> Result<Vec<(u64, SessionKey)>> {
    let mut sessions = Vec::new();
    let mut listeners = Vec::new();
    for round in 1..=MAX_ROUNDS {
        let snapshot = reader.read().context("reading open sockets from /proc")?;
        let known = apply::known_sessions(kernel);
        let plan = decide::decide(&snapshot, rules, &known);
        fault::step("adopting what is open").context("adopting open sessions")?;
        let Applied {
            added,
            opened,
            listening,
            left_out,
        } = apply::apply(kernel, &plan).context("adopting open sessions")?;
        sessions.extend(opened);
        listeners.extend(listening);
        if added == 0 || round == MAX_ROUNDS {
            for incident in left_out {
                kernel.maps.leave_out(incident);
            }
        }
        if added == 0 {
            log::debug!("adopted {} sessions in {round} rounds", sessions.len());
            break;
        }
        if round == MAX_ROUNDS {
            log::warn!(
                "this host opens FTP sessions faster than they can be adopted; some that were open \
                 before the guard may fail their next transfer"
            );
        }
    }
    fault::step("looking again at what was adopted").context("adopting open sessions")?;
    let known = apply::known_sessions(kernel);
    // What a daemon adopted that was killed before it came to this. What the kernel side saw open,
    // and may be opening at this moment, is not asked for here.
    let adopted: Vec<(Endpoint, Listener)> = Maps::entries(&kernel.maps.listeners)
        .into_iter()
        .filter(|(_, listener)| listener.socket == 0)
        .collect();
    let mut open = reader.open().context("reading open sockets once more")?;
    if !known.keys().all(|key| open.sessions.contains(key))
        || !(listeners.iter().chain(&adopted))
            .all(|(endpoint, _)| open.listeners.contains(endpoint))
    {
        open.add(reader.open().context("reading open sockets once more")?);
    }
    let gone = apply::forget_closed(kernel, &open, &known, &listeners)
        .context("checking what was adopted")?;
    let closed = apply::forget_listeners(&mut kernel.maps, &open, &adopted)
        .context("checking what was adopted")?;
    for (_, listener) in &closed {
        apply::forget_pinhole(&mut kernel.maps, listener).context("checking what was adopted")?;
    }
    sessions.retain(|(id, _)| !gone.contains(id));
    Ok(sessions)
}

/// After another daemon: listeners that were opened while none was there to make their pinholes
/// admit every client that holds a control connection, as others whose session is not known
/// (rules K10, P4).
pub fn resume(kernel: &mut Kernel) -> Result<(), KernelError> {
    let listeners = &mut kernel.maps.listeners;
    for (endpoint, listener) in Maps::entries(listeners) {
        if listener.admission == Admission::Daemon as u16 && listener.pinhole.port == Port::NONE {
            let admission = Admission::ControlPeer as u16;
            Maps::change(
                listeners,
                &endpoint,
                &Listener {
                    admission,
                    ..listener
                },
            )?;
        }
    }
    Ok(())
}
