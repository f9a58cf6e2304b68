//! Vectors written from the specification: each form, each fault, whole and in pieces.
use super::*;

/// Takes one header from the front of a stream. Returns it and what follows.
fn take(stream: &[u8]) -> Result<(Header, &[u8]), HeaderError> {
    let mut reader = HeaderReader::new(Versions::Both);
    let (taken, header) = reader.take(stream)?;
    let header = header.unwrap_or_else(|| panic!("incomplete: {}", stream.escape_ascii()));
    assert_eq!((header.length, reader.taken()), (taken, taken));
    Ok((header, &stream[taken..]))
}

fn fault(stream: &[u8]) -> String {
    match take(stream) {
        Err(error) => error.to_string(),
        Ok((header, _)) => panic!("taken: {header}"),
    }
}

/// Returns a header of version 2.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a length").to_be_bytes();
    [&binary_form::SIGNATURE[..], &[command, family], &length, block].concat()
}

fn a_tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a length").to_be_bytes();
    [&[kind][..], &length, value].concat()
}

/// 192.0.2.7:4000 to 192.0.2.10:443, in network byte order.
const V4: &[u8] = &[192, 0, 2, 7, 192, 0, 2, 10, 0x0f, 0xa0, 0x01, 0xbb];

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn tcp(source: &str, destination: &str) -> Ends {
    Ends::Inet { transport: Transport::Stream, source: at(source), destination: at(destination) }
}

#[test]
fn lines_of_version_1() {
    for (line, ends) in [
        // The specification's own examples: section 2.1, and its longest lines.
        ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", tcp("192.168.0.1:56324", "192.168.0.11:443")),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            tcp("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        ("PROXY TCP6 2001:DB8::7 ::1 0 80\r\n", tcp("[2001:db8::7]:0", "[::1]:80")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            tcp(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c000:20a 1 2\r\n",
            tcp("[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.10]:2"),
        ),
        ("PROXY UNKNOWN\r\n", Ends::Unspecified),
        (
            "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Ends::Unspecified,
        ),
        ("PROXY UNKNOWN any \n\x00\r thing\r\n", Ends::Unspecified),
    ] {
        let stream = format!("{line}PROXY TCP4 payload\r\n");
        let (header, rest) = take(stream.as_bytes()).expect(line);
        assert_eq!((header.version, header.ends, header.length), (Version::One, ends, line.len()), "{line}");
        assert_eq!(rest, b"PROXY TCP4 payload\r\n");
    }
}

#[test]
fn faults_of_version_1() {
    let start = "malformed PROXY protocol header of version 1: ";
    for (line, words) in [
        (
            "PROXY TCP4 192.0.2.7 192.0.2.10 4000\r\n",
            "\"PROXY TCP4 192.0.2.7 192...\" is not PROXY, a protocol",
        ),
        ("PROXY TCP4 192.0.2.7  192.0.2.10 4000 80\r\n", "is not PROXY, a protocol"),
        ("PROXY TCP4 192.0.2.7 192.0.2.10 4000 80 \r\n", "is not PROXY, a protocol"),
        ("PROXY UDP4 192.0.2.7 192.0.2.10 4000 80\r\n", "protocol \"UDP4\" is not TCP4, TCP6 or UNKNOWN"),
        ("PROXY UNKNOWNS\r\n", "is not PROXY, a protocol"),
        ("PROXY TCP4 192.0.2.07 192.0.2.10 4000 80\r\n", "\"192.0.2.07\" is not an IPv4 address"),
        ("PROXY TCP4 ::1 192.0.2.10 4000 80\r\n", "\"::1\" is not an IPv4 address"),
        ("PROXY TCP6 fe80::1%eth0 ::1 4000 80\r\n", "\"fe80::1%eth0\" is not an IPv6 address"),
        ("PROXY TCP4 192.0.2.7 192.0.2 4000 80\r\n", "\"192.0.2\" is not an IPv4 address"),
        ("PROXY TCP4 192.0.2.7 192.0.2.10 04000 80\r\n", "\"04000\" is not a port"),
        ("PROXY TCP4 192.0.2.7 192.0.2.10 +4000 80\r\n", "\"+4000\" is not a port"),
        ("PROXY TCP4 192.0.2.7 192.0.2.10 4000 65536\r\n", "\"65536\" is not a port"),
        ("PROXY TCP4 192.0.2.7 192.0.2.10 4000 \r\n", "\"\" is not a port"),
        ("PROXY TCP4 \x1b[2J\u{e9} 192.0.2.10 4000 80\r\n", "\"\\x1b[2J\\xc3\\xa9\" is not an IPv4 address"),
        ("PROXY TCP4 192.0.2.7 192.0.2.10 4000 80\nGET", "the line ends with a line feed alone"),
        ("PROXY TCP4 192.0.2.7 192.0.2.10 4000 80\rGET\r\n", "\"80\\rGET\" is not a port"),
    ] {
        let fault = fault(line.as_bytes());
        assert!(fault.starts_with(start) && fault.contains(words), "{line}: {fault}");
    }
    // One byte more than the longest line, and its end.
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 15));
    assert_eq!(
        fault(long.as_bytes()),
        "the PROXY protocol header of version 1 is too long: more than 107 bytes"
    );
}

