use std::{
    env, fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{file::Source, *};

/// The shipped file says what the defaults say, but for the mode: a guard that was just
/// installed does not bite (rule M1).
fn shipped() -> Config {
    Config {
        mode: ModeArg::Monitor,
        ..Config::default()
    }
}

const HEADING: &str = "\
ftpguard's configuration. Every key is shown with its default, but for the mode: a guard that was
just installed reports and lets everything pass. Set it to \"enforce\" when `ftpguard status` and
`ftpguard why` show that no honest transfer would be refused.

`ftpguard check` tells what is wrong with this file; `ftpguard reload` puts it into force.";

#[test]
fn the_shipped_file_shows_every_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/ftpguard.toml");
    let wanted = shipped().render(HEADING).expect("TOML");
    if env::var_os("FTPGUARD_BLESS").is_some() {
        fs::write(&path, &wanted).expect("written");
    }
    let source = Source::read(&path, true).expect("read").expect("there");
    assert_eq!(Config::from_source(&source), Ok(shipped()));
    let text = fs::read_to_string(&path).expect("read");
    assert_eq!(
        text, wanted,
        "FTPGUARD_BLESS=1 cargo test -p ftpguard shipped writes it anew"
    );
    for key in KEYS {
        assert!(
            text.contains(&format!("\n{} = ", key.name))
                || text.contains(&format!("\n[[{}]]", key.name))
                || text.contains(&format!("\n# [[{}]]", key.name)),
            "{}",
            key.name
        );
    }
}

