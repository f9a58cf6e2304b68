//! Packets that tell filters apart, as frames of each link type.
use netkat::sniffer::LinkType;

/// A network-layer packet, and its carrier.
#[derive(Clone)]
pub struct Packet {
    pub ethertype: u16,
    pub bytes: Vec<u8>,
}

/// A frame, and its length on the wire if it was cut.
#[derive(Clone)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub length: usize,
}

/// The link types, with their numbers in capture files.
pub const LINK_TYPES: [(LinkType, u32); 6] = [
    (LinkType::Ethernet, 1),
    (LinkType::RawIp, 101),
    (LinkType::LinuxCooked1, 113),
    (LinkType::LinuxCooked2, 276),
    (LinkType::Null, 0),
    (LinkType::Loop, 108),
];

const A4: [u8; 4] = [10, 0, 0, 1];
const B4: [u8; 4] = [192, 0, 2, 7];
const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0x5e, 0xff, 0xfe, 0x10, 0, 2];

fn ip4(protocol: u8, fragment: u16, options: &[u8], ends: ([u8; 4], [u8; 4]), payload: &[u8]) -> Packet {
    let header = 20 + options.len();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0x10];
    bytes.extend(((header + payload.len()) as u16).to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(ends.0);
    bytes.extend(ends.1);
    bytes.extend(options);
    bytes.extend(payload);
    Packet { ethertype: 0x0800, bytes }
}

fn ip6(next: u8, ends: ([u8; 16], [u8; 16]), payload: &[u8]) -> Packet {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(ends.0);
    bytes.extend(ends.1);
    bytes.extend(payload);
    Packet { ethertype: 0x86dd, bytes }
}

fn tcp(source: u16, destination: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 9, 0, 0, 0, 8, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut bytes = [source, destination, length, 0].map(u16::to_be_bytes).concat();
    bytes.extend(payload);
    bytes
}

fn arp(ethertype: u16, sender: [u8; 4], target: [u8; 4]) -> Packet {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1];
    bytes.extend(sender);
    bytes.extend([0; 6]);
    bytes.extend(target);
    Packet { ethertype, bytes }
}

/// Packets of every protocol that primitives name.
pub fn packets() -> Vec<Packet> {
    let (out4, in4, out6, in6) = ((A4, B4), (B4, A4), (A6, B6), (B6, A6));
    let mut all = Vec::new();
    for (source, destination) in [(40_000, 80), (80, 40_000), (443, 443), (53, 5353), (22, 8080)] {
        for flags in [0x02, 0x12, 0x10, 0x18, 0x04, 0x11, 0xc2] {
            all.push(ip4(6, 0x4000, &[], out4, &tcp(source, destination, flags, b"GET / HTTP")));
        }
        all.push(ip4(6, 0, &[1; 8], in4, &tcp(source, destination, 0x10, b"POST")));
        all.push(ip6(6, out6, &tcp(source, destination, 0x02, b"x")));
        all.push(ip6(6, in6, &tcp(source, destination, 0x12, b"")));
        all.push(ip4(17, 0, &[], out4, &udp(source, destination, b"question")));
        all.push(ip6(17, in6, &udp(source, destination, b"answer")));
        all.push(ip4(132, 0, &[], in4, &tcp(source, destination, 0, b"sctp")));
        all.push(ip6(132, in6, &tcp(source, destination, 0, b"sctp")));
        // A first fragment, a later one, and both of IPv6.
        all.push(ip4(17, 0x2000, &[], out4, &udp(source, destination, &[7; 16])));
        all.push(ip4(17, 0x0002, &[], out4, &udp(source, destination, &[7; 16])));
        all.push(ip6(44, out6, &[&[17, 0, 0, 1, 0, 0, 0, 9][..], &udp(source, destination, b"f")].concat()));
        all.push(ip6(
            44,
            out6,
            &[&[6, 0, 0, 8, 0, 0, 0, 9][..], &tcp(source, destination, 2, b"f")].concat(),
        ));
        // Hop-by-hop options before UDP.
        all.push(ip6(0, out6, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(source, destination, b"h")].concat()));
    }
    for kind in [0, 3, 5, 8, 11, 13] {
        all.push(ip4(1, 0, &[], in4, &[kind, 1, 0, 0, 0, 0, 0, 1, 0x45, 0]));
    }
    for kind in [1, 2, 128, 129, 133, 134, 135, 136] {
        all.push(ip6(58, in6, &[kind, 0, 0, 0, 0, 0, 0, 1]));
    }
    for protocol in [2, 4, 9, 41, 47, 50, 51, 89, 103, 112] {
        all.push(ip4(protocol, 0, &[], out4, &[protocol, 2, 3, 4, 5, 6, 7, 8]));
        all.push(ip6(protocol, out6, &[protocol, 2, 3, 4, 5, 6, 7, 8]));
    }
    let group6 = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
    all.push(ip4(17, 0, &[], (A4, [224, 0, 0, 251]), &udp(5353, 5353, b"mdns")));
    all.push(ip6(17, (B6, group6), &udp(5353, 5353, b"mdns")));
    all.push(ip4(17, 0, &[], ([0; 4], [255; 4]), &udp(68, 67, b"dhcp")));
    all.push(ip4(17, 0, &[], (A4, [10, 0, 0, 255]), &udp(137, 137, b"netbios")));
    all.push(ip4(17, 0, &[], (A4, [172, 16, 3, 4]), &udp(9, 9, &[0; 900])));
    for ethertype in [0x0806, 0x8035] {
        all.push(arp(ethertype, A4, [10, 0, 0, 2]));
        all.push(arp(ethertype, B4, A4));
    }
    for ethertype in [0x88cc, 0x8863, 0x9000, 0x6003, 0x6004, 0x6007, 0x6001, 0x6002, 0x809b, 0x80f3, 0x8137]
    {
        all.push(Packet { ethertype, bytes: vec![1; 40] });
    }
    all
}

