//! Extensions of ICMP errors (RFC 4884): MPLS labels (RFC 4950).
use crate::net::checksum::Sum;
use serde::Serialize;

/// Where routers older than RFC 4884 put the extensions, in bytes from the quote's start (section 5.5).
const CLASSIC_OFFSET: usize = 128;
/// Length of the extension header, and of an object's header, in bytes.
const HEADER: usize = 4;
/// The version of the extension header.
const VERSION: u8 = 2;
/// Class and type of an MPLS label stack (RFC 4950, section 3).
const MPLS_STACK: (u8, u8) = (1, 1);
/// Maximum labels kept.
const MAX_LABELS: usize = 16;

/// An entry of an MPLS label stack (RFC 3032, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Label {
    pub label: u32,
    pub traffic_class: u8,
    pub bottom: bool,
    pub ttl: u8,
}

/// Returns the MPLS labels behind a quote. `length` is the quote's length by the message's header, in bytes; 0
/// where the router gives none. Malformed extensions have none.
pub(super) fn labels(quote: &[u8], length: usize) -> Vec<Label> {
    let start = if length == 0 { CLASSIC_OFFSET } else { length };
    let Some(extensions) = quote.get(start..) else { return Vec::new() };
    let Some(&[version, _, high, low]) = extensions.first_chunk::<HEADER>() else { return Vec::new() };
    let unsigned = (high, low) == (0, 0);
    if version >> 4 != VERSION || !unsigned && Sum::default().add(extensions).checksum() != 0 {
        return Vec::new();
    }
    // Bytes at the classic place without a checksum may as well be the quoted packet's data.
    if length == 0 && unsigned {
        return Vec::new();
    }
    let (mut rest, mut labels) = (&extensions[HEADER..], Vec::new());
    while let Some(&[high, low, class, kind]) = rest.first_chunk::<HEADER>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(body) = rest.get(HEADER..length) else { break };
        if (class, kind) == MPLS_STACK {
            labels.extend(body.as_chunks::<4>().0.iter().map(|entry| Label::read(*entry)));
        }
        rest = &rest[length..];
    }
    labels.truncate(MAX_LABELS);
    labels
}

impl Label {
    fn read(entry: [u8; 4]) -> Label {
        let word = u32::from_be_bytes(entry);
        Label {
            label: word >> 12,
            traffic_class: (word >> 9 & 7) as u8,
            bottom: word >> 8 & 1 != 0,
            ttl: entry[3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Extensions with an object of this class, type and body behind a quote of this length.
    pub(crate) fn extended(quote: usize, class: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut extensions = vec![VERSION << 4, 0, 0, 0];
        extensions.extend(((HEADER + body.len()) as u16).to_be_bytes());
        extensions.extend([class, kind]);
        extensions.extend(body);
        let sum = Sum::default().add(&extensions).checksum();
        extensions[2..4].copy_from_slice(&sum.to_be_bytes());
        [vec![0x45; quote], extensions].concat()
    }

    /// Label 100, traffic class 5, not the bottom, TTL 1; then label 16, the bottom, TTL 254.
    const STACK: [u8; 8] = [0, 6, 0x4a, 1, 0, 1, 1, 254];

    #[test]
    fn labels_stand_where_the_header_says_or_at_the_classic_place() {
        let expected = [
            Label { label: 100, traffic_class: 5, bottom: false, ttl: 1 },
            Label { label: 16, traffic_class: 0, bottom: true, ttl: 254 },
        ];
        for (quote, length) in [(128, 128), (136, 136), (128, 0)] {
            assert_eq!(labels(&extended(quote, 1, 1, &STACK), length), expected, "{quote} {length}");
        }
        assert!(labels(&extended(136, 1, 1, &STACK), 0).is_empty(), "not at the classic place");
        assert!(labels(&extended(128, 2, 1, &STACK), 128).is_empty(), "another class");
    }

    #[test]
    fn what_is_malformed_has_no_labels() {
        let good = extended(128, 1, 1, &STACK);
        for at in 128..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(labels(&bad, 128).is_empty(), "byte {at}");
        }
        let mut unsigned = good;
        unsigned[130..132].fill(0);
        assert_eq!(labels(&unsigned, 128).len(), 2, "a checksum of 0 is none");
        assert!(labels(&unsigned, 0).is_empty(), "which at the classic place proves nothing");
    }

    proptest! {
        #[test]
        fn hostile_extensions_end(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in 0..300usize) {
            prop_assert!(labels(&bytes, length).len() <= MAX_LABELS);
        }
    }
}
