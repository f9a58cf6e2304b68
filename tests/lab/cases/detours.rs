//! Past the routing table (--via): to addresses that this host has, too, through balancers that
//! send the packet back to its origin; and the reports where no path led there.
use crate::support::{
    files::SystemFile,
    netkat::netkat,
    payload::{MIB, Payload},
    peers::{Netcat, kernel_connects},
    process::DEADLINE,
    requirements::lab,
    topology::{Family, Pair, address, at},
};
use std::net::IpAddr;

/// Returns a balancer's address, which no interface has until a test adds it.
fn balanced(family: Family) -> IpAddr {
    at(family, "10.90.0.1", "fd90::1")
}

fn bind(pair: &Pair, family: Family) {
    for end in [&pair.host, &pair.peer] {
        let bits = if family == Family::V4 { 32 } else { 128 };
        address(end, "lo", &format!("{}/{bits}", balanced(family)));
    }
}

/// With MetalLB, kube-vip and IPVS, the nodes have the balancer's address, this one as well as the
/// next.
#[test]
fn an_address_that_is_bound_here_is_reached_at_the_neighbour() {
    lab!("socat", "nc.openbsd");
    let pair = Pair::new();
    let (out, back) = (Payload::new(24, MIB), Payload::new(25, MIB));
    for family in Family::ALL {
        bind(&pair, family);
        let (to, via) = (balanced(family), pair.peer_address(family));
        let mac = netkat::net::MacAddr(crate::support::frames::PEER_MAC);
        // The routing table leads to this host, which has no listener.
        let here = netkat(&pair.host, &format!("{to} 5000")).run();
        assert!(here.stderr.contains("refused"), "{here}");
        assert!(!kernel_connects(&pair.host, to, 5000));
        let own = at(family, "10.77.0.70", "fd77::70");
        for way in [format!("--via {via}"), format!("-i eth0 --via {mac}"), format!("--via {via} --as {own}")]
        {
            for rp_filter in ["0", "1", "2"] {
                for name in ["all", "eth0"] {
                    pair.host.sysctl(&format!("net.ipv4.conf.{name}.rp_filter"), rp_filter);
                }
                let server =
                    Netcat::Socat.listen(&pair.peer, to, 5000, |c| c.input(back.input()).expect(&out));
                let client = netkat(&pair.host, &format!("{way} {to} 5000"));
                let client = client.input(out.input()).expect(&back).run();
                assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{way}: {client}");
                client.check(&back);
                server.wait(DEADLINE).check(&out);
                if family == Family::V6 {
                    break;
                }
            }
        }
    }
}

/// The balancer picks the client's own node (or pod) as the backend: the packet comes back by the
/// interface that it left by, from the balancer's address and to a port of the kernel's.
#[test]
fn a_balancer_that_picks_the_client_itself() {
    lab!("socat", "iptables-nft", "ip6tables-nft");
    let pair = Pair::new();
    pair.peer.sysctl("net.ipv4.ip_forward", "1");
    pair.peer.sysctl("net.ipv6.conf.all.forwarding", "1");
    let (out, back) = (Payload::new(26, MIB), Payload::new(27, MIB));
    for (family, iptables) in [(Family::V4, "iptables-nft"), (Family::V6, "ip6tables-nft")] {
        let (to, backend, via) = (balanced(family), pair.host_address(family), pair.peer_address(family));
        let target = crate::support::peers::bracketed(backend, 8080);
        pair.peer.run(&format!(
            "{iptables} -w -t nat -A PREROUTING -d {to} -p tcp --dport 80 -j DNAT --to-destination {target}"
        ));
        pair.peer.run(&format!("{iptables} -w -t nat -A POSTROUTING -p tcp --dport 8080 -j MASQUERADE"));
        let own = at(family, "10.77.0.70", "fd77::70");
        for way in [format!("--via {via}"), format!("--via {via} --as {own}")] {
            let server =
                Netcat::Socat.listen(&pair.host, backend, 8080, |c| c.input(back.input()).expect(&out));
            let client = netkat(&pair.host, &format!("{way} {to} 80")).input(out.input()).expect(&back).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{way}: {client}");
            client.check(&back);
            server.wait(DEADLINE).check(&out);
        }
    }
}