/// Packets behind VLAN tags, MPLS labels, PPPoE and IEEE 802.2, on Ethernet alone.
fn encapsulated(inner: &[Packet]) -> Vec<Packet> {
    let mut all = Vec::new();
    let tag = |ethertype, id: u16, packet: &Packet| Packet {
        ethertype,
        bytes: [&id.to_be_bytes()[..], &packet.ethertype.to_be_bytes(), &packet.bytes].concat(),
    };
    let label = |number: u32, bottom: bool, packet: &[u8]| {
        [&(number << 12 | u32::from(bottom) << 8 | 64).to_be_bytes()[..], packet].concat()
    };
    for packet in inner {
        all.push(tag(0x8100, 7, packet));
        all.push(tag(0x88a8, 0x600a, packet));
        all.push(tag(0x8100, 100, &tag(0x8100, 7, packet)));
        all.push(tag(0x9100, 5, &tag(0x8100, 6, &tag(0x8100, 7, packet))));
        if packet.ethertype == 0x0800 || packet.ethertype == 0x86dd {
            all.push(Packet { ethertype: 0x8847, bytes: label(1000, true, &packet.bytes) });
            let two = label(16, false, &label(1000, true, &packet.bytes));
            all.push(Packet { ethertype: 0x8847, bytes: two });
            let ppp: u16 = if packet.ethertype == 0x0800 { 0x21 } else { 0x57 };
            let session = [&[0x11, 0, 0, 0x2a, 0, 40][..], &ppp.to_be_bytes(), &packet.bytes].concat();
            all.push(Packet { ethertype: 0x8864, bytes: session });
        }
    }
    // Lengths up to 1500 stand for IEEE 802.2.
    for llc in [
        &[0x42, 0x42, 3, 0, 0, 0, 0, 0][..],
        &[0xfe, 0xfe, 3, 0x83, 27, 1, 0, 15, 1, 0],
        &[0xfe, 0xfe, 3, 0x82, 1],
        &[0xfe, 0xfe, 3, 0x81, 1],
        &[0xe0, 0xe0, 3, 0xff, 0xff],
        &[0xff, 0xff, 0, 0x22],
        &[0xf0, 0xf0, 3, 0x2c],
        &[0x06, 0x06, 3, 0x45],
        &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37, 1],
        &[0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b, 1],
        &[0xaa, 0xaa, 3, 0, 0, 0, 0x80, 0xf3, 1],
        &[0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0, 0x45],
    ] {
        all.push(Packet { ethertype: llc.len() as u16, bytes: [llc, &[0; 30]].concat() });
    }
    all
}

/// Returns the frames of a link type: whole ones, some cut by the capture, some that end early, and some
/// with damaged bytes.
pub fn frames(link_type: LinkType) -> Vec<Frame> {
    let mut packets = packets();
    if link_type == LinkType::Ethernet {
        packets.extend(encapsulated(&packets.iter().step_by(3).cloned().collect::<Vec<_>>()));
    }
    let mut random = Random(1);
    let mut all = Vec::new();
    for packet in &packets {
        let Some(bytes) = framed(link_type, packet, &mut random) else { continue };
        all.push(Frame { length: bytes.len(), bytes: bytes.clone() });
        let cut = random.below(bytes.len());
        all.push(Frame { length: bytes.len(), bytes: bytes[..cut].to_vec() });
        all.push(Frame { length: cut.max(1), bytes: bytes[..cut.max(1)].to_vec() });
        let mut damaged = bytes;
        for _ in 0..3 {
            let at = random.below(damaged.len().min(60));
            damaged[at] = random.below(256) as u8;
        }
        all.push(Frame { length: damaged.len(), bytes: damaged });
    }
    all
}

/// Puts the link header in front; `None` if the link type cannot carry the packet.
fn framed(link_type: LinkType, packet: &Packet, random: &mut Random) -> Option<Vec<u8>> {
    const MACS: [[u8; 6]; 4] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0xff; 6], [1, 0, 0x5e, 0, 0, 0xfb]];
    let kind = packet.ethertype.to_be_bytes();
    let source = MACS[random.below(2)];
    let direction = [0, 1, 2, 4][random.below(4)];
    let family = match packet.ethertype {
        0x0800 => 2u32,
        0x86dd => [24, 28, 30][random.below(3)],
        _ => 99,
    };
    let header = match link_type {
        LinkType::Ethernet => [&MACS[random.below(4)][..], &source, &kind].concat(),
        LinkType::RawIp if family != 99 => Vec::new(),
        LinkType::LinuxCooked1 => [&[0, direction, 0, 1, 0, 6][..], &source, &[0, 0], &kind].concat(),
        LinkType::LinuxCooked2 => {
            [&kind[..], &[0, 0, 0, 0, 0, 2, 0, 1, direction, 6], &source, &[0, 0]].concat()
        }
        LinkType::Null => family.to_le_bytes().to_vec(),
        LinkType::Loop => family.to_be_bytes().to_vec(),
        _ => return None,
    };
    Some([header, packet.bytes.clone()].concat())
}

/// Numbers from a seed (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}
