//! Whose a rule is, by the names that programs give their tables, chains and comments.

/// The program, or the object of a cluster, that a rule belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A port of a Kubernetes Service.
    Service { namespace: String, name: String, port: String },
    /// A program: "firewalld", "ufw", "docker".
    Program(&'static str),
}

impl Owner {
    /// Returns the owner in words.
    pub(crate) fn text(&self) -> String {
        match self {
            Owner::Service { namespace, name, port } if port.is_empty() => {
                format!("Kubernetes Service {namespace}/{name}")
            }
            Owner::Service { namespace, name, port } => {
                format!("Kubernetes Service {namespace}/{name}, port {port}")
            }
            Owner::Program(name) => (*name).to_owned(),
        }
    }
}

/// Returns the owner of a rule, by its table, the chains that lead to it, and their rules' comments.
pub(crate) fn owner(table: &str, chains: &[String], comments: &[String]) -> Option<Owner> {
    if let Some(name) = program_of_table(table) {
        return Some(Owner::Program(name));
    }
    // kube-router's chains begin as kube-proxy's do; k3s enforces network policies by them.
    let of_router = |chain: &String| {
        ["KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-"].iter().any(|p| chain.starts_with(p))
    };
    if chains.iter().any(of_router) {
        return Some(Owner::Program("kube-router"));
    }
    let kubernetes = table == "kube-proxy" || chains.iter().any(|chain| chain.starts_with("KUBE-"));
    if kubernetes {
        let by_comment = comments.iter().rev().find_map(|comment| service_of_comment(comment));
        let by_chain = || chains.iter().rev().find_map(|chain| service_of_chain(chain));
        return by_comment.or_else(by_chain).or(Some(Owner::Program("kube-proxy")));
    }
    chains.iter().rev().find_map(|chain| program(chain)).map(Owner::Program)
}

/// Returns the program that has a table of this name to itself.
fn program_of_table(table: &str) -> Option<&'static str> {
    const PROGRAMS: [(&str, &str); 8] = [
        ("firewalld", "firewalld"),
        ("docker-bridges", "Docker"),
        ("netavark", "Podman"),
        ("calico", "Calico"),
        ("libvirt_network", "libvirt"),
        ("f2b-table", "fail2ban"),
        ("crowdsec", "CrowdSec"),
        ("crowdsec6", "CrowdSec"),
    ];
    PROGRAMS.iter().find(|(name, _)| *name == table).map(|(_, program)| *program)
}

/// Returns the program whose chains begin like this one.
fn program(chain: &str) -> Option<&'static str> {
    const PROGRAMS: [(&str, &str); 14] = [
        ("ufw", "ufw"),
        ("DOCKER", "Docker"),
        ("cali-", "Calico"),
        ("CILIUM_", "Cilium"),
        ("OLD_CILIUM_", "Cilium"),
        ("CNI-", "a CNI plugin"),
        ("f2b-", "fail2ban"),
        ("LIBVIRT", "libvirt"),
        ("NETAVARK", "Podman"),
        ("FLANNEL-", "flannel"),
        ("CROWDSEC", "CrowdSec"),
        ("ts-input", "Tailscale"),
        ("ts-forward", "Tailscale"),
        ("ts-postrouting", "Tailscale"),
    ];
    PROGRAMS.iter().find(|(prefix, _)| chain.starts_with(prefix)).map(|(_, name)| *name)
}

/// Returns the program that loaded an eBPF program of this name, and the command that shows its own reasons for a drop.
pub(crate) fn owner_of_program(listed: &str) -> Option<(Owner, &'static str)> {
    // "tcx egress program cil_to_netdev (id 7)"; the kernel keeps 15 bytes of a name.
    let name = listed.split_once(" program ").and_then(|(_, rest)| rest.split_whitespace().next())?;
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if begins(&["cil_"]) {
        return Some((Owner::Program("Cilium"), "cilium-dbg monitor --type drop"));
    }
    begins(&["cali_", "calico_"]).then_some((Owner::Program("Calico"), "calico-node -bpf counters dump"))
}

