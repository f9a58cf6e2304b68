//! `-z` of several hosts and networks: results of each host in order, whatever becomes of the others.
use crate::support::{
    files::SystemFile,
    netkat::{GUARDS, netkat},
    process::{DEADLINE, Process},
    requirements::lab,
    rules::nft,
    scan::{round_trip, states},
    topology::{Family, Pair, address, at},
    traces::{settles, traces},
    witness::Witness,
};
use std::{fmt::Write, net::IpAddr, time::Duration};

/// Returns the address of a family whose last part is this number, in decimal or hexadecimal.
fn numbered(family: Family, number: u8) -> IpAddr {
    at(family, &format!("10.77.0.{number}"), &format!("fd77::{number:x}"))
}

/// Gives the peer this address as well.
fn add(pair: &Pair, own: IpAddr) {
    address(&pair.peer, "eth0", &format!("{own}/{}", if own.is_ipv4() { 24 } else { 64 }));
}

/// Starts a server at the peer's addresses of a family that accepts connection after connection.
fn serve(pair: &Pair, family: Family) -> Process {
    let listen = if family == Family::V4 { "TCP4-LISTEN:5000" } else { "TCP6-LISTEN:5000,ipv6only" };
    let mut server = pair.peer.words(&format!("socat {listen},fork,reuseaddr,backlog=100 EXEC:cat")).spawn();
    server.wait_listening(5000);
    server
}

/// More hosts than the kernel's neighbour table is asked for: netkat solicits them, and leaves that table alone. Every
/// third is not there.
#[test]
fn each_host_of_a_network_has_its_own_results() {
    lab!("socat");
    for family in Family::ALL {
        let pair = Pair::new();
        let _server = serve(&pair, family);
        let mut expected = String::new();
        for number in 32..64 {
            let own = numbered(family, number);
            let end = if number % 3 == 0 {
                ["no neighbour"; 2]
            } else {
                add(&pair, own);
                ["open", "refused"]
            };
            let _ = write!(expected, "{own} 5000/tcp {}\n{own} 4999/tcp {}\n", end[0], end[1]);
        }
        let network = at(family, "10.77.0.40", "fd77::28");
        let bits = if family == Family::V4 { 27 } else { 123 };
        let before = traces(&pair.host);
        let scan = netkat(&pair.host, &format!("-z -w 1 {network}/{bits} 5000,4999")).run();
        assert_eq!((scan.code(), states(&scan.text())), (Some(0), expected), "{scan}");
        assert!(scan.elapsed < Duration::from_secs(8), "{scan}");
        let text = scan.text();
        let answers = text.lines().filter(|line| !line.ends_with("no neighbour"));
        assert!(answers.map(round_trip).all(|time| time.is_some()), "{scan}");
        let known = pair.host.run("ip neighbour show").text();
        assert!(!known.contains(&format!("{} ", numbered(family, 33))), "{known}");
        settles(|| traces(&pair.host) == before, || traces(&pair.host));
    }
}

