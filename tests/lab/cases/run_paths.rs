//! `--run`: paths of a command's packets: smaller MTUs, neighbours that move, links that go down,
//! chosen next hops and addresses, several uplinks.
use crate::support::{
    namespace::Namespace,
    netkat::{PROGRAM_GUARDS, netkat, running},
    payload::{MIB, Payload},
    process::{DEADLINE, Input, Process},
    programs::{self, Direction, TC_ACT_OK, TC_ACT_UNSPEC},
    requirements::lab,
    rules::Rule,
    servers::echo_server,
    topology::{Family, Pair, address, at, veth},
};
use std::{net::IpAddr, time::Duration};

/// Starts a conversation of a command with the echo server.
fn talk(host: &Namespace, flags: &str, to: IpAddr) -> Process {
    let words = format!("{flags} -v --run -- nc.openbsd -N {to} 7");
    let mut talk = netkat(host, &words).input(Input::Open).deadline(DEADLINE * 4).spawn();
    talk.write(b"begin\n");
    talk.wait_for_stdout("begin");
    talk
}

/// Sends a line and checks its echo.
fn goes_on(talk: &mut Process, words: &str) {
    talk.write(format!("{words}\n").as_bytes());
    talk.wait_for_stdout(words);
}

fn ends_well(mut talk: Process) {
    talk.close_stdin();
    let output = talk.wait(DEADLINE);
    assert_eq!(output.code(), Some(0), "{output}");
}

/// A router between host and peer, whose far link has an MTU of 1280 bytes.
fn behind_a_router() -> (Pair, Namespace) {
    let (pair, router) = (Pair::new(), Namespace::new("router"));
    for end in [&pair.host, &pair.peer] {
        end.words("ip link del eth0").run();
    }
    veth(&pair.host, "eth0", &router, "near");
    veth(&pair.peer, "eth0", &router, "far");
    for (family, near, far) in [(4, "10.77.0", "10.78.0"), (6, "fd77:", "fd78:")] {
        let dot = if family == 4 { "." } else { ":" };
        let length = if family == 4 { 24 } else { 64 };
        address(&pair.host, "eth0", &format!("{near}{dot}1/{length}"));
        address(&router, "near", &format!("{near}{dot}9/{length}"));
        address(&router, "far", &format!("{far}{dot}9/{length}"));
        address(&pair.peer, "eth0", &format!("{far}{dot}2/{length}"));
        pair.host.ip(&format!("-{family} route add default via {near}{dot}9"));
        pair.peer.ip(&format!("-{family} route add default via {far}{dot}9"));
    }
    router.sysctl("net.ipv4.ip_forward", "1");
    router.sysctl("net.ipv6.conf.all.forwarding", "1");
    router.ip("link set far mtu 1280");
    pair.peer.ip("link set eth0 mtu 1280");
    (pair, router)
}

#[test]
fn a_smaller_mtu_beyond_a_router_is_learned() {
    lab!("nc.openbsd", "iptables-nft");
    let (pair, _router) = behind_a_router();
    let payload = Payload::new(3, 4 * MIB);
    for (family, to) in [(Family::V4, "10.78.0.2"), (Family::V6, "fd78::2")] {
        Rule::Both.apply(&pair.host, family, "tcp");
        let server = pair.peer.command("nc.openbsd").args(["-N", "-l", to, "5000"]).expect(&payload);
        let mut server = server.deadline(DEADLINE * 2).spawn();
        server.wait_listening(5000);
        let send = running(&pair.host, "", ["nc.openbsd", "-N", to, "5000"]).input(payload.input());
        send.deadline(DEADLINE * 2).succeed();
        server.wait(DEADLINE).check(&payload);
    }
}

#[test]
fn a_route_is_traced_through_a_router() {
    lab!("traceroute");
    let (pair, _router) = behind_a_router();
    for (to, near) in [("10.78.0.2", "10.77.0.9"), ("fd78::2", "fd77::9")] {
        let run = running(&pair.host, "", ["traceroute", "-n", "-q", "1", "-w", "2", to]).succeed();
        let hops: Vec<_> = run.text().lines().skip(1).map(str::to_owned).collect();
        assert!(hops[0].contains(near) && hops[1].contains(to), "{run}");
    }
}

#[test]
fn a_neighbour_that_moves_to_another_link_address_is_followed() {
    lab!("nc.openbsd", "python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let _server = echo_server(&pair.peer);
        let mut talk = talk(&pair.host, "", pair.peer_address(family));
        pair.peer.ip("link set eth0 address 02:00:00:00:77:99");
        goes_on(&mut talk, "after the move");
        ends_well(talk);
    }
}

