//! The matrix against the lab cluster: the plugin's own Job on the nodes of `scripts/cluster-lab`, with kube-proxy's rules
//! and the real netkat, compared row by row with tables worked out by hand. Needs root.
use super::*;

/// A lab that goes when the test ends, however it ends.
struct Lab(String);

impl Lab {
    fn up(layout: &str) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let lab = Lab(format!("nkm{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let up = lab.run(&["up", "--layout", layout]);
        assert!(up.status.success(), "cannot build the lab: {}{}", stdout(&up), stderr(&up));
        lab
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut lab = Command::new(format!("{ROOT}/scripts/cluster-lab"));
        lab.args(["--name", &self.0]).args(arguments).output().expect("bash runs scripts/cluster-lab")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

/// The lab's objects, as its API server would have them.
fn cluster(lab: &Lab) -> Cluster {
    let cluster = Cluster::new();
    cluster.remove("nodes/kind-worker.json");
    cluster.put("on-node", &format!("ip netns exec {}-{{node}}", lab.0));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_netkat"), cluster.folder.join("bin/netkat")).unwrap();
    for (name, host, pods) in [("control-plane", 4, 0), ("worker", 3, 1), ("worker2", 2, 2)] {
        let mut object = node(name, &format!("172.18.0.{host}"));
        let address = json!({"type": "InternalIP", "address": format!("fd00:18::{host}")});
        object["status"]["addresses"].as_array_mut().unwrap().push(address);
        let networks = [format!("10.244.{pods}.0/24"), format!("fd00:10:244:{pods}::/64")];
        object["spec"]["podCIDRs"] = json!(networks);
        cluster.write(&format!("nodes/{name}.json"), &object);
    }
    let pod = ("pod", "worker2", ["10.244.2.2", "fd00:10:244:2::2"]);
    let pod2 = ("pod2", "worker", ["10.244.1.2", "fd00:10:244:1::2"]);
    let add = |name: &str, number: u16, families: &[&str], policy: &str, pods: &[(&str, &str, [&str; 2])]| {
        let v6 = families.contains(&"IPv6");
        let addresses: Vec<_> = [format!("10.96.113.{number}"), format!("fd00:10:96::{number}")]
            .into_iter()
            .take(1 + usize::from(v6))
            .collect();
        let balancers = [format!("10.111.111.{}", number - 55), format!("fd00:111::{}", number - 55)];
        let ingress: Vec<_> =
            balancers.iter().take(1 + usize::from(v6)).map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        cluster.add_service(
            name,
            json!({"type": "LoadBalancer", "clusterIPs": addresses, "ipFamilies": families, "externalTrafficPolicy": policy,
                "ports": [{"name": "http", "port": 80, "nodePort": 31329 + number, "protocol": "TCP"}]}),
        );
        cluster.change_service(name, |s| s["status"] = json!({"loadBalancer": {"ingress": ingress}}));
        for (at, family) in families.iter().enumerate() {
            let endpoints: Vec<_> = pods
                .iter()
                .map(|(name, node, ips)| {
                    json!({"addresses": [ips[at]], "conditions": {"ready": true, "serving": true, "terminating": false},
                        "nodeName": node, "targetRef": {"kind": "Pod", "name": name}})
                })
                .collect();
            cluster.write(
                &format!("endpointslices/{name}-{family}.json"),
                &json!({"metadata": {"labels": {"kubernetes.io/service-name": name}}, "addressType": family,
                    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints}),
            );
        }
    };
    add("clientip", 184, &["IPv4"], "Local", &[pod]);
    add("two", 185, &["IPv4"], "Cluster", &[pod, pod2]);
    add("none", 186, &["IPv4"], "Cluster", &[]);
    add("dual", 187, &["IPv4", "IPv6"], "Local", &[pod]);
    cluster.change_service("two", |s| {
        s["spec"]["loadBalancerSourceRanges"] = json!(["172.18.0.3/32", "172.18.0.64/26"]);
    });
    cluster
}

/// A row: who asks, by which path, at or by way of which node; and the node or address that the pod must see, or the
/// outcome. A number is the asker's own outsider.
type Row = (&'static str, &'static str, &'static str, &'static str);

const NODES: [&str; 3] = ["control-plane", "worker", "worker2"];

/// With policy Local only worker2 has the pod, which sees the client; a node's own packets are masqueraded, and go there
/// from any node.
const LOCAL: &[Row] = &[
    ("control-plane", "cluster_ip", "", "control-plane"),
    ("control-plane", "node_port", "control-plane", "control-plane"),
    ("control-plane", "node_port", "worker", "timed_out"),
    ("control-plane", "node_port", "worker2", "control-plane"),
    ("control-plane", "load_balancer", "", "control-plane"),
    ("control-plane", "load_balancer", "worker", "timed_out"),
    ("control-plane", "load_balancer", "worker2", "control-plane"),
    ("control-plane", "load_balancer as", "worker", "timed_out"),
    ("control-plane", "load_balancer as", "worker2", "outsider"),
    ("worker", "cluster_ip", "", "worker"),
    ("worker", "node_port", "control-plane", "timed_out"),
    ("worker", "node_port", "worker", "worker"),
    ("worker", "node_port", "worker2", "worker"),
    ("worker", "load_balancer", "", "worker"),
    ("worker", "load_balancer", "control-plane", "timed_out"),
    ("worker", "load_balancer", "worker2", "worker"),
    ("worker", "load_balancer as", "control-plane", "timed_out"),
    ("worker", "load_balancer as", "worker2", "outsider"),
    ("worker2", "cluster_ip", "", "worker2"),
    ("worker2", "node_port", "control-plane", "timed_out"),
    ("worker2", "node_port", "worker", "timed_out"),
    ("worker2", "node_port", "worker2", "worker2"),
    ("worker2", "load_balancer", "", "worker2"),
    ("worker2", "load_balancer", "control-plane", "timed_out"),
    ("worker2", "load_balancer", "worker", "timed_out"),
    ("worker2", "load_balancer as", "control-plane", "timed_out"),
    ("worker2", "load_balancer as", "worker", "timed_out"),
];

/// With policy Cluster the node that takes the packet answers, and the pods see that node. Of the nodes, only worker is in
/// the balancer's source ranges, which hold for no NodePort.
const TWO: &[Row] = &[
    ("control-plane", "cluster_ip", "", "control-plane"),
    ("control-plane", "node_port", "control-plane", "control-plane"),
    ("control-plane", "node_port", "worker", "worker"),
    ("control-plane", "node_port", "worker2", "worker2"),
    ("control-plane", "load_balancer", "", "timed_out"),
    ("control-plane", "load_balancer", "worker", "timed_out"),
    ("control-plane", "load_balancer", "worker2", "timed_out"),
    ("control-plane", "load_balancer as", "worker", "worker"),
    ("control-plane", "load_balancer as", "worker2", "worker2"),
    ("worker", "cluster_ip", "", "worker"),
    ("worker", "node_port", "control-plane", "control-plane"),
    ("worker", "node_port", "worker", "worker"),
    ("worker", "node_port", "worker2", "worker2"),
    ("worker", "load_balancer", "", "worker"),
    ("worker", "load_balancer", "control-plane", "control-plane"),
    ("worker", "load_balancer", "worker2", "worker2"),
    ("worker", "load_balancer as", "control-plane", "control-plane"),
    ("worker", "load_balancer as", "worker2", "worker2"),
    ("worker2", "cluster_ip", "", "worker2"),
    ("worker2", "node_port", "control-plane", "control-plane"),
    ("worker2", "node_port", "worker", "worker"),
    ("worker2", "node_port", "worker2", "worker2"),
    ("worker2", "load_balancer", "", "timed_out"),
    ("worker2", "load_balancer", "control-plane", "timed_out"),
    ("worker2", "load_balancer", "worker", "timed_out"),
    ("worker2", "load_balancer as", "control-plane", "control-plane"),
    ("worker2", "load_balancer as", "worker", "worker"),
];

/// Without endpoints each node rejects. Only iptables mode lets a node's own packets to the balancer leave.
fn without_endpoints(layout: &str) -> Vec<Row> {
    let of_balancer = if layout == "1.36-iptables" { "timed_out" } else { "refused" };
    let mut rows = Vec::new();
    for from in NODES {
        rows.push((from, "cluster_ip", "", "refused"));
        rows.extend(NODES.map(|to| (from, "node_port", to, if to == from { "refused" } else { "rejected" })));
        rows.push((from, "load_balancer", "", of_balancer));
        rows.extend(
            NODES.into_iter().filter(|to| *to != from).map(|to| (from, "load_balancer", to, "rejected")),
        );
    }
    rows
}

/// Runs the matrix, which must find all as expected, and compares its rows with the table.
fn compare(cluster: &Cluster, service: &str, family: u8, outsiders: Option<&str>, table: &[Row]) {
    let family_text = family.to_string();
    let mut arguments = vec!["matrix", service, "--family", &family_text, "--wait", "2", "-o", "json"];
    arguments.extend(outsiders.iter().flat_map(|network| ["--as", network]));
    let output = cluster.plugin(&arguments, b"");
    let report = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{report}{}", stderr(&output));
    assert_eq!(crate::json_schema::check_lines(&report), 1, "{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let seen: Vec<_> = cells
        .iter()
        .map(|cell| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let outsider = text(&cell["as"]);
            let (seen, client) = (&cell["seen"], text(&cell["seen"]["client"]));
            let path = text(&cell["path"]) + if outsider.is_empty() { "" } else { " as" };
            let result = match seen["outcome"].as_str() {
                Some("answered") if client == outsider => "outsider".to_owned(),
                Some("answered") => text(&seen["client_node"]),
                _ => text(&seen["outcome"]),
            };
            (text(&cell["from"]), path, text(&cell["to"]), result)
        })
        .collect();
    let wanted: Vec<_> = table
        .iter()
        .map(|(a, b, c, d)| (a.to_string(), b.to_string(), c.to_string(), d.to_string()))
        .collect();
    assert_eq!(seen, wanted, "{service}, IPv{family}");
    for cell in cells.iter().filter(|cell| cell["seen"]["outcome"] == "answered") {
        let allowed = if service == "two" { vec!["pod", "pod2"] } else { vec!["pod"] };
        let backend = cell["seen"]["backends"][0].as_str().unwrap_or_default();
        assert!(allowed.contains(&backend), "{cell}");
    }
}

fn matrices(layout: &str) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: the lab cluster needs root (network namespaces)");
        return;
    }
    let lab = Lab::up(layout);
    let cluster = cluster(&lab);
    let (v4, v6) = (Some("172.18.0.64/29"), Some("fd00:18::40/125"));
    compare(&cluster, "clientip", 4, v4, LOCAL);
    compare(&cluster, "two", 4, v4, TWO);
    compare(&cluster, "none", 4, None, &without_endpoints(layout));
    compare(&cluster, "dual", 4, v4, LOCAL);
    compare(&cluster, "dual", 6, v6, LOCAL);

    // A rule in the way makes a difference, and is named.
    let rule = "iptables-nft -w -t mangle -A OUTPUT -d 10.111.111.129 -j DROP";
    assert!(
        lab.run(&[&["shell", "worker"], &rule.split(' ').collect::<Vec<_>>()[..]].concat()).status.success()
    );
    let output = cluster.plugin(&["matrix", "clientip", "--from", "worker", "--wait", "1"], b"");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(
        text.contains(
            "--compare: this host: our SYN is dropped; by iptables (nft), table mangle, chain OUTPUT"
        ),
        "{text}"
    );
    assert!(text.ends_with("\n6 of 7 as expected\n"), "{text}");
    assert!(cluster.is_clean(), "something is left");
}

#[test]
fn with_kube_proxy_in_iptables_mode() {
    matrices("1.36-iptables");
}

#[test]
fn with_kube_proxy_in_nftables_mode() {
    matrices("1.36-nftables");
}
