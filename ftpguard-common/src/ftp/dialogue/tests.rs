//! The rules of a dialogue. Whole dialogues stand in the transcripts.

mod properties;

extern crate std;
use core::fmt::Write as _;
use std::{format, string::String, vec::Vec};

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A dialogue under test: each step returns what it told, separated by `; `.
struct Talk {
    dialogue: Dialogue,
    now: u64,
}

impl Talk {
    /// A dialogue whose greeting has been sent.
    fn greeted() -> Self {
        let mut talk = Self::fresh();
        assert_eq!(talk.server("220 ready\r\n"), "");
        talk
    }

    fn fresh() -> Self {
        Self {
            dialogue: Dialogue::new(),
            now: SECOND,
        }
    }

    fn client(&mut self, text: &str) -> String {
        self.feed(Direction::ToServer, text)
    }

    fn server(&mut self, text: &str) -> String {
        self.feed(Direction::ToClient, text)
    }

    fn feed(&mut self, direction: Direction, text: &str) -> String {
        let now = self.now;
        told(|events| {
            self.dialogue.feed(direction, text.as_bytes(), now, events);
        })
    }

    fn wait(&mut self, time: u64) -> String {
        self.now += time;
        let now = self.now;
        told(|events| self.dialogue.elapse(now, events))
    }

    /// A passive transfer's beginning works as it should.
    fn assert_works(&mut self) {
        assert_eq!(self.client("PASV\r\n"), "passive-requested PASV");
        assert_eq!(
            self.server("227 (192,0,2,1,19,137)\r\n"),
            "passive-announced PASV 192.0.2.1 port 5001"
        );
    }
}

fn told(act: impl FnOnce(&mut dyn FnMut(DialogueEvent))) -> String {
    let mut told = String::new();
    act(&mut |event| {
        if !told.is_empty() {
            told.push_str("; ");
        }
        write!(told, "{event}").unwrap();
    });
    told
}

#[test]
fn s8_the_greeting_answers_a_virtual_first_command() {
    let mut talk = Talk::fresh();
    assert_eq!(talk.client("EPSV\r\n"), "passive-requested EPSV");
    assert_eq!(talk.server("120 soon\r\n220-hello\r\n220 ready\r\n"), "");
    assert_eq!(
        talk.server("229 (|||5000|)\r\n"),
        "passive-announced EPSV port 5000"
    );
}

#[test]
fn s8_each_final_reply_answers_the_oldest_command() {
    let mut talk = Talk::greeted();
    talk.client("USER a\r\nPASS b\r\nRETR c\r\nPASV\r\nREIN\r\nQUIT\r\n");
    assert_eq!(talk.server("331 x\r\n230 x\r\n150 x\r\n426 x\r\n"), "");
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1286"
    );
    assert_eq!(talk.server("220 x\r\n221 x\r\n"), "reset; quit");
}

#[test]
fn s8_the_thirty_third_unanswered_command_desynchronises() {
    let mut talk = Talk::greeted();
    assert_eq!(talk.client(&"NOOP\r\n".repeat(32)), "");
    assert_eq!(talk.client("NOOP\r\n"), "desynchronised queue-overflow");
    assert!(!talk.dialogue.is_synchronised());
    assert_eq!(talk.server(&"200 ok\r\n".repeat(33)), "");
    assert_eq!(talk.client("PASV\r\n"), "passive-requested PASV");
    assert_eq!(talk.server("227 (1,2,3,4,5,6)\r\n"), "");
    assert_eq!(talk.wait(2 * SECOND), "resynchronised");
    talk.assert_works();
}

#[test]
fn s9_unsolicited_replies_mean_nothing() {
    let mut talk = Talk::greeted();
    assert_eq!(talk.server("425 late\r\n"), "unsolicited-reply 425");
    assert_eq!(talk.server("421 idle\r\n"), "unsolicited-reply 421");
    talk.assert_works();
}

#[test]
fn s9_an_announcement_that_nobody_asked_for_desynchronises() {
    for (asked, answer) in [
        ("", "227 (1,2,3,4,5,6)"),
        ("NOOP", "227 (1,2,3,4,5,6)"),
        ("PASV", "229 (|||5000|)"),
        ("EPSV", "227 (1,2,3,4,5,6)"),
        ("LPSV", "229 (|||5000|)"),
        ("PORT 1,2,3,4,5,6", "227 (1,2,3,4,5,6)"),
        ("PASV\0", "227 (1,2,3,4,5,6)"),
    ] {
        let mut talk = Talk::greeted();
        if !asked.is_empty() {
            talk.client(&format!("{asked}\r\n"));
        }
        let told = talk.server(&format!("{answer}\r\n"));
        assert!(
            told.ends_with("desynchronised unmatched-announcement"),
            "{asked:?} {answer:?}: {told}"
        );
        assert!(!told.contains("passive"), "{told}");
    }
}

