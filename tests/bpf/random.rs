//! Random frames and filters: the programs in the kernel agree with the model, frame by frame.
//!
//! Addresses, ports and protocols come from small pools, so that filters and frames meet often; truncation and
//! flipped bytes then lead to every corner of the matcher.

use crate::{
    frames::{
        ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Extension, Ip4, around, arp, ethernet, icmp, ip6,
    },
    model::{self, Table, Verdict},
    run::{capture, guard, is_root, is_runnable, load, loopback},
};
use netkat::{
    kernel::FlowFilter,
    net::{FiveTuple, MacAddr, Protocol},
    sniffer::{CapturedFrame, FrameDirection, LinkType, own_packets},
};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::FileFailurePersistence};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

const PORTS: [u16; 3] = [80, 8080, 40000];
const PROTOCOLS: [u8; 4] = [6, 17, 1, 58];
/// Link addresses: the device's, an assumed one, one that differs from it in its last byte, groups.
const LINK_ADDRESSES: [[u8; 6]; 5] =
    [[0; 6], [2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8], [0xff; 6], [0x33, 0x33, 0xff, 0, 0, 1]];

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    (select(vec![10, 10, 10, 127]), 1..4u8).prop_map(|(network, host)| Ipv4Addr::new(network, 0, 0, host))
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    // Addresses differ in one word each, so that a word left out of the comparison shows.
    (1..6u16).prop_map(|i| {
        let mut words = [0xfd00, 1, 1, 1, 1, 1, 1, 1];
        words[usize::from(i) + 2] = 2;
        words.into()
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4().prop_map(IpAddr::from), v6().prop_map(IpAddr::from)]
}

/// Generates groups; no host has such an address.
fn group() -> impl Strategy<Value = IpAddr> {
    select(["239.1.2.3", "239.1.2.4", "ff02::5", "ff02::6"].map(|text| text.parse().unwrap()).to_vec())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp])
}

fn flow_filter() -> impl Strategy<Value = FlowFilter> {
    (
        protocol(),
        vec(address(), 1..5),
        (vec(group(), 0..3), any::<bool>()),
        select(&PORTS),
        option::weighted(0.3, address()),
        option::of(select(&PORTS)),
        any::<(bool, bool, bool, bool)>(),
    )
        .prop_map(
            |(
                protocol,
                local_addresses,
                (groups, groups_only),
                local_port,
                remote_address,
                remote_port,
                flags,
            )| {
                let (loopback_network, neighbour_discovery, table, assumed) = flags;
                FlowFilter {
                    protocol,
                    local_addresses,
                    groups,
                    groups_only,
                    local_port,
                    remote_address,
                    remote_port,
                    loopback_network,
                    neighbour_discovery,
                    table: if table { 32 } else { 0 },
                    assumed_mac: assumed.then_some(MacAddr(LINK_ADDRESSES[1])),
                }
            },
        )
}

/// Generates flows that the frames' pools make likely.
fn table() -> impl Strategy<Value = Table> {
    let end4 = || (v4(), select(&PORTS)).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port));
    let end6 = || (v6(), select(&PORTS)).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port));
    let ends = prop_oneof![(end4(), end4()), (end6(), end6())];
    (vec((protocol(), ends), 0..32), any::<bool>()).prop_map(|(flows, unsure)| {
        let flows =
            flows.into_iter().map(|(protocol, (local, remote))| FiveTuple { protocol, local, remote });
        Table { flows: flows.collect(), unsure }
    })
}

fn ports() -> impl Strategy<Value = Vec<u8>> {
    let flags = option::weighted(0.8, select(vec![0x02, 0x12, 0x10, 0x18, 0x04, 0x03, 0x06, 0xc2, 0]));
    (select(&PORTS), select(&PORTS), flags).prop_map(|(a, b, flags)| {
        let mut header = crate::frames::transport(a, b);
        if let Some(flags) = flags {
            header.resize(20, 0);
            header[13] = flags;
        }
        header
    })
}

fn extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        (select(vec![0, 43, 60, 135, 253]), 0..3u8).prop_map(|(n, l)| Extension::Options(n, l)),
        (1..5u8).prop_map(Extension::Authentication),
        select(vec![0, 8, 1448, 32768]).prop_map(Extension::Fragment),
    ]
}

fn packet4(
    body: impl Strategy<Value = Vec<u8>>,
    protocol: impl Strategy<Value = u8>,
) -> impl Strategy<Value = Vec<u8>> {
    let offset = prop_oneof![4 => Just(0u16), 1 => select(vec![8u16, 1480, 32768, 65528])];
    let group =
        group().prop_filter_map("IPv4", |group| if let IpAddr::V4(v4) = group { Some(v4) } else { None });
    (v4(), prop_oneof![3 => v4(), 1 => group], protocol, 0..3usize, offset, any::<bool>(), body).prop_map(
        |(source, destination, protocol, options, offset, more, body)| {
            Ip4 { source, destination, protocol, options: options * 4, offset, more }.packet(&body)
        },
    )
}

