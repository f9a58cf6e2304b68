//! Firewall rules of the host that stop the kernel's TCP or UDP, in every place where firewalls put theirs.
use super::{
    namespace::Namespace,
    topology::{Family, at},
};

/// The host's end in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Connect,
    Listen,
}

/// A firewall on the host. All but `Nothing` stop the kernel's own TCP (or UDP), whichever end the host is.
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
    /// nat OUTPUT translates the destination of our connections, nat PREROUTING that of connections to us.
    Redirect,
}

impl Rule {
    pub const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Input,
        Self::Output,
        Self::Both,
        Self::RawPrerouting,
        Self::NftInet,
        Self::NftNetdevIngress,
        Self::Redirect,
    ];

    /// Puts the rule into force against a protocol, "tcp" or "udp".
    pub fn apply(self, host: &Namespace, family: Family, protocol: &str) {
        let iptables = |backend: &str, rule: &str| {
            let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
            host.run(&format!("{program}-{backend} -w {rule}"));
        };
        match self {
            Self::Nothing => {}
            Self::Input => iptables("legacy", &format!("-A INPUT -p {protocol} -j DROP")),
            Self::Output => iptables("nft", &format!("-A OUTPUT -p {protocol} -j DROP")),
            Self::Both => {
                let reject = if protocol == "tcp" { "REJECT --reject-with tcp-reset" } else { "REJECT" };
                iptables("nft", &format!("-A INPUT -p {protocol} -j {reject}"));
                iptables("nft", &format!("-A OUTPUT -p {protocol} -j DROP"));
            }
            Self::RawPrerouting => iptables("legacy", &format!("-t raw -A PREROUTING -p {protocol} -j DROP")),
            Self::NftInet => nft(
                host,
                &format!(
                    "table inet lab {{
                        chain i {{ type filter hook input priority 0; meta l4proto {protocol} drop; }};
                        chain o {{ type filter hook output priority 0; meta l4proto {protocol} drop; }};
                    }}"
                ),
            ),
            Self::NftNetdevIngress => nft(
                host,
                &format!(
                    "table netdev lab {{ chain c {{
                        type filter hook ingress device \"eth0\" priority -500; meta l4proto {protocol} drop;
                    }}; }}"
                ),
            ),
            Self::Redirect => {
                let elsewhere = at(family, "10.77.0.99", "fd77::99");
                for chain in ["OUTPUT", "PREROUTING"] {
                    iptables(
                        "nft",
                        &format!("-t nat -A {chain} -p {protocol} -j DNAT --to-destination {elsewhere}"),
                    );
                }
            }
        }
    }
}

impl Rule {
    /// Returns the flag that lets netkat listen on a port that the rule translates.
    pub fn demanded(self) -> &'static str {
        if self == Self::Redirect { "--force" } else { "" }
    }
}

/// Loads nft rules.
pub fn nft(host: &Namespace, rules: &str) {
    host.command("nft").args(["-f", "-"]).text(rules).succeed();
}
