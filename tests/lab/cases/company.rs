//! netkat touches only its own flow: programs, filters, connections and listeners of others go on.
use crate::support::{
    namespace::Namespace,
    netkat::{GUARDS, listening, netkat},
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Input, Process},
    programs::{self, Direction, TC_ACT_OK, TC_ACT_UNSPEC},
    requirements::lab,
    topology::{Family, Pair},
};

/// Starts a server that echoes to any number of clients.
fn echo_server(at: &Namespace, address: std::net::IpAddr, port: u16) -> Process {
    let mut server = at
        .command("socat")
        .args([
            "-t30",
            &format!("TCP-LISTEN:{port},fork,reuseaddr,pf=ip{}", if address.is_ipv4() { 4 } else { 6 }),
        ])
        .arg("EXEC:/bin/cat")
        .spawn();
    server.wait_listening(port);
    server
}

/// Returns the filters and qdiscs of eth0 as tc prints them.
fn traffic_control(host: &Namespace) -> String {
    ["tc qdisc show dev eth0", "tc filter show dev eth0 ingress", "tc filter show dev eth0 egress"]
        .iter()
        .map(|line| host.words(line).run().text())
        .collect()
}

fn exchange_with_listener(pair: &Pair, arguments: &str) {
    let out = Payload::new(8, 4 * MIB);
    let at = pair.host_address(Family::V4);
    let server = listening(&pair.host, &format!("{arguments} {at} 5000"), |c| c.expect(&out));
    Netcat::OpenBsd.connect(&pair.peer, at, 5000).input(out.input()).succeed();
    server.wait(DEADLINE).check(&out);
}

#[test]
fn foreign_tcx_programs_keep_running_and_keep_their_place() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let (first, second) =
        (programs::classifier("lab_first", TC_ACT_UNSPEC), programs::classifier("lab_second", TC_ACT_UNSPEC));
    let Some(_first) = programs::attach_tcx(&first, &pair.host, "eth0", Direction::Ingress) else { return };
    let _second = programs::attach_tcx(&second, &pair.host, "eth0", Direction::Ingress);
    let ours = || programs::tcx_programs(&pair.host, "eth0", Direction::Ingress);
    let before = ours();
    assert_eq!(before.len(), 2);

    let at = pair.host_address(Family::V4);
    let out = Payload::short();
    let server = listening(&pair.host, &format!("--guard tcx {at} 5000"), |c| c.expect(&out));
    let during = ours();
    assert_eq!(during.len(), 3, "the guard is attached");
    assert_eq!(during[1..], before[..], "the guard runs first, the others in their order");
    Netcat::OpenBsd.connect(&pair.peer, at, 5000).input(out.input()).succeed();
    server.wait(DEADLINE).check(&out);
    assert_eq!(ours(), before);
}

#[test]
fn a_foreign_program_that_accepts_everything_does_not_get_in_between() {
    lab!("nc.openbsd", "tcpdump");
    let pair = Pair::new();
    let program = programs::classifier("lab_accepts", TC_ACT_OK);
    let _link = programs::attach_tcx(&program, &pair.host, "eth0", Direction::Ingress);
    programs::attach_clsact(&program, &pair.host, "eth0", Direction::Ingress, 1);
    let witness = crate::support::witness::Witness::of_resets_and_errors(&pair.peer, 5000);
    exchange_with_listener(&pair, "");
    exchange_with_listener(&pair, "--guard tcx");
    witness.saw_nothing();
}

