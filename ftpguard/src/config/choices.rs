//! Keys whose value is one of a few words.

use clap::ValueEnum;
use ftpguard_common::abi::{Active, Mode, Tracking, WithoutDaemon};
use serde::{Deserialize, Serialize};

use crate::kernel::XdpChoice;

/// An enum whose variants are words on the command line and in the file.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident: $target:ident {
        $($(#[doc = $word_doc:literal])+ $variant:ident = $label:literal,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[doc = $word_doc])+ $variant,)+
        }

        impl $name {
            /// The word in options, file, status and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        impl From<$name> for $target {
            fn from(choice: $name) -> Self {
                match choice {
                    $($name::$variant => Self::$variant,)+
                }
            }
        }
    };
}

words! {
    /// Whether denials take effect.
    ModeArg: Mode {
        /// Decide, count and report; let everything pass
        Monitor = "monitor",
        /// Denials take effect
        Enforce = "enforce",
    }
}

words! {
    /// Where SYNs are judged.
    XdpArg: XdpChoice {
        /// XDP in the driver where there is one that can, TC elsewhere
        Auto = "auto",
        /// XDP in the driver, or fail
        Native = "native",
        /// XDP in the network stack, or fail
        Generic = "generic",
        /// TC ingress
        Tc = "tc",
    }
}

words! {
    /// Who makes pinholes.
    TrackingArg: Tracking {
        /// The kernel, inside the FTP server's `listen()`: exact, and works under TLS
        Socket = "socket",
        /// The daemon, from the 227, 228 and 229 replies it reads on the wire
        Text = "text",
    }
}

words! {
    /// Whom active mode may reach (rule O10).
    ActiveArg: Active {
        /// The session's client, and the exceptions
        Client = "client",
        /// The exceptions
        Exceptions = "exceptions",
        /// Nobody
        Off = "off",
    }
}

/// What is done where all clients share one address of this host or of its gateway (rule I8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HiddenArg {
    /// Nothing is enforced, and it is said why
    Refuse,
    /// Enforce all the same: the clients are on this host, or on the gateway
    Enforce,
}

words! {
    /// Whom ports that need the daemon admit while it is dead or hung (rule M2).
    WithoutDaemonArg: WithoutDaemon {
        /// Every client that holds a control connection
        ControlPeer = "control-peer",
        /// Nobody
        Closed = "closed",
        /// Everybody
        Open = "open",
    }
}

impl WithoutDaemonArg {
    /// The choice with this number of [`WithoutDaemon`].
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Closed,
            2 => Self::Open,
            _ => Self::ControlPeer,
        }
    }
}

/// What becomes of the kernel side when the daemon is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStop {
    /// Everything is removed from the kernel: the host is unguarded
    Detach,
    /// The kernel goes on guarding, as after a crash
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_choices_fit() {
        for choice in [
            WithoutDaemonArg::ControlPeer,
            WithoutDaemonArg::Closed,
            WithoutDaemonArg::Open,
        ] {
            let number = WithoutDaemon::from(choice) as u32;
            assert_eq!(WithoutDaemonArg::from_number(number), choice);
        }
    }
}