fn packet6(
    body: impl Strategy<Value = Vec<u8>>,
    protocol: impl Strategy<Value = u8>,
) -> impl Strategy<Value = Vec<u8>> {
    let extensions =
        prop_oneof![3 => Just(vec![]), 2 => vec(extension(), 1..4), 1 => vec(extension(), 7..10)];
    let group =
        group().prop_filter_map("IPv6", |group| if let IpAddr::V6(v6) = group { Some(v6) } else { None });
    (v6(), prop_oneof![3 => v6(), 1 => group], extensions, protocol, body).prop_map(
        |(source, destination, extensions, protocol, body)| {
            ip6(source, destination, &extensions, protocol, &body)
        },
    )
}

fn whole_frame() -> impl Strategy<Value = Vec<u8>> {
    let error4 = (select(vec![0u8, 3, 5, 11, 12]), packet4(ports(), select(&PROTOCOLS[..2])));
    let error6 = (1..6u8, packet6(ports(), select(&PROTOCOLS[..2])));
    let neighbour = (select(vec![135u8, 136]), v6());
    prop_oneof![
        4 => packet4(ports(), select(&PROTOCOLS)).prop_map(|p| around(&p)),
        4 => packet6(ports(), select(&PROTOCOLS)).prop_map(|p| around(&p)),
        2 => packet4(error4.prop_map(|(kind, quoted)| icmp(kind, &quoted)), Just(1)).prop_map(|p| around(&p)),
        2 => packet6(error6.prop_map(|(kind, quoted)| icmp(kind, &quoted)), Just(58)).prop_map(|p| around(&p)),
        1 => packet6(neighbour.prop_map(|(kind, target)| icmp(kind, &target.octets())), Just(58))
            .prop_map(|p| around(&p)),
        1 => (v4(), v4()).prop_map(|(sender, target)| ethernet(ETHERTYPE_ARP, &arp(sender, target))),
        1 => (select(vec![ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP, 0x8100, 0x88cc]), vec(any::<u8>(), 0..120))
            .prop_map(|(kind, body)| ethernet(kind, &body)),
    ]
}

/// Generates a frame, sometimes tagged, often cut short or with a byte changed behind its Ethernet
/// addresses.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop_oneof![
        6 => Just((None, None)),
        2 => (any::<prop::sample::Index>().prop_map(Some), Just(None)),
        2 => (Just(None), (any::<prop::sample::Index>(), any::<u8>()).prop_map(Some)),
    ];
    let to = prop_oneof![2 => Just(LINK_ADDRESSES[0]), 3 => select(&LINK_ADDRESSES)];
    let tag = select(vec![[0x81, 0x00, 0, 5], [0x88, 0xa8, 0xa0, 6], [0x91, 0x00, 0, 0]]);
    let tags = prop_oneof![6 => Just(vec![]), 1 => vec(tag, 1..6)];
    (whole_frame(), to, damage, tags).prop_map(|(mut frame, to, (cut, flip), tags)| {
        frame[..6].copy_from_slice(&to);
        frame.splice(12..12, tags.concat());
        if let Some(cut) = cut {
            frame.truncate(14 + cut.index(frame.len() - 13));
        }
        if let Some((at, value)) = flip {
            let at = 12 + at.index(frame.len() - 12);
            frame[at] = value;
        }
        frame
    })
}

fn config() -> ProptestConfig {
    // Loading a filter is the slow part: few filters, many frames each.
    ProptestConfig {
        cases: 96,
        max_shrink_iters: 400,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn flow_programs_agree_with_the_model(
        filter in flow_filter(),
        table in table(),
        frames in vec(frame(), 1..600),
    ) {
        if !is_root() {
            return Ok(());
        }
        // The programs know the port and the protocol by their parameters: only such flows are entered.
        let mut table = table;
        table.flows.retain(|flow| flow.protocol == filter.protocol && flow.local.port() == filter.local_port);
        let mut programs = load(&filter);
        let classic = own_packets::program(&filter).unwrap();
        for flow in &table.flows {
            prop_assert!(programs.table().is_none_or(|programs| programs.insert(flow)));
        }
        if table.unsure {
            programs.capture_unknown(Duration::from_secs(3600));
        }
        for frame in frames.iter().filter(|f| is_runnable(f)) {
            let expected = model::arriving(&filter, &table, frame);
            let captured = CapturedFrame::new(Duration::ZERO, FrameDirection::Inbound, LinkType::Ethernet, frame);
            prop_assert!(
                expected == Verdict::Foreign || classic.passes(&captured),
                "the classic filter keeps {:02x?} from the matcher, which says {:?}: {:?}",
                frame, expected, filter
            );
            // The programs count packets that the kernel gets, too, as control.
            let both = [Verdict::Shared, Verdict::Unsure].contains(&expected);
            let seen = if both { Verdict::Control } else { expected };
            prop_assert_eq!(capture(&programs, frame), seen, "capture of {:02x?}", frame);
            prop_assert_eq!(guard(&programs, frame), expected == Verdict::Flow, "guard of {:02x?}", frame);
            if programs.loopback_fd().is_some() {
                let expected = model::redirected(&filter, frame);
                prop_assert_eq!(loopback(&programs, frame), expected, "loopback of {:02x?}", frame);
            }
        }
    }
}
