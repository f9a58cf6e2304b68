//! UDP in both directions: past the TCP cases' rules, datagram for datagram, large ones in
//! fragments, and errors by name.
use crate::support::{
    datagrams::receive_from,
    netkat::{listening, netkat},
    process::{DEADLINE, Input},
    requirements::lab,
    rules::Rule,
    topology::{Family, Pair},
    witness::Witness,
};
use nix::sys::signal::Signal;
use std::{
    fs::OpenOptions,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

const PORT: u16 = 5000;

/// A kernel socket in the peer's namespace.
fn peer_socket(pair: &Pair, family: Family, port: u16) -> UdpSocket {
    let at = pair.peer_address(family);
    let socket = pair.peer.inside(|| UdpSocket::bind((at, port))).expect("a UDP socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    let (length, from) = receive_from(socket, &mut buffer).expect("a datagram");
    buffer.truncate(length);
    (buffer, from)
}

/// Returns whether the kernel's own UDP gets an answer from the peer, or (listening) one from the
/// peer arrives.
fn kernel_passes(pair: &Pair, family: Family, connect: bool) -> bool {
    let (client, server) = if connect { (&pair.host, &pair.peer) } else { (&pair.peer, &pair.host) };
    let to = if connect { pair.peer_address(family) } else { pair.host_address(family) };
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
    let server = server.inside(|| UdpSocket::bind((to, PORT + 1))).expect("a UDP socket");
    let client = client.inside(|| UdpSocket::bind((any, 0))).expect("a UDP socket");
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(150))).expect("a timeout");
    }
    let mut buffer = [0; 64];
    let Ok(_) = client.send_to(b"question", (to, PORT + 1)) else { return false };
    let Ok((_, from)) = receive_from(&server, &mut buffer) else { return false };
    server.send_to(b"answer", from).is_ok() && receive_from(&client, &mut buffer).is_ok()
}

#[test]
fn questions_and_answers_pass_every_rule() {
    lab!(
        "nft",
        "conntrack",
        "iptables-legacy",
        "ip6tables-legacy",
        "iptables-nft",
        "ip6tables-nft",
        "tcpdump"
    );
    for family in Family::ALL {
        for rule in Rule::ALL {
            let pair = Pair::new();
            rule.apply(&pair.host, family, "udp");
            for connect in [true, false] {
                let passes = kernel_passes(&pair, family, connect);
                assert_eq!(
                    passes,
                    rule == Rule::Nothing,
                    "the kernel against {rule:?}, {family:?}, {connect}"
                );
            }
            let witness = Witness::of_resets_and_errors(&pair.peer, PORT);
            let server = peer_socket(&pair, family, PORT);
            let line = format!("-u -q 200ms {} {PORT}", pair.peer_address(family));
            let mut client = netkat(&pair.host, &line).input(Input::Open).spawn();
            client.write(b"question");
            let (question, from) = receive(&server);
            assert_eq!(question, b"question");
            server.send_to(b"answer", from).expect("sending");
            client.wait_for_stdout("answer");
            client.close_stdin();
            let client = client.wait(DEADLINE);
            assert_eq!((client.code(), client.text().as_str()), (Some(0), "answer"), "{client}");

            let at = pair.host_address(family);
            let line = format!("-u {} {at} {PORT}", rule.demanded());
            let mut server = listening(&pair.host, &line, |c| c.input(Input::Open));
            let client = peer_socket(&pair, family, 0);
            client.send_to(b"question", (at, PORT)).expect("sending");
            server.wait_for_stdout("question");
            server.write(b"answer");
            assert_eq!(receive(&client), (b"answer".to_vec(), SocketAddr::new(at, PORT)));
            server.signal(Signal::SIGTERM);
            server.wait(DEADLINE);
            witness.saw_nothing();
            let table = pair.host.run("conntrack -L").text();
            assert!(!table.contains("port=5000 "), "{table}");
        }
    }
}

/// IPv4 carries at most 65,507 bytes, IPv6 65,527.
#[test]
fn large_datagrams_travel_in_fragments() {
    lab!();
    let pair = Pair::new();
    for (family, most) in [(Family::V4, 65_507), (Family::V6, 65_527)] {
        let socket = peer_socket(&pair, family, PORT);
        for size in [1, 1472, 1473, 9000, most] {
            let bytes: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
            let line = format!("-u -q 200ms {} {PORT}", pair.peer_address(family));
            let mut client = netkat(&pair.host, &line).input(Input::Open).spawn();
            client.write(&bytes);
            let (arrived, from) = receive(&socket);
            assert!(arrived == bytes, "{family:?}, {size} bytes sent, {} arrived", arrived.len());
            socket.send_to(&bytes, from).expect("sending");
            client.wait_until("whole datagram", |c| c.received() >= size as u64);
            client.close_stdin();
            let client = client.wait(DEADLINE);
            assert!(client.stdout == bytes, "{family:?}, {size} bytes back: {client}");
        }
    }
}

