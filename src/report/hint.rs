//! Hints at causes of silence that the user may not think of.
use crate::{
    host::{
        interface,
        route::{self, TableRoute},
    },
    runtime::{Egress, EgressRequest, NextHopAddress},
};
use std::{fmt, net::IpAddr};

/// Most node addresses that a hint names.
const MAX_NODES: usize = 4;

/// A likely cause of silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The interface that the packets leave by carries nothing, for this reason.
    DeadLink(String),
    /// The packets leave a pod by this interface, its veth, and so meet the node's rules.
    PodVeth(String),
    /// The chosen next hop may send the packets back here, where the kernel drops what has its own source address.
    Returned(String),
    /// A private address that only the default route leads to, as a node or a pod has for a Service's
    /// address; and the gateways of other routes, which may be nodes.
    Service { address: IpAddr, nodes: Vec<IpAddr> },
}

impl Hint {
    /// Returns the hint for a destination that did not answer.
    pub(crate) fn of(request: &EgressRequest, egress: &Egress) -> Option<Hint> {
        let interface = interface::by_index(egress.interface.index).ok();
        if let Some(problem) = interface.and_then(|interface| interface.problem()) {
            return Some(Hint::DeadLink(problem));
        }
        if egress.pod_veth {
            return Some(Hint::PodVeth(egress.interface.name.clone()));
        }
        let address = request.query.destination;
        if request.via.is_some() {
            // Only IPv4 knows martian sources (fib_validate_source() in net/ipv4/fib_frontend.c).
            let returned = request.assumed.is_none() && address.is_ipv4();
            return returned.then(|| Hint::Returned(egress.next_hop.on(egress.interface.index)));
        }
        let likely = is_private(address) && route::is_default(&request.query);
        likely.then(|| Hint::Service { address, nodes: gateways(egress) })
    }
}

/// Returns the gateways of the interface's routes, but the egress's own. Nodes are gateways of one another's pods where
/// the network has no overlay.
fn gateways(egress: &Egress) -> Vec<IpAddr> {
    // A hint is worth no second failure.
    let routes = route::main_table().unwrap_or_default();
    of_other_routes(&routes, egress.interface.index, egress.source.is_ipv4(), egress.next_hop)
}

fn of_other_routes(routes: &[TableRoute], interface: u32, v4: bool, own: NextHopAddress) -> Vec<IpAddr> {
    let here = routes.iter().filter(|route| route.interface == interface);
    let others = here.filter_map(|route| route.gateway).filter(|gateway| NextHopAddress::Ip(*gateway) != own);
    let mut found: Vec<_> = others.filter(|gateway| gateway.is_ipv4() == v4).collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_NODES);
    found
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::DeadLink(problem) => f.write_str(problem),
            Hint::PodVeth(interface) => write!(
                f,
                "{interface} is this pod's veth, so the node's rules (kube-proxy's, a NetworkPolicy's) see the packets; \
                 to pass them by, run netkat on the node's network (kubectl netkat NODE, or hostNetwork)"
            ),
            Hint::Returned(next_hop) => write!(
                f,
                "if {next_hop} sends the packets back to this host, as for a backend or a NodePort here, the kernel drops \
                 them as martian: use --as, ask from another node, or see --compare"
            ),
            Hint::Service { address, nodes } => {
                write!(
                    f,
                    "only the default route leads to {address}; netkat passes kube-proxy's rules by, and nothing else \
                     reaches a Service's ClusterIP: try a pod's address or a NodePort; try the address of a load \
                     balancer with --via NODE"
                )?;
                match nodes.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice() {
                    [] => Ok(()),
                    nodes => write!(f, ", as {}", nodes.join(" or ")),
                }
            }
        }
    }
}

/// Returns whether a Service may have this address: RFC 1918, RFC 6598 (used by some clouds), RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_the_gateways_of_other_routes() {
        let at = |text: &str| text.parse().expect("an address");
        let route = |interface, gateway: Option<&str>| TableRoute {
            destination: at("10.244.1.0"),
            prefix: 24,
            interface,
            gateway: gateway.map(at),
            source: None,
            metric: 0,
        };
        let routes = [
            route(2, Some("172.18.0.1")),
            route(2, Some("172.18.0.4")),
            route(2, Some("172.18.0.2")),
            route(2, Some("172.18.0.2")),
            route(2, Some("fd00::2")),
            route(2, None),
            route(3, Some("10.0.0.1")),
        ];
        let own = NextHopAddress::Ip(at("172.18.0.1"));
        assert_eq!(of_other_routes(&routes, 2, true, own), [at("172.18.0.2"), at("172.18.0.4")]);
        assert_eq!(of_other_routes(&routes, 2, false, own), [at("fd00::2")]);
    }

    #[test]
    fn addresses_that_services_have() {
        for (address, private) in [
            ("10.96.0.1", true),
            ("172.20.0.10", true),
            ("192.168.0.1", true),
            ("100.64.0.10", true),
            ("100.128.0.1", false),
            ("100.63.255.255", false),
            ("34.118.224.1", false),
            ("fd00:10:96::a", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(address.parse().expect("an address")), private, "{address}");
        }
    }
}