/// A file with this content.
fn source(text: &str) -> Source {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = env::temp_dir().join(format!(
        "ftpguard-config-{}-{}.toml",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    fs::write(&path, text).expect("written");
    let source = Source::read(&path, true).expect("read").expect("there");
    fs::remove_file(&path).expect("removed");
    source
}

fn config(text: &str) -> Result<Config, Wrong> {
    Config::from_source(&source(text))
}

#[test]
fn what_is_rendered_reads_back_the_same() {
    let full = Config {
        interfaces: vec!["eth0".to_owned(), "wg \"0\"".to_owned()],
        xdp_mode: XdpArg::Generic,
        tracking: TrackingArg::Text,
        active: ActiveArg::Exceptions,
        data_source_ports: vec![20, 2020],
        public_addresses: ["192.0.2.7", "2001:db8::7"]
            .map(|text| text.parse().expect("an address"))
            .to_vec(),
        bounce_shield: true,
        cgroup: "/sys/fs/cgroup/x".into(),
        ftpd: vec![
            Ftpd {
                name: "public".to_owned(),
                control_ports: vec![21, 990],
                passive_ports: vec![
                    "50000-50049".parse().expect("a range"),
                    "51000-51049".parse().expect("a range"),
                ],
                public_addresses: vec!["192.0.2.21".parse().expect("an address")],
                mode: None,
            },
            Ftpd {
                name: "intern".to_owned(),
                control_ports: vec![2121],
                passive_ports: Vec::new(),
                public_addresses: Vec::new(),
                mode: Some(ModeArg::Monitor),
            },
        ],
        exception: vec![ExceptionRule {
            name: "directory".to_owned(),
            connect_to: ["192.0.2.0/24:389", "[2001:db8::1]:53", "192.0.2.9"]
                .map(|text| crate::values::parse_destination(text).expect(text))
                .to_vec(),
            data_from: ["198.51.100.0/28", "2001:db8::/64"]
                .map(|text| crate::values::parse_network(text).expect(text))
                .to_vec(),
            clients: vec![crate::values::parse_network("::/0").expect("a network")],
        }],
        ..shipped()
    };
    let text = full.render("full").expect("TOML");
    assert_eq!(config(&text), Ok(full));
}

#[test]
fn one_value_stands_for_a_list_of_one() {
    let read = config(
        "[[ftpd]]\ncontrol_ports = 2121\npassive_ports = \"50000-50009\"\n\
         [[exception]]\nname = \"x\"\nconnect_to = \"192.0.2.1\"\n",
    )
    .expect("valid");
    assert_eq!(read.control_ports(), [2121]);
    assert_eq!(read.passive_ports().len(), 1);
    assert_eq!(read.destinations().count(), 1);
    // What is not said keeps its default.
    assert_eq!(
        read.ftpd.first().map(|ftpd| ftpd.name.as_str()),
        Some("ftpd")
    );
}

#[test]
fn r7_public_addresses_are_those_of_all_and_of_one() {
    let read = config(
        "public_addresses = \"192.0.2.1\"\n\
         [[ftpd]]\nname = \"a\"\ncontrol_ports = [21, 990]\n\
         public_addresses = [\"192.0.2.2\", \"2001:db8::2\"]\n\
         [[ftpd]]\nname = \"b\"\ncontrol_ports = 2121\n",
    )
    .expect("valid");
    let is_public = |address: &str, port| {
        let address: IpAddr = address.parse().expect("an address");
        read.is_public(Address::from(address), port)
    };
    for port in [21, 990, 2121] {
        assert!(is_public("192.0.2.1", port));
        // The same address, in the notation of IPv6.
        assert!(is_public("::ffff:192.0.2.1", port));
        assert!(!is_public("192.0.2.3", port));
        for own in ["192.0.2.2", "2001:db8::2"] {
            assert_eq!(is_public(own, port), port != 2121, "{own} at {port}");
        }
    }
}

/// Every wrong line, the place that is named, and a word of the remedy.
#[test]
fn every_mistake_has_its_line_and_column() {
    for (text, place, named) in [
        ("mode = \"on\"\n", (1, 8), "`monitor` or `enforce`"),
        ("mode = 1\n", (1, 8), "string"),
        ("\n\nmood = 1\n", (3, 1), "unknown key `mood`"),
        (
            "mode = \"monitor\"\nmode = \"enforce\"\n",
            (2, 1),
            "duplicate",
        ),
        ("mode = \n", (1, 8), ""),
        ("bounce_shield = \"yes\"", (1, 17), "boolean"),
        ("interfaces = \"eth0\"", (1, 14), "sequence"),
        ("data_source_ports = [20, 0]", (1, 26), "0 is no port"),
        ("data_source_ports = [70000]", (1, 22), "70000 is no port"),
        ("data_source_ports = [\"20\"]", (1, 22), "without quotes"),
        (
            "public_addresses = [\"192.0.2.1\", \"192.0.2.0/24\"]",
            (1, 34),
            "without length or port",
        ),
        ("public_addresses = \"0.0.0.0\"", (1, 20), "a real one"),
        ("public_addresses = 192", (1, 20), "in quotes"),
        (
            "[[ftpd]]\npublic_addresses = \"ftp.example\"",
            (2, 20),
            "no IP address",
        ),
        (
            "[[ftpd]]\nname = \"a\"\nactive = \"off\"",
            (3, 1),
            "`active` holds for the whole file",
        ),
        ("[[ftpd]]\nmode = \"on\"", (2, 8), "`monitor` or `enforce`"),
        (
            "[[ftpd]]\npassive_ports = [\"50099-50000\"]",
            (2, 18),
            "write 50000-50099",
        ),
        ("[[ftpd]]\npassive_ports = 50000", (2, 17), "FIRST-LAST"),
        (
            "[[ftpd]]\npassive_ports = \"80-90\"",
            (2, 17),
            "80 is too low",
        ),
        ("[[ftpd]]\ncontrol_ports = []", (2, 17), "no control port"),
        ("ftpd = []", (1, 8), "[[ftpd]]"),
        (
            "[[ftpd]]\nname = \"a\"\n[[ftpd]]\nname = \"b\"\n",
            (3, 1),
            "port 21 is a control port of \"a\"",
        ),
        (
            "[[ftpd]]\ncontrol_ports = 21\n[[ftpd]]\ncontrol_ports = 2121\n",
            (3, 1),
            "two FTP servers are called \"ftpd\"",
        ),
        (
            "[[ftpd]]\ncontrol_ports = [21, 2121]\n\n  passive_ports = [\"2000-3000\"]",
            (4, 19),
            "2121",
        ),
        ("[[exception]]\nname = \"x\"", (1, 1), "no destination"),
        (
            "[[exception]]\nname = \"x\"\nconnect_to = []",
            (3, 14),
            "no destination",
        ),
        (
            "[[exception]]\nname = \"x\"\nconnect_to = [\"192.0.2.1\", \"ldap.example\"]",
            (3, 28),
            "ldap.example",
        ),
        // Columns count characters, and a tab is one.
        ("\t# ÄÖÜ\n\tmode = \"ä\"", (2, 9), "unknown variant"),
    ] {
        let wrong = config(text).expect_err(text);
        assert_eq!(wrong.place, Some(place), "{text}: {wrong}");
        assert!(wrong.message.contains(named), "{text}: {wrong}");
        let line = wrong.to_string();
        assert!(!line.contains('\n'), "{line}");
        assert!(
            line.contains(&format!(".toml:{}:{}: ", place.0, place.1)),
            "{line}"
        );
    }
}

#[test]
fn a_missing_file_is_an_error_only_where_it_was_named() {
    let path = Path::new("/nonexistent/ftpguard.toml");
    assert!(matches!(Source::read(path, false), Ok(None)));
    let wrong = Source::read(path, true).expect_err("missing");
    assert_eq!(
        wrong.to_string(),
        "/nonexistent/ftpguard.toml: does not exist; name another with --config, or drop the option"
    );
    let wrong = Source::read(Path::new("/"), true).expect_err("a folder");
    assert_eq!(wrong.to_string(), "/: is a folder; name the file in it");
    // What the end-to-end tests give: a file that says nothing.
    let nothing = Source::read(Path::new("/dev/null"), true)
        .expect("read")
        .expect("there");
    assert_eq!(Config::from_source(&nothing), Ok(Config::default()));
}

#[test]
fn the_command_line_stands_over_the_file() {
    let given = |arguments: &[&str]| {
        let line = ["ftpguard", "run"].iter().chain(arguments);
        let command = crate::cli::parse(line).expect("valid").command;
        let crate::cli::Command::Run(run) = command else {
            panic!("{command:?}");
        };
        run.given
    };
    let two = source(
        "mode = \"monitor\"\nbounce_shield = true\n[[ftpd]]\nname = \"a\"\n[[ftpd]]\nname = \"b\"\ncontrol_ports = 2121\n\
         [[exception]]\nname = \"x\"\nconnect_to = \"192.0.2.1\"\n",
    );
    let config = given(&["--mode", "enforce", "--allow-connect", "192.0.2.2"])
        .over(Some(&two))
        .expect("valid");
    assert_eq!(config.mode, ModeArg::Enforce);
    assert!(config.bounce_shield);
    assert_eq!(config.control_ports(), [21, 2121]);
    assert_eq!(config.destinations().count(), 2);

    let error = given(&["--control-port", "990"])
        .over(Some(&two))
        .expect_err("which one?");
    assert!(
        error.to_string().contains("several tables [[ftpd]]"),
        "{error}"
    );

    let one = source("[[ftpd]]\nname = \"a\"\npassive_ports = \"50000-50009\"\n");
    let config = given(&["--control-port", "2121"])
        .over(Some(&one))
        .expect("valid");
    assert_eq!(config.control_ports(), [2121]);
    assert_eq!(config.passive_ports().len(), 1);

    // The file is right, the option makes it wrong.
    let error = given(&["--control-port", "50001"])
        .over(Some(&one))
        .expect_err("in the range");
    assert!(
        matches!(&error, Unusable::CommandLine(line) if line.contains("50001")),
        "{error}"
    );
}

/// M1: each FTP server may have a mode of its own, and a range that two of them share cannot have
/// two modes.
#[test]
fn m1_an_ftpd_may_have_a_mode_of_its_own() {
    let two = |mode: &str, range: &str| {
        config(&format!(
            "mode = \"enforce\"\n\
             [[ftpd]]\nname = \"one\"\npassive_ports = \"50000-50099\"\n\
             [[ftpd]]\nname = \"two\"\ncontrol_ports = 2121\npassive_ports = \"{range}\"\n{mode}"
        ))
    };
    let read = two("mode = \"monitor\"", "50100-50199").expect("valid");
    let modes: Vec<ModeArg> = read.modes().map(|(_, mode)| mode).collect();
    assert_eq!(modes, [ModeArg::Enforce, ModeArg::Monitor]);
    assert!(read.monitors() && read.enforces());
    let read = two("", "50099-50199").expect("one mode, one range");
    assert!(!read.monitors());
    let wrong = two("mode = \"monitor\"", "50099-50199").expect_err("two modes");
    assert!(
        wrong
            .to_string()
            .contains("\"one\" and \"two\" share passive ports"),
        "{wrong}"
    );
}

/// I7: who may open data connections for whom is named; where nobody is, the clients are those that
/// may.
#[test]
fn i7_a_relaxation_names_both_sides_or_one() {
    let read = config(
        "[[exception]]\nname = \"nat\"\ndata_from = \"198.51.100.0/28\"\n\
         [[exception]]\nname = \"fxp\"\ndata_from = \"192.0.2.9\"\nclients = [\"10.0.0.0/8\"]\n\
         [[exception]]\nname = \"ldap\"\nconnect_to = \"192.0.2.1:389\"\n",
    )
    .expect("valid");
    let network = |text| crate::values::parse_network(text).expect(text);
    let all: Vec<_> = read
        .relaxations()
        .map(|one| (one.clients, one.data_from))
        .collect();
    let nat = network("198.51.100.0/28");
    assert_eq!(
        all,
        [
            (vec![nat], vec![nat]),
            (vec![network("10.0.0.0/8")], vec![network("192.0.2.9")]),
        ]
    );
}
