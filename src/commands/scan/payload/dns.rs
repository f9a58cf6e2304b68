//! A DNS query (RFC 1035, section 4): the address of "localhost.", which name servers answer without asking another one
//! (RFC 6761, section 6.3), and those that refuse it answer, too.

/// The header's flags: a query with recursion desired (RFC 1035, section 4.1.1).
const FLAGS: u16 = 0x0100;
/// QTYPE A and QCLASS IN (RFC 1035, sections 3.2.2 and 3.2.4).
const A: u16 = 1;
const IN: u16 = 1;

/// Returns a query whose identification is random.
pub(super) fn query([id, _]: [u64; 2]) -> Vec<u8> {
    let mut query = Vec::with_capacity(27);
    // One question, no other record.
    for field in [id as u16, FLAGS, 1, 0, 0, 0] {
        query.extend(field.to_be_bytes());
    }
    query.extend(b"\x09localhost\x00");
    for field in [A, IN] {
        query.extend(field.to_be_bytes());
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_whole_question() {
        let expected = b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01";
        assert_eq!(query([0x1234_abcd, 0]), expected);
    }
}
