//! How TLS looks among text (RFC 8446 section 5.1).

/// The type of a handshake record, with which a client begins.
pub(super) const HANDSHAKE: u8 = 0x16;

/// Looks for the beginning of a TLS record anywhere in a stream, however it is cut.
///
/// Where bytes were lost nobody can say at which byte a record begins; but a type (20 to 23) and
/// a version (3, 0 to 4) never stand together in FTP text.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHeader {
    /// The last two bytes.
    before: [u8; 2],
}

impl RecordHeader {
    /// Nothing seen yet.
    pub(super) const START: Self = Self { before: [0; 2] };

    /// Whether a header ends within these bytes.
    pub(super) fn find(&mut self, bytes: &[u8]) -> bool {
        let mut found = false;
        for &byte in bytes {
            let [kind, major] = self.before;
            found |= (20..=23).contains(&kind) && major == 3 && byte <= 4;
            self.before = [major, byte];
        }
        found
    }
}