#[test]
fn s9_two_quiet_seconds_synchronise_again_and_less_does_not() {
    let mut talk = Talk::greeted();
    talk.server("227 (1,2,3,4,5,6)\r\n");
    assert_eq!(talk.wait(2 * SECOND - 1), "");
    // An unanswered command is no quiet.
    talk.client("NOOP\r\n");
    assert_eq!(talk.wait(10 * SECOND), "");
    talk.server("200 ok\r\n");
    assert_eq!(talk.wait(SECOND), "");
    talk.client("NOOP\r\n");
    talk.server("150 x\r\n");
    assert_eq!(talk.wait(10 * SECOND), "");
    talk.server("226 x\r\n");
    // The next bytes find it synchronised, whoever sends them.
    talk.now += 2 * SECOND;
    assert_eq!(
        talk.client("PASV\r\n"),
        "resynchronised; passive-requested PASV"
    );
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1286"
    );
}

#[test]
fn s9_an_answer_in_progress_is_no_quiet() {
    for (begun, ended) in [
        ("150 coming\r\n", "226 done\r\n"),
        ("211-Status\r\n", "211 End\r\n"),
    ] {
        let mut talk = Talk::greeted();
        // Two more answers are due than the dialogue knows of.
        talk.client("NOOP\r\nNOOP\r\nSTAT\r\n");
        talk.server("227 (1,2,3,4,5,6)\r\n200 ok\r\n");
        talk.server(begun);
        assert_eq!(talk.wait(10 * SECOND), "", "{begun}");
        talk.server(ended);
        assert_eq!(talk.wait(2 * SECOND), "resynchronised", "{ended}");
        talk.assert_works();
    }
}

#[test]
fn s9_a_clock_that_goes_back_is_no_quiet() {
    let mut talk = Talk::greeted();
    talk.server("227 (1,2,3,4,5,6)\r\n");
    talk.now = 0;
    assert_eq!(talk.wait(0), "");
}

#[test]
fn c1_a_malformed_argument_is_told_and_its_acceptance_too() {
    let mut talk = Talk::greeted();
    assert_eq!(
        talk.client("PORT 1,2,3,4,5\r\n"),
        "malformed-argument PORT comma-expected at byte 14"
    );
    assert_eq!(talk.server("200 ok\r\n"), "active-accepted PORT unread");
    talk.client("PORT 1,2,3,4,5\r\n");
    assert_eq!(talk.server("501 what\r\n"), "");
}

#[test]
fn c4_an_active_request_is_told_before_and_after_its_answer() {
    let mut talk = Talk::greeted();
    for (line, form) in [
        ("PORT 192,0,2,9,19,137", "PORT"),
        ("EPRT |1|192.0.2.9|5001|", "EPRT"),
        ("LPRT 4,4,192,0,2,9,2,19,137", "LPRT"),
    ] {
        assert_eq!(
            talk.client(&format!("{line}\r\n")),
            format!("active-requested {form} 192.0.2.9 port 5001")
        );
        assert_eq!(
            talk.server("200 ok\r\n"),
            format!("active-accepted {form} 192.0.2.9 port 5001")
        );
    }
    talk.client("PORT 192,0,2,9,19,137\r\n");
    assert_eq!(talk.server("500 illegal\r\n"), "");
}

#[test]
fn c5_epsv_all_holds_until_rein() {
    let mut talk = Talk::greeted();
    talk.client("EPSV ALL\r\n");
    assert_eq!(talk.server("220 ok\r\n"), "epsv-all-accepted");
    assert!(talk.dialogue.is_epsv_all());
    talk.client("EPSV\r\n");
    assert_eq!(
        talk.server("229 (|||5000|)\r\n"),
        "passive-announced EPSV port 5000"
    );
    talk.client("RETR a\r\n");
    talk.server("150 x\r\n426 failed\r\n");
    for line in [
        "PASV",
        "LPSV",
        "PORT 1,2,3,4,5,6",
        "EPRT |1|1.2.3.4|5000|",
        "LPRT 4,4,1,2,3,4,2,5,6",
        "PORT x",
    ] {
        talk.client(&format!("{line}\r\n"));
        let verb = line.split(' ').next().unwrap();
        assert_eq!(
            talk.server("501 no\r\n"),
            format!("protocol-violation {verb}")
        );
    }
    talk.client("PASV\r\n");
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n"),
        "protocol-violation PASV; passive-announced PASV 1.2.3.4 port 1286"
    );
    talk.client("REIN\r\n");
    assert_eq!(talk.server("120 wait\r\n220 ready\r\n"), "reset");
    assert!(!talk.dialogue.is_epsv_all());
    talk.assert_works();
}

