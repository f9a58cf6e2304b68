//! Hints at causes of silence that the user may not think of.
use crate::{
    host::{interface, route},
    runtime::{Egress, EgressRequest},
};
use std::{fmt, net::IpAddr};

/// A likely cause of silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The interface that the packets leave by carries nothing, for this reason.
    DeadLink(String),
    /// A private address that only the default route leads to, as a node or a pod has for a Service's
    /// address.
    ClusterIp(IpAddr),
}

impl Hint {
    /// Returns the hint for a destination that did not answer.
    pub(crate) fn of(request: &EgressRequest, egress: &Egress) -> Option<Hint> {
        let interface = interface::by_index(egress.interface.index).ok();
        if let Some(problem) = interface.and_then(|interface| interface.problem()) {
            return Some(Hint::DeadLink(problem));
        }
        let destination = request.query.destination;
        let likely = request.via.is_none() && is_private(destination) && route::is_default(&request.query);
        likely.then_some(Hint::ClusterIp(destination))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::DeadLink(problem) => f.write_str(problem),
            Hint::ClusterIp(address) => write!(
                f,
                "only the default route leads to {address}; if it is a Service's ClusterIP, nothing but kube-proxy's \
                 rules reach it, and netkat passes them by: try a pod's address, a NodePort, or the load balancer's \
                 address with --via NODE"
            ),
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
