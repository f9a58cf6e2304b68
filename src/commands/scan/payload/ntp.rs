//! An NTP request (RFC 5905, section 7.3) of a client without state, which tells nothing of this host: all fields but
//! version, mode and transmit timestamp are 0, and that one is random (draft-ietf-ntp-data-minimization).

/// Length of the header without extensions, in bytes.
const LENGTH: usize = 48;
/// Leap indicator 0, version 4, mode 3 (client).
const FIRST: u8 = 4 << 3 | 3;
/// Offset of the transmit timestamp, which the server returns as the origin timestamp.
const TRANSMIT: usize = 40;

/// Returns a request with a random transmit timestamp.
pub(super) fn request([timestamp, _]: [u64; 2]) -> Vec<u8> {
    let mut request = vec![FIRST];
    request.resize(TRANSMIT, 0);
    // 0 means that the time is unknown.
    request.extend(timestamp.max(1).to_be_bytes());
    debug_assert_eq!(request.len(), LENGTH);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_header_with_nothing_but_a_random_time() {
        let request = request([0x0102_0304_0506_0708, 0]);
        assert_eq!((request.len(), request[0]), (48, 0x23));
        assert!(request[1..40].iter().all(|byte| *byte == 0));
        assert_eq!(request[40..], [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