#[test]
fn headers_of_version_2() {
    let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1], &[0x0f, 0xa0, 0, 80]].concat();
    let mut unix = vec![0; 216];
    unix[..4].copy_from_slice(b"/a\xffb");
    unix[109..112].copy_from_slice(b"abc");
    let inet =
        |transport| Ends::Inet { transport, source: at("192.0.2.7:4000"), destination: at("192.0.2.10:443") };
    for (command, family, block, ends) in [
        (0x21, 0x11, V4, inet(Transport::Stream)),
        (0x21, 0x12, V4, inet(Transport::Datagram)),
        (0x21, 0x21, &v6, tcp("[2001:db8::7]:4000", "[::1]:80")),
        (
            0x21,
            0x31,
            &unix,
            Ends::Unix {
                transport: Transport::Stream,
                source: b"/a\xffb".to_vec(),
                destination: b"\0abc".to_vec(),
            },
        ),
        // What a receiver has to skip: LOCAL with any family and block, UNSPEC of either half.
        (0x20, 0x00, b"", Ends::Unspecified),
        (0x20, 0x11, V4, Ends::Unspecified),
        (0x20, 0xff, b"any", Ends::Unspecified),
        (0x21, 0x00, b"\x01\0", Ends::Unspecified),
        (0x21, 0x10, V4, Ends::Unspecified),
        (0x21, 0x01, V4, Ends::Unspecified),
    ] {
        let bytes = binary(command, family, block);
        let stream = [&bytes[..], b"\r\n\r\n\0 payload"].concat();
        let (header, rest) = take(&stream).expect("a header");
        assert_eq!((header.ends, header.version), (ends, Version::Two), "{command:x} {family:x}");
        assert_eq!((header.length, header.local), (bytes.len(), command == 0x20));
        assert_eq!((header.tlvs, rest), (Vec::new(), &b"\r\n\r\n\0 payload"[..]));
    }
}

