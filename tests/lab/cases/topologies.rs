//! Interfaces of every kind, gateways off the subnet, and lo in all its forms.
use crate::support::{
    namespace::Namespace,
    netkat::{PROGRAM_GUARDS, listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::DEADLINE,
    requirements::{self, lab},
    topology::{Pair, address, veth},
};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Connects netkat in `host` to a kernel server in `peer`.
fn connects(host: &Namespace, peer: &Namespace, to: IpAddr, arguments: &str) {
    for (out, back) in sizes() {
        let server = Netcat::Socat.listen(peer, to, 5000, |c| c.input(back.input()).expect(&out));
        let client = netkat(host, &format!("{arguments} {to} 5000")).input(out.input()).expect(&back).run();
        assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "to {to}: {client}");
        client.check(&back);
        server.wait(DEADLINE).check(&out);
    }
}

/// Serves a kernel client in `peer` from netkat in `host`.
fn serves(host: &Namespace, peer: &Namespace, at: IpAddr, arguments: &str) {
    for (out, back) in sizes() {
        let server =
            listening(host, &format!("{arguments} {at} 5000"), |c| c.input(out.input()).expect(&back));
        let client = Netcat::Socat.connect(peer, at, 5000).input(back.input()).expect(&out).run();
        client.check(&out);
        let server = server.wait(DEADLINE);
        server.check(&back);
        assert_eq!(server.code(), Some(0), "{server}");
    }
}

fn sizes() -> [(Payload, Payload); 2] {
    [(Payload::short(), Payload::short()), (Payload::new(20, 8 * MIB), Payload::new(21, 8 * MIB))]
}

#[test]
fn a_bridge() {
    lab!("socat");
    let pair = Pair::new();
    pair.bridge_host();
    for (here, there) in [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")] {
        connects(&pair.host, &pair.peer, ip(there), "");
        serves(&pair.host, &pair.peer, ip(here), "");
    }
}

#[test]
fn a_macvlan() {
    lab!("socat");
    let pair = Pair::new();
    if !pair.macvlan_host() {
        return requirements::lacking("a_macvlan", "this kernel has no macvlan");
    }
    for (here, there) in [("10.78.0.1", "10.78.0.2"), ("fd78::1", "fd78::2")] {
        connects(&pair.host, &pair.peer, ip(there), "");
        serves(&pair.host, &pair.peer, ip(here), "");
    }
}

/// A pod as Calico makes it: a /32 of its own, and a gateway on no subnet, for which the node
/// answers ARP.
#[test]
fn a_gateway_off_the_subnet() {
    lab!("socat");
    let (pod, node) = (Namespace::new("pod"), Namespace::new("node"));
    veth(&pod, "eth0", &node, "cali0");
    address(&pod, "eth0", "10.65.0.5/32");
    pod.ip("route add 169.254.1.1 dev eth0 scope link");
    pod.ip("route add default via 169.254.1.1 dev eth0");
    node.sysctl("net.ipv4.conf.cali0.proxy_arp", "1");
    node.sysctl("net.ipv4.ip_forward", "1");
    node.sysctl("net.ipv4.neigh.cali0.proxy_delay", "0");
    node.ip("route add 10.65.0.5/32 dev cali0");
    address(&node, "lo", "10.65.9.9/32");
    // proxy_arp answers for addresses that the node routes elsewhere.
    node.ip("route add 169.254.1.1/32 dev lo");
    // IPv6 likewise, with a link-local gateway.
    address(&pod, "eth0", "fd65::5/128");
    address(&node, "lo", "fd65::9/128");
    node.ip("-6 address add fe80::ecee:eeff:feee:eeee/64 dev cali0 nodad");
    node.ip("-6 route add fd65::5/128 dev cali0");
    pod.ip("-6 route add default via fe80::ecee:eeff:feee:eeee dev eth0");
    for (here, there) in [("10.65.0.5", "10.65.9.9"), ("fd65::5", "fd65::9")] {
        connects(&pod, &node, ip(there), "");
        serves(&pod, &node, ip(here), "");
    }
}