#[test]
fn a_link_that_goes_down_and_up_interrupts_only() {
    lab!("nc.openbsd", "python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let _server = echo_server(&pair.peer);
        let to = pair.peer_address(family);
        let mut talk = talk(&pair.host, "", to);
        pair.host.ip("link set eth0 down");
        talk.write(b"meanwhile\n");
        std::thread::sleep(Duration::from_millis(300));
        pair.host.ip("link set eth0 up");
        if family == Family::V6 {
            // The kernel drops global addresses of a link that goes down.
            address(&pair.host, "eth0", "fd77::1/64");
        }
        talk.wait_for_stdout("meanwhile");
        goes_on(&mut talk, "after it came up");
        ends_well(talk);
    }
}

#[test]
fn an_unknown_neighbour_is_asked_at_once() {
    lab!("ping", "ip");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family).to_string();
        pair.host.ip("neigh flush all");
        let run = running(&pair.host, "", ["ping", "-n", "-c", "1", "-W", "5", &at]).succeed();
        let time =
            run.text().split("time=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        assert!(time.is_some_and(|time| time < 80.0), "{run}");
    }
}

#[test]
fn an_idle_connection_goes_on() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    let mut talk = talk(&pair.host, "", pair.peer_address(Family::V4));
    // Longer than netkat's interval to look for ended flows.
    std::thread::sleep(Duration::from_secs(12));
    goes_on(&mut talk, "after the silence");
    ends_well(talk);
}

#[test]
fn a_command_is_another_host_on_the_segment() {
    lab!("nc.openbsd", "socat", "python3");
    let pair = Pair::new();
    for family in Family::ALL {
        let assumed = at(family, "10.77.0.200", "fd77::200");
        let listen = if family == Family::V4 {
            "TCP4-LISTEN:5000,fork,reuseaddr"
        } else {
            "TCP6-LISTEN:5000,fork,reuseaddr,ipv6only=1"
        };
        let mut server = pair.peer.command("socat").args([listen, "SYSTEM:echo $SOCAT_PEERADDR"]).spawn();
        server.wait_listening(5000);
        let to = pair.peer_address(family).to_string();
        let run =
            running(&pair.host, &format!("--as {assumed}"), ["nc.openbsd", "-d", &to, "5000"]).succeed();
        let told = run.text().trim().trim_matches(['[', ']']).parse::<IpAddr>();
        assert_eq!(told.ok(), Some(assumed), "{run}");
        let taken = running(&pair.host, &format!("--as {to}"), ["true"]).run();
        assert_eq!(taken.code(), Some(125), "{taken}");
        assert!(taken.stderr.contains("is in use by"), "{taken}");
    }
}

#[test]
fn a_chosen_next_hop_leads_past_the_routing_table() {
    lab!("nc.openbsd", "python3");
    let (pair, router) = behind_a_router();
    let _server = echo_server(&pair.peer);
    for (family, to, via) in [(4, "10.78.0.2", "10.77.0.9"), (6, "fd78::2", "fd77::9")] {
        // The host itself has the address, as a node has a load balancer's.
        address(&pair.host, "eth0", &format!("{to}/{}", if family == 4 { 32 } else { 128 }));
        pair.host.ip(&format!("-{family} route del default"));
        let run = running(&pair.host, &format!("--via {via}"), ["nc.openbsd", "-N", to, "7"]);
        assert_eq!(run.text("past\n").succeed().text(), "past\n", "{via}");
    }
    drop(router);
}

#[test]
fn each_destination_goes_by_its_own_uplink() {
    lab!("nc.openbsd", "socat");
    let (pair, other) = (Pair::new(), Namespace::new("other"));
    veth(&pair.host, "eth1", &other, "eth0");
    for (namespace, interface, number) in [(&pair.host, "eth1", 1), (&other, "eth0", 2)] {
        address(namespace, interface, &format!("10.79.0.{number}/24"));
        address(namespace, interface, &format!("fd79::{number}/64"));
    }
    for (family, far, near) in [(Family::V4, "10.79.0.2", "10.79.0.1"), (Family::V6, "fd79::2", "fd79::1")] {
        Rule::Both.apply(&pair.host, family, "tcp");
        let listen = if family == Family::V4 {
            "TCP4-LISTEN:5000,fork,reuseaddr"
        } else {
            "TCP6-LISTEN:5000,fork,reuseaddr,ipv6only=1"
        };
        for (end, to, from) in [
            (&other, far.parse().expect("an address"), near.parse().expect("an address")),
            (&pair.peer, pair.peer_address(family), pair.host_address(family)),
        ] {
            let mut server = end.command("socat").args([listen, "SYSTEM:echo $SOCAT_PEERADDR"]).spawn();
            server.wait_listening(5000);
            let to: IpAddr = to;
            let run = running(&pair.host, "", ["nc.openbsd", "-d", &to.to_string(), "5000"]).succeed();
            let told = run.text().trim().trim_matches(['[', ']']).parse::<IpAddr>();
            assert_eq!(told.ok(), Some(from), "{run}");
            // The next server has the same port of that family in another namespace.
            server.signal(nix::sys::signal::Signal::SIGTERM);
        }
    }
}

