use std::collections::HashMap;

use super::*;

struct Fake(HashMap<PathBuf, String>);

impl Files for Fake {
    fn read(&self, path: &Path) -> Option<String> {
        self.0.get(path).cloned()
    }
}

fn files(list: &[(&str, &str)]) -> Fake {
    Fake(
        list.iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect(),
    )
}

fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn range(text: &str) -> PortRange {
    text.parse().expect("a range")
}

#[test]
fn vsftpd() {
    let text = "\
# pasv_min_port=1
listen=YES
listen_port=2121
pasv_min_port=50000
pasv_max_port=50099
pasv_address=192.0.2.1
port_promiscuous=NO
pasv_promiscuous=YES
ftp_data_port=20
";
    let said = read(
        Product::Vsftpd,
        &arguments("/srv/vsftpd.conf"),
        &files(&[("/srv/vsftpd.conf", text)]),
    );
    assert_eq!(said.file.as_deref(), Some(Path::new("/srv/vsftpd.conf")));
    assert_eq!(said.control_port, Some(2121));
    assert_eq!(said.passive_ports, Some(range("50000-50099")));
    assert_eq!(said.public_address.as_deref(), Some("192.0.2.1"));
    assert_eq!(said.data_source_port, Some(20));
    assert_eq!(said.weak.len(), 1, "{said:?}");
    assert!(said.odd.is_empty());

    // Without a name the usual places; options of the command line stand over the file.
    let said = read(
        Product::Vsftpd,
        &arguments("-obackground=NO -opasv_max_port=50049"),
        &files(&[("/etc/vsftpd/vsftpd.conf", text)]),
    );
    assert_eq!(said.passive_ports, Some(range("50000-50049")));

    // No range, a range without an end, and one that makes no sense.
    for (text, odd) in [
        ("listen=YES\n", 0),
        ("pasv_min_port=50000\n", 0),
        ("pasv_min_port=0\npasv_max_port=0\n", 0),
        ("pasv_min_port=80\npasv_max_port=90\n", 1),
        ("pasv_min_port=x\npasv_max_port=90\n", 1),
    ] {
        let said = read(Product::Vsftpd, &[], &files(&[("/etc/vsftpd.conf", text)]));
        assert_eq!(said.passive_ports, None, "{text}");
        assert_eq!(said.odd.len(), odd, "{text}");
    }
    assert_eq!(read(Product::Vsftpd, &[], &files(&[])), Said::default());
}

#[test]
fn proftpd() {
    let text = "\
ServerName \"x\"
  port 2121
Include /etc/proftpd/more.conf
Include /etc/proftpd/conf.d/
<VirtualHost 192.0.2.1>
  Port 990
</VirtualHost>
";
    let more = "<Global>\nPASSIVEPORTS 49152\t65534\nMasqueradeAddress ftp.example.net\n</Global>\nAllowForeignAddress on\n";
    let host = files(&[
        ("/etc/proftpd/proftpd.conf", text),
        ("/etc/proftpd/more.conf", more),
        (
            "/srv/x.conf",
            "Include /srv/x.conf\nPassivePorts 50000 50001\n",
        ),
    ]);
    let said = read(Product::Proftpd, &[], &host);
    assert_eq!(said.control_port, Some(2121));
    assert_eq!(said.passive_ports, Some(range("49152-65534")));
    assert_eq!(said.public_address.as_deref(), Some("ftp.example.net"));
    assert_eq!(said.weak.len(), 1);
    // A file that includes itself ends.
    for line in [
        "-n -c /srv/x.conf",
        "-c/srv/x.conf",
        "--config /srv/x.conf",
        "--config=/srv/x.conf",
    ] {
        let said = read(Product::Proftpd, &arguments(line), &host);
        assert_eq!(said.passive_ports, Some(range("50000-50001")), "{line}");
    }
}

#[test]
fn pure_ftpd() {
    for line in [
        "-p 30000:30099 -S 2121 -P 192.0.2.1",
        "-p30000:30099 -S192.0.2.9,2121 -P192.0.2.1",
        "--passiveportrange=30000:30099 --bind=2121 --forcepassiveip=192.0.2.1",
        "--passiveportrange 30000:30099 --bind ,2121 --forcepassiveip 192.0.2.1",
    ] {
        let said = read(Product::PureFtpd, &arguments(line), &files(&[]));
        assert_eq!(said.control_port, Some(2121), "{line}");
        assert_eq!(said.passive_ports, Some(range("30000-30099")), "{line}");
        assert_eq!(said.public_address.as_deref(), Some("192.0.2.1"), "{line}");
    }
    let said = read(
        Product::PureFtpd,
        &arguments("-p 30000:30099 -W"),
        &files(&[]),
    );
    assert_eq!(said.weak.len(), 1);

    let text = "# x\nPassivePortRange          30000 50000\nBind   127.0.0.1,21\nAllowUserFXP no\n";
    let said = read(
        Product::PureFtpd,
        &arguments("/etc/x.conf"),
        &files(&[("/etc/x.conf", text)]),
    );
    assert_eq!(said.passive_ports, Some(range("30000-50000")));
    assert_eq!((said.control_port, said.weak.len()), (Some(21), 0));

    let said = read(
        Product::PureFtpd,
        &[],
        &files(&[("/etc/pure-ftpd/conf/PassivePortRange", "40000 40099\n")]),
    );
    assert_eq!(said.passive_ports, Some(range("40000-40099")));
    assert_eq!(said.file.as_deref(), Some(Path::new("/etc/pure-ftpd/conf")));
}

proptest::proptest! {
    /// Whatever the files and command lines hold, nothing panics.
    #[test]
    fn nothing_panics(text in "\\PC*", line in proptest::collection::vec("\\PC*", 0..4)) {
        let host = files(&[
            ("/etc/vsftpd.conf", &text),
            ("/etc/proftpd.conf", &text),
            ("/etc/pure-ftpd.conf", &text),
        ]);
        for product in [Product::Vsftpd, Product::Proftpd, Product::PureFtpd, Product::Other] {
            let _ = read(product, &line, &host);
            let _ = read(product, &[], &host);
        }
    }
}
