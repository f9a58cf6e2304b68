//! A STUN Binding request without attributes (RFC 8489, section 5), which STUN and TURN servers answer to everybody.

/// Method Binding, class request.
const BINDING_REQUEST: u16 = 1;
/// Tells STUN from other protocols at the same port.
const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Length of the transaction's identifier, in bytes.
const TRANSACTION: usize = 12;

/// Returns a request with a random transaction identifier.
pub(super) fn binding_request(transaction: [u64; 2]) -> Vec<u8> {
    let mut request = Vec::with_capacity(20);
    request.extend(BINDING_REQUEST.to_be_bytes());
    // No attributes follow.
    request.extend(0u16.to_be_bytes());
    request.extend(MAGIC_COOKIE.to_be_bytes());
    request.extend(transaction.iter().flat_map(|word| word.to_be_bytes()).take(TRANSACTION));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_bare_header() {
        let expected = b"\x00\x01\x00\x00\x21\x12\xa4\x42\0\x01\x02\x03\x04\x05\x06\x07\0\0\0\x08";
        assert_eq!(binding_request([0x0001_0203_0405_0607, 0x08_0000_0000]), expected);
    }
}
