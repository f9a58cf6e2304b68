//! Firewall rules of the host that stop the kernel's TCP, in every place that issue from people's firewalls.
use crate::{
    namespace::Namespace,
    topology::{Family, at},
};

/// Which end the host is in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Connect,
    Listen,
}

/// A firewall on the host. All but `Nothing` stop the kernel's own TCP, whichever end the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Nothing,
    /// iptables, legacy back end: filter INPUT drops.
    Input,
    /// iptables, nft back end: filter OUTPUT drops.
    Output,
    /// INPUT rejects and OUTPUT drops.
    Both,
    /// raw PREROUTING drops.
    RawPrerouting,
    /// An nft table of family inet, input and output.
    NftInet,
    /// nft's netdev ingress, the earliest of all.
    NftNetdevIngress,
    /// nat OUTPUT sends what we connect to elsewhere; nat PREROUTING does so to who connects to us.
    Redirect,
}

impl Rule {
    /// Puts the rule into force.
    pub fn apply(self, host: &Namespace, family: Family) {
        let iptables = |backend: &str, rule: &str| {
            let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
            host.run(&format!("{program}-{backend} -w {rule}"));
        };
        match self {
            Self::Nothing => {}
            Self::Input => iptables("legacy", "-A INPUT -p tcp -j DROP"),
            Self::Output => iptables("nft", "-A OUTPUT -p tcp -j DROP"),
            Self::Both => {
                iptables("nft", "-A INPUT -p tcp -j REJECT --reject-with tcp-reset");
                iptables("nft", "-A OUTPUT -p tcp -j DROP");
            }
            Self::RawPrerouting => iptables("legacy", "-t raw -A PREROUTING -p tcp -j DROP"),
            Self::NftInet => nft(
                host,
                "table inet lab {
                    chain i { type filter hook input priority 0; meta l4proto tcp drop; }
                    chain o { type filter hook output priority 0; meta l4proto tcp drop; }
                }",
            ),
            Self::NftNetdevIngress => nft(
                host,
                "table netdev lab {
                    chain c { type filter hook ingress device \"eth0\" priority -500; meta l4proto tcp drop; }
                }",
            ),
            Self::Redirect => {
                let elsewhere = at(family, "10.77.0.99", "fd77::99");
                for chain in ["OUTPUT", "PREROUTING"] {
                    iptables(
                        "nft",
                        &format!("-t nat -A {chain} -p tcp -j DNAT --to-destination {elsewhere}"),
                    );
                }
            }
        }
    }
}

/// Loads nft rules.
pub fn nft(host: &Namespace, rules: &str) {
    host.command("nft").args(["-f", "-"]).text(rules).succeed();
}