/// The kernel takes 63 programs at tcx of an interface, and as many netkats may be there already.
#[test]
fn where_tcx_is_full_clsact_serves() {
    lab!("nc.openbsd", "tcpdump");
    let pair = Pair::new();
    let crowd: Vec<_> = (0..63).map(|_| programs::classifier("lab_crowd", TC_ACT_UNSPEC)).collect();
    let attach = |program| programs::attach_tcx(program, &pair.host, "eth0", Direction::Ingress);
    let Some(_links) = crowd.iter().map(attach).collect::<Option<Vec<_>>>() else { return };
    let witness = crate::support::witness::Witness::of_resets_and_errors(&pair.peer, 5000);
    exchange_with_listener(&pair, "");
    witness.saw_nothing();
    let at = pair.host_address(Family::V4);
    let refused = netkat(&pair.host, &format!("-l --guard tcx {at} 5000")).run();
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("63 programs already"), "{refused}");
    assert!(!traffic_control(&pair.host).contains("clsact"), "{}", traffic_control(&pair.host));
}

#[test]
fn foreign_clsact_filters_stay_and_a_foreign_qdisc_is_not_deleted() {
    lab!("nc.openbsd", "tc");
    for guard in GUARDS {
        for priority in [1, 7, 50] {
            let pair = Pair::new();
            let program = programs::classifier("lab_filter", TC_ACT_UNSPEC);
            programs::attach_clsact(&program, &pair.host, "eth0", Direction::Ingress, priority);
            programs::attach_clsact(&program, &pair.host, "eth0", Direction::Egress, priority);
            let before = traffic_control(&pair.host);
            assert!(before.contains("clsact") && before.contains("lab_filter"), "{before}");
            exchange_with_listener(&pair, &format!("--guard {guard}"));
            assert_eq!(traffic_control(&pair.host), before, "{guard}, priority {priority}");
        }
        // An empty clsact of others stays, too.
        let pair = Pair::new();
        pair.host.run("tc qdisc add dev eth0 clsact");
        let before = traffic_control(&pair.host);
        exchange_with_listener(&pair, &format!("--guard {guard}"));
        assert_eq!(traffic_control(&pair.host), before, "{guard}, an empty qdisc");
    }
}

#[test]
fn other_connections_to_the_same_server_and_port_go_on() {
    lab!("nc.openbsd", "socat");
    for family in Family::ALL {
        for guard in GUARDS {
            let pair = Pair::new();
            let at = pair.peer_address(family);
            let _server = echo_server(&pair.peer, at, 5000);
            let mut other = Netcat::OpenBsd.connect(&pair.host, at, 5000).input(Input::Open).spawn();
            other.write(b"before ");
            other.wait_for_stdout("before ");
            let out = Payload::new(8, 4 * MIB);
            let ours = netkat(&pair.host, &format!("--guard {guard} {at} 5000"))
                .input(out.input())
                .expect(&out)
                .spawn();
            other.write(b"during ");
            other.wait_for_stdout("before during ");
            ours.wait(DEADLINE).check(&out);
            other.write(b"after");
            other.wait_for_stdout("before during after");
            assert!(other.is_running());
        }
    }
}

#[test]
fn several_netkats_share_an_interface_and_a_server() {
    lab!("socat");
    for guard in GUARDS {
        let pair = Pair::new();
        let at = pair.peer_address(Family::V4);
        let _server = echo_server(&pair.peer, at, 5000);
        let payloads: Vec<_> = (10..14).map(|seed| Payload::new(seed, 2 * MIB)).collect();
        let line = format!("--guard {guard} {at} 5000");
        let clients: Vec<_> = payloads
            .iter()
            .map(|payload| netkat(&pair.host, &line).input(payload.input()).expect(payload).spawn())
            .collect();
        for (client, payload) in clients.into_iter().zip(&payloads) {
            let client = client.wait(DEADLINE);
            client.check(payload);
            assert_eq!(client.code(), Some(0), "{client}");
        }
        assert!(!traffic_control(&pair.host).contains("clsact"), "{}", traffic_control(&pair.host));
    }
}

