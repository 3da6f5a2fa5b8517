//! A small FTP client whose every step can be timed and put in order with an attacker's.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};

use crate::{
    sandbox::Family,
    tls::{Channel, Handshake, Security},
};

/// How long any one step may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// One control connection, logged in (RFC 959).
///
/// It opens its sockets where it is called: call it inside [`crate::namespace::Namespace::enter`].
#[derive(Debug)]
pub struct FtpClient {
    control: BufReader<Channel>,
    security: Option<Security>,
    dialogue: String,
}

/// A final reply of the server (RFC 959 section 4.2).
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its three digits.
    pub code: u16,
    /// Its last line.
    pub text: String,
    /// How long it took to come.
    pub took: Duration,
}

/// A data connection that the client opened.
#[derive(Debug)]
pub struct DataConnection {
    /// The socket.
    pub stream: TcpStream,
    /// How long `connect()` took.
    pub took: Duration,
    /// How many SYNs were sent again, because the first was lost.
    pub syns_lost: u32,
}

/// Which commands set a data connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commands {
    /// PASV and PORT (RFC 959); IPv4 only.
    Classic,
    /// EPSV and EPRT (RFC 2428).
    Extended,
}

impl Commands {
    /// The oldest commands that this family can use.
    #[must_use]
    pub fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self::Classic,
            Family::V6 => Self::Extended,
        }
    }
}