#[test]
fn c5_pipelined_commands_after_epsv_all_violate_it() {
    let mut talk = Talk::greeted();
    talk.client("EPSV ALL\r\nPASV\r\n");
    assert_eq!(
        talk.server("229 all\r\n227 (1,2,3,4,5,6)\r\n"),
        "epsv-all-accepted; protocol-violation PASV; \
         passive-announced PASV 1.2.3.4 port 1286"
    );
    // A refused one means nothing.
    let mut talk = Talk::greeted();
    talk.client("EPSV ALL\r\nPASV\r\n");
    assert_eq!(
        talk.server("500 what\r\n227 (1,2,3,4,5,6)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1286"
    );
}

#[test]
fn c6_each_accepted_data_command_is_told_even_where_no_port_can_be_read() {
    let mut talk = Talk::greeted();
    talk.assert_works();
    talk.client("PASV\r\n");
    assert_eq!(
        talk.server("227 (1,2,3,4,5,7)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1287"
    );
    talk.client("PASV\r\n");
    assert_eq!(
        talk.server("227 (1,2,3,4,5)\r\n"),
        "passive-unread PASV comma-expected at byte 14"
    );
    talk.client("EPSV\r\n");
    assert_eq!(
        talk.server("200 ok\r\n"),
        "passive-unread EPSV missing at byte 0"
    );
    talk.client("EPSV 7\r\n");
    assert_eq!(
        talk.server("229 (|||5000|)\r\n"),
        "passive-announced EPSV port 5000"
    );
    talk.client("PASV\r\n");
    assert_eq!(talk.server("425 no\r\n"), "");
}

#[test]
fn c7_rein_and_quit_count_when_answered_2xx() {
    let mut talk = Talk::greeted();
    assert_eq!(talk.client("REIN\r\nQUIT\r\nQUIT\r\n"), "");
    assert_eq!(talk.server("502 no\r\n500 no\r\n221 bye\r\n"), "quit");
}

#[test]
fn c8_an_accepted_auth_discards_what_follows_in_both_directions() {
    for code in [234, 334] {
        let mut talk = Talk::greeted();
        let clear = "AUTH TLS\r\nPASV\r\nPORT 1,2,3,4,5,6\r\nPORT x\r\n";
        assert_eq!(talk.client(clear), "");
        let answer = format!("{code} go\r\n227 (1,2,3,4,5,6)\r\n200 ok\r\n");
        assert_eq!(talk.server(&answer), "opaque auth-accepted");
        assert!(talk.dialogue.is_opaque());
        assert_eq!(talk.client("PASV\r\n"), "");
        assert_eq!(talk.server("227 (1,2,3,4,5,6)\r\n"), "");
        assert_eq!(talk.wait(60 * SECOND), "");
    }
}

#[test]
fn c8_a_refused_auth_changes_nothing() {
    let mut talk = Talk::greeted();
    assert_eq!(
        talk.client("AUTH TLS\r\nPASV\r\nAUTH SSL\r\nPORT 1,2,3,4,5,6\r\n"),
        ""
    );
    assert_eq!(talk.server("530 no\r\n"), "passive-requested PASV");
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1286"
    );
    assert_eq!(
        talk.server("504 no\r\n"),
        "active-requested PORT 1.2.3.4 port 1286"
    );
    assert_eq!(
        talk.server("200 ok\r\n"),
        "active-accepted PORT 1.2.3.4 port 1286"
    );
}

#[test]
fn c8_an_accepted_auth_counts_also_while_desynchronised() {
    let mut talk = Talk::greeted();
    talk.server("227 (1,2,3,4,5,6)\r\n");
    assert_eq!(talk.client("AUTH TLS\r\nPORT 1,2,3,4,5,6\r\n"), "");
    assert_eq!(talk.server("234 go\r\n"), "opaque auth-accepted");
    // The ClientHello may come before the answer, and overflow the queue.
    let mut talk = Talk::greeted();
    talk.client("AUTH TLS\r\n");
    assert_eq!(
        talk.client(&"\u{16}\n".repeat(40)),
        "desynchronised queue-overflow"
    );
    assert_eq!(talk.client("PORT 1,2,3,4,5,6\r\n"), "");
    assert_eq!(talk.server("234 go\r\n"), "opaque auth-accepted");
}

#[test]
fn c8_without_auth_its_answer_means_nothing() {
    let mut talk = Talk::greeted();
    talk.client("NOOP\r\n");
    assert_eq!(talk.server("234 go\r\n"), "");
    assert_eq!(talk.server("334 go\r\n"), "unsolicited-reply 334");
    talk.assert_works();
}

#[test]
fn f5_what_looks_like_tls_within_a_synchronised_dialogue_is_text() {
    let mut talk = Talk::greeted();
    talk.client("NOOP\r\n");
    assert_eq!(talk.server("200 \u{16}\u{3}\u{1}\r\n"), "");
    talk.assert_works();
}

#[test]
fn s1_another_protocol_is_told_from_tls_however_its_bytes_are_cut() {
    let bytes = "x\u{16}\u{3}\u{1}\r\n\u{16}\u{3}\u{1}";
    // Found by fuzzing: desynchronised before the greeting.
    let overflow = "NOOP\r\n".repeat(33);
    for size in [1, 2, bytes.len()] {
        let mut talk = Talk::fresh();
        assert_eq!(talk.client(&overflow), "desynchronised queue-overflow");
        let mut told = String::new();
        for piece in bytes.as_bytes().chunks(size) {
            told += &talk.server(core::str::from_utf8(piece).unwrap());
        }
        assert_eq!(told, "opaque not-ftp");
    }
}

#[test]
fn lost_bytes_may_have_closed_a_block() {
    let mut talk = Talk::greeted();
    talk.client("STAT\r\n");
    talk.server("211-Status\r\n");
    let gap = told(|events| talk.dialogue.gap(Direction::ToClient, events));
    assert_eq!(gap, "desynchronised bytes-lost");
    talk.server(" x\r\n226 done\r\n");
    assert_eq!(talk.wait(2 * SECOND), "resynchronised");
}

#[test]
fn c9_the_wrong_direction_means_nothing() {
    let mut talk = Talk::greeted();
    talk.client("PASV\r\n");
    assert_eq!(talk.client("227 (9,9,9,9,9,9)\r\n"), "");
    assert_eq!(talk.server("PORT 9,9,9,9,9,9\r\nPASV\r\n"), "");
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1286"
    );
}

