//! An assumed address (--as): on interfaces of every kind, several at once, next to address
//! resolution that comes and goes. Nothing is left at the end.
use crate::support::{
    frames::PEER_MAC,
    namespace::Namespace,
    netkat::{listening, netkat},
    payload::{MIB, Payload},
    peers::{Netcat, bracketed, kernel_connects},
    process::{DEADLINE, Input, Process},
    requirements::{self, lab},
    topology::{Family, Pair, address, at, veth},
};
use netkat::net::MacAddr;
use std::{net::IpAddr, time::Duration};

/// Returns an address that no host has.
fn assumed(family: Family, number: u8) -> IpAddr {
    at(family, &format!("10.77.0.{number}"), &format!("fd77::{number}"))
}

/// Returns the peer's neighbour entry for an address.
fn entry(peer: &Namespace, address: IpAddr) -> String {
    peer.words(&format!("ip neigh show to {address}")).run().text()
}

/// Two namespaces on the ports (host, peer) of a bridge in a third.
struct Segment {
    pair: Pair,
    switch: Namespace,
}

impl Segment {
    fn new() -> Segment {
        let pair = Pair::new();
        let switch = Namespace::new("switch");
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        for (end, port) in [(&pair.host, "to-host"), (&pair.peer, "to-peer")] {
            end.words("ip link del eth0").run();
            veth(end, "eth0", &switch, port);
            switch.ip(&format!("link set {port} master br0"));
        }
        for (end, number) in [(&pair.host, 1), (&pair.peer, 2)] {
            address(end, "eth0", &format!("10.77.0.{number}/24"));
            address(end, "eth0", &format!("fd77::{number}/64"));
        }
        Segment { pair, switch }
    }

    /// Returns the bridge's port for a link address.
    fn port_of(&self, mac: MacAddr) -> Option<String> {
        let table = self.switch.run("bridge fdb show br br0").text();
        let line = table.lines().find(|line| line.starts_with(&mac.to_string()))?;
        line.split_whitespace().skip_while(|word| *word != "dev").nth(1).map(str::to_owned)
    }
}

/// Starts a server on the peer's port 5000 that says its client's address and then echoes, for any
/// number of clients.
fn echo(peer: &Namespace, family: Family, at: IpAddr) -> Process {
    let v = if family == Family::V4 { 4 } else { 6 };
    let listen =
        format!("TCP{v}-LISTEN:5000,bind={},fork,reuseaddr", bracketed(at, 0).trim_end_matches(":0"));
    let mut server = peer.command("socat").arg(listen).arg("SYSTEM:echo $SOCAT_PEERADDR; cat").spawn();
    server.wait_listening(5000);
    server
}

/// Returns an address as socat writes it.
fn as_told(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{}]", v6.segments().map(|s| format!("{s:04x}")).join(":")),
    }
}

/// A conversation under an assumed address that has begun.
fn talk(host: &Namespace, assumed: IpAddr, to: IpAddr) -> Process {
    let mut client = netkat(host, &format!("-v --as {assumed} {to} 5000")).input(Input::Open).spawn();
    client.wait_for_stdout(&as_told(assumed));
    client
}

fn say(client: &mut Process, word: &str) {
    client.write(format!("{word}\n").as_bytes());
    client.wait_for_stdout(word);
}