/// A balancer picks the client's own node and keeps the client's address. From the node's own
/// address the packet is a martian to the kernel, as with the kernel's own client; from another
/// address it is an outsider's, once the route back leads past the balancer.
#[test]
fn a_balancer_that_picks_the_client_itself_and_keeps_its_address() {
    lab!("socat", "iptables-nft");
    let pair = Pair::new();
    pair.peer.sysctl("net.ipv4.ip_forward", "1");
    for name in ["all", "eth0"] {
        pair.peer.sysctl(&format!("net.ipv4.conf.{name}.send_redirects"), "0");
    }
    let (to, via) = (balanced(Family::V4), pair.peer_address(Family::V4));
    let backend = pair.host_address(Family::V4);
    pair.peer.run(&format!(
        "iptables-nft -w -t nat -A PREROUTING -d {to} -p tcp --dport 80 -j DNAT --to-destination {backend}:8080"
    ));
    pair.host.ip(&format!("route add 10.77.0.70 via {via}"));
    let out = Payload::short();
    let server = Netcat::Socat.listen(&pair.host, backend, 8080, |c| c.expect(&out));
    let own = netkat(&pair.host, &format!("-w 1 --via {via} {to} 80")).run();
    assert!(own.code() == Some(1) && own.stderr.contains("timed out"), "{own}");
    let other = netkat(&pair.host, &format!("--via {via} --as 10.77.0.70 {to} 80")).input(out.input()).run();
    assert_eq!((other.code(), other.stderr.as_str()), (Some(0), ""), "{other}");
    server.wait(DEADLINE).check(&out);
}

/// Hints at silence: a private address to which only the default route leads may be a Service's,
/// the gateways of other routes are worth a --via, and through --via packets may have come back
/// here.
#[test]
fn a_silent_address_of_a_service_has_a_hint() {
    lab!();
    let pair = Pair::new();
    for (family, v) in [(Family::V4, "-4"), (Family::V6, "-6")] {
        let via = pair.peer_address(family);
        let node = at(family, "10.77.0.9", "fd77::9");
        let pods = if family == Family::V4 { "10.244.2.0/24" } else { "fd96:244::/64" };
        pair.host.ip(&format!("{v} route add default via {via}"));
        pair.host.ip(&format!("{v} route add {pods} via {node}"));
        pair.peer.ip(&format!("{v} route add blackhole default"));
        let known = at(family, "10.91.0.1", "fd91::1");
        pair.host.ip(&format!("{v} route add {known} via {via}"));
        let service = at(family, "10.96.0.1", "fd96::1");
        let of_service = format!("; hint: only the default route leads to {service};");
        let returned = format!("; hint: if {via} sends the packets back to this host");
        let cases = [
            (service, String::new(), Some(&of_service)),
            (service, format!("--via {via}"), (family == Family::V4).then_some(&returned)),
            (service, format!("--via {via} --as {}", at(family, "10.77.0.70", "fd77::70")), None),
            (known, String::new(), None),
            (at(family, "192.0.2.1", "2001:db8::1"), String::new(), None),
        ];
        for (to, way, expected) in cases {
            // The message, and the JSON object instead.
            for json in ["", "--json "] {
                let run = netkat(&pair.host, &format!("-w 0.2 {json}{way} {to} 80")).run();
                assert!(run.code() == Some(1) && run.stderr.contains("timed out"), "{run}");
                assert_eq!(run.stderr.lines().count(), 1, "{run}");
                assert_eq!(run.stderr.contains("hint"), expected.is_some(), "{way} {to}: {run}");
                assert!(expected.is_none_or(|hint| run.stderr.contains(hint)), "{run}");
                let names_node = run.stderr.contains(&format!("--via NODE, as {node}"));
                assert_eq!(names_node, expected == Some(&of_service), "{run}");
            }
        }
    }
}

/// A pod's veth does not lead past the node's rules: -v, the hint and the JSON object say so. On
/// the node's network, whose /etc/hosts has another head, none does.
#[test]
fn a_pod_is_told_that_the_nodes_rules_see_its_packets() {
    lab!("unshare");
    let pair = Pair::new();
    pair.peer.ip("route add blackhole 10.91.0.1");
    pair.peer.ip("-6 route add blackhole fd91::1");
    for (head, pod) in [("file.", true), ("file (host network).", false)] {
        let hosts = SystemFile::new("/etc/hosts", &format!("# Kubernetes-managed hosts {head}\n"));
        for (family, v) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let to = at(family, "10.91.0.1", "fd91::1");
            pair.host.ip(&format!("{v} route replace {to} via {}", pair.peer_address(family)));
            let hint = "hint: eth0 is this pod's veth";
            for (options, words) in [
                ("-v", ["eth0 is this pod's veth: the node's rules see its packets", hint]),
                ("--json", ["\"pod_veth\":true", hint]),
            ] {
                let run = hosts.netkat_in_pod(&pair.host, &format!("{options} -w 0.2 {to} 80")).run();
                assert!(run.code() == Some(1) && run.stderr.contains("timed out"), "{run}");
                for words in words {
                    assert_eq!(run.stderr.contains(words), pod, "{words}: {run}");
                }
            }
        }
    }
}
