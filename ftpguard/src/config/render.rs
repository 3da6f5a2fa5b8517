//! The file that says what a [`Config`] says, with every key explained.

use std::fmt::Write as _;

use super::{Config, ExceptionRule, Ftpd, KEYS};

impl Config {
    /// The file, under a heading of comment lines.
    pub fn render(&self, heading: &str) -> Result<String, toml::ser::Error> {
        let values = toml::Table::try_from(self)?;
        let mut text = String::new();
        comment(&mut text, heading.lines());
        for key in KEYS {
            if matches!(key.name, "ftpd" | "exception") {
                continue;
            }
            text.push('\n');
            comment(&mut text, key.explained.iter().map(|line| line.trim()));
            if let Some(value) = values.get(key.name) {
                let _ = writeln!(text, "{} = {value}", key.name);
            }
        }
        text.push('\n');
        comment(&mut text, FTPD.lines());
        for ftpd in &self.ftpd {
            render_ftpd(&mut text, ftpd)?;
        }
        text.push('\n');
        comment(&mut text, EXCEPTION.lines());
        for rule in &self.exception {
            render_exception(&mut text, rule)?;
        }
        Ok(text)
    }
}

/// What is said about `[[ftpd]]`.
const FTPD: &str = "\
The FTP servers of this host, one table for each. The keys above hold for all of them.
  name              what it is called in messages
  control_ports     where it accepts control connections
  passive_ports     its passive range, as in \"50000-50099\" or [\"50000-50049\", \"51000-51049\"].
                    Unused ports in it are closed to everybody. None declared: only the ports on
                    which the server listens are guarded, wherever they are.
  public_addresses  by which addresses its clients know it, beside those above
  mode              \"enforce\" or \"monitor\" for this server, where it is not the mode above";

/// What is said about `[[exception]]`.
const EXCEPTION: &str = "\
Whom the FTP servers may connect to although they are no clients: directory, database and name
servers, partners of server-to-server transfers (FXP). And who may open data connections for
clients that have another address: the exits of a NAT, the same partners. One table for each.
  name        what it is called in messages
  connect_to  ADDRESS[/LENGTH][:PORT]; an IPv6 address before a port in brackets
  data_from   ADDRESS[/LENGTH]: where data connections may come from
  clients     ADDRESS[/LENGTH]: whose; not named: of clients that are in data_from themselves

[[exception]]
name = \"directory\"
connect_to = [\"192.0.2.10:389\", \"[2001:db8::10]:389\"]

[[exception]]
name = \"exits of a NAT\"
data_from = [\"198.51.100.0/28\"]";

fn render_ftpd(text: &mut String, ftpd: &Ftpd) -> Result<(), toml::ser::Error> {
    let values = toml::Table::try_from(ftpd)?;
    render_table(text, "ftpd", &values);
    Ok(())
}

fn render_exception(text: &mut String, rule: &ExceptionRule) -> Result<(), toml::ser::Error> {
    let values = toml::Table::try_from(rule)?;
    render_table(text, "exception", &values);
    Ok(())
}

fn render_table(text: &mut String, name: &str, values: &toml::Table) {
    let _ = writeln!(text, "\n[[{name}]]");
    // The name comes first, whatever the order of the table.
    let (first, rest): (Vec<_>, Vec<_>) = values.iter().partition(|(key, _)| *key == "name");
    for (key, value) in first.into_iter().chain(rest) {
        let _ = writeln!(text, "{key} = {value}");
    }
}

fn comment<'a>(text: &mut String, lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
}