fn hang_up(mut client: Process) {
    client.close_stdin();
    let ended = client.wait(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{ended}");
}

/// Runs netkat in `host` under the address `own` of `arguments`' interface, as client and as server
/// of the kernel in `peer`.
fn both_ways(host: &Namespace, peer: &Namespace, own: IpAddr, there: IpAddr, arguments: &str) {
    let (out, back) = (Payload::new(20, MIB), Payload::new(21, MIB));
    let server = Netcat::Socat.listen(peer, there, 5000, |c| c.input(back.input()).expect(&out));
    let client = netkat(host, &format!("{arguments} --as {own} {there} 5000"));
    let client = client.input(out.input()).expect(&back).run();
    assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{own} to {there}: {client}");
    client.check(&back);
    server.wait(DEADLINE).check(&out);

    let server =
        listening(host, &format!("{arguments} --as {own} 5000"), |c| c.input(out.input()).expect(&back));
    let client = Netcat::Socat.connect(peer, own, 5000).input(back.input()).expect(&out).run();
    client.check(&out);
    let server = server.wait(DEADLINE);
    server.check(&back);
    assert_eq!(server.code(), Some(0), "{own}: {server}");
}

#[test]
fn on_a_veth_whatever_rp_filter_is() {
    lab!("socat");
    let pair = Pair::new();
    for rp_filter in ["0", "1", "2"] {
        for end in [&pair.host, &pair.peer] {
            end.sysctl("net.ipv4.conf.all.rp_filter", rp_filter);
            end.sysctl("net.ipv4.conf.eth0.rp_filter", rp_filter);
        }
        both_ways(&pair.host, &pair.peer, assumed(Family::V4, 70), pair.peer_address(Family::V4), "");
    }
    both_ways(&pair.host, &pair.peer, assumed(Family::V6, 70), pair.peer_address(Family::V6), "");
}

#[test]
fn on_a_bridge() {
    lab!("socat");
    let pair = Pair::new();
    pair.bridge_host();
    for family in Family::ALL {
        both_ways(&pair.host, &pair.peer, assumed(family, 70), pair.peer_address(family), "");
    }
}

/// A macvlan receives only frames to its own link address.
#[test]
fn on_a_macvlan() {
    lab!("socat");
    let pair = Pair::new();
    if !pair.macvlan_host() {
        return requirements::lacking("on_a_macvlan", "this kernel has no macvlan");
    }
    for (own, there) in [("10.78.0.70", "10.78.0.2"), ("fd78::70", "fd78::2")] {
        let [own, there] = [own, there].map(|text| text.parse().expect("an address"));
        both_ways(&pair.host, &pair.peer, own, there, "");
    }
}

/// Three assumed addresses at once: two hosts, and one of them twice. The bridge learns their
/// ports, a peer that forgets them asks and is answered, and at the end nothing of them is left.
#[test]
fn several_at_once_whom_the_peer_forgets_and_asks_for_again() {
    lab!("socat", "bridge", "tc");
    let segment = Segment::new();
    let Pair { host, peer, .. } = &segment.pair;
    for family in Family::ALL {
        let there = segment.pair.peer_address(family);
        let _server = echo(peer, family, there);
        let trace =
            || host.run("ip -d link show dev eth0").text() + &host.run("tc qdisc show dev eth0").text();
        let before = trace();
        let [one, two] = [70, 71].map(|number| assumed(family, number));
        let mut clients = [one, two, one].map(|own| talk(host, own, there));
        assert_ne!(trace(), before, "promiscuous membership is to be seen while they run");
        for own in [one, two] {
            let mac = MacAddr::locally_administered(own);
            assert_eq!(segment.port_of(mac).as_deref(), Some("to-host"), "{own}");
            assert!(entry(peer, own).contains(&mac.to_string()), "{}", entry(peer, own));
        }
        for round in ["first", "second"] {
            peer.ip("neigh flush dev eth0");
            clients.iter_mut().for_each(|client| say(client, round));
        }
        clients.into_iter().for_each(hang_up);
        assert_eq!(trace(), before);

        // The peer's entries are stale, and harm neither the peer nor the next connection.
        assert!(!kernel_connects(peer, two, 5000), "somebody is still {two}");
        hang_up(talk(host, one, there));
    }
    // No frame refreshes the bridge's entries.
    segment.switch.ip("link set br0 type bridge ageing_time 10");
    let mac = MacAddr::locally_administered(assumed(Family::V4, 70));
    let started = std::time::Instant::now();
    while segment.port_of(mac).is_some() {
        assert!(started.elapsed() < DEADLINE, "the bridge does not forget {mac}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The peer's entry is flushed again and again while bytes go both ways.
#[test]
fn a_peer_that_resolves_anew_during_a_transfer() {
    lab!("socat");
    let pair = Pair::new();
    let (out, back) = (Payload::new(22, 64 * MIB), Payload::new(23, 64 * MIB));
    for family in Family::ALL {
        let there = pair.peer_address(family);
        let server = Netcat::Socat.listen(&pair.peer, there, 5000, |c| c.input(back.input()).expect(&out));
        let own = assumed(family, 70);
        let mut client =
            netkat(&pair.host, &format!("--as {own} {there} 5000")).input(out.input()).expect(&back).spawn();
        let mut flushed = 0;
        while client.is_running() {
            if entry(&pair.peer, own).contains("lladdr") {
                pair.peer.words(&format!("ip neigh del {own} dev eth0")).run();
                flushed += 1;
            }
        }
        client.wait(DEADLINE).check(&back);
        server.wait(DEADLINE).check(&out);
        assert!(flushed > 1, "{family:?}: the entry was flushed {flushed} times");
    }
}

#[test]
fn an_address_that_somebody_has_is_an_error() {
    lab!("socat");
    let pair = Pair::new();
    let peer_mac = MacAddr(PEER_MAC).to_string();
    for family in Family::ALL {
        let (here, there) = (pair.host_address(family), pair.peer_address(family));
        let refused = |arguments: String, words: &[&str]| {
            let output = netkat(&pair.host, &arguments).run();
            assert_eq!(output.code(), Some(1), "{arguments}: {output}");
            assert!(words.iter().all(|word| output.stderr.contains(word)), "{arguments}: {output}");
        };
        // The peer's own address, taken by a client and by a server; then the host's own.
        let elsewhere = assumed(family, 99);
        let in_use = [&*format!("{there} is in use by {peer_mac}"), "--as"];
        refused(format!("-w 2 --as {there} {elsewhere} 5000"), &in_use);
        refused(format!("-w 2 -l --as {there} 5000"), &in_use);
        refused(format!("-w 2 --as {here} {there} 5000"), &["this host's own", "--as"]);

        // Another netkat defends its address, too.
        let own = assumed(family, 70);
        let first = listening(&pair.peer, &format!("--as {own} 5000"), |c| c.input(Input::Open));
        let mac = "02:00:00:00:00:99";
        refused(
            format!("-w 2 --as {own} --as-mac {mac} {there} 5000"),
            &[&format!("{own} is in use by {}", MacAddr::locally_administered(own))],
        );
        drop(first);
    }
}
