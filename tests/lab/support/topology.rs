//! The networks that tests run on.
use super::{
    emulator::Emulator,
    frames::{HOST_MAC, PEER_MAC},
    namespace::Namespace,
};
use std::net::IpAddr;

/// Address family of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// Two namespaces joined by a veth pair, eth0 on both sides: `host` runs netkat and has the rules, `peer` has
/// the kernel's tools. Addresses: 10.77.0.1 and .2, fd77::1 and ::2.
pub struct Pair {
    // Before the namespaces, so that the emulator ends first.
    emulator: Option<Emulator>,
    pub host: Namespace,
    pub peer: Namespace,
}

impl Pair {
    pub fn new() -> Self {
        let (host, peer) = (Namespace::new("host"), Namespace::new("peer"));
        veth(&host, "eth0", &peer, "eth0");
        Self { emulator: None, host, peer }.addressed()
    }

    /// Makes a pair with a second link, eth1 (10.79.0.1 and .2, fd79::1 and ::2), and on the peer's lo addresses that
    /// are reached through either: 10.80.0.1 to .4, fd80::1 to ::4.
    pub fn with_two_links() -> Self {
        let pair = Self::new();
        veth(&pair.host, "eth1", &pair.peer, "eth1");
        for (end, number) in [(&pair.host, 1), (&pair.peer, 2)] {
            address(end, "eth1", &format!("10.79.0.{number}/24"));
            address(end, "eth1", &format!("fd79::{number}/64"));
        }
        for number in 1..=4 {
            address(&pair.peer, "lo", &format!("10.80.0.{number}/32"));
            address(&pair.peer, "lo", &format!("fd80::{number}/128"));
        }
        pair
    }

    /// Makes a pair with the link emulator in the middle, run with these arguments; "A" is the host's side.
    pub fn over(arguments: &str) -> Self {
        let (host, peer) = (Namespace::new("host"), Namespace::new("peer"));
        let emulator = Emulator::join(&host, &peer, arguments);
        Self { emulator: Some(emulator), host, peer }.addressed()
    }

    /// Ends the link emulator and returns its counters.
    pub fn finish(mut self) -> String {
        self.emulator.take().expect("a link emulator").finish()
    }

    fn addressed(self) -> Self {
        for (namespace, hardware, number) in [(&self.host, HOST_MAC, 1), (&self.peer, PEER_MAC, 2)] {
            namespace.ip(&format!("link set eth0 address {}", mac(hardware)));
            address(namespace, "eth0", &format!("10.77.0.{number}/24"));
            address(namespace, "eth0", &format!("fd77::{number}/64"));
        }
        self
    }

    /// Makes the host's eth0 a port of its bridge br0, which takes over the addresses.
    pub fn bridge_host(&self) {
        for v in ["-4", "-6"] {
            self.host.ip(&format!("{v} address flush dev eth0"));
        }
        self.host.ip("link add br0 type bridge");
        self.host.ip("link set eth0 master br0");
        self.host.ip("link set br0 up");
        address(&self.host, "br0", "10.77.0.1/24");
        address(&self.host, "br0", "fd77::1/64");
    }

    /// Adds a macvlan mv0 to the host's eth0, and addresses for it at both ends: 10.78.0.1 and .2, fd78::1 and ::2.
    /// Returns false if the kernel has no macvlan.
    pub fn macvlan_host(&self) -> bool {
        if !self.host.words("ip link add mv0 link eth0 type macvlan mode bridge").run().success() {
            return false;
        }
        self.host.ip("link set mv0 up");
        for (end, interface, number) in [(&self.host, "mv0", 1), (&self.peer, "eth0", 2)] {
            address(end, interface, &format!("10.78.0.{number}/24"));
            address(end, interface, &format!("fd78::{number}/64"));
        }
        true
    }

    pub fn host_address(&self, family: Family) -> IpAddr {
        at(family, "10.77.0.1", "fd77::1")
    }

    pub fn peer_address(&self, family: Family) -> IpAddr {
        at(family, "10.77.0.2", "fd77::2")
    }
}

fn mac(bytes: [u8; 6]) -> netkat::net::MacAddr {
    netkat::net::MacAddr(bytes)
}

/// Returns the address of this family.
pub fn at(family: Family, v4: &str, v6: &str) -> IpAddr {
    if family == Family::V4 { v4 } else { v6 }.parse().expect("an address")
}

/// Joins two namespaces by a veth pair, both ends up.
pub fn veth(a: &Namespace, a_name: &str, b: &Namespace, b_name: &str) {
    a.ip(&format!("link add {a_name} type veth peer name {b_name} netns {}", b.name()));
    a.ip(&format!("link set dev {a_name} up"));
    b.ip(&format!("link set dev {b_name} up"));
}

/// Adds an address, without duplicate address detection, which would make an IPv6 one unusable for
/// a second.
pub fn address(namespace: &Namespace, interface: &str, address: &str) {
    let nodad = if address.contains(':') { "nodad" } else { "" };
    namespace.ip(&format!("address add {address} dev {interface} {nodad}"));
}

/// Turns off the offloads that let frames be larger than the MTU.
pub fn offloads_off(namespace: &Namespace, interface: &str) {
    namespace.run(&format!("ethtool -K {interface} tx off sg off tso off gso off gro off"));
}
