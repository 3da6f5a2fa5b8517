//! What the guard never tells (rule S10).

use ftpguard_tests::{
    client::{self, Commands},
    guard::Options,
    scripted::CONTENT,
};

use crate::contradictions::Bed;

const PASSWORD: &str = "kettle-4711";
const ACCOUNT: &str = "saddle-4712";
const SECURITY_DATA: &str = "bGFudGVybi00NzEz";
const NAME: &str = "walnut-4714.txt";

/// S10: a session with known words, and everything that the guard says at its most talkative.
#[test]
fn s10_no_password_and_no_file_name_is_told() {
    for tracking in ["socket", "text"] {
        let bed = Bed::new();
        let guard = bed.guard_with(Options {
            tracking,
            log: Some("trace"),
            ..Options::default()
        });
        let mut ftp = bed.login_from(bed.sandbox.client());
        for (line, code) in [
            ("USER joe".to_owned(), 331),
            (format!("PASS {PASSWORD}"), 230),
            (format!("ACCT {ACCOUNT}"), 500),
            (format!("ADAT {SECURITY_DATA}"), 500),
        ] {
            ftp.expect(&line, code).expect("an answer");
        }
        let content = bed.sandbox.client().enter(|| {
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let data = client::connect(announced).expect("a data connection");
            ftp.receive(NAME, data.stream).expect("the file")
        });
        assert_eq!(content.expect("namespace"), CONTENT);
        let mut told = String::new();
        for question in ["status", "sessions", "pinholes", "events", "why", "mode"] {
            for form in [None, Some("--json")] {
                let arguments: Vec<&str> = [question].into_iter().chain(form).collect();
                let finished = guard.ask(&arguments).expect("it ends");
                told.push_str(&finished.stdout);
                told.push_str(&finished.stderr);
            }
        }
        told.push_str(&guard.log());
        // It has read the session, and speaks of it.
        assert!(told.contains(": passive-announced PASV"), "{told}");
        for word in [PASSWORD, ACCOUNT, SECURITY_DATA, NAME] {
            assert!(!told.contains(word), "{word}\n{told}");
        }
    }
}
