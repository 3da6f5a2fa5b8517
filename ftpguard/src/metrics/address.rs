//! Where the metrics are served: on this host only.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";
/// The word for nowhere.
const OFF: &str = "off";

/// Where the metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// Nowhere.
    Off,
    /// A TCP port on a loopback address. Every user of this host can read there.
    Loopback(SocketAddr),
    /// A Unix socket, which only root can open. The path is absolute.
    Unix(PathBuf),
}

impl FromStr for MetricsAddress {
    type Err = String;

    /// Reads `off`, `127.0.0.1:9821`, `[::1]:9821` or `unix:/run/ftpguard/metrics.sock`.
    ///
    /// An address that other hosts can reach is refused: the answers name no client, but they
    /// tell an attacker how far he got, and nothing here asks for a password.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == OFF {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = PathBuf::from(path);
            if !path.is_absolute() || path.file_name().is_none() {
                return Err(
                    "a Unix socket needs an absolute path, such as unix:/run/ftpguard/metrics.sock"
                        .to_owned(),
                );
            }
            return Ok(Self::Unix(path));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            "not ADDRESS:PORT with a numeric address (127.0.0.1:9821, [::1]:9821), not unix:PATH, and not off"
                .to_owned()
        })?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(format!(
                "{} can be reached from other hosts; metrics are served on 127.0.0.1:PORT, \
                 [::1]:PORT or unix:PATH, with a proxy that asks for a password before them \
                 where others are to read them",
                address.ip()
            ));
        }
        if address.port() == 0 {
            return Err("port 0 is none; 9821 is free on most hosts".to_owned());
        }
        Ok(Self::Loopback(address))
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(OFF),
            Self::Loopback(address) => write!(f, "http://{address}/metrics"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Serialize for MetricsAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Loopback(address) => serializer.collect_str(address),
            Self::Off | Self::Unix(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for MetricsAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_only() {
        for (text, shown) in [
            ("127.0.0.1:9821", "http://127.0.0.1:9821/metrics"),
            ("127.8.9.1:1", "http://127.8.9.1:1/metrics"),
            ("[::1]:9821", "http://[::1]:9821/metrics"),
            (
                "[::ffff:127.0.0.1]:80",
                "http://[::ffff:127.0.0.1]:80/metrics",
            ),
            ("unix:/run/ftpguard/m.sock", "unix:/run/ftpguard/m.sock"),
            ("off", "off"),
        ] {
            let address: MetricsAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
            let written = serde_json::to_string(&address).expect(text);
            assert_eq!(written, format!("{text:?}"));
            assert_eq!(
                serde_json::from_str::<MetricsAddress>(&written).expect(text),
                address
            );
        }
        for (text, named) in [
            ("0.0.0.0:9821", "other hosts"),
            ("[::]:9821", "other hosts"),
            ("192.0.2.1:9821", "other hosts"),
            ("[::ffff:192.0.2.1]:9821", "other hosts"),
            ("[fe80::1]:9821", "other hosts"),
            ("127.0.0.1", "ADDRESS:PORT"),
            ("127.0.0.1:0", "port 0"),
            ("localhost:9821", "numeric"),
            ("9821", "ADDRESS:PORT"),
            ("", "ADDRESS:PORT"),
            ("unix:", "absolute"),
            ("unix:metrics.sock", "absolute"),
            ("unix:/", "absolute"),
        ] {
            let error = text.parse::<MetricsAddress>().expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