/// Each with its own reason, in either family, and in the order of the list.
#[test]
fn a_host_that_cannot_be_reached_ends_nothing() {
    lab!("socat", "unshare");
    let pair = Pair::new();
    let [v4, v6] = Family::ALL.map(|family| pair.peer_address(family));
    let _servers = Family::ALL.map(|family| serve(&pair, family));
    let names =
        SystemFile::new("/etc/hosts", &format!("{v4} peer.test\n{v6} peer.test\n192.0.2.1 far.test\n"));
    for flags in ["-z", "-z -u"] {
        let (open, protocol) = if flags == "-z" { ("open", "tcp") } else { ("closed", "udp") };
        let list = format!("192.0.2.1,{v6},nosuch.test,far.test,{v4},2001:db8::1,peer.test");
        let scan = names.netkat(&pair.host, &format!("{flags} --json=- -w 1 {list} 5000")).run();
        let objects: Vec<serde_json::Value> =
            scan.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let [.., outcome] = &objects[..] else { panic!("{scan}") };
        let ports = outcome["ports"].as_array().expect("ports");
        let told: Vec<_> = ports
            .iter()
            .map(|port| {
                let [address, host, state] =
                    ["address", "host", "state"].map(|field| port[field].as_str().unwrap_or("-"));
                format!(
                    "{address} {host} {}/{} {state}",
                    port["port"],
                    port["protocol"].as_str().unwrap_or("-")
                )
            })
            .collect();
        // Of a name, the first address that has the port open.
        let peer = told.last().and_then(|line| line.split(' ').next()).unwrap_or_default().to_owned();
        assert!([v4.to_string(), v6.to_string()].contains(&peer), "{scan}");
        let expected = [
            format!("192.0.2.1 - 5000/{protocol} no_route"),
            format!("{v6} - 5000/{protocol} {open}"),
            format!("nosuch.test nosuch.test 5000/{protocol} name"),
            format!("192.0.2.1 far.test 5000/{protocol} no_route"),
            format!("{v4} - 5000/{protocol} {open}"),
            format!("2001:db8::1 - 5000/{protocol} no_route"),
            format!("{peer} peer.test 5000/{protocol} {open}"),
        ];
        assert_eq!(told, expected, "{scan}");
        assert_eq!(scan.code(), Some(i32::from(flags != "-z")), "{scan}");
    }
    let none = names.netkat(&pair.host, "-z --exit-verdict 192.0.2.1,far.test,2001:db8::1 80,81").run();
    assert_eq!((none.code(), none.text().matches(" no route\n").count()), (Some(6), 6), "{none}");
    assert!(none.stderr.contains("3 hosts: none of 6 ports is known to be open"), "{none}");
}

/// The first host is silent: its object comes last, its line holds the others back.
#[test]
fn objects_come_as_soon_as_they_are_known() {
    lab!("nft", "ncat");
    for family in Family::ALL {
        let pair = Pair::new();
        let [silent, other] = [40, 41].map(|number| numbered(family, number));
        add(&pair, silent);
        add(&pair, other);
        let (to, l3) = (silent, if family == Family::V4 { "ip" } else { "ip6" });
        nft(
            &pair.peer,
            &format!(
                "table inet lab {{ chain c {{ type filter hook input priority 0; {l3} daddr {to} meta l4proto {{ tcp, \
                 udp }} drop; }}; }}"
            ),
        );
        for flags in ["-z", "-z -u"] {
            let line = format!("{flags} --json=- -w 30 {silent},{other} 5000");
            let mut scan = netkat(&pair.host, &line).spawn();
            scan.wait_for_stdout(&format!("\"address\":\"{other}\""));
            assert!(!String::from_utf8_lossy(&scan.stdout()).contains(&format!("\"address\":\"{silent}\"")));
            scan.signal(nix::sys::signal::SIGINT);
            let ended = scan.wait(DEADLINE);
            assert_eq!(ended.signal(), Some(2), "{ended}");
            let scan = netkat(&pair.host, &format!("{flags} -w 400ms {silent},{other} 5000")).run();
            let ends = if flags == "-z" {
                ["tcp timed out", "tcp refused"]
            } else {
                ["udp open|filtered", "udp closed"]
            };
            let expected = format!("{silent} 5000/{}\n{other} 5000/{}\n", ends[0], ends[1]);
            assert_eq!((scan.code(), states(&scan.text())), (Some(1), expected), "{scan}");
        }
    }
}

/// Interfaces and next hops differ from host to host.
#[test]
fn each_host_is_probed_by_its_own_route() {
    lab!("socat", "tcpdump");
    for family in Family::ALL {
        let pair = Pair::with_two_links();
        let _server = serve(&pair, family);
        let near = pair.peer_address(family);
        let far = at(family, "10.79.0.2", "fd79::2");
        let beyond = at(family, "10.80.0.1", "fd80::1");
        let (v, bits) = if family == Family::V4 { ("-4", 32) } else { ("-6", 128) };
        pair.host.ip(&format!("{v} route add {beyond}/{bits} via {far}"));
        let mut links = ["eth0", "eth1"].map(|name| Witness::incoming(&pair.peer, name, "tcp or udp"));
        let scan = netkat(&pair.host, &format!("-z -w 2 {near},{far},{beyond} 5000,4999")).run();
        let expected =
            [near, far, beyond].map(|to| format!("{to} 5000/tcp open\n{to} 4999/tcp refused\n")).concat();
        assert_eq!((scan.code(), states(&scan.text())), (Some(0), expected), "{scan}");
        links[0].wait_for(&format!(" > {near}.5000"));
        links[1].wait_for(&format!(" > {far}.5000"));
        links[1].wait_for(&format!(" > {beyond}.4999"));
        let udp = netkat(&pair.host, &format!("-z -u -w 2 {near},{far},{beyond} 4999")).run();
        let expected = [near, far, beyond].map(|to| format!("{to} 4999/udp closed\n")).concat();
        assert_eq!(states(&udp.text()), expected, "{udp}");
    }
}