/// A TUN device has no link header; its other end is a UDP flow of socat's.
#[test]
fn a_tun_device() {
    lab!("socat");
    let pair = Pair::new();
    let tun = |at: &Namespace, here: &str, there: &str, number: u8| {
        let mut socat = at
            .command("socat")
            .arg(format!("TUN:10.88.0.{number}/24,iff-up,iff-no-pi,tun-name=tun0"))
            .arg(format!("UDP-DATAGRAM:{there}:9000,bind={here}:9000"))
            .spawn();
        socat.wait_until("a TUN device", |_| {
            at.words("ip address show dev tun0").run().text().contains("10.88.0")
        });
        socat
    };
    let _here = tun(&pair.host, "10.77.0.1", "10.77.0.2", 1);
    let _there = tun(&pair.peer, "10.77.0.2", "10.77.0.1", 2);
    for (end, number) in [(&pair.host, 1), (&pair.peer, 2)] {
        address(end, "tun0", &format!("fd88::{number}/64"));
        end.ip("link set tun0 mtu 1400");
    }
    for (here, there) in [("10.88.0.1", "10.88.0.2"), ("fd88::1", "fd88::2")] {
        connects(&pair.host, &pair.peer, ip(there), "");
        serves(&pair.host, &pair.peer, ip(here), "");
    }
}

/// The host's own addresses, on lo and elsewhere.
const OWN: [&str; 5] = ["127.0.0.1", "127.0.0.2", "::1", "10.77.0.1", "fd77::1"];

fn loopback_sysctls(host: &Namespace) -> String {
    host.run("sysctl -a --pattern ^net.ipv[46].conf").text()
}

#[test]
fn loopback_as_a_client_of_the_kernel() {
    lab!("socat", "sysctl");
    let pair = Pair::new();
    let before = loopback_sysctls(&pair.host);
    for own in OWN {
        for guard in PROGRAM_GUARDS {
            connects(&pair.host, &pair.host, ip(own), &format!("--guard {guard}"));
        }
    }
    assert_eq!(loopback_sysctls(&pair.host), before);
}

#[test]
fn loopback_as_a_server_to_the_kernel() {
    lab!("socat", "sysctl");
    let pair = Pair::new();
    let before = loopback_sysctls(&pair.host);
    for own in OWN {
        for guard in PROGRAM_GUARDS {
            serves(&pair.host, &pair.host, ip(own), &format!("--guard {guard}"));
        }
    }
    assert_eq!(loopback_sysctls(&pair.host), before);
}

/// A listener on every address serves clients on the wire and on lo.
#[test]
fn a_listener_on_all_addresses_is_there_on_each() {
    lab!("socat", "nc.openbsd");
    let pair = Pair::new();
    let out = Payload::short();
    for own in OWN {
        let server = listening(&pair.host, "5000", |c| c.expect(&out));
        Netcat::OpenBsd.connect(&pair.host, ip(own), 5000).input(out.input()).succeed();
        server.wait(DEADLINE).check(&out);
    }
    for at in ["10.77.0.1", "fd77::1"] {
        let server = listening(&pair.host, "5000", |c| c.expect(&out));
        Netcat::OpenBsd.connect(&pair.peer, ip(at), 5000).input(out.input()).succeed();
        server.wait(DEADLINE).check(&out);
    }
}

/// Two netkats on one host talk although the rules drop all TCP.
#[test]
fn netkat_to_netkat_over_loopback_past_rules_that_drop_everything() {
    lab!("iptables-nft", "ip6tables-nft");
    let pair = Pair::new();
    for program in ["iptables-nft", "ip6tables-nft"] {
        for chain in ["INPUT", "OUTPUT"] {
            pair.host.run(&format!("{program} -w -P {chain} DROP"));
        }
    }
    for own in OWN {
        for (out, back) in sizes() {
            let server =
                listening(&pair.host, &format!("{own} 5000"), |c| c.input(out.input()).expect(&back));
            let client = netkat(&pair.host, &format!("{own} 5000")).input(back.input()).expect(&out).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{own}: {client}");
            client.check(&out);
            server.wait(DEADLINE).check(&back);
        }
    }
}

#[test]
fn netkat_to_netkat_between_hosts() {
    lab!();
    let pair = Pair::new();
    for there in ["10.77.0.2", "fd77::2"] {
        for (out, back) in sizes() {
            let server =
                listening(&pair.peer, &format!("{there} 5000"), |c| c.input(out.input()).expect(&back));
            let client = netkat(&pair.host, &format!("{there} 5000")).input(back.input()).expect(&out).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{client}");
            client.check(&out);
            server.wait(DEADLINE).check(&back);
        }
    }
}
