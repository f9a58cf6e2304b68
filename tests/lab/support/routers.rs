//! Routers in a row: `host` - r1 - r2 - … - `peer`, each link a veth pair.
use super::{
    namespace::Namespace,
    topology::{Family, address, at, veth},
};
use std::net::IpAddr;

/// Routers in a row between a host and a peer. Link N joins node N and node N + 1, where node 0 is the host: its network
/// is 10.60.N.0/24 and fd60:N::/64, of which the near end has 1 and the far end 2. The near interface is called `east`, the
/// far one `west`.
pub struct Row {
    pub host: Namespace,
    pub routers: Vec<Namespace>,
    pub peer: Namespace,
}

impl Row {
    pub fn new(routers: u8) -> Row {
        let host = Namespace::new("host");
        let names: Vec<Namespace> =
            (1..=routers).map(|number| Namespace::new(&format!("r{number}"))).collect();
        let row = Row { host, routers: names, peer: Namespace::new("peer") };
        for router in &row.routers {
            router.sysctl("net.ipv4.ip_forward", "1");
            router.sysctl("net.ipv6.conf.all.forwarding", "1");
            router.sysctl("net.ipv4.conf.all.rp_filter", "0");
            router.sysctl("net.ipv4.conf.default.rp_filter", "0");
        }
        let nodes: Vec<&Namespace> =
            std::iter::once(&row.host).chain(&row.routers).chain([&row.peer]).collect();
        for node in &nodes {
            // Errors as they come; a case that wants a limit sets one.
            node.sysctl("net.ipv4.icmp_ratelimit", "0");
            node.sysctl("net.ipv6.icmp.ratelimit", "0");
        }
        for (number, pair) in nodes.windows(2).enumerate() {
            veth(pair[0], "east", pair[1], "west");
            for (node, interface, end) in [(pair[0], "east", 1), (pair[1], "west", 2)] {
                address(node, interface, &format!("10.60.{number}.{end}/24"));
                address(node, interface, &format!("fd60:{number}::{end}/64"));
            }
        }
        let last = nodes.len() - 2;
        for (number, node) in nodes.iter().enumerate() {
            for (v, near, far) in [("-4", "10.60.", ".0/24"), ("-6", "fd60:", "::/64")] {
                let gateway = |link: usize, end: u8| match v {
                    "-4" => format!("10.60.{link}.{end}"),
                    _ => format!("fd60:{link}::{end}"),
                };
                for link in 0..=last {
                    let via = match link {
                        _ if link > number => gateway(number, 2),
                        _ if link + 1 < number => gateway(number - 1, 1),
                        _ => continue,
                    };
                    node.ip(&format!("{v} route add {near}{link}{far} via {via}"));
                }
            }
        }
        row
    }

    /// Returns the address by which router `number` (from 1) answers the host.
    pub fn hop(&self, family: Family, number: u8) -> IpAddr {
        let link = number - 1;
        at(family, &format!("10.60.{link}.2"), &format!("fd60:{link}::2"))
    }

    pub fn host_address(&self, family: Family) -> IpAddr {
        at(family, "10.60.0.1", "fd60:0::1")
    }

    pub fn peer_address(&self, family: Family) -> IpAddr {
        self.hop(family, self.routers.len() as u8 + 1)
    }

    /// Returns router `number`, counted from 1.
    pub fn router(&self, number: usize) -> &Namespace {
        &self.routers[number - 1]
    }
}
