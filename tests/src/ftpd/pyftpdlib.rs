//! pyftpdlib: one process and one thread serve every session, or threads, or processes. It
//! connects while it handles PORT, and with its own checks off it connects anywhere, also below
//! port 1024.

use std::ffi::OsString;

use anyhow::Result;

use super::{Kind, Place, Settings};
use crate::tls::Handshake;

/// The interpreter that sees the distribution's packages.
pub(super) const PYTHON: &str = "/usr/bin/python3";

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let file = place.write("ftpd.py", program(settings, place))?;
    Ok(vec![PYTHON.into(), file.into()])
}

fn program(settings: &Settings, place: &Place<'_>) -> String {
    let unchecked = if settings.own_checks { "False" } else { "True" };
    let (first, last) = (settings.passive_ports.start(), settings.passive_ports.end());
    let root = place.root.display();
    let server = if settings.kind == Kind::PyftpdlibThreads {
        "ThreadedFTPServer"
    } else if settings.kind == Kind::PyftpdlibProcesses {
        "MultiprocessFTPServer"
    } else {
        "FTPServer"
    };
    let workers = if settings.kind == Kind::PyftpdlibPrefork {
        "worker_processes=3"
    } else {
        ""
    };
    let tls = tls(settings, place);
    let port = settings.control_port();
    format!(
        "import warnings
warnings.simplefilter('ignore')
import logging
logging.basicConfig(level=logging.WARNING)
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import ActiveDTP, FTPHandler, PassiveDTP
from pyftpdlib.servers import FTPServer, MultiprocessFTPServer, ThreadedFTPServer
users = DummyAuthorizer()
users.add_anonymous('{root}', perm='elradfmwMT')
{tls}
FTPHandler.authorizer = users
FTPHandler.passive_ports = range({first}, {last} + 1)
FTPHandler.permit_foreign_addresses = {unchecked}
FTPHandler.permit_privileged_ports = {unchecked}
FTPHandler.timeout = 120
PassiveDTP.timeout = 5
ActiveDTP.timeout = 5
{server}(('::', {port}), FTPHandler).serve_forever({workers})
"
    )
}

/// Puts `FTPHandler` under TLS. Implicit TLS is none of its features; it takes one override.
fn tls(settings: &Settings, place: &Place<'_>) -> String {
    let Some(certificate) = place.certificate else {
        return String::new();
    };
    let implicit = if settings.tls == Some(Handshake::Implicit) {
        "
class Implicit(FTPHandler):
    def handle(self):
        self.secure_connection(self.get_ssl_context())
        super().handle()
    def handle_ssl_established(self):
        pass
FTPHandler = Implicit"
    } else {
        ""
    };
    format!(
        "from pyftpdlib.handlers import TLS_FTPHandler as FTPHandler
FTPHandler.certfile = '{}'
FTPHandler.tls_control_required = True
FTPHandler.tls_data_required = True{implicit}",
        certificate.both.display()
    )
}
