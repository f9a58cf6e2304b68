//! memcached's command `version` in the frame of its UDP protocol (doc/protocol.txt, "UDP protocol"). Its answer is as
//! short as the request.

/// Returns a request with a random identifier.
pub(super) fn version([id, _]: [u64; 2]) -> Vec<u8> {
    let mut request = Vec::with_capacity(17);
    // Request, sequence number, number of datagrams, reserved.
    for field in [id as u16, 0, 1, 0] {
        request.extend(field.to_be_bytes());
    }
    request.extend(b"version\r\n");
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_datagram_with_one_command() {
        assert_eq!(version([0xabcd, 0]), b"\xab\xcd\0\0\0\x01\0\0version\r\n");
    }
}