#[test]
fn r2_nothing_within_a_block_counts() {
    let mut talk = Talk::greeted();
    talk.client("STAT\r\nPASV\r\n");
    assert_eq!(
        talk.server("211-Status\r\n227 (9,9,9,9,9,9)\r\n226 x\r\n211 End\r\n"),
        ""
    );
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1286"
    );
}

#[test]
fn r3_a_block_left_open_makes_no_pinholes() {
    let mut talk = Talk::greeted();
    talk.client("PASS x\r\n");
    talk.server("230-Welcome\r\n226 end\r\n");
    talk.client("PASV\r\n");
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n"),
        "desynchronised block-left-open"
    );
    assert_eq!(talk.wait(2 * SECOND), "resynchronised");
    talk.assert_works();
}

#[test]
fn r3_ten_thousand_lines_desynchronise_until_the_block_ends() {
    let mut talk = Talk::greeted();
    talk.client("STAT\r\n");
    talk.server("211-Status\r\n");
    assert_eq!(
        talk.server(&"227 (1,2,3,4,5,6)\r\n".repeat(10_000)),
        "desynchronised endless-block"
    );
    assert_eq!(talk.wait(10 * SECOND), "");
    talk.server("211 End\r\n");
    assert_eq!(talk.wait(2 * SECOND), "resynchronised");
    talk.assert_works();
}

#[test]
fn p2_r7_r8_low_ports_and_foreign_addresses_are_told_as_they_are() {
    let mut talk = Talk::greeted();
    talk.client("PASV\r\n");
    assert_eq!(
        talk.server("227 (10,0,0,1,0,22)\r\n"),
        "passive-announced PASV 10.0.0.1 port 22"
    );
}

#[test]
fn r9_the_newest_announcement_replaces_the_one_before() {
    let mut talk = Talk::greeted();
    talk.client("PASV\r\nPASV\r\n");
    assert_eq!(
        talk.server("227 (1,2,3,4,5,6)\r\n227 (1,2,3,4,5,7)\r\n"),
        "passive-announced PASV 1.2.3.4 port 1286; passive-announced PASV 1.2.3.4 port 1287"
    );
}

