//! pyftpdlib: one process and one thread serve every session. It connects while it handles
//! PORT, and with its own checks off it connects anywhere, also below port 1024.

use std::path::Path;

use super::{CONTROL_PORT, Settings};

/// The interpreter that sees the distribution's packages.
pub(super) const PYTHON: &str = "/usr/bin/python3";

/// The program to run.
pub(super) fn program(settings: &Settings, root: &Path) -> String {
    let unchecked = if settings.own_checks { "False" } else { "True" };
    let (first, last) = (settings.passive_ports.start(), settings.passive_ports.end());
    let root = root.display();
    format!(
        "import warnings
warnings.simplefilter('ignore')
import logging
logging.basicConfig(level=logging.WARNING)
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import ActiveDTP, FTPHandler, PassiveDTP
from pyftpdlib.servers import FTPServer
users = DummyAuthorizer()
users.add_anonymous('{root}', perm='elradfmwMT')
FTPHandler.authorizer = users
FTPHandler.passive_ports = range({first}, {last} + 1)
FTPHandler.permit_foreign_addresses = {unchecked}
FTPHandler.permit_privileged_ports = {unchecked}
FTPHandler.timeout = 120
PassiveDTP.timeout = 5
ActiveDTP.timeout = 5
FTPServer(('::', {CONTROL_PORT}), FTPHandler).serve_forever()
"
    )
}
