//! Tests files that other programs write: blocks, versions and variants that netkat itself never writes.
use std::{io::Cursor, process::Command, time::Duration};

use netkat::sniffer::{
    FrameDirection,
    capture_file::{CaptureError, CaptureReader, CaptureRecord, SkippedBlocks, addresses_in},
};

use super::files::Temporary;

/// The byte order of a file.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Little,
    Big,
}
use Order::{Big, Little};

impl Order {
    fn half(self, number: u16) -> [u8; 2] {
        if self == Little { number.to_le_bytes() } else { number.to_be_bytes() }
    }

    fn word(self, number: u32) -> [u8; 4] {
        if self == Little { number.to_le_bytes() } else { number.to_be_bytes() }
    }

    /// Returns a pcapng block.
    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = self.word(body.len() as u32 + 12);
        [&self.word(kind)[..], &length, &body, &length].concat()
    }

    fn section(self, major: u16) -> Vec<u8> {
        let body = [&self.word(0x1a2b_3c4d)[..], &self.half(major), &self.half(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    /// Returns an Ethernet interface with this snap length and these options.
    fn interface(self, snap_length: u32, options: &[u8]) -> Vec<u8> {
        let body = [&self.half(1)[..], &self.half(0), &self.word(snap_length), options].concat();
        self.block(1, &body)
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = [&self.half(code)[..], &self.half(value.len() as u16), value].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    /// Returns an obsolete packet block with the flags of an outgoing packet.
    fn packet(self, interface: u16, time: u64, data: &[u8], length: u32) -> Vec<u8> {
        let mut body = [self.half(interface), self.half(0)].concat();
        for word in [(time >> 32) as u32, time as u32, data.len() as u32, length] {
            body.extend(self.word(word));
        }
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(self.option(2, &self.word(2)));
        body.extend(self.option(0, &[]));
        self.block(2, &body)
    }

    fn simple_packet(self, data: &[u8], length: u32) -> Vec<u8> {
        self.block(3, &[&self.word(length)[..], data].concat())
    }

    /// Returns a name resolution block with one name for both families, and two for a third address.
    fn names(self) -> Vec<u8> {
        let record = |kind: u16, address: &[u8], names: &[u8]| {
            let value = [address, names].concat();
            let mut record = [&self.half(kind)[..], &self.half(value.len() as u16), &value].concat();
            record.resize(record.len().next_multiple_of(4), 0);
            record
        };
        let six = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let body = [
            record(1, &[192, 0, 2, 1], b"gate.example\0"),
            record(2, &six, b"gate.example\0"),
            record(1, &[192, 0, 2, 2], b"other.example\0alias.example\0"),
            record(0, &[], &[]),
        ];
        self.block(4, &body.concat())
    }

    /// Returns a pcap file's header.
    fn pcap(self, magic: u32, major: u16, link_type: u32) -> Vec<u8> {
        let mut header = self.word(magic).to_vec();
        header.extend(self.half(major));
        header.extend(self.half(4));
        header.extend([0, 0, 262_144, link_type].map(|number| self.word(number)).concat());
        header
    }
}

type Packet = (u32, Duration, FrameDirection, usize, Vec<u8>);

/// Reads a file to its end: its packets (interface, time, direction, length, bytes), and the blocks skipped.
fn read(file: &[u8]) -> Result<(Vec<Packet>, Option<SkippedBlocks>), CaptureError> {
    let mut reader = CaptureReader::new(Cursor::new(file.to_vec()), "test")?;
    let mut packets = Vec::new();
    while let Some(record) = reader.read()? {
        if let CaptureRecord::Frame(frame) = record {
            packets.push((
                frame.interface,
                frame.time,
                frame.direction,
                frame.length,
                frame.data[0].to_vec(),
            ));
        }
    }
    Ok((packets, reader.skipped()))
}

fn refusal(file: &[u8]) -> String {
    read(file).expect_err("a file that cannot be read").to_string()
}

const MICROS: u64 = 1_689_472_711_206_864;

#[test]
fn obsolete_packet_blocks_are_read() {
    for order in [Little, Big] {
        // Two interfaces: in microseconds, and in nanoseconds with an hour to add (if_tsresol, if_tsoffset).
        let options = [
            order.option(9, &[9]),
            order.option(
                14,
                &match order {
                    Little => 3600i64.to_le_bytes(),
                    Big => 3600i64.to_be_bytes(),
                },
            ),
            order.option(0, &[]),
        ]
        .concat();
        let file = [
            order.section(1),
            order.interface(0, &[]),
            order.interface(0, &options),
            order.packet(0, MICROS, b"packet!", 7),
            order.packet(1, MICROS * 1000 + 123, b"cut", 99),
        ];
        let (packets, skipped) = read(&file.concat()).unwrap();
        let (time, out) = (Duration::from_micros(MICROS), FrameDirection::Outbound);
        let later = time + Duration::new(3600, 123);
        assert_eq!(packets, [(0, time, out, 7, b"packet!".to_vec()), (1, later, out, 99, b"cut".to_vec())]);
        assert_eq!(skipped, None);
        // A block that states more bytes than it has.
        let mut forged = order.packet(0, MICROS, b"packet!", 7);
        forged[20..24].copy_from_slice(&order.word(1000));
        let file = [order.section(1), order.interface(0, &[]), forged].concat();
        assert!(refusal(&file).contains("damaged"), "{}", refusal(&file));
    }
}

#[test]
fn simple_packets_are_cut_at_the_first_interfaces_snap_length() {
    for order in [Little, Big] {
        let file = [
            order.section(1),
            order.interface(5, &[]),
            order.simple_packet(b"12345", 9),
            order.simple_packet(b"123", 3),
        ];
        let (packets, _) = read(&file.concat()).unwrap();
        let found: Vec<_> = packets.iter().map(|packet| (packet.3, packet.4.as_slice())).collect();
        assert_eq!(found, [(9, &b"12345"[..]), (3, b"123")]);
    }
}

#[test]
fn sections_have_their_own_interfaces_and_byte_order() {
    let mut file = Vec::new();
    for order in [Little, Big, Little] {
        file.extend([order.section(1), order.interface(0, &[]), order.packet(0, MICROS, b"x", 1)].concat());
    }
    let (packets, _) = read(&file).unwrap();
    let interfaces: Vec<_> = packets.iter().map(|packet| packet.0).collect();
    assert_eq!(interfaces, [0, 1, 2]);
}

#[test]
fn unknown_blocks_are_counted() {
    for order in [Little, Big] {
        let file = [
            order.section(1),
            order.interface(0, &[]),
            order.block(0x1234, b"what is it?"),
            order.packet(0, MICROS, b"x", 1),
            // A custom block, and Wireshark's secrets and names, which hold no packets.
            order.block(0xbad, &[&order.word(32473)[..], b"data"].concat()),
            order.block(10, &[order.word(0x544c_534b), order.word(4), *b"keys"].concat()),
            order.names(),
        ];
        let (packets, skipped) = read(&file.concat()).unwrap();
        assert_eq!((packets.len(), skipped), (1, Some(SkippedBlocks { count: 2, first: 0x1234 })));
        assert_eq!(
            skipped.unwrap().to_string(),
            "2 blocks of unknown types were skipped, the first of type 0x00001234"
        );
    }
}

/// A block whose content ends within itself differs from an incomplete one.
#[test]
fn a_block_that_contradicts_itself_is_damage() {
    let file = [Little.section(1), Little.interface(0, &[]), Little.block(4, &[1, 0, 200, 0, 1, 2, 3, 4])];
    let said = refusal(&[file.concat(), Little.packet(0, MICROS, b"x", 1)].concat());
    assert!(said.contains("contradicts its own length"), "{said}");
}

#[test]
fn unknown_versions_are_refused() {
    for order in [Little, Big] {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            let said = refusal(&order.pcap(magic, 3, 1));
            assert!(said.contains("pcap 3.4"), "{said}");
            assert!(read(&order.pcap(magic, 2, 1)).is_ok());
        }
        assert!(refusal(&order.section(2)).contains("pcapng 2.0"), "{}", refusal(&order.section(2)));
        // A later section, too.
        let said = refusal(&[order.section(1), order.section(7)].concat());
        assert!(said.contains("pcapng 7.0"), "{said}");
    }
}

/// Alexey Kuznetzov's records have eight more bytes: interface, protocol, packet type.
#[test]
fn kuznetzovs_variant_is_read() {
    let mut file = Little.pcap(0xa1b2_cd34, 2, 1);
    for data in [&b"one"[..], b"two"] {
        file.extend([1, 2, data.len() as u32, 60].map(|number| Little.word(number)).concat());
        file.extend([3, 0, 0, 0, 0x08, 0x00, 0, 0]);
        file.extend(data);
    }
    let (packets, _) = read(&file).unwrap();
    let found: Vec<_> = packets.iter().map(|packet| (packet.3, packet.4.as_slice())).collect();
    assert_eq!(found, [(60, &b"one"[..]), (60, b"two")]);
    let said = refusal(&Big.pcap(0xa1b2_cd34, 2, 1));
    assert!(said.contains("Kuznetzov"), "{said}");
}

#[test]
fn other_formats_are_named() {
    for (start, expected) in [
        (&[0x1f, 0x8b, 8, 0][..], "compressed by gzip; unpack it: gzip -dc test | netkat --read -"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd -dc"),
        (&[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], "xz -dc"),
        (b"BZh91AY", "bzip2 -dc"),
        (b"snoop\0\0\0\0\0\0\x02", "snoop"),
        (&[0xa1, 0xb2, 0xcd], "not a capture file"),
        (b"", "not a capture file"),
        (b"hello, world", "not a capture file"),
    ] {
        let said = refusal(start);
        assert!(said.contains(expected), "{start:?}: {said}");
    }
}

#[test]
fn a_file_knows_names_of_its_own() {
    for order in [Little, Big] {
        let path = Temporary::new(&format!("names-{}.pcapng", order == Big));
        // The names follow the packets, as Wireshark may write them.
        let mut file = [order.section(1), order.interface(0, &[])].concat();
        for address in [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]] {
            let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 51, 100, 1, 0, 0, 0, 0, 0, 0];
            file.extend(order.packet(0, MICROS, &[&[2; 12][..], &[8, 6], &arp, &address].concat(), 42));
        }
        file.extend(order.names());
        std::fs::write(&path.0, file).unwrap();
        let found = addresses_in(&path.0, "GATE.example.");
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
        for (arguments, expected) in [
            (&["gate.example"][..], &["192.0.2.1"][..]),
            (&["-n", "alias.example"], &["192.0.2.2"]),
            (&["-6", "gate.example"], &[]),
        ] {
            let mut netkat = Command::new(env!("CARGO_BIN_EXE_netkat"));
            let output = netkat.arg("--read").arg(&path.0).args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let shown: Vec<_> = text
                .lines()
                .map(|line| line.split(" -> ").nth(1).unwrap().split(' ').next().unwrap())
                .collect();
            assert_eq!(shown, expected, "{arguments:?}");
        }
        let mut netkat = Command::new(env!("CARGO_BIN_EXE_netkat"));
        let output = netkat.arg("-n").arg("--read").arg(&path.0).arg("nobody.example").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}