#[test]
fn a_listener_that_is_there_is_not_hijacked() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.host_address(family);
        let out = Payload::short();
        for wanted in [format!("{at} 5000"), "5000".to_owned()] {
            let server = Netcat::OpenBsd.listen(&pair.host, at, 5000, |c| c.expect(&out));
            let refused = netkat(&pair.host, &format!("-l {wanted}")).run();
            assert_eq!(refused.code(), Some(1), "{refused}");
            assert!(refused.stderr.contains("5000") && refused.stderr.contains("listens"), "{refused}");
            Netcat::OpenBsd.connect(&pair.peer, at, 5000).input(out.input()).succeed();
            server.wait(DEADLINE).check(&out);
        }
    }
}

#[test]
fn a_second_netkat_does_not_take_the_firsts_port() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let out = Payload::short();
    let first = listening(&pair.host, "5000", |c| c.expect(&out));
    let second = netkat(&pair.host, "-l 5000").run();
    assert_eq!(second.code(), Some(1), "{second}");
    assert!(second.stderr.contains("5000"), "{second}");
    Netcat::OpenBsd.connect(&pair.peer, at, 5000).input(out.input()).succeed();
    first.wait(DEADLINE).check(&out);
}

/// Connects netkat and exchanges this many bytes with an echo server.
fn exchange_with_echo(pair: &Pair, family: Family, arguments: &str) -> String {
    let at = pair.peer_address(family);
    let _server = echo_server(&pair.peer, at, 5000);
    let out = Payload::new(8, 4 * MIB);
    let client =
        netkat(&pair.host, &format!("{arguments} {at} 5000")).input(out.input()).expect(&out).succeed();
    client.check(&out);
    client.stderr
}

#[test]
fn programs_that_come_in_front_or_behind_do_no_harm_whatever_they_return() {
    lab!("nc.openbsd", "tcpdump", "socat");
    let pair = Pair::new();
    if programs::attach_tcx(
        &programs::classifier("lab_probe", TC_ACT_UNSPEC),
        &pair.host,
        "eth0",
        Direction::Ingress,
    )
    .is_none()
    {
        return;
    }
    let programs = [
        programs::classifier("lab_next", TC_ACT_UNSPEC),
        programs::classifier("lab_ok", TC_ACT_OK),
        programs::redirector("lab_redirect", &pair.host, "lo"),
    ];
    for (program, lets_pass) in programs.iter().zip([false, true, false]) {
        for family in Family::ALL {
            let at = pair.peer_address(family);
            let witness = crate::support::witness::Witness::of_resets_and_errors(&pair.peer, 5000);
            {
                let _behind = programs::attach_tcx(program, &pair.host, "eth0", Direction::Ingress);
                exchange_with_echo(&pair, family, "");
            }
            // A later program may attach itself in front. The guard at netfilter is behind all of them.
            let _server = echo_server(&pair.peer, at, 5000);
            for (guard, is_named) in [("tcx", lets_pass), ("netfilter", false)] {
                let mut client =
                    netkat(&pair.host, &format!("-v --guard {guard} {at} 5000")).input(Input::Open).spawn();
                client.write(b"before ");
                client.wait_for_stdout("before ");
                let _front = programs::attach_tcx_first(program, &pair.host, "eth0", Direction::Ingress);
                for _ in 0..20 {
                    client.write(b"during ");
                }
                client.wait_until("the echo", |client| client.received() >= 147);
                if is_named {
                    client.wait_for_stderr("lets our packets reach the kernel");
                }
                client.close_stdin();
                let client = client.wait(DEADLINE);
                assert_eq!(client.code(), Some(0), "{client}");
                assert_eq!(client.stderr.contains("lets our packets"), is_named, "{client}");
            }
            witness.saw_nothing();
        }
    }
}

