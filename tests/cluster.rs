//! The founding case: a load balancer's clients, outside and inside of the cluster.
//!
//! `scripts/cluster-lab check` is the table; here it runs for the rules of each kube-proxy, in
//! a lab of its own. Needs root for the network namespaces.
#[path = "support/skipped.rs"]
mod skipped;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A lab that ends with the test, however that ends.
struct Lab(String);

impl Lab {
    fn up(layout: &str) -> Lab {
        // Namespaces are the machine's, so the name must be unique among tests and runs.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let lab = Lab(format!("nk{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let up = lab.run(&["up", "--layout", layout]);
        assert!(up.status.success(), "cannot build the lab: {}", text(&up));
        lab
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster-lab"))
            .args(["--name", &self.0])
            .args(arguments)
            .env("NETKAT", env!("CARGO_BIN_EXE_netkat"))
            .output()
            .expect("bash runs scripts/cluster-lab")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped::skipped("the lab cluster needs root (network namespaces)");
    }
    root
}

fn story(layout: &str) {
    if !is_root() {
        return;
    }
    let check = Lab::up(layout).run(&["check"]);
    let table = text(&check);
    assert!(check.status.success(), "{table}");
    assert_eq!(table.lines().filter(|l| l.ends_with(" ok")).count(), 14, "cases are missing:\n{table}");
}

#[test]
fn with_kube_proxy_1_21() {
    story("1.21");
}

#[test]
fn with_kube_proxy_1_26() {
    story("1.26");
}

#[test]
fn with_kube_proxy_1_36_in_iptables_mode() {
    story("1.36-iptables");
}

#[test]
fn with_kube_proxy_1_36_in_nftables_mode() {
    story("1.36-nftables");
}

/// With the pod's cable cut, the table must fail.
#[test]
fn a_case_that_goes_otherwise_is_told() {
    if !is_root() {
        return;
    }
    let lab = Lab::up("1.26");
    let cut = lab.run(&["shell", "worker2", "ip", "link", "set", "veth-pod", "down"]);
    assert!(cut.status.success(), "{}", text(&cut));
    let check = lab.run(&["check", "--nc-only", "--wait", "1"]);
    assert_eq!(check.status.code(), Some(1), "{}", text(&check));
    assert!(text(&check).contains("WRONG"), "{}", text(&check));
}

#[test]
fn up_and_down_may_be_repeated_and_leave_nothing() {
    if !is_root() {
        return;
    }
    let lab = Lab::up("1.21");
    let name = lab.0.clone();
    assert!(lab.run(&["policy", "Cluster"]).status.success());
    let again = lab.run(&["up"]);
    assert!(text(&again).contains("kube-proxy 1.21, policy Cluster"), "{}", text(&again));
    for link in ["kind", "control-plane", "worker", "worker2", "veth-pod"] {
        let shown = Command::new("ip").args(["link", "show", link]).output().expect("iproute2");
        assert!(!shown.status.success(), "{link} is in the root namespace");
    }
    assert!(lab.run(&["down"]).status.success());
    assert!(lab.run(&["down"]).status.success());
    assert_eq!(lab.run(&["check", "--nc-only"]).status.code(), Some(2));
    let namespaces = Command::new("ip").args(["netns", "list"]).output().expect("iproute2").stdout;
    assert!(!String::from_utf8_lossy(&namespaces).contains(&name));
}
