//! FTP under TLS (RFC 4217): a server certificate, and the client's side of it.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::{client::TIMEOUT, process};

/// The name in the certificate. Nobody resolves it.
pub const NAME: &str = "ftp.example.org";

/// When TLS begins on a control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// After `AUTH TLS` (RFC 4217 section 4).
    Explicit,
    /// With the first byte, as on port 990.
    Implicit,
}

/// Which version of TLS the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// A server certificate with its key, made by openssl.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// Both in one file, which some ftpds want.
    pub both: PathBuf,
}

/// What one client needs for TLS. Its connections share one cache of TLS sessions, so data
/// connections resume the control connection's.
#[derive(Clone, Debug)]
pub struct Security {
    handshake: Handshake,
    config: Arc<ClientConfig>,
}

/// A connection, under TLS or not.
#[derive(Debug)]
pub enum Channel {
    /// As it is.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Certificate {
    /// Makes one in this folder.
    pub fn make(folder: &Path) -> Result<Self> {
        let made = Self {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
            both: folder.join("both.pem"),
        };
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-sha256"])
            .args(["-subj", &format!("/CN={NAME}")])
            .args(["-addext", &format!("subjectAltName=DNS:{NAME}")])
            // Of a server, not of an authority.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&made.key)
            .arg("-out")
            .arg(&made.certificate);
        process::run(&mut openssl, Duration::from_secs(10)).context("making a certificate")?;
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let both = read(&made.key)? + &read(&made.certificate)?;
        fs::write(&made.both, both).with_context(|| format!("writing {}", made.both.display()))?;
        Ok(made)
    }
}

impl Security {
    /// For a client that trusts this certificate and speaks this version only.
    pub fn new(handshake: Handshake, version: Version, certificate: &Certificate) -> Result<Self> {
        let path = &certificate.certificate;
        let trusted = CertificateDer::from_pem_file(path)
            .with_context(|| format!("reading {}", path.display()))?;
        let mut roots = RootCertStore::empty();
        roots.add(trusted).context("trusting the certificate")?;
        let version = match version {
            Version::Tls12 => &TLS12,
            Version::Tls13 => &TLS13,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .context("choosing the version of TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            handshake,
            config: Arc::new(config),
        })
    }

    /// When TLS begins on the control connection.
    #[must_use]
    pub fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// Puts a connection under TLS. The handshake takes place with the first byte.
    pub fn protect(&self, stream: TcpStream) -> Result<Channel> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let name = ServerName::try_from(NAME).context("the server's name")?;
        let connection =
            ClientConnection::new(Arc::clone(&self.config), name).context("beginning TLS")?;
        Ok(Channel::Tls(Box::new(StreamOwned::new(connection, stream))))
    }
}

impl Channel {
    /// The socket beneath.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Reads to the end. An end without TLS's own goodbye counts: callers compare the bytes.
    pub fn read_all(mut self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        match self.read_to_end(&mut content) {
            Ok(_) => Ok(content),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(content),
            Err(error) => Err(error).context("reading the data connection"),
        }
    }

    /// Says that nothing more will be written; under TLS waits until the peer has closed too.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(mut stream) => {
                stream.conn.send_close_notify();
                stream.flush()?;
                stream.sock.shutdown(Shutdown::Write)?;
                // What comes now is no longer of interest: a goodbye, tickets, a reset. But
                // to close before it has come would answer it with a reset.
                let mut rest = [0; 1024];
                while matches!(stream.read(&mut rest), Ok(1..)) {}
                Ok(())
            }
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buffer),
            Self::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