/// Reads "default/web:http cluster IP", as kube-proxy's rules for iptables have it.
fn service_of_comment(comment: &str) -> Option<Owner> {
    let (namespace, rest) = comment.split_whitespace().next()?.split_once('/')?;
    let (name, port) = rest.split_once(':').unwrap_or((rest, ""));
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    (is_name(namespace) && is_name(name)).then(|| Owner::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port: port.trim_end_matches(['"', ',']).to_owned(),
    })
}

/// Reads "service-ABCD-default/web/tcp/http", as kube-proxy's chains for nftables are called.
fn service_of_chain(chain: &str) -> Option<Owner> {
    let rest = ["service-", "endpoint-", "external-", "firewall-"]
        .iter()
        .find_map(|prefix| chain.strip_prefix(prefix))?;
    let (_, rest) = rest.split_once('-')?;
    let rest = rest.split("__").next()?;
    let mut parts = rest.split('/');
    let (namespace, name, _protocol) = (parts.next()?, parts.next()?, parts.next()?);
    let port = parts.next().unwrap_or_default();
    Some(Owner::Service { namespace: namespace.to_owned(), name: name.to_owned(), port: port.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_owners() {
        let of = |listed| owner_of_program(listed).map(|(owner, command)| (owner.text(), command));
        let cilium = Some(("Cilium".to_owned(), "cilium-dbg monitor --type drop"));
        assert_eq!(of("tcx egress program cil_to_netdev (id 7) on eth0"), cilium);
        assert_eq!(of("cgroup/connect4 program cil_sock4_conne (id 9)"), cilium);
        assert!(of("clsact ingress program calico_tc_main (id 3)").is_some());
        assert_eq!(of("XDP program lab_xdp (id 3)"), None);
        assert_eq!(of("tcx egress program, id 3"), None);
    }

    #[test]
    fn rules_have_owners() {
        let chains = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let text = |table, names: &[&str], comments: &[&str]| {
            owner(table, &chains(names), &chains(comments)).map(|owner| owner.text())
        };
        assert_eq!(
            text("nat", &["OUTPUT", "KUBE-SERVICES", "KUBE-SEP-X"], &["default/web:http cluster IP"]),
            Some("Kubernetes Service default/web, port http".to_owned())
        );
        assert_eq!(
            text("kube-proxy", &["endpoint-TEST-default/clientip/tcp/http__10.244.2.2/80"], &[]),
            Some("Kubernetes Service default/clientip, port http".to_owned())
        );
        assert_eq!(text("filter", &["OUTPUT", "ufw-user-output"], &["'dapp_x'"]), Some("ufw".to_owned()));
        assert_eq!(text("filter", &["OUTPUT"], &["default/web"]), None);
        let name = |table, chains: &[&str]| text(table, chains, &[]).unwrap_or_default();
        for (table, chains, program) in [
            ("filter", &["FORWARD", "KUBE-ROUTER-FORWARD", "KUBE-POD-FW-7A"][..], "kube-router"),
            ("filter", &["OUTPUT", "KUBE-ROUTER-OUTPUT", "KUBE-NWPLCY-7A"], "kube-router"),
            ("filter", &["INPUT", "KUBE-FIREWALL"], "kube-proxy"),
            ("docker-bridges", &["filter-FORWARD"], "Docker"),
            ("netavark", &["FORWARD"], "Podman"),
            ("filter", &["FORWARD", "NETAVARK_FORWARD"], "Podman"),
            ("filter", &["INPUT", "ts-input"], "Tailscale"),
            ("filter", &["INPUT", "ts-servers"], ""),
            ("filter", &["FORWARD", "FLANNEL-FWD"], "flannel"),
            ("f2b-table", &["f2b-chain"], "fail2ban"),
            ("firewalld", &["filter_INPUT"], "firewalld"),
        ] {
            assert_eq!(name(table, chains), program, "{table} {chains:?}");
        }
    }
}