#[test]
fn faults_of_version_2() {
    let start = "malformed PROXY protocol header of version 2: ";
    let behind = |tlvs: &[u8]| binary(0x21, 0x11, &[V4, tlvs].concat());
    for (stream, words) in [
        (binary(0x11, 0x11, V4), "the version field is 1, not 2"),
        (binary(0x22, 0x11, V4), "command 2 is not LOCAL (0) or PROXY (1)"),
        (binary(0x21, 0x41, V4), "address family 4 is not UNSPEC, INET, INET6 or UNIX (0 to 3)"),
        (binary(0x21, 0x13, V4), "transport 3 is not UNSPEC, STREAM or DGRAM (0 to 2)"),
        (binary(0x21, 0x11, &V4[1..]), "11 bytes of addresses, where 12 belong"),
        (binary(0x21, 0x21, V4), "12 bytes of addresses, where 36 belong"),
        (binary(0x21, 0x31, &[0; 215]), "215 bytes of addresses, where 216 belong"),
        (behind(&[1, 0]), "2 bytes left behind the last TLV"),
        (behind(&[1, 0, 3, b'h', b'2']), "the TLV of type 0x01 has 3 bytes, 2 are left"),
        (behind(&a_tlv(0x03, &[0; 3])), "the CRC32C has 3 bytes, not 4"),
        (behind(&a_tlv(0x05, &[b'x'; 129])), "the UNIQUE_ID has 129 bytes, more than 128"),
        (behind(&a_tlv(0x20, &[1, 0, 0, 0])), "the TLV SSL has 4 bytes, fewer than 5"),
        (behind(&a_tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0])), "in the TLV SSL, 2 bytes left behind the last TLV"),
    ] {
        let fault = fault(&stream);
        assert_eq!(fault, format!("{start}{words}"));
    }
    let long = binary(0x21, 0x11, &[0; (16 << 10) - 15]);
    assert_eq!(fault(&long), "the PROXY protocol header of version 2 is too long: more than 16384 bytes");
    assert!(take(&binary(0x21, 0, &[0; (16 << 10) - 16])).is_ok());
}

/// Sets the checksum, whose value is at `place`.
fn sum(mut bytes: Vec<u8>, place: usize) -> Vec<u8> {
    bytes[place..place + 4].fill(0);
    let sum = crc32c::checksum(&[&bytes]).to_be_bytes();
    bytes[place..place + 4].copy_from_slice(&sum);
    bytes
}

#[test]
fn tlvs_have_names_and_the_checksum_is_verified() {
    let version = a_tlv(0x21, b"TLSv1.3");
    let name = a_tlv(0x22, "Zo\u{eb}".as_bytes());
    let ssl = [&[7, 0, 0, 0, 0][..], &version, &name, &a_tlv(0x2f, &[1])].concat();
    let before = [&a_tlv(0x01, b"h2")[..], &a_tlv(0x02, b"example.org"), &a_tlv(0x04, &[0; 9])].concat();
    let after = [
        a_tlv(0x05, &[0xfe, 0xff]),
        a_tlv(0x20, &ssl),
        a_tlv(0x30, b"blue\x1b"),
        a_tlv(0x21, b"TLSv1.3"),
        a_tlv(0xea, &[1, b'v']),
    ]
    .concat();
    let block = [V4, &before, &a_tlv(0x03, &[9; 4]), &after].concat();
    let place = 16 + V4.len() + before.len() + 3;
    let right = sum(binary(0x21, 0x11, &block), place);
    let (header, _) = take(&right).expect("a header");
    assert_eq!(
        header.to_string(),
        "version 2, TCP from 192.0.2.7:4000 to 192.0.2.10:443, ALPN \"h2\", AUTHORITY \"example.org\", CRC32C verified, \
         UNIQUE_ID feff, SSL (client certificate verified, SSL_VERSION \"TLSv1.3\", SSL_CN \"Zo\u{eb}\", type 0x2f 01), \
         NETNS 626c75651b, type 0x21 544c5376312e33, type 0xea 0176"
    );
    for at in 0..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 0x10;
        // A longer one is incomplete.
        let header = HeaderReader::new(Versions::Both).take(&wrong).ok().and_then(|(_, header)| header);
        let verified = header.is_some_and(|header| header.tlvs.iter().any(|tlv| tlv.kind == tlv::CRC32C));
        assert!(!verified, "a flipped bit of byte {at} is accepted");
    }
    let mut wrong = right.clone();
    wrong[16] ^= 1;
    assert!(fault(&wrong).starts_with("malformed PROXY protocol header of version 2: the CRC32C is "));
    let twice = [V4, &a_tlv(0x03, &[0; 4]), &a_tlv(0x03, &[0; 4])].concat();
    assert!(fault(&binary(0x21, 0x11, &twice)).ends_with("there are two CRC32C"));
    // HAProxy's health checks: LOCAL, no family, and a checksum.
    let local = sum(binary(0x20, 0, &a_tlv(0x03, &[0; 4])), 19);
    assert_eq!(take(&local).expect("a header").0.to_string(), "version 2, LOCAL, CRC32C verified");
    let mut wrong = local;
    wrong[19] ^= 1;
    assert!(take(&wrong).is_err());
}

