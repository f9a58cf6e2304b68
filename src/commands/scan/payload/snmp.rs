//! SNMP requests: the discovery of an engine by SNMPv3 (RFC 3414, section 4), which agents answer with a Report to
//! everybody; and, every second time, an SNMPv1 GetRequest (RFC 1157) for sysDescr.0 as the community "public", for
//! agents that know no SNMPv3.

/// Tags of BER (X.690): universal, and the PDUs of RFC 3416.
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const GET_REQUEST: u8 = 0xa0;

/// Versions as messages have them (RFC 1157, section 4; RFC 3412, section 6.1).
const SNMPV1: u64 = 0;
const SNMPV3: u64 = 3;
/// The most that an answer may have, in bytes: the least that every engine takes (RFC 3412, section 6).
const MAX_SIZE: u64 = 484;
/// msgFlags: reportable, no authentication, no privacy (RFC 3412, section 6.4).
const REPORTABLE: u8 = 4;
/// The user-based security model (RFC 3411, section 5).
const USM: u64 = 3;
/// 1.3.6.1.2.1.1.1.0, sysDescr.0 of RFC 3418.
const SYS_DESCR: [u8; 8] = [0x2b, 6, 1, 2, 1, 1, 1, 0];

/// Returns the request with this number, whose identifiers are random.
pub(super) fn request(number: u64, [id, _]: [u64; 2]) -> Vec<u8> {
    // From 0 to 2^31 - 1 (RFC 3412, section 6.2).
    let id = id & 0x7fff_ffff;
    if number % 2 == 1 {
        let name = [element(OBJECT, &[&SYS_DESCR]), element(NULL, &[])].concat();
        let bindings = element(SEQUENCE, &[&element(SEQUENCE, &[&name])]);
        let request = pdu(id, &bindings);
        return element(SEQUENCE, &[&integer(SNMPV1), &element(OCTETS, &[b"public"]), &request]);
    }
    let header = [integer(id), integer(MAX_SIZE), element(OCTETS, &[&[REPORTABLE]]), integer(USM)].concat();
    // No engine, boots, time, user, authentication, or privacy is known yet (RFC 3414, section 4).
    let empty = element(OCTETS, &[]);
    let security =
        [empty.clone(), integer(0), integer(0), empty.clone(), empty.clone(), empty.clone()].concat();
    let scoped = element(SEQUENCE, &[&empty, &empty, &pdu(id, &element(SEQUENCE, &[]))]);
    let security = element(OCTETS, &[&element(SEQUENCE, &[&security])]);
    element(SEQUENCE, &[&integer(SNMPV3), &element(SEQUENCE, &[&header]), &security, &scoped])
}

/// Returns a GetRequest without error status and index.
fn pdu(id: u64, bindings: &[u8]) -> Vec<u8> {
    element(GET_REQUEST, &[&integer(id), &integer(0), &integer(0), bindings])
}

/// Returns a non-negative integer.
fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    // The first bit is the sign.
    let start = (0..bytes.len() - 1).find(|at| bytes[*at] != 0 || bytes[at + 1] >= 0x80).unwrap_or(7);
    element(INTEGER, &[&bytes[start..]])
}

/// Returns an element with these parts, of at most 127 bytes together, as its content.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    debug_assert!(content.len() < 0x80, "the length has one byte");
    [&[tag, content.len() as u8], content.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_a_sign_and_no_more_bytes_than_they_need() {
        for (value, expected) in [
            (0, &[2, 1, 0][..]),
            (127, &[2, 1, 127]),
            (128, &[2, 2, 0, 128]),
            (484, &[2, 2, 1, 0xe4]),
            (0x7fff_ffff, &[2, 4, 0x7f, 0xff, 0xff, 0xff]),
        ] {
            assert_eq!(integer(value), expected, "{value}");
        }
    }

    /// The bytes of `snmpget -v3 -l noAuthNoPriv`'s discovery, with another message size.
    #[test]
    fn the_first_request_discovers_the_engine() {
        let expected =
            b"\x30\x3d\x02\x01\x03\x30\x10\x02\x04\x12\x34\x56\x78\x02\x02\x01\xe4\x04\x01\x04\x02\x01\x03\
            \x04\x10\x30\x0e\x04\x00\x02\x01\x00\x02\x01\x00\x04\x00\x04\x00\x04\x00\
            \x30\x14\x04\x00\x04\x00\xa0\x0e\x02\x04\x12\x34\x56\x78\x02\x01\x00\x02\x01\x00\x30\x00";
        assert_eq!(request(0, [0x9234_5678, 0]), expected);
    }

    #[test]
    fn the_second_request_gets_the_description() {
        let expected =
            b"\x30\x29\x02\x01\x00\x04\x06public\xa0\x1c\x02\x04\x12\x34\x56\x78\x02\x01\x00\x02\x01\x00\
            \x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\x00\x05\x00";
        assert_eq!(request(1, [0x1234_5678, 0]), expected);
    }
}
