//! The classic filter of an observer that watches a server's handshakes: SYNs to its port, SYN-ACKs and resets from it.
//!
//! Data of established connections costs the filter alone, so a busy server can be watched.
use super::bpf_code::{
    AND, ETHERTYPE, JUMP_ANY_BIT, JUMP_EQUAL, LOAD_BYTE, LOAD_BYTE_INDEXED, LOAD_HALF, LOAD_HALF_INDEXED,
    LOAD_IP_LENGTH, RETURN, SET_X,
};
use crate::net::ip_protocol;
use socket2::SockFilter;

/// Flags of a TCP header, and the offset of its byte that holds them.
const SYN: u32 = 0x02;
const RST: u32 = 0x04;
const SYN_ACK: u32 = 0x12;
/// FIN, SYN, RST and ACK.
const FLAGS: u32 = 0x17;
const FLAGS_AT: u32 = 13;
/// The fragment offset of an IPv4 header.
const FRAGMENT_OFFSET: u32 = 0x1fff;

/// Returns the filter for the handshakes of a TCP port, over IPv4 and IPv6. `snap` is the number of bytes to keep of a
/// packet.
pub(super) fn handshakes(port: u16, snap: u32) -> Vec<SockFilter> {
    instructions(port, snap).into_iter().map(|(code, yes, no, k)| SockFilter::new(code, yes, no, k)).collect()
}

/// Returns each instruction's code, jumps and operand.
fn instructions(port: u16, snap: u32) -> Vec<(u16, u8, u8, u32)> {
    let op = |code, k| (code, 0, 0, k);
    let jump = |code, yes, no, k| (code, yes, no, k);
    let from_x = |offset: u32| {
        [
            op(LOAD_HALF_INDEXED, offset),
            jump(JUMP_EQUAL, 0, 1, u32::from(port)),
            op(RETURN, snap),
            op(RETURN, 0),
        ]
    };
    // X is the transport header.
    let mut tcp = vec![
        op(LOAD_BYTE_INDEXED, FLAGS_AT),
        op(AND, FLAGS),
        jump(JUMP_EQUAL, 3, 0, SYN),
        jump(JUMP_EQUAL, 6, 0, SYN_ACK),
        jump(JUMP_ANY_BIT, 5, 0, RST),
        op(RETURN, 0),
    ];
    tcp.extend(from_x(2));
    tcp.extend(from_x(0));
    let v4 = [
        op(LOAD_BYTE, 9),
        jump(JUMP_EQUAL, 1, 0, u32::from(ip_protocol::TCP)),
        op(RETURN, 0),
        op(LOAD_HALF, 6),
        jump(JUMP_ANY_BIT, 0, 1, FRAGMENT_OFFSET),
        op(RETURN, 0),
        op(LOAD_IP_LENGTH, 0),
    ];
    let v6 =
        [op(LOAD_BYTE, 6), jump(JUMP_EQUAL, 1, 0, u32::from(ip_protocol::TCP)), op(RETURN, 0), op(SET_X, 40)];
    let others = (v4.len() + tcp.len()) as u8;
    let mut code = vec![op(LOAD_HALF, ETHERTYPE), jump(JUMP_EQUAL, 0, others, libc::ETH_P_IP as u32)];
    code.extend(v4);
    code.extend(tcp.iter().copied());
    code.extend([jump(JUMP_EQUAL, 1, 0, libc::ETH_P_IPV6 as u32), op(RETURN, 0)]);
    code.extend(v6);
    code.extend(tcp);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel does (bpf(4)). Returns the bytes that it keeps.
    fn kept(code: &[(u16, u8, u8, u32)], ethertype: u32, packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
        let read = |offset: u32, bytes: usize| {
            let slice = packet.get(offset as usize..offset as usize + bytes)?;
            Some(slice.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
        };
        loop {
            let (op, jt, jf, k) = code[at];
            at += 1;
            let loaded = match op {
                LOAD_HALF if k == ETHERTYPE => Some(ethertype),
                LOAD_HALF => read(k, 2),
                LOAD_BYTE => read(k, 1),
                LOAD_HALF_INDEXED => read(x + k, 2),
                LOAD_BYTE_INDEXED => read(x + k, 1),
                LOAD_IP_LENGTH => {
                    x = read(k, 1).unwrap_or(0) % 16 * 4;
                    continue;
                }
                SET_X => {
                    x = k;
                    continue;
                }
                AND => Some(a & k),
                JUMP_EQUAL | JUMP_ANY_BIT => {
                    let yes = if op == JUMP_EQUAL { a == k } else { a & k != 0 };
                    at += usize::from(if yes { jt } else { jf });
                    continue;
                }
                RETURN => return k,
                other => panic!("{other:#x}"),
            };
            match loaded {
                Some(value) => a = value,
                None => return 0,
            }
        }
    }

    fn packet(v6: bool, source: u16, destination: u16, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0; if v6 { 40 } else { 24 }];
        bytes[0] = if v6 { 0x60 } else { 0x46 };
        bytes[if v6 { 6 } else { 9 }] = ip_protocol::TCP;
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn handshakes_pass_and_data_does_not() {
        let code = instructions(7000, 160);
        for (v6, ethertype) in [(false, libc::ETH_P_IP as u32), (true, libc::ETH_P_IPV6 as u32)] {
            for (source, destination, flags, passes) in [
                (9, 7000, 0x02, true),
                // With ECN (RFC 3168).
                (9, 7000, 0xc2, true),
                (7000, 9, 0x02, false),
                (7000, 9, 0x12, true),
                (9, 7000, 0x12, false),
                (7000, 9, 0x14, true),
                (7000, 9, 0x04, true),
                (9, 7000, 0x04, false),
                (9, 7000, 0x10, false),
                (7000, 9, 0x18, false),
                (9, 7001, 0x02, false),
            ] {
                let bytes = packet(v6, source, destination, flags);
                let found = kept(&code, ethertype, &bytes);
                assert_eq!(found, if passes { 160 } else { 0 }, "{source} {destination} {flags:#x}");
                assert_eq!(kept(&code, 0x0806, &bytes), 0);
                assert_eq!(kept(&code, ethertype, &bytes[..30]), 0);
            }
        }
        let mut fragment = packet(false, 9, 7000, 2);
        fragment[7] = 1;
        assert_eq!(kept(&code, libc::ETH_P_IP as u32, &fragment), 0);
    }
}
