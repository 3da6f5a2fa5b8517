//! `ProFTPD`: a process for each session, which listens and connects itself.

use std::{ffi::OsString, fmt::Write as _};

use anyhow::Result;

use super::{Activation, Place, Settings, USER, cache};
use crate::tls::Handshake;

/// Program and arguments.
pub(super) fn command(settings: &Settings, place: &Place<'_>) -> Result<Vec<OsString>> {
    let file = place.write("proftpd.conf", configuration(settings, place))?;
    Ok(vec![
        cache::file("usr/sbin/proftpd").into(),
        "--nodaemon".into(),
        "--quiet".into(),
        "--config".into(),
        file.into(),
    ])
}

fn configuration(settings: &Settings, place: &Place<'_>) -> String {
    let on = |is: bool| if is { "on" } else { "off" };
    let (first, last) = (settings.passive_ports.start(), settings.passive_ports.end());
    let folder = place.folder.display();
    let modules = cache::file("usr/lib/proftpd");
    let own = settings.activation == Activation::Own;
    let kind = if own { "standalone" } else { "inetd" };
    let foreign = on(!settings.own_checks);
    let port = settings.control_port();
    let mut text = format!(
        "ServerName sandbox
ServerType {kind}
Port {port}
UseIPv6 on
DefaultAddress 0.0.0.0
DefaultServer on
SocketBindTight off
User nobody
Group nogroup
ModulePath {}
ControlsEngine off
ScoreboardFile {folder}/scoreboard
PidFile {folder}/proftpd.pid
DelayTable none
DelayEngine off
SystemLog none
TransferLog none
WtmpLog off
UseReverseDNS off
TimeoutLinger 1
AuthOrder mod_auth_unix.c
AllowOverwrite on
AllowForeignAddress {foreign}
PassivePorts {first} {last}
",
        modules.display()
    );
    if let Some(certificate) = place.certificate {
        let mut options = Vec::new();
        if !settings.tls_reuse {
            options.push("NoSessionReuseRequired");
        }
        if settings.tls == Some(Handshake::Implicit) {
            options.push("UseImplicitSSL");
        }
        let _ = write!(
            text,
            "LoadModule mod_tls.c
TLSEngine on
TLSRequired on
TLSProtocol TLSv1.2 TLSv1.3
TLSLog none
TLSECCertificateFile {}
TLSECCertificateKeyFile {}
",
            certificate.certificate.display(),
            certificate.key.display()
        );
        if !options.is_empty() {
            let _ = writeln!(text, "TLSOptions {}", options.join(" "));
        }
    }
    let _ = write!(
        text,
        "<Anonymous {}>
User {USER}
UserAlias anonymous {USER}
RequireValidShell off
MaxClients none
</Anonymous>
",
        place.root.display()
    );
    text
}
