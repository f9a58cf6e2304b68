//! The sniffer's filter on live packets: the kernel passes the packets that tcpdump shows.
use crate::support::{
    frames::{HOST_MAC, PEER_MAC, udp},
    netkat::netkat,
    packet_socket::{Mode, PacketSocket},
    process::DEADLINE,
    requirements::lab,
    topology::Pair,
};
use std::net::IpAddr;

/// The Ethernet header of a frame behind a VLAN tag.
fn tagged(frame: &[u8], id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

/// Sends datagrams, whose first bytes are their numbers, to ports 1000 to 1003: the last one in VLAN 7.
fn send(pair: &Pair) {
    let mode = Mode { vnet_header: false, promiscuous: false, qdisc_bypass: false, buffer: 1 << 20 };
    let socket = pair.peer.inside(|| PacketSocket::open("eth0", mode)).expect("a packet socket");
    let to: IpAddr = "10.77.0.99".parse().expect("an address");
    for (number, host) in (0u16..).zip(["10.77.0.2", "10.77.0.2", "10.77.0.3", "10.77.0.2"]) {
        let from = host.parse().expect("an address");
        let frame = udp(PEER_MAC, HOST_MAC, from, to, 1000 + number, &number.to_be_bytes());
        let frame = if number == 3 { tagged(&frame, 7) } else { frame };
        socket.send(&frame).expect("a frame is sent");
    }
}

#[test]
fn the_kernel_filters_what_the_sniffer_sees() {
    lab!();
    // The last datagram ends each capture: it passes every filter.
    let cases: [(&str, &str, &[u16]); 9] = [
        ("-i eth0", "udp and dst host 10.77.0.99", &[0, 1, 2, 3]),
        ("-i any", "udp dst port 1001 or 1003", &[1, 3]),
        ("-i eth0", "src 10.77.0.3 or udp[2:2] = 1003", &[2, 3]),
        ("-i eth0", "udp dst portrange 1000-1001 or vlan 7", &[0, 1, 3]),
        ("-i any", "vlan and udp port 1003", &[3]),
        ("-i eth0", "not udp dst port 1000 and not port 1001 and net 10.77.0.0/24 and udp", &[2, 3]),
        ("-i any", "inbound and udp and ether src 02:00:77:00:00:02 or vlan", &[0, 1, 2, 3]),
        ("-i eth0", "10.77.0.99 1001,1003", &[1, 3]),
        ("-i eth0", "10.77.0.0/24 1001-1003 -u", &[1, 2, 3]),
    ];
    let pair = Pair::new();
    for (interface, filter, expected) in cases {
        let words = filter.split(' ').collect::<Vec<_>>();
        let arguments = format!("--sniff -v {interface} --json --count {}", expected.len());
        let mut sniffer = netkat(&pair.host, &arguments).args(&words).spawn();
        sniffer.wait_for_stderr("listening on");
        send(&pair);
        let output = sniffer.wait(DEADLINE);
        let ports: Vec<u64> = output
            .text()
            .lines()
            .map(|line| {
                let packet: serde_json::Value = serde_json::from_str(line).expect("an object");
                packet["udp"]["destination"].as_u64().expect("a port") - 1000
            })
            .collect();
        let expected: Vec<u64> = expected.iter().map(|number| u64::from(*number)).collect();
        assert_eq!(ports, expected, "{filter}: {output}");
    }
}

/// An invalid filter is refused at once, without a question to the resolver.
#[test]
fn words_of_the_language_are_no_names_of_hosts() {
    lab!();
    let pair = Pair::new();
    for filter in ["tcp port", "port nosuchservice", "tcp prot 80", "geneve", "ifname eth0", "80", "TCP and"]
    {
        let words = filter.split(' ').collect::<Vec<_>>();
        let output = netkat(&pair.host, "--sniff").args(&words).run();
        assert_eq!(output.code(), Some(2), "{filter}: {output}");
        assert!(output.stderr.starts_with("netkat: "), "{filter}: {output}");
        assert_eq!(output.stderr.lines().count(), 1, "{filter}: {output}");
    }
}
