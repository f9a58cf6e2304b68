//! Capabilities and settings.

use std::{fs, thread};

use caps::CapSet;
use netkat::{
    host::sysctl,
    process::capability::{self, Capability, CapabilityError},
};
use nix::unistd::geteuid;

use crate::lab::skipped;

#[test]
fn a_missing_capability_is_named() {
    if !geteuid().is_root() {
        return skipped("needs capabilities to drop");
    }
    // Capabilities belong to a thread, so the loss hurts no other test.
    let dropped = thread::spawn(|| {
        capability::require(Capability::NetAdmin, "attach the ingress guard").expect("root has it");
        capability::drop_all(&[Capability::NetRaw]).expect("dropped");
        for set in [CapSet::Effective, CapSet::Permitted] {
            let kept: Vec<_> = caps::read(None, set).expect("read").into_iter().collect();
            assert_eq!(kept, [caps::Capability::CAP_NET_RAW], "{set:?}");
        }
        for set in [CapSet::Inheritable, CapSet::Ambient] {
            assert!(caps::read(None, set).expect("read").is_empty(), "{set:?}");
        }
        capability::require(Capability::NetRaw, "open a packet socket").expect("kept");
        capability::require_port(1024).expect("needs nothing");
        let port = capability::require_port(80).expect_err("dropped").to_string();
        assert!(port.starts_with("needs CAP_NET_BIND_SERVICE to hold port 80 (run with sudo"), "{port}");
        assert!(!Capability::Bpf.effective().expect("readable"));
        capability::require(Capability::NetAdmin, "attach the ingress guard").expect_err("dropped")
    });
    let error = dropped.join().expect("thread");
    assert!(matches!(error, CapabilityError::Missing { capability: Capability::NetAdmin, .. }));
    let message = error.to_string();
    let start = "needs CAP_NET_ADMIN to attach the ingress guard \
                 (run with sudo, or: setcap cap_net_raw,cap_net_admin,cap_bpf+p /";
    assert!(message.starts_with(start), "{message}");
}

#[test]
fn settings_are_read() {
    let available = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").expect("/proc");
    let chosen = sysctl::tcp_congestion_control().expect("readable");
    assert!(available.split_whitespace().any(|name| name == chosen), "{chosen}");
    assert!(sysctl::ip_unprivileged_port_start().expect("readable") <= 65536);
}
