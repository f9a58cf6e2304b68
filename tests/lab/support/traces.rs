//! The traces that netkat could leave in the kernel.
use super::{
    namespace::Namespace,
    programs::{Direction, tcx_programs},
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Lists devices, programs, qdiscs, filters, nftables' tables and sockets of a namespace, as a text to compare.
pub fn traces(host: &Namespace) -> String {
    let mut text = String::new();
    for interface in ["eth0", "lo"] {
        for direction in [Direction::Ingress, Direction::Egress] {
            text += &format!("{interface} {direction:?}: {:?}\n", tcx_programs(host, interface, direction));
            let side = format!("{direction:?}").to_lowercase();
            text += &host.words(&format!("tc filter show dev {interface} {side}")).run().text();
        }
        text += &host.words(&format!("tc qdisc show dev {interface}")).run().text();
        text += &host.words(&format!("ip -d link show dev {interface}")).run().text();
    }
    text += &host.run("ip -br link show").text();
    text += &host.run("nft list tables").text();
    text + &host.run("ss -Htuanp").text()
}

/// Waits until the condition holds, for the process that stays in TIME-WAIT after netkat's exit and for what the
/// kernel frees a little later. Panics after 2 s.
pub fn settles(mut condition: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !condition() {
        assert!(Instant::now() < deadline, "{}", otherwise());
        sleep(Duration::from_millis(2));
    }
}