#[test]
fn implicit_tls_and_other_protocols_are_opaque_from_their_first_byte() {
    let mut talk = Talk::fresh();
    assert_eq!(talk.client("\u{16}"), "opaque implicit-tls");
    let mut talk = Talk::fresh();
    assert_eq!(talk.server("SSH-2.0-x"), "opaque not-ftp");
    let mut talk = Talk::fresh();
    assert_eq!(talk.server("\n220 x\r\n"), "opaque not-ftp");
    // Later it is a bad line and nothing more.
    let mut talk = Talk::greeted();
    assert_eq!(talk.client("NOOP\r\n\u{16}\r\n"), "");
    assert_eq!(talk.server("200 ok\r\n500 what\r\n"), "");
    talk.assert_works();
}

#[test]
fn k10_an_adopted_dialogue_begins_desynchronised() {
    let mut talk = Talk {
        dialogue: Dialogue::adopted(),
        now: SECOND,
    };
    assert_eq!(talk.wait(10 * SECOND), "");
    assert_eq!(talk.client("SV\r\nPASV\r\n"), "passive-requested PASV");
    assert_eq!(talk.server(" text\r\n227 (1,2,3,4,5,6)\r\n"), "");
    assert_eq!(talk.wait(2 * SECOND), "resynchronised");
    talk.assert_works();
}

#[test]
fn f5_an_adopted_dialogue_recognises_tls() {
    let mut dialogue = Dialogue::adopted();
    let mut seen = Vec::new();
    for byte in *b"\x8f\x17\x03\x03\x01\x00" {
        dialogue.feed(Direction::ToClient, &[byte], 0, &mut |event| {
            seen.push(event);
        });
    }
    assert_eq!(seen, [DialogueEvent::Opaque(Opacity::TlsRecord)]);
}

#[test]
fn s2_contradicting_bytes_end_the_text() {
    let mut talk = Talk::greeted();
    let distrust = told(|events| talk.dialogue.distrust(events));
    assert_eq!(distrust, "opaque untrusted");
    assert_eq!(told(|events| talk.dialogue.distrust(events)), "");
    assert_eq!(talk.client("PASV\r\n"), "");
}

#[test]
fn lost_bytes_desynchronise_and_spoil_their_line() {
    let mut talk = Talk::greeted();
    talk.client("PASV\r\n");
    talk.server("211-Status\r\n22");
    let gap = told(|events| talk.dialogue.gap(Direction::ToClient, events));
    assert_eq!(gap, "desynchronised bytes-lost");
    assert_eq!(talk.server("7 (1,2,3,4,5,6)\r\n"), "");
    assert_eq!(talk.wait(10 * SECOND), "");
    talk.client("PO");
    assert_eq!(
        told(|events| talk.dialogue.gap(Direction::ToServer, events)),
        ""
    );
    assert_eq!(talk.client("1,2,3,4,5,6\r\nNOOP\r\n"), "");
    talk.server("200 ok\r\n");
    assert_eq!(talk.wait(2 * SECOND), "resynchronised");
    talk.assert_works();
}

#[test]
fn s10_debug_shows_no_text() {
    let mut talk = Talk::greeted();
    talk.client("USER joe\r\nPASS secret\r\nPASS secr");
    let shown = format!("{:?}", talk.dialogue);
    assert!(!shown.contains("secr") && !shown.contains("joe"), "{shown}");
}

/// Rule O10: what is not accepted yet must not hide a new request.
#[test]
fn o10_only_harmless_lines_ask_nothing() {
    let mut talk = Talk::greeted();
    let asks_nothing = |talk: &Talk, text: &[u8]| talk.dialogue.asks_nothing(text.iter().copied());
    for harmless in [
        "",
        "RETR page.pdf\r\n",
        "NOOP\nSTOR a\n",
        "EPSV\r\nPASV\r\n",
    ] {
        assert!(asks_nothing(&talk, harmless.as_bytes()), "{harmless}");
    }
    for unclear in [
        "port 1,2,3,4,5,6\r\n",
        "NOOP\r\nEPRT |1|192.0.2.1|5000|\r\n",
        "LpRt 4,4,192,0,2,1,2,1,1\n",
        "RETR report.pdf\r\n",
        "NOOP\r\nPO",
        "P\0ORT\r\n",
    ] {
        assert!(!asks_nothing(&talk, unclear.as_bytes()), "{unclear}");
    }
    assert!(!asks_nothing(&talk, b"PO\xff\xf1RT 1,2,3,4,5,6\r\n"));
    assert_eq!(talk.client("PO"), "");
    assert!(asks_nothing(&talk, b""));
    assert!(!asks_nothing(&talk, b"RT 192,0,2,1,19,137\r\n"));
}
