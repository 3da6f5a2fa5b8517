//! Which words of a dialogue change something, and which an operator is told.

use ftpguard_common::{
    abi::{PinholeKey, SessionKey},
    ftp::{DialogueEvent, Opacity, argument::Relation},
};

use crate::events::{Ends, Happening, Remark, Way};

pub(super) fn changes_something(event: &DialogueEvent) -> bool {
    match event {
        DialogueEvent::PassiveRequested(_)
        | DialogueEvent::PassiveAnnounced { .. }
        | DialogueEvent::PassiveUnread { .. }
        | DialogueEvent::ActiveRequested { .. }
        | DialogueEvent::ActiveAccepted { .. }
        | DialogueEvent::EpsvAllAccepted
        | DialogueEvent::Reset
        | DialogueEvent::Quit
        | DialogueEvent::Desynchronised(_)
        | DialogueEvent::Opaque(_) => true,
        DialogueEvent::MalformedArgument { .. }
        | DialogueEvent::ProtocolViolation(_)
        | DialogueEvent::UnsolicitedReply(_)
        | DialogueEvent::LineTooLong
        | DialogueEvent::Resynchronised => false,
    }
}

/// What an operator is told at once.
pub(in crate::guard) fn remark(key: &SessionKey, event: &DialogueEvent) -> Option<Happening> {
    let ends = Ends::from(key);
    let dialogue = |remark: Remark| {
        Some(Happening::Dialogue {
            ends,
            remark: remark.label().into(),
        })
    };
    match event {
        DialogueEvent::ActiveRequested { target, .. }
            if target.relation(key.client) == Relation::Foreign =>
        {
            Some(Happening::ForeignPortRequest {
                ends,
                requested: target.address.ip(),
                requested_port: target.port.number(),
            })
        }
        DialogueEvent::ProtocolViolation(_) => dialogue(Remark::ProtocolViolation),
        DialogueEvent::Desynchronised(_) => dialogue(Remark::Desynchronised),
        DialogueEvent::Opaque(
            Opacity::AuthAccepted | Opacity::ImplicitTls | Opacity::TlsRecord,
        ) => dialogue(Remark::Encrypted),
        DialogueEvent::Opaque(Opacity::Untrusted) => dialogue(Remark::Untrusted),
        DialogueEvent::Opaque(Opacity::NotFtp) => dialogue(Remark::NotFtp),
        DialogueEvent::ActiveRequested { .. }
        | DialogueEvent::PassiveRequested(_)
        | DialogueEvent::PassiveAnnounced { .. }
        | DialogueEvent::PassiveUnread { .. }
        | DialogueEvent::ActiveAccepted { .. }
        | DialogueEvent::MalformedArgument { .. }
        | DialogueEvent::EpsvAllAccepted
        | DialogueEvent::Reset
        | DialogueEvent::Quit
        | DialogueEvent::UnsolicitedReply(_)
        | DialogueEvent::LineTooLong
        | DialogueEvent::Resynchronised => None,
    }
}

pub(in crate::guard) fn way(key: &PinholeKey) -> Way {
    Way {
        client: key.client.ip(),
        server: key.server.ip(),
        port: key.port.number(),
    }
}
