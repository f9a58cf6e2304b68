//! The loopback program: the kernel answers an injected SYN on lo with it and not without.

use crate::{
    filters::listener,
    namespace::{alone, index, inject, ip, run},
    neighbours::backends,
};
use netkat::{
    kernel::{Backend, Filter, FlowFilter, Guard, Loopback, PortLease, Programs},
    net::Protocol,
};
use pnet_packet::{
    Packet,
    ip::IpNextHeaderProtocols,
    ipv4::{self, MutableIpv4Packet},
    tcp::{self, MutableTcpPacket, TcpFlags},
};
use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
    time::Duration,
};

/// A SYN with lo's all-zero link header.
fn syn(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    let mut segment = MutableTcpPacket::new(&mut bytes).unwrap();
    segment.set_source(source.1);
    segment.set_destination(destination.1);
    segment.set_sequence(1);
    segment.set_data_offset(5);
    segment.set_flags(TcpFlags::SYN);
    segment.set_window(64240);
    segment.set_checksum(tcp::ipv4_checksum(&segment.to_immutable(), &source.0, &destination.0));
    let segment = segment.packet().to_vec();

    let mut bytes = vec![0; 40];
    let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(40);
    packet.set_ttl(64);
    packet.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
    packet.set_source(source.0);
    packet.set_destination(destination.0);
    packet.set_payload(&segment);
    packet.set_checksum(ipv4::checksum(&packet.to_immutable()));

    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(bytes);
    frame
}

fn answered(address: &str, backend: Option<Backend>) -> bool {
    let local: Ipv4Addr = address.parse().unwrap();
    let server = TcpListener::bind((address, 0)).unwrap();
    let served = server.local_addr().unwrap();
    let lease = PortLease::take(Protocol::Tcp, &[ip(address)], 0, 0).unwrap();
    let programs = Programs::load(&Filter::Flow(FlowFilter {
        remote_address: Some(ip(address)),
        remote_port: Some(served.port()),
        ..listener(Protocol::Tcp, vec![ip(address)], lease.port())
    }))
    .unwrap();
    let _guard = Guard::attach(&programs, index("lo"), Backend::Auto).unwrap();
    let _loopback = backend.map(|backend| Loopback::attach(&programs, index("lo"), backend).unwrap());
    inject("lo", &syn((local, lease.port()), (local, served.port())));
    thread::sleep(Duration::from_millis(50));
    drop(server);
    let counters = programs.counters();
    assert_eq!(counters.redirected, u64::from(backend.is_some()), "each frame goes round once");
    // The guard drops the SYN-ACK, which is for us.
    counters.dropped > 0
}

#[test]
fn kernel_answers_on_lo_only_with_the_program() {
    alone(|| {
        run("ip address add 10.77.0.1/32 dev lo");
        assert!(!answered("127.0.0.1", None), "the kernel takes it for a martian");
        for &backend in backends() {
            for address in ["127.0.0.1", "127.3.2.1", "10.77.0.1"] {
                assert!(answered(address, Some(backend)), "{address}, {backend:?}");
            }
        }
        assert!(!run("tc qdisc show dev lo").contains("clsact"));
    });
}
