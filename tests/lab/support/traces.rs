//! The traces that netkat could leave in the kernel.
use super::{
    namespace::Namespace,
    programs::{Direction, tcx_programs},
};

/// Lists programs, qdiscs, filters, nftables' tables and sockets of a namespace, as a text to compare.
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
    text += &host.run("nft list tables").text();
    text + &host.run("ss -Htuanp").text()
}