sockopt_impl!(
    /// What the kernel knows of a TCP connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

impl FtpClient {
    /// Opens a control connection and logs in as an anonymous user, in binary mode.
    pub fn login(server: SocketAddr) -> Result<Self> {
        Self::login_with(server, None)
    }

    /// Opens a control connection, under TLS where that is wanted, and logs in as an anonymous
    /// user, in binary mode. Data connections are then under TLS too (RFC 4217).
    pub fn login_with(server: SocketAddr, security: Option<Security>) -> Result<Self> {
        let control = TcpStream::connect_timeout(&server, TIMEOUT)
            .with_context(|| format!("opening a control connection to {server}"))?;
        control.set_read_timeout(Some(TIMEOUT))?;
        control.set_write_timeout(Some(TIMEOUT))?;
        control.set_nodelay(true)?;
        let implicit = security
            .as_ref()
            .filter(|security| security.handshake() == Handshake::Implicit);
        let control = match implicit {
            Some(security) => security.protect(control)?,
            None => Channel::Plain(control),
        };
        let mut client = Self {
            control: BufReader::new(control),
            security,
            dialogue: String::new(),
        };
        client.reply()?.expect(220, "greeting")?;
        client = client.secure()?;
        // vsftpd is content without a password.
        let reply = client.command("USER anonymous")?;
        if reply.code == 331 {
            client.expect("PASS guest@example.org", 230)?;
        } else {
            reply.expect(230, "USER")?;
        }
        client.expect("TYPE I", 200)?;
        Ok(client)
    }

    /// Begins TLS where that is wanted, and asks for it on data connections.
    fn secure(mut self) -> Result<Self> {
        let Some(security) = &self.security else {
            return Ok(self);
        };
        if security.handshake() == Handshake::Explicit {
            let security = security.clone();
            self.expect("AUTH TLS", 234)?;
            ensure!(
                self.control.buffer().is_empty(),
                "bytes in clear after the answer to AUTH TLS"
            );
            let Channel::Plain(control) = self.control.into_inner() else {
                bail!("AUTH TLS under TLS");
            };
            self.control = BufReader::new(security.protect(control)?);
        }
        self.expect("PBSZ 0", 200)?;
        self.expect("PROT P", 200)?;
        Ok(self)
    }

    /// The server's address on this control connection.
    pub fn server(&self) -> Result<SocketAddr> {
        self.control
            .get_ref()
            .socket()
            .peer_addr()
            .context("peer address")
    }

    /// The client's address on this control connection.
    pub fn local(&self) -> Result<SocketAddr> {
        self.control
            .get_ref()
            .socket()
            .local_addr()
            .context("own address")
    }

    /// Sends one command and waits for its reply, whatever it is.
    pub fn command(&mut self, line: &str) -> Result<Reply> {
        self.send(line)?;
        self.reply()
    }

    /// Sends one command; its reply must have this code.
    pub fn expect(&mut self, line: &str, code: u16) -> Result<Reply> {
        self.command(line)?.expect(code, line)
    }

    /// Asks for a passive data connection, and returns where the server listens.
    ///
    /// The address is the control connection's; from the reply only the port is taken.
    pub fn passive(&mut self, commands: Commands) -> Result<SocketAddr> {
        let port = match commands {
            Commands::Classic => port_of_227(&self.expect("PASV", 227)?.text),
            Commands::Extended => port_of_229(&self.expect("EPSV", 229)?.text),
        }
        .with_context(|| format!("no port in the reply\n{}", self.dialogue))?;
        Ok(SocketAddr::new(self.server()?.ip(), port))
    }

    /// Tells the server to connect to `target`, and returns its reply.
    pub fn active(&mut self, target: SocketAddr, commands: Commands) -> Result<Reply> {
        self.command(&announcement(target, commands)?)
    }

    /// Fetches a file over a passive data connection.
    pub fn retrieve_passive(&mut self, name: &str, commands: Commands) -> Result<Vec<u8>> {
        let announced = self.passive(commands)?;
        let data = connect(announced)?;
        self.receive(name, data.stream)
    }

    /// Fetches a file from a port that was announced already. A first SYN that is lost costs an
    /// honest client a second, and is an error.
    pub fn retrieve_announced(&mut self, name: &str, announced: SocketAddr) -> Result<Vec<u8>> {
        let data = connect(announced)?;
        ensure!(
            data.syns_lost == 0,
            "{} SYNs to {announced} lost",
            data.syns_lost
        );
        self.receive(name, data.stream)
    }

    /// Stores a file over a passive data connection.
    pub fn store_passive(&mut self, name: &str, content: &[u8], commands: Commands) -> Result<()> {
        let announced = self.passive(commands)?;
        let data = connect(announced)?;
        self.transmit(name, content, data.stream)
    }

    /// Fetches a file over an active data connection.
    pub fn retrieve_active(&mut self, name: &str, commands: Commands) -> Result<Vec<u8>> {
        let listener = self.listen(commands)?;
        self.send(&format!("RETR {name}"))?;
        let data = accept(&listener)
            .with_context(|| format!("waiting for the server\n{}", self.dialogue))?;
        self.reply()?.opens("RETR")?;
        let content = self.read_all(data)?;
        self.reply()?.expect(226, "RETR")?;
        Ok(content)
    }

    /// Stores a file over an active data connection.
    pub fn store_active(&mut self, name: &str, content: &[u8], commands: Commands) -> Result<()> {
        let listener = self.listen(commands)?;
        self.send(&format!("STOR {name}"))?;
        let data = accept(&listener)
            .with_context(|| format!("waiting for the server\n{}", self.dialogue))?;
        self.reply()?.opens("STOR")?;
        self.write_all(data, content)?;
        self.reply()?.expect(226, "STOR")?;
        Ok(())
    }

    /// Fetches a file over a data connection that is open already.
    pub fn receive(&mut self, name: &str, data: TcpStream) -> Result<Vec<u8>> {
        self.command(&format!("RETR {name}"))?.opens("RETR")?;
        let content = self.read_all(data)?;
        self.reply()?.expect(226, "RETR")?;
        Ok(content)
    }

    /// Ends the session.
    pub fn quit(mut self) -> Result<()> {
        self.expect("QUIT", 221)?;
        Ok(())
    }

    /// Sends one command without waiting for its reply.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.dialogue.push_str(line);
        self.dialogue.push('\n');
        self.control
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .with_context(|| format!("sending {line}"))
    }

    /// Waits for one reply.
    pub fn reply(&mut self) -> Result<Reply> {
        let start = Instant::now();
        let mut line = String::new();
        loop {
            line.clear();
            let length = self
                .control
                .read_line(&mut line)
                .with_context(|| format!("waiting for a reply\n{}", self.dialogue))?;
            ensure!(length > 0, "control connection closed\n{}", self.dialogue);
            self.dialogue.push_str(&line);
            // The last line of a reply: three digits and a blank (RFC 959 section 4.2).
            if line.as_bytes().get(3) == Some(&b' ')
                && let Some(Ok(code)) = line.get(..3).map(str::parse)
            {
                return Ok(Reply {
                    code,
                    text: line.trim_end().to_owned(),
                    took: start.elapsed(),
                });
            }
        }
    }

    /// Reads a data connection to its end, under TLS if the session is.
    pub fn read_all(&self, data: TcpStream) -> Result<Vec<u8>> {
        match &self.security {
            Some(security) => security.protect(data)?.read_all(),
            None => read_all(data),
        }
    }

    fn write_all(&self, data: TcpStream, content: &[u8]) -> Result<()> {
        data.set_read_timeout(Some(TIMEOUT))?;
        data.set_write_timeout(Some(TIMEOUT))?;
        let mut data = match &self.security {
            Some(security) => security.protect(data)?,
            None => Channel::Plain(data),
        };
        data.write_all(content)
            .context("writing to the data connection")?;
        data.finish().context("closing the data connection")
    }

    fn listen(&mut self, commands: Commands) -> Result<TcpListener> {
        let listener =
            TcpListener::bind((self.local()?.ip(), 0)).context("listening for the server")?;
        self.active(listener.local_addr()?, commands)?
            .expect(200, "PORT or EPRT")?;
        Ok(listener)
    }

    fn transmit(&mut self, name: &str, content: &[u8], data: TcpStream) -> Result<()> {
        self.command(&format!("STOR {name}"))?.opens("STOR")?;
        self.write_all(data, content)?;
        self.reply()?.expect(226, "STOR")?;
        Ok(())
    }
}