#[test]
fn a_route_that_comes_leads_a_command() {
    lab!("nc.openbsd", "python3", "sh");
    let (pair, _router) = behind_a_router();
    let _server = echo_server(&pair.peer);
    pair.host.ip("route del default");
    pair.host.ip("route add default via 10.77.0.77");
    let script =
        "nc.openbsd -w 1 -z 10.78.0.2 7 || echo unreachable; read line; exec nc.openbsd -N 10.78.0.2 7";
    let mut run = running(&pair.host, "", ["sh", "-c", script]).input(Input::Open).spawn();
    run.wait_for_stdout("unreachable");
    pair.host.ip("route replace default via 10.77.0.9");
    run.write(b"\n");
    run.write(b"by the new route\n");
    run.wait_for_stdout("by the new route");
    ends_well(run);
}

#[test]
fn name_servers_on_loopback_are_asked_through_the_host() {
    lab!("getent", "python3", "unshare", "sh");
    use crate::support::servers::name_server;
    let pair = Pair::new();
    let _here = name_server(&pair.host, "127.0.0.53");
    let _there = name_server(&pair.peer, "10.77.0.2");
    let conf = std::env::temp_dir().join(format!("netkat-lab-{}-resolv", std::process::id()));
    let ask = |server: &str, flags: &str| {
        std::fs::write(&conf, format!("nameserver {server}\n")).expect("a file");
        let program = crate::support::netkat::PROGRAM;
        let line = format!(
            "mount --bind {} /etc/resolv.conf && exec {program} -v {flags} --run -- getent ahostsv4 example.org",
            conf.display()
        );
        pair.host.command("unshare").args(["-m", "sh", "-c", &line]).run()
    };
    for (server, flags, relayed) in [
        ("127.0.0.53", "", true),
        ("10.77.0.2", "", false),
        ("10.77.0.2", "--dns relay", true),
        ("192.0.2.53", "--dns 10.77.0.2", false),
    ] {
        let run = ask(server, flags);
        assert!(run.success() && run.text().starts_with("10.77.0.2 "), "{server} {flags}: {run}");
        let said = run.stderr.contains("through this host's sockets");
        assert_eq!(said, relayed, "{server} {flags}: {run}");
    }
    let _ = std::fs::remove_file(&conf);
}

#[test]
fn both_kinds_of_guard_serve() {
    lab!("nc.openbsd", "python3", "iptables-nft");
    for guard in PROGRAM_GUARDS {
        for family in Family::ALL {
            let pair = Pair::new();
            let _server = echo_server(&pair.peer);
            Rule::Both.apply(&pair.host, family, "tcp");
            let mut talk = talk(&pair.host, &format!("--guard {guard}"), pair.peer_address(family));
            // Longer than a clsact guard lives without its owner.
            std::thread::sleep(Duration::from_millis(1500));
            goes_on(&mut talk, "after its limit");
            ends_well(talk);
            let left = pair.host.words("tc filter show dev eth0 ingress").run().text();
            assert_eq!(left, "", "{guard}");
        }
    }
}

#[test]
fn a_program_that_lets_packets_reach_the_kernel_is_named() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let program = programs::classifier("lab_culprit", TC_ACT_OK);
    let Some(_link) = programs::attach_tcx(&program, &pair.host, "eth0", Direction::Ingress) else { return };
    let _server = echo_server(&pair.peer);
    let mut talk = talk(&pair.host, "--guard clsact", pair.peer_address(Family::V4));
    for round in 0..20 {
        goes_on(&mut talk, &format!("round {round}"));
    }
    talk.wait_for_stderr("lab_culprit, ahead of the guard, lets our packets reach the kernel");
}

#[test]
fn other_programs_and_connections_of_the_host_go_on() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let program = programs::classifier("lab_bystander", TC_ACT_UNSPEC);
    let link = programs::attach_tcx(&program, &pair.host, "eth0", Direction::Ingress);
    let _server = echo_server(&pair.peer);
    let at = pair.peer_address(Family::V4);
    let kernel = pair.host.command("nc.openbsd").args(["-N", &at.to_string(), "7"]).input(Input::Open);
    let mut kernel = kernel.deadline(DEADLINE * 2).spawn();
    kernel.write(b"before\n");
    kernel.wait_for_stdout("before");
    let mut command = talk(&pair.host, "", at);
    for round in 0..5 {
        goes_on(&mut command, &format!("command {round}"));
        goes_on(&mut kernel, &format!("kernel {round}"));
    }
    ends_well(command);
    goes_on(&mut kernel, "afterwards");
    ends_well(kernel);
    drop(link);
}