#[test]
fn an_unreachable_port_is_refused_and_other_errors_have_names() {
    lab!("iptables-nft");
    let pair = Pair::new();
    pair.peer.sysctl("net.ipv4.icmp_ratelimit", "0");
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let refused = netkat(&pair.host, &format!("-u {at} {PORT}")).text("x").run();
        assert_eq!(refused.code(), Some(1), "{refused}");
        assert!(refused.stderr.contains("refused") && refused.stderr.contains(&at.to_string()), "{refused}");
    }
    pair.peer.run("iptables-nft -w -A INPUT -p udp -j REJECT --reject-with icmp-host-prohibited");
    let at = pair.peer_address(Family::V4);
    let rejected = netkat(&pair.host, &format!("-u {at} {PORT}")).text("x").run();
    assert_eq!(rejected.code(), Some(1), "{rejected}");
    assert!(rejected.stderr.contains("prohibited"), "{rejected}");
}

#[test]
fn a_late_answer_comes_within_the_quit_timer() {
    lab!();
    let pair = Pair::new();
    let server = peer_socket(&pair, Family::V4, PORT);
    let line = format!("-u {} {PORT}", pair.peer_address(Family::V4));
    let client = netkat(&pair.host, &line).text("question").spawn();
    let (_, from) = receive(&server);
    std::thread::sleep(Duration::from_millis(300));
    server.send_to(b"late answer", from).expect("sending");
    let client = client.wait(DEADLINE);
    assert_eq!((client.code(), client.text().as_str()), (Some(0), "late answer"), "{client}");
    assert!(client.elapsed > Duration::from_secs(1), "the default is a second: {client}");
}

#[test]
fn a_server_answers_who_spoke_last_and_with_keep_open_hears_everybody() {
    lab!();
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.host_address(family);
        let mut server = listening(&pair.host, &format!("-u -k {at} {PORT}"), |c| c.input(Input::Open));
        let peers: Vec<_> = (0..5).map(|_| peer_socket(&pair, family, 0)).collect();
        for (number, peer) in peers.iter().enumerate() {
            peer.send_to(format!("from {number};").as_bytes(), (at, PORT)).expect("sending");
            server.wait_for_stdout(&format!("from {number};"));
            server.write(format!("to {number}").as_bytes());
            assert_eq!(receive(peer).0, format!("to {number}").as_bytes());
        }
    }
}

/// A burst from a kernel sender arrives complete: 100,000 datagrams of 1 KiB, 50,000 a second.
#[test]
fn a_burst_arrives_without_loss() {
    lab!();
    const COUNT: u32 = 100_000;
    const SIZE: usize = 1024;
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let file = std::env::temp_dir().join(format!("netkat-lab-{}-burst", std::process::id()));
    let out = OpenOptions::new().write(true).create(true).truncate(true).open(&file).expect("a file");
    let mut server = listening(&pair.host, &format!("-u {at} {PORT}"), |c| c.stdout(out));
    let client = peer_socket(&pair, Family::V4, 0);
    client.connect((at, PORT)).expect("connecting");
    let start = Instant::now();
    let mut datagram = vec![7; SIZE];
    for number in 0..COUNT {
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        client.send(&datagram).expect("sending");
        // 50 in a millisecond.
        while number % 50 == 49 && start.elapsed() < Duration::from_micros(u64::from(number) * 20) {
            std::hint::spin_loop();
        }
    }
    let whole = u64::from(COUNT) * SIZE as u64;
    let length = || std::fs::metadata(&file).map_or(0, |m| m.len());
    let deadline = Instant::now() + Duration::from_secs(5);
    while length() < whole && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(length() / SIZE as u64, u64::from(COUNT), "datagrams that arrived; {}", server.stderr());
    let bytes = std::fs::read(&file).expect("the file");
    let in_order = bytes.chunks(SIZE).zip(0_u32..).all(|(d, n)| d[..4] == n.to_be_bytes());
    assert!(in_order, "datagrams in order");
    assert!(server.is_running());
    std::fs::remove_file(&file).expect("removing the file");
}