impl Reply {
    /// Fails unless the reply says that a transfer begins: 150, or 125 over a data connection
    /// that is open already (RFC 959 section 5.4).
    pub fn opens(self, what: &str) -> Result<Self> {
        let code = if self.code == 125 { 125 } else { 150 };
        self.expect(code, what)
    }

    /// Fails unless the reply has this code.
    pub fn expect(self, code: u16, what: &str) -> Result<Self> {
        if self.code != code {
            bail!("{what} was answered with: {}", self.text);
        }
        Ok(self)
    }
}

/// Opens a data connection, and looks whether a SYN had to be sent again.
pub fn connect(announced: SocketAddr) -> Result<DataConnection> {
    connect_within(announced, TIMEOUT)
}

/// Opens a data connection as [`connect`] does, and gives up after this time.
pub fn connect_within(announced: SocketAddr, timeout: Duration) -> Result<DataConnection> {
    let start = Instant::now();
    let stream = TcpStream::connect_timeout(&announced, timeout)
        .with_context(|| format!("opening a data connection to {announced}"))?;
    let took = start.elapsed();
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let info = getsockopt(&stream, TcpInfo).context("reading TCP_INFO")?;
    Ok(DataConnection {
        stream,
        took,
        syns_lost: info.tcpi_total_retrans,
    })
}

/// Reads to the end.
pub fn read_all(mut data: TcpStream) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    data.set_read_timeout(Some(TIMEOUT))?;
    data.read_to_end(&mut content)
        .context("reading the data connection")?;
    Ok(content)
}

/// Accepts one connection, but does not wait for it longer than a step may take.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ensure!(Instant::now() < deadline, "no data connection came");
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return Err(error).context("accepting a data connection"),
        }
    }
}

/// The PORT or EPRT line that names `target`.
fn announcement(target: SocketAddr, commands: Commands) -> Result<String> {
    let port = target.port();
    Ok(match (commands, target.ip()) {
        (Commands::Classic, IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            let [high, low] = port.to_be_bytes();
            format!("PORT {a},{b},{c},{d},{high},{low}")
        }
        (Commands::Classic, IpAddr::V6(_)) => bail!("PORT knows no IPv6 address"),
        (Commands::Extended, IpAddr::V4(ip)) => format!("EPRT |1|{ip}|{port}|"),
        (Commands::Extended, IpAddr::V6(ip)) => format!("EPRT |2|{ip}|{port}|"),
    })
}

/// The port in `227 Entering Passive Mode (h1,h2,h3,h4,p1,p2).`
fn port_of_227(text: &str) -> Option<u16> {
    let (_, list) = text.split_once('(')?;
    let (list, _) = list.split_once(')')?;
    let mut numbers = list.split(',').skip(4).map(str::parse::<u8>);
    let (high, low) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(u16::from_be_bytes([high, low]))
}

/// The port in `229 Entering Extended Passive Mode (|||port|)`.
fn port_of_229(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("(|||")?;
    rest.split_once('|')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_real_replies() {
        let passive = "227 Entering Passive Mode (10,0,0,1,195,80).";
        assert_eq!(port_of_227(passive), Some(50_000));
        let extended = "229 Entering Extended Passive Mode (|||50024|)";
        assert_eq!(port_of_229(extended), Some(50_024));
        assert_eq!(port_of_227("227 nothing"), None);
        assert_eq!(port_of_229("229 nothing"), None);
    }

    #[test]
    fn announcements_have_the_form_of_the_rfcs() {
        let line = |target: &str, commands| {
            announcement(target.parse().expect("address"), commands).expect("line")
        };
        let v4 = "10.1.2.3:50000";
        assert_eq!(line(v4, Commands::Classic), "PORT 10,1,2,3,195,80");
        assert_eq!(line(v4, Commands::Extended), "EPRT |1|10.1.2.3|50000|");
        let v6 = "[fd00::1]:50000";
        assert_eq!(line(v6, Commands::Extended), "EPRT |2|fd00::1|50000|");
        let target = v6.parse().expect("address");
        assert!(announcement(target, Commands::Classic).is_err());
    }
}
