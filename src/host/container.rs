//! The container that this process runs in: who made it, and whether it has a pod's network.

use std::{env, fs, sync::OnceLock};

use caps::CapSet;

/// The first line of a pod's /etc/hosts where the pod has a network of its own (managedHostsHeader in
/// pkg/kubelet/kubelet_pods.go); on the node's network, kubelet writes another one.
const POD_HOSTS: &str = "# Kubernetes-managed hosts file.";

/// Returns how a container is given the capabilities `wanted`, as NET_ADMIN, if no program in it can gain `missing`, one
/// of them; `None` if sudo(8) or setcap(8) may help.
pub(crate) fn grant(missing: &str, wanted: &[&str]) -> Option<String> {
    let in_pod = is_in_pod();
    (in_pod || is_out_of_reach(missing)).then(|| words(in_pod, missing, wanted))
}

/// Returns whether kubelet started this container: it sets the variable in each one (getServiceEnvVarMap in
/// pkg/kubelet/kubelet_pods.go).
fn is_in_pod() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// Returns whether the bounding set lacks a capability, as that of a container does.
fn is_out_of_reach(capability: &str) -> bool {
    let kernel = format!("CAP_{capability}").parse::<caps::Capability>().ok();
    kernel.is_some_and(|kernel| caps::has_cap(None, CapSet::Bounding, kernel).is_ok_and(|has| !has))
}

/// The capabilities that kubectl's debugging profile `netadmin` gives: two of its own (netadminProfile in
/// pkg/debug/profiles.go of kubectl), and the runtime's default ones.
const OF_NETADMIN: [&str; 3] = ["NET_RAW", "NET_ADMIN", "NET_BIND_SERVICE"];

fn words(in_pod: bool, missing: &str, wanted: &[&str]) -> String {
    if in_pod {
        let list = wanted.join(", ");
        let profile = if OF_NETADMIN.contains(&missing) { "netadmin" } else { "sysadmin" };
        format!(
            "add them to the container: securityContext: {{capabilities: {{add: [{list}]}}}}, or kubectl debug \
             --profile={profile}"
        )
    } else {
        let flags: Vec<_> = wanted.iter().map(|name| format!("--cap-add {name}")).collect();
        format!(
            "no program here can have it; start the container with {}, or name it in the systemd service's CapabilityBoundingSet=",
            flags.join(" ")
        )
    }
}

/// Returns whether this process is in a pod with a network of its own, whose packets the node's rules see. In a pod,
/// the first call reads a file.
pub(crate) fn has_pod_network() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| is_in_pod() && fs::read_to_string("/etc/hosts").is_ok_and(|text| is_pods(&text)))
}

fn is_pods(hosts: &str) -> bool {
    hosts.lines().next().is_some_and(|line| line.trim_end() == POD_HOSTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_on_the_nodes_network_is_none() {
        assert!(is_pods("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(!is_pods("# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n"));
        assert!(!is_pods("127.0.0.1 localhost\n"));
        assert!(!is_pods(""));
    }

    #[test]
    fn pods_and_other_containers_are_given_capabilities_differently() {
        let wanted = ["NET_RAW", "BPF"];
        for (missing, profile) in [("NET_RAW", "netadmin"), ("NET_ADMIN", "netadmin"), ("BPF", "sysadmin")] {
            let pod = words(true, missing, &wanted);
            assert!(pod.contains("add: [NET_RAW, BPF]"), "{pod}");
            assert!(pod.ends_with(&format!("kubectl debug --profile={profile}")), "{pod}");
        }
        let other = words(false, "BPF", &wanted);
        assert_eq!(
            other,
            "no program here can have it; start the container with --cap-add NET_RAW --cap-add BPF, or name it in the \
             systemd service's CapabilityBoundingSet="
        );
    }
}
