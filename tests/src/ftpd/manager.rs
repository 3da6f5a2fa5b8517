//! A service manager that listens for the ftpd, as systemd does with `Accept=yes`: each
//! connection gets a process of its own, with the connection as standard input and output.

use std::{ffi::OsString, path::Path};

use anyhow::Result;

use super::{Place, Settings, pyftpdlib::PYTHON};

/// The manager. A child is put into the ftpd's control group before it becomes the ftpd.
const PROGRAM: &str = "\
import os, signal, socket, sys
port, procs, *ftpd = sys.argv[1:]
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
acceptor = socket.create_server(('::', int(port)), family=socket.AF_INET6, dualstack_ipv6=True,
                                backlog=50)
while True:
    connection, _ = acceptor.accept()
    if os.fork():
        connection.close()
        continue
    with open(procs, 'w') as file:
        file.write('0')
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    acceptor.close()
    for fd in (0, 1):
        os.dup2(connection.fileno(), fd)
    os.execvp(ftpd[0], ftpd)
";

/// Program and arguments.
pub(super) fn command(
    settings: &Settings,
    place: &Place<'_>,
    procs: &Path,
    ftpd: Vec<OsString>,
) -> Result<Vec<OsString>> {
    let file = place.write("manager.py", PROGRAM.to_owned())?;
    let port = settings.control_port().to_string();
    let mut words = vec![PYTHON.into(), file.into(), port.into(), procs.into()];
    words.extend(ftpd);
    Ok(words)
}
