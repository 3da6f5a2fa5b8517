//! Live pinholes in sets of nftables, for a firewall that drops by default.
//!
//! Two sets, one for each family: `ipv4_addr . inet_service` and `ipv6_addr . inet_service`, which
//! hold (client, port) for as long as a pinhole lives. Spoken over netlink, because starting the
//! `nft` command takes longer than many a client takes to connect.

mod message;

use std::{
    fmt, io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    str::FromStr,
    time::Duration,
};

use ftpguard_common::net::{Address, Port};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        setsockopt, socket, sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use self::message::{Change, Set, ask, change};

/// The word for no set.
const OFF: &str = "off";
/// Families that see packets to this host, and their numbers (`NFPROTO_INET` and the like of
/// `<linux/netfilter.h>`).
const FAMILIES: [(&str, u8); 4] = [("inet", 1), ("ip", 2), ("ip6", 10), ("netdev", 5)];
/// How long the kernel may take; it answers within the call.
const LIMIT: TimeVal = TimeVal::new(1, 0);

/// Which sets are kept, as the operator says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftSet {
    /// None.
    Off,
    /// `NAME4` and `NAME6` of a table; of the families ip and ip6 only the one that fits.
    Named {
        /// The family: a word of nftables.
        family: &'static str,
        /// The table.
        table: String,
        /// The name without its last character.
        name: String,
    },
}

impl FromStr for NftSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == OFF {
            return Ok(Self::Off);
        }
        let wrong = "write FAMILY TABLE NAME, as in \"inet filter ftp\" for the sets ftp4 and ftp6";
        let mut words = text.split_whitespace();
        let (Some(family), Some(table), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(format!("{text:?} names no set of nftables; {wrong}"));
        };
        let Some((family, _)) = FAMILIES.iter().find(|(known, _)| *known == family) else {
            return Err(format!(
                "{family:?} is no family that sees packets to this host: inet, ip, ip6 or netdev; \
                 {wrong}"
            ));
        };
        Ok(Self::Named {
            family,
            table: table.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for NftSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(OFF),
            Self::Named {
                family,
                table,
                name,
            } => write!(f, "{family} {table} {name}"),
        }
    }
}

impl Serialize for NftSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NftSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// The sets, open for changes.
pub struct Sets {
    route: OwnedFd,
    family: u8,
    table: String,
    v4: Option<String>,
    v6: Option<String>,
}

/// Why a set cannot be used.
#[derive(Debug)]
pub struct Unusable {
    set: String,
    source: io::Error,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.set.ends_with('6') {
            "ipv6_addr"
        } else {
            "ipv4_addr"
        };
        write!(
            f,
            "the set {set} of nftables cannot be used: {}; make it: nft add set {set} \
             '{{ type {kind} . inet_service; flags timeout; }}'",
            self.source,
            set = self.set,
        )
    }
}

impl std::error::Error for Unusable {}

impl Sets {
    /// Opens the sets, and sees that they are there. `None` where none are named.
    pub fn open(named: &NftSet) -> Result<Option<Self>, Unusable> {
        let NftSet::Named {
            family,
            table,
            name,
        } = named
        else {
            return Ok(None);
        };
        let unusable = |set: &str| {
            let set = format!("{family} {table} {set}");
            move |source| Unusable { set, source }
        };
        let number = FAMILIES
            .iter()
            .find_map(|(known, number)| (known == family).then_some(*number))
            .unwrap_or_default();
        let sets = Self {
            route: connect().map_err(unusable(name))?,
            family: number,
            table: table.clone(),
            v4: (*family != "ip6").then(|| format!("{name}4")),
            v6: (*family != "ip").then(|| format!("{name}6")),
        };
        for name in [&sets.v4, &sets.v6].into_iter().flatten() {
            sets.send(&ask(sets.set(name))).map_err(unusable(name))?;
        }
        Ok(Some(sets))
    }

    /// Lets this client reach this port, for `time` at most.
    pub fn add(&self, client: Address, port: Port, time: Duration) -> io::Result<()> {
        let timeout = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.change(client, port, Change::Add { timeout })
    }

    /// Takes that back. One that has gone by itself is as good as taken back.
    pub fn remove(&self, client: Address, port: Port) -> io::Result<()> {
        match self.change(client, port, Change::Remove) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn change(&self, client: Address, port: Port, what: Change) -> io::Result<()> {
        let (name, mut key) = match client.ip() {
            IpAddr::V4(address) => (&self.v4, address.octets().to_vec()),
            IpAddr::V6(address) => (&self.v6, address.octets().to_vec()),
        };
        let Some(name) = name else {
            return Ok(());
        };
        key.extend(port.number().to_be_bytes());
        key.extend([0; 2]);
        self.send(&change(self.set(name), &key, what))
    }

    fn set<'a>(&'a self, name: &'a str) -> Set<'a> {
        Set {
            family: self.family,
            table: &self.table,
            name,
        }
    }

    /// Sends a message, and reads whether it was carried out.
    fn send(&self, message: &[u8]) -> io::Result<()> {
        sendto(
            self.route.as_raw_fd(),
            message,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 4096];
        loop {
            let length = recv(self.route.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            // NLMSG_ERROR: a header of 16 bytes, then 0 or a negative error number. Anything else
            // comes before it.
            if let Some([_, _, _, _, 2, 0, rest @ ..]) = answer.get(..length)
                && let Some(code) = rest.get(10..14).and_then(|code| code.try_into().ok())
            {
                return match i32::from_ne_bytes(code) {
                    0 => Ok(()),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
        }
    }
}

fn connect() -> io::Result<OwnedFd> {
    let route = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(&route, ReceiveTimeout, &LIMIT)?;
    Ok(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_family_table_and_name() {
        for text in ["off", "inet filter ftp", "netdev early pinholes"] {
            let set: NftSet = text.parse().expect(text);
            assert_eq!(set.to_string(), text);
        }
        for (text, named) in [
            ("", "FAMILY TABLE NAME"),
            ("filter ftp", "FAMILY TABLE NAME"),
            ("inet filter ftp more", "FAMILY TABLE NAME"),
            ("bridge filter ftp", "\"bridge\""),
        ] {
            let error = text.parse::<NftSet>().expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_set_that_is_not_there_is_named_with_its_remedy() {
        let set = "inet ftpguard-no-such-table ftp".parse().expect("a name");
        let Err(error) = Sets::open(&set) else {
            panic!("there is such a table");
        };
        let text = error.to_string();
        assert!(
            text.contains("nft add set inet ftpguard-no-such-table ftp4"),
            "{text}"
        );
        assert!(text.contains("ipv4_addr . inet_service"), "{text}");
    }
}