#[test]
fn a_program_that_lets_our_packets_reach_the_kernel_is_named() {
    lab!("nc.openbsd", "socat");
    let pair = Pair::new();
    let program = programs::classifier("lab_culprit", TC_ACT_OK);
    // tcx runs before clsact.
    let Some(_link) = programs::attach_tcx(&program, &pair.host, "eth0", Direction::Ingress) else { return };
    let at = pair.peer_address(Family::V4);
    let _server = echo_server(&pair.peer, at, 5000);
    let mut client = netkat(&pair.host, &format!("--guard clsact {at} 5000")).input(Input::Open).spawn();
    client.write(b"ping");
    client.wait_for_stdout("ping");
    for _ in 0..10 {
        client.write(b"ping");
    }
    client.wait_for_stderr("lab_culprit, ahead of the guard, lets our packets reach the kernel");
    client.close_stdin();
    assert_eq!(client.wait(DEADLINE).code(), Some(0));
}

#[test]
fn xdp_programs_pass_or_stop_our_packets_as_they_do_the_kernels() {
    lab!("socat");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    {
        let _pass = programs::attach_xdp(&pair.host, "eth0", programs::XDP_PASS);
        exchange_with_echo(&pair, Family::V4, "");
    }
    let _server = echo_server(&pair.peer, at, 5000);
    // The neighbours know each other, so neighbour discovery cannot be what fails.
    pair.host.ip(&format!("neigh replace {at} lladdr 02:00:77:00:00:02 dev eth0"));
    let _drop = programs::attach_xdp(&pair.host, "eth0", programs::XDP_DROP);
    let stopped = netkat(&pair.host, &format!("-w 1s {at} 5000")).run();
    assert_eq!(stopped.code(), Some(1), "{stopped}");
    assert!(stopped.stderr.contains("timed out"), "{stopped}");
}

/// Load balancers' addresses stand on an interface of every node that leads nowhere, as with IPVS:
/// netkat serves them and connects from them.
#[test]
fn addresses_that_ipvs_binds_are_like_any_other() {
    lab!("nc.openbsd", "socat");
    let pair = Pair::new();
    // A veth stands for a dummy, which some kernels lack.
    pair.host.ip("link add kube-ipvs0 type veth peer name kube-ipvs1");
    pair.host.ip("link set kube-ipvs0 up");
    pair.host.ip("link set kube-ipvs1 up");
    for (family, service) in [(Family::V4, "10.96.0.10"), (Family::V6, "fd96::10")] {
        let service: std::net::IpAddr = service.parse().expect("an address");
        let nodad = if service.is_ipv6() { "nodad" } else { "" };
        pair.host.ip(&format!("address add {service} dev kube-ipvs0 {nodad}"));
        pair.peer.ip(&format!("route add {service} via {}", pair.host_address(family)));
        let out = Payload::new(8, 4 * MIB);
        for listens in [service.to_string(), String::new()] {
            let server = listening(&pair.host, &format!("{listens} 5000"), |c| c.expect(&out));
            Netcat::OpenBsd.connect(&pair.peer, service, 5000).input(out.input()).succeed();
            server.wait(DEADLINE).check(&out);
        }
        exchange_with_echo(&pair, family, &format!("-s {service}"));
    }
}

#[test]
fn a_running_tcpdump_sees_it_all_and_changes_nothing() {
    lab!("socat", "tcpdump");
    let pair = Pair::new();
    let witness = crate::support::witness::Witness::all(&pair.host, "any", "tcp port 5000");
    exchange_with_echo(&pair, Family::V4, "");
    drop(witness);
}

#[test]
fn ten_netkats_share_an_interface() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let payloads: Vec<_> = (30..40).map(|seed| Payload::new(seed, MIB)).collect();
    let servers: Vec<_> = payloads
        .iter()
        .zip(6000..)
        .map(|(payload, port)| listening(&pair.host, &format!("{at} {port}"), |c| c.expect(payload)))
        .collect();
    for (payload, port) in payloads.iter().zip(6000..) {
        Netcat::OpenBsd.connect(&pair.peer, at, port).input(payload.input()).succeed();
    }
    for (server, payload) in servers.into_iter().zip(&payloads) {
        server.wait(DEADLINE).check(payload);
    }
    assert!(programs::tcx_programs(&pair.host, "eth0", Direction::Ingress).is_empty());
}
