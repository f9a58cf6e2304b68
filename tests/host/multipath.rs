//! Equal-cost paths: our choice must be that of the kernel's own sockets, port by port.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use netkat::{host::route::Query, net::Protocol};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::lab::{Lab, any, set};

const CLASSIC: [&str; 2] = [
    "route add 192.0.2.1 nexthop via 10.0.0.2 dev eth0 nexthop via 10.1.0.2 dev eth1",
    "-6 route add 2001:db8:99::1 nexthop via 2001:db8:0::2 dev eth0 nexthop via 2001:db8:1::2 dev eth1",
];

const NEXTHOP_OBJECTS: [&str; 8] = [
    "nexthop add id 1 via 10.0.0.2 dev eth0",
    "nexthop add id 2 via 10.1.0.2 dev eth1",
    "nexthop add id 3 group 1/2",
    "route add 192.0.2.1 nhid 3",
    "nexthop add id 11 via 2001:db8:0::2 dev eth0",
    "nexthop add id 12 via 2001:db8:1::2 dev eth1",
    "nexthop add id 13 group 11/12",
    "-6 route add 2001:db8:99::1 nhid 13",
];

const DESTINATIONS: [&str; 2] = ["192.0.2.1:7000", "[2001:db8:99::1]:7000"];

#[test]
fn multipath_takes_the_link_that_the_kernel_takes() {
    compare(&CLASSIC);
}

#[test]
fn nexthop_groups_take_the_link_that_the_kernel_takes() {
    compare(&NEXTHOP_OBJECTS);
}

fn compare(routes: &[&str]) {
    let Some(lab) = Lab::new() else { return };
    for command in routes {
        lab.us(command);
    }
    lab.peer("addr add 192.0.2.1/32 dev lo");
    lab.peer("-6 addr add 2001:db8:99::1/128 dev lo nodad");
    lab.inside_peer(|| {
        for name in ["all", "eth0", "eth1"] {
            set(&format!("ipv4.conf.{name}.rp_filter"), "0");
        }
    });
    // The kernel avoids a next hop during its resolution (ipv6_good_nh in net/ipv4/nexthop.c),
    // which would make the answer depend on the moment.
    for (name, next_hop) in
        [("eth0", "10.0.0.2"), ("eth1", "10.1.0.2"), ("eth0", "2001:db8:0::2"), ("eth1", "2001:db8:1::2")]
    {
        lab.resolve(name, next_hop, Duration::from_secs(3)).expect(next_hop);
    }
    let ports: Vec<u16> = (41000..41024).collect();
    // Policy 0 hashes the addresses only, 1 the ports, too.
    for policy in ["0", "1"] {
        lab.inside(|| {
            set("ipv4.fib_multipath_hash_policy", policy);
            set("ipv6.fib_multipath_hash_policy", policy);
        });
        for destination in DESTINATIONS {
            let destination: SocketAddr = destination.parse().expect("literal");
            let kernel = links_of_kernel(&lab, destination, &ports);
            assert_eq!(links_of_lookup(&lab, destination, &ports), kernel, "{destination}, policy {policy}");
            let both = kernel.contains(&Some("eth0")) && kernel.contains(&Some("eth1"));
            assert_eq!(both, policy == "1", "{destination}, policy {policy}: {kernel:?}");
        }
    }
}

fn links_of_lookup(lab: &Lab, destination: SocketAddr, ports: &[u16]) -> Vec<Option<&'static str>> {
    let indices = ["eth0", "eth1"].map(|name| (name, lab.index(name)));
    let link = |port: &u16| {
        let query = Query { source_port: Some(*port), ..Query::to(destination, Protocol::Udp) };
        let interface = lab.lookup(&query).expect("route").interface;
        indices.iter().find(|(_, index)| *index == interface).map(|(name, _)| *name)
    };
    ports.iter().map(link).collect()
}

/// Sends one datagram from each port through a kernel socket. Returns the link of each.
fn links_of_kernel(lab: &Lab, destination: SocketAddr, ports: &[u16]) -> Vec<Option<&'static str>> {
    let receivers = ["eth0", "eth1"].map(|name| (name, lab.inside_peer(|| receiver(name, destination))));
    lab.inside(|| {
        for port in ports {
            let sender = UdpSocket::bind((any(destination.ip()), *port)).expect("bind");
            sender.connect(destination).expect("connect");
            sender.send(b"?").expect("send");
        }
    });
    let mut links = vec![None; ports.len()];
    for (name, receiver) in &receivers {
        while let Ok((_, from)) = receiver.recv_from(&mut [0; 8]) {
            if let Some(position) = ports.iter().position(|port| *port == from.port()) {
                links[position] = Some(*name);
            }
        }
    }
    assert!(links.iter().all(Option::is_some), "datagrams were lost: {links:?}");
    links
}

/// Opens a socket on the destination's port that hears one link only.
fn receiver(link: &str, destination: SocketAddr) -> UdpSocket {
    let family = if destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    setsockopt(&descriptor, sockopt::BindToDevice, &link.into()).expect("bind to device");
    let local = SockaddrStorage::from(SocketAddr::new(any(destination.ip()), destination.port()));
    bind(descriptor.as_raw_fd(), &local).expect("bind");
    let receiver = UdpSocket::from(descriptor);
    receiver.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
    receiver
}
