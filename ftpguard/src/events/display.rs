//! The one line for people.

use std::{borrow::Cow, fmt, net::IpAddr};

use ftpguard_common::net::{Address, Port, socket_addr};

use super::{Ends, Happening, Way};

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, server) = (Address::from(self.client), Address::from(self.server));
        write!(
            f,
            "{} -> {}",
            socket_addr(client, Port::new(self.client_port)),
            socket_addr(server, Port::new(self.port))
        )
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.client, end(self.server, self.port))
    }
}

impl fmt::Display for Happening {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionOpened(ends) => write!(f, "session opened {ends}"),
            Self::SessionAdopted(ends) => write!(f, "session adopted {ends}"),
            Self::SessionClosed(ends) => write!(f, "session closed {ends}"),
            Self::PinholeMade { way, origin } => write!(f, "pinhole made {way} ({origin})"),
            Self::PinholeUsed { way, client_port } => write!(
                f,
                "pinhole used {} -> {}",
                end(way.client, *client_port),
                end(way.server, way.port)
            ),
            Self::PinholeClosed { way, reason } => write!(f, "pinhole closed {way} ({reason})"),
            Self::SynDenied {
                way,
                client_port,
                reason,
                attack: _,
                mode,
                open_for,
            } => {
                write!(
                    f,
                    "SYN {} {} -> {}: {reason}",
                    effect(mode, "denied"),
                    end(way.client, *client_port),
                    end(way.server, way.port)
                )?;
                for (place, client) in open_for.iter().enumerate() {
                    let before = if place == 0 {
                        ", the port is open for "
                    } else {
                        ", "
                    };
                    write!(f, "{before}{client}")?;
                }
                Ok(())
            }
            Self::ConnectRefused {
                destination,
                port,
                pid,
                reason,
                mode,
            } => write!(
                f,
                "connect {} -> {} (pid {pid}): {reason}",
                effect(mode, "refused"),
                end(*destination, *port)
            ),
            Self::EgressDenied {
                destination,
                port,
                server,
                server_port,
                reason,
                mode,
            } => write!(
                f,
                "outgoing SYN {} {} -> {}: {reason}",
                effect(mode, "denied"),
                end(*server, *server_port),
                end(*destination, *port)
            ),
            Self::Unattributed { server, port, pid } => write!(
                f,
                "listener not attributed {} (pid {pid}): open to every client with a session",
                end(*server, *port)
            ),
            Self::ReaderFound {
                client,
                client_port,
                pid,
            } => write!(
                f,
                "process {pid} found serving {}",
                end(*client, *client_port)
            ),
            Self::ForeignListener { server, port, pid } => {
                write!(
                    f,
                    "foreign listener in the passive range {}",
                    end(*server, *port)
                )?;
                if *pid != 0 {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str(": left alone")
            }
            Self::ListenerOpened { server, port, pid } => {
                write!(f, "listener opened {} (pid {pid})", end(*server, *port))
            }
            Self::PhantomPort { way, reason } => {
                write!(f, "announced port gets no pinhole {way}: {reason}")
            }
            Self::TextMismatch { way, announced } => write!(
                f,
                "reply names port {announced}, the sockets say {way}: the sockets count"
            ),
            Self::ForeignPortRequest {
                ends,
                requested,
                requested_port,
            } => write!(
                f,
                "session {ends} asks for a data connection to {}",
                end(*requested, *requested_port)
            ),
            Self::Dialogue { ends, remark } => write!(f, "session {ends}: {remark}"),
            Self::InterfaceGuarded {
                interface,
                ingress,
                egress,
            } => write!(f, "interface {interface} guarded ({ingress}, {egress})"),
            Self::InterfaceUnguarded { interface, reason } => {
                write!(f, "interface {interface} has the last gate only: {reason}")
            }
            Self::InterfaceGone { interface } => write!(f, "interface {interface} is gone"),
            Self::GateLost { interface, hook } => {
                write!(f, "{hook} was detached")?;
                if let Some(interface) = interface {
                    write!(f, " from {interface}")?;
                }
                f.write_str(": attaching again")
            }
            Self::ConfigurationReloaded { changed } if changed.is_empty() => {
                f.write_str("configuration read again: nothing has changed")
            }
            Self::ConfigurationReloaded { changed } => {
                write!(f, "configuration read again: {changed}")
            }
            Self::ModeSwitched { mode } => write!(f, "mode switched to {mode}"),
            Self::EnforcementRefused { client: _, reason } => {
                write!(f, "not enforcing: {reason}")
            }
            Self::EnforcementResumed {} => f.write_str("enforcing again"),
            Self::DenialsNotTold { count } => {
                write!(f, "{count} more denials, not told one by one")
            }
            Self::OutOfRoom { what, count } => write!(f, "no room for {count} newcomers: {what}"),
            Self::EventsNotTold { count } => write!(f, "{count} more events, not told one by one"),
            Self::EventsLost { count } => write!(f, "{count} events lost"),
            Self::ControlBytesLost { count } => {
                write!(f, "{count} pieces of control connections lost")
            }
        }
    }
}

fn end(address: IpAddr, port: u16) -> impl fmt::Display {
    socket_addr(address.into(), Port::new(port))
}

/// What happened, or in monitor mode would have.
fn effect(mode: &str, done: &'static str) -> Cow<'static, str> {
    if mode == "monitor" {
        format!("would be {done}").into()
    } else {
        done.into()
    }
}
