//! A client's first QUIC packet, with a long header of the type Initial (RFC 9000, section 17.2.2) and a version that is
//! reserved for negotiation (section 15): a server answers it with the versions that it speaks (section 6.1), without
//! keeping anything. Servers drop smaller packets than this one (section 14.1).

/// Length of the smallest first packet, in bytes.
const LENGTH: usize = 1200;
/// Long header, fixed bit, type Initial, a packet number of one byte.
const FIRST: u8 = 0xc0;
/// Mask of a reserved version's fixed bits, and their value: 0x?a?a?a?a.
const RESERVED: u32 = 0x0a0a_0a0a;
const FREE: u32 = 0xf0f0_f0f0;
/// Length of a variable-length integer of two bytes, in its upper bits (RFC 9000, section 16).
const TWO_BYTES: u16 = 1 << 14;

/// Returns a packet with a random version, connection identifiers and payload, which look like an encrypted one's.
pub(super) fn initial([first, second]: [u64; 2]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(LENGTH);
    packet.push(FIRST);
    packet.extend((first as u32 & FREE | RESERVED).to_be_bytes());
    // Destination and source connection identifiers: at least 8 bytes for the first (section 7.2).
    for id in [first, second] {
        packet.push(8);
        packet.extend(id.to_be_bytes());
    }
    // No token.
    packet.push(0);
    let rest = LENGTH - packet.len() - 2;
    packet.extend((TWO_BYTES | rest as u16).to_be_bytes());
    let mut state = first ^ second.rotate_left(32) | 1;
    while packet.len() < LENGTH {
        // Xorshift (G. Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        packet.push(state as u8);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_the_smallest_packet_and_asks_for_the_versions() {
        let packet = initial([0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00]);
        assert_eq!(packet.len(), 1200);
        assert_eq!(packet[..5], [0xc0, 0x5a, 0x6a, 0x7a, 0x8a]);
        assert_eq!(packet[5..14], *b"\x08\x11\x22\x33\x44\x55\x66\x77\x88");
        assert_eq!((packet[14], packet[23]), (8, 0));
        // The length covers the rest: packet number and payload.
        assert_eq!(u16::from_be_bytes([packet[24], packet[25]]) & 0x3fff, 1200 - 26);
    }
}
