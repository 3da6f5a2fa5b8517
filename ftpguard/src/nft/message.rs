//! Messages to nf_tables (`<linux/netfilter/nfnetlink.h>`, `<linux/netfilter/nf_tables.h>`).

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETSET: u16 = 10;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_DATA_VALUE: u16 = 1;

/// A set: the family's number, the table, the name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set<'a> {
    pub(super) family: u8,
    pub(super) table: &'a str,
    pub(super) name: &'a str,
}

/// What is done with an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is added; it goes by itself after so many milliseconds.
    Add { timeout: u64 },
    /// It is removed.
    Remove,
}

/// Asks for a set: answered by the set, or by an error.
pub(super) fn ask(set: Set<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, NFTA_SET_TABLE, set.table);
    string(&mut body, NFTA_SET_NAME, set.name);
    message(NFT_MSG_GETSET, NLM_F_REQUEST | NLM_F_ACK, set.family, &body)
}

/// A transaction that changes one element. `key` is what the set compares: each part padded to
/// four bytes.
pub(super) fn change(set: Set<'_>, key: &[u8], change: Change) -> Vec<u8> {
    let mut value = Vec::new();
    attribute(&mut value, NFTA_DATA_VALUE, key);
    let mut element = Vec::new();
    attribute(&mut element, NFTA_SET_ELEM_KEY | NLA_F_NESTED, &value);
    let (kind, flags) = match change {
        Change::Add { timeout } => {
            attribute(&mut element, NFTA_SET_ELEM_TIMEOUT, &timeout.to_be_bytes());
            (NFT_MSG_NEWSETELEM, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE)
        }
        Change::Remove => (NFT_MSG_DELSETELEM, NLM_F_REQUEST | NLM_F_ACK),
    };
    let mut elements = Vec::new();
    attribute(&mut elements, NFTA_LIST_ELEM | NLA_F_NESTED, &element);
    let mut body = Vec::new();
    string(&mut body, NFTA_SET_ELEM_LIST_TABLE, set.table);
    string(&mut body, NFTA_SET_ELEM_LIST_SET, set.name);
    attribute(
        &mut body,
        NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED,
        &elements,
    );
    let mut batch = header(
        NFNL_MSG_BATCH_BEGIN,
        NLM_F_REQUEST,
        0,
        NFNL_SUBSYS_NFTABLES,
        &[],
    );
    batch.extend(message(kind, flags, set.family, &body));
    batch.extend(header(
        NFNL_MSG_BATCH_END,
        NLM_F_REQUEST,
        0,
        NFNL_SUBSYS_NFTABLES,
        &[],
    ));
    batch
}

fn message(kind: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    header(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, family, 0, body)
}

/// `struct nlmsghdr`, `struct nfgenmsg`, and the body.
fn header(kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(20 + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port.
    message.extend([0; 8]);
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    message.extend(body);
    message
}

/// A text that ends with a zero byte.
fn string(to: &mut Vec<u8>, kind: u16, text: &str) {
    let bytes: Vec<u8> = text.bytes().chain([0]).collect();
    attribute(to, kind, &bytes);
}

/// `struct nlattr`, the value, and padding to four bytes.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: Set<'_> = Set {
        family: 1,
        table: "filter",
        name: "ftp4",
    };

    #[test]
    fn lengths_cover_what_they_should() {
        let batch = change(SET, &[192, 0, 2, 1, 0xc3, 0x50, 0, 0], Change::Remove);
        let length = |at: usize| {
            let bytes = batch
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_ne_bytes).expect("a header") as usize
        };
        let (begin, middle) = (length(0), length(20));
        assert_eq!(begin, 20);
        assert_eq!(length(begin + middle), 20);
        assert_eq!(batch.len(), begin + middle + 20);
        assert_eq!(batch.len() % 4, 0);
        let longer = change(SET, &[0; 8], Change::Add { timeout: 1 });
        assert_eq!(longer.len(), batch.len() + 12);
        assert_eq!(ask(SET).len(), 20 + 12 + 12);
    }
}