/// The kernel's copy of each answer is dropped, whichever host it comes from: no reset tells of a kernel that knows nothing
/// of the connection.
#[test]
fn the_guard_holds_for_all_hosts() {
    lab!("socat", "tcpdump");
    for (family, guard) in Family::ALL.into_iter().flat_map(|family| GUARDS.map(|guard| (family, guard))) {
        let pair = Pair::new();
        let _server = serve(&pair, family);
        (40..44).for_each(|number| add(&pair, numbered(family, number)));
        let witness = Witness::incoming(
            &pair.peer,
            "eth0",
            "tcp port 5000 and (tcp[tcpflags] & tcp-rst != 0 or ip6[53] & 4 != 0)",
        );
        let bits = if family == Family::V4 { 30 } else { 126 };
        let hosts = format!("{}/{bits}", numbered(family, 40));
        let scan = netkat(&pair.host, &format!("-z --guard {guard} -w 2 {hosts} 5000")).run();
        assert_eq!(scan.text().matches("/tcp open").count(), 4, "{scan}");
        let seen = witness.finish();
        assert_eq!(seen, "", "{guard}");
    }
}

/// A thousand hosts behind a router, each refusing: few descriptors, and little memory.
#[test]
fn a_thousand_hosts_take_one_port_and_few_descriptors() {
    lab!();
    for family in Family::ALL {
        let pair = Pair::new();
        let gateway = pair.peer_address(family);
        let (v, far, bits) =
            if family == Family::V4 { ("-4", "10.88.0.0", 22) } else { ("-6", "fd88::", 118) };
        pair.host.ip(&format!("{v} route add {far}/{bits} via {gateway}"));
        pair.peer.ip(&format!("{v} route add local {far}/{bits} dev lo"));
        let limited =
            format!("ulimit -n 40; exec {} -z -w 3 {far}/{bits} 5000", crate::support::netkat::PROGRAM);
        let scan = pair.host.command("/bin/sh").args(["-c", &limited]).run();
        assert_eq!(scan.text().matches(" 5000/tcp refused (").count(), 1024, "{scan}");
        assert!(
            scan.stderr.contains("1024 hosts: none of 1024 ports is known to be open"),
            "{}",
            scan.stderr
        );
    }
}

#[test]
fn a_rate_is_kept() {
    lab!();
    for family in Family::ALL {
        let pair = Pair::new();
        let to = pair.peer_address(family);
        for name in ["net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"] {
            pair.peer.sysctl(name, "0");
        }
        for flags in ["-z", "-z -u"] {
            let scan = netkat(&pair.host, &format!("{flags} -w 2 --rate 5 {to} 4000-4005")).run();
            assert_eq!(scan.text().lines().count(), 6, "{scan}");
            // Six probes: five intervals of 200 ms.
            assert!(scan.elapsed > Duration::from_millis(1000), "{scan}");
            let fast = netkat(&pair.host, &format!("{flags} -w 2 {to} 4000-4002")).run();
            assert!(fast.elapsed < Duration::from_millis(900), "{fast}");
        }
    }
}

#[test]
fn too_many_targets_are_refused() {
    lab!();
    let pair = Pair::new();
    for (arguments, most) in [
        ("10.0.0.0/15 22", "with 1 port at most 65536 hosts"),
        ("10.0.0.0/16 22,80", "with 2 ports at most 32768 hosts"),
        ("10.0.0.0/16,10.77.0.2 22", "with 1 port at most 65536 hosts"),
        ("fd77::/64 22", "with 1 port at most 65536 hosts"),
    ] {
        let scan = netkat(&pair.host, &format!("-z {arguments}")).run();
        assert_eq!(scan.code(), Some(2), "{scan}");
        assert!(scan.stderr.contains(most), "{scan}");
    }
}