#[test]
fn other_data_is_told_at_once() {
    for (data, words) in [
        (&b"GET / HTTP/1.1\r\nHost: example.org\r\n"[..], "GET / HTTP/1.1\\r\\nHost: ex..."),
        (b"\x16\x03\x01\x02\0", "\\x16\\x03\\x01\\x02\\x00"),
        (b"PROPFIND", "PROPFIND"),
        (b"proxy", "proxy"),
        (b"\r\n\r\n\0\r\nQUIT\r", "\\r\\n\\r\\n\\x00\\r\\nQUIT\\r"),
    ] {
        assert_eq!(fault(data), format!("no PROXY protocol header: the data begins with \"{words}\""));
    }
}

#[test]
fn a_version_that_is_not_accepted_is_refused_before_it_is_complete() {
    for (accepted, stream) in [(Version::One, &binary_form::SIGNATURE[..]), (Version::Two, b"PROXY")] {
        let error = HeaderReader::new(Versions::Only(accepted)).take(stream).expect_err("refused");
        assert!(
            error.to_string().ends_with(&format!("where only version {accepted} is accepted")),
            "{error}"
        );
        let other = if accepted == Version::One { Version::Two } else { Version::One };
        assert!(matches!(HeaderReader::new(Versions::Only(other)).take(stream), Ok((_, None))));
    }
}

/// Each byte by itself: the same header, and nothing of the payload is taken.
#[test]
fn headers_come_in_pieces() {
    for bytes in [
        b"PROXY TCP6 2001:db8::7 ::1 4000 80\r\n".to_vec(),
        binary(0x21, 0x11, &[V4, &a_tlv(1, b"h2")].concat()),
    ] {
        let mut reader = HeaderReader::new(Versions::Both);
        let (last, before) = bytes.split_last().expect("bytes");
        for byte in before {
            assert_eq!(reader.take(&[*byte]), Ok((1, None)));
        }
        let (taken, header) = reader.take(&[*last, b'\r', b'\n']).expect("a header");
        assert_eq!((taken, header.as_ref()), (1, Some(&take(&bytes).expect("a header").0)));
    }
}

#[test]
fn written_headers_are_those_of_the_specification() {
    let write = |version, source, destination| Header::write(version, at(source), at(destination)).1;
    assert_eq!(
        write(Version::One, "192.168.0.1:56324", "192.168.0.11:443"),
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    );
    assert_eq!(write(Version::Two, "192.0.2.7:4000", "192.0.2.10:443"), binary(0x21, 0x11, V4));
    // A forged source of the other family. Dots are no part of the line's IPv6 addresses.
    assert_eq!(
        write(Version::One, "[2001:db8::7]:4000", "192.0.2.10:443"),
        b"PROXY TCP6 2001:db8::7 ::ffff:c000:20a 4000 443\r\n"
    );
    for version in [Version::One, Version::Two] {
        for (source, destination) in [
            ("192.0.2.7:4000", "192.0.2.10:443"),
            ("[2001:db8::7]:65535", "[::1]:1"),
            ("192.0.2.7:1", "[2001:db8::1]:2"),
            ("[fe80::7%3]:1", "[fe80::1%3]:2"),
        ] {
            let (header, bytes) = Header::write(version, at(source), at(destination));
            assert_eq!(take(&bytes), Ok((header, &b""[..])), "{source} {destination}");
        }
    }
}
