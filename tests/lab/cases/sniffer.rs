//! The sniffer beside a connection in every mode, and alone: it shows and records each packet once.
use crate::support::{
    frames::{HOST_MAC, PEER_MAC, udp},
    netkat::{listening, netkat},
    packet_socket::{Mode, PacketSocket},
    peers::Netcat,
    process::{DEADLINE, Input},
    requirements::{lab, program},
    topology::{Family, Pair},
};
use netkat::{
    net::Protocol,
    sniffer::{
        FrameDirection,
        capture_file::{CaptureReader, CaptureRecord},
        decode::{Ip, Network, Transport, decode},
    },
};
use nix::sys::signal::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file, removed on drop.
struct Capture(PathBuf);

impl Capture {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("netkat-lab-{}-{name}.pcapng", std::process::id())))
    }

    /// Returns the recorded packets of a protocol: direction, payload bytes, and whether the guard
    /// dropped the kernel's copy.
    fn packets(&self, protocol: Protocol) -> Vec<(FrameDirection, usize, bool)> {
        let mut reader = CaptureReader::open(&self.0).expect("a capture file");
        let mut packets = Vec::new();
        while let Some(record) = reader.read().expect("a whole capture file") {
            let CaptureRecord::Frame(frame) = record else { continue };
            let decoded = decode(&frame);
            assert!(decoded.problem.is_none(), "{decoded:?}");
            let Network::Ip(Ip { transport, .. }) = decoded.network else { continue };
            match (transport, protocol) {
                (Transport::Tcp(tcp), Protocol::Tcp) => {
                    packets.push((frame.direction, tcp.length, frame.guarded))
                }
                (Transport::Udp(udp), Protocol::Udp) => {
                    packets.push((frame.direction, udp.length, frame.guarded))
                }
                _ => {}
            }
        }
        packets
    }

    /// Checks that both directions were recorded with these payloads, with incoming packets marked
    /// and sent ones not, that other programs can read the file, and that the kernel's counters end
    /// it.
    fn holds(&self, name: &str, protocol: Protocol, sent: usize, received: usize) {
        let packets = self.packets(protocol);
        let bytes =
            |wanted| packets.iter().filter(|(way, ..)| *way == wanted).map(|(_, length, _)| *length).sum();
        let (out, into): (usize, usize) = (bytes(FrameDirection::Outbound), bytes(FrameDirection::Inbound));
        assert_eq!((out, into), (sent, received), "{name}: {packets:?}");
        assert!(
            packets.iter().all(|(way, _, guarded)| *guarded == (*way == FrameDirection::Inbound)),
            "{name}: {packets:?}"
        );
        assert_eq!(last_block(&self.0), INTERFACE_STATISTICS, "{name}");
        let tshark = program("tshark").expect("asked for");
        let output =
            std::process::Command::new(tshark).args(["-n", "-r"]).arg(&self.0).output().expect("tshark");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// pcapng's block type.
const INTERFACE_STATISTICS: u32 = 5;

/// Returns the type of a little-endian pcapng file's last block.
fn last_block(path: &Path) -> u32 {
    let bytes = fs::read(path).expect("the capture file");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let length = word(bytes.len() - 4) as usize;
    word(bytes.len() - length)
}

#[test]
fn every_mode_records_what_passes() {
    lab!("ncat", "tshark", "python3");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let host = pair.host_address(Family::V4);
    let file = Capture::new("modes");
    let record = format!("-d --payload --pcap {}", file.0.display());

    let server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c.text("answer"));
    let client = netkat(&pair.host, &format!("{record} {at} 5000")).text("a question").succeed();
    drop(server);
    file.holds("connect", Protocol::Tcp, 10, 6);
    assert_eq!(client.text(), "answer", "{client}");
    let lines = |what: &str| client.stderr.lines().filter(|line| line.contains(what)).count();
    // The SYN and its answer, once each; the payload as a dump.
    assert_eq!((lines("flags:  S     "), lines("flags:  S  A  ")), (1, 1), "{client}");
    assert!(
        lines("] send tcp 10.77.0.1:") > 2 && lines("] recv tcp 10.77.0.2:5000 -> 10.77.0.1:") > 2,
        "{client}"
    );
    assert_eq!((lines("|a question|"), lines("|answer|")), (1, 1), "{client}");

    let server = listening(&pair.host, &format!("{record} 5001"), |c| c.text("answer"));
    Netcat::Ncat.connect(&pair.peer, host, 5001).text("a question").succeed();
    assert!(server.wait(DEADLINE).success());
    file.holds("listen", Protocol::Tcp, 6, 10);

    let server = listening(&pair.host, &format!("{record} --sh-exec cat 5002"), |c| c);
    let client = Netcat::Ncat.connect(&pair.peer, host, 5002).text("a question").succeed();
    assert_eq!(client.text(), "a question", "{client}");
    assert!(server.wait(DEADLINE).success());
    file.holds("exec", Protocol::Tcp, 10, 10);

    netkat(&pair.host, &format!("{record} -z {at} 4998")).run();
    file.holds("scan", Protocol::Tcp, 0, 0);
    assert_eq!(file.packets(Protocol::Tcp).len(), 2, "a SYN and its reset");

    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 5003))\n\
                  print('up')\nwhile True:\n    data, peer = s.recvfrom(99)\n    s.sendto(data, peer)";
    let mut echo = pair.peer.command("python3").args(["-u", "-c", script]).spawn();
    echo.wait_for_stdout("up");
    netkat(&pair.host, &format!("{record} -u {at} 5003 -q 200ms")).text("a question").succeed();
    file.holds("datagrams", Protocol::Udp, 10, 10);

    let mut server = listening(&pair.host, &format!("{record} -u 5004"), |c| c.input(Input::Open));
    let send = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(9)\n\
         s.sendto(b'a question', ('{host}', 5004))\nprint(s.recv(99))"
    );
    let mut client = pair.peer.command("python3").args(["-u", "-c", &send]).spawn();
    server.wait_for_stdout("a question");
    server.write(b"answer");
    client.wait_for_stdout("answer");
    server.terminate();
    file.holds("datagram server", Protocol::Udp, 6, 10);
}

/// Twenty thousand packets at full speed: the file holds each of them, in order.
#[test]
fn a_burst_is_recorded_to_the_last_packet() {
    lab!();
    const PACKETS: u16 = 20_000;
    /// Offset behind the Ethernet, IPv4 and UDP headers.
    const MARK: usize = 14 + 20 + 8;
    let pair = Pair::new();
    let file = Capture::new("burst");
    let arguments = format!("--sniff -v -i eth0 -u 10.77.0.99 --count {PACKETS} --pcap {}", file.0.display());
    let mut sniffer = netkat(&pair.host, &arguments).spawn();
    sniffer.wait_for_stderr("listening on eth0");
    let mode = Mode { vnet_header: false, promiscuous: false, qdisc_bypass: false, buffer: 1 << 20 };
    let socket = pair.peer.inside(|| PacketSocket::open("eth0", mode)).expect("a packet socket");
    let (from, to) = (pair.peer_address(Family::V4), "10.77.0.99".parse().expect("an address"));
    for number in 0..PACKETS {
        let frame = udp(PEER_MAC, HOST_MAC, from, to, 7, &number.to_be_bytes());
        socket.send(&frame).expect("a frame is sent");
    }
    let output = sniffer.wait(DEADLINE);
    assert!(output.success(), "{output}");
    assert!(output.stderr.contains("20000 packets captured"), "{output}");
    assert!(output.stderr.contains("\n0 packets dropped by kernel"), "{output}");
    let mut expected = 0..PACKETS;
    let mut reader = CaptureReader::open(&file.0).expect("a capture file");
    while let Some(record) = reader.read().expect("a whole capture file") {
        let CaptureRecord::Frame(frame) = record else { continue };
        let bytes = frame.data.concat();
        assert_eq!(bytes.get(MARK..MARK + 2), expected.next().map(u16::to_be_bytes).as_ref().map(|b| &b[..]));
    }
    assert_eq!(expected.next(), None);
}

/// On any interface, each packet has the interface's name and direction; -p decides about
/// promiscuous mode.
#[test]
fn all_interfaces_are_told_apart() {
    lab!("python3");
    let pair = Pair::new();
    let mut sniffer = netkat(&pair.host, "--sniff -v -i any -u --json").spawn();
    sniffer.wait_for_stderr("listening on any interface");
    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.sendto(b'out', ('10.77.0.2', 9))\ns.sendto(b'round', ('127.0.0.1', 9))";
    pair.host.command("python3").args(["-c", script]).succeed();
    pair.peer.command("python3").args(["-c", &script.replace("0.2", "0.1").replace("out", "in")]).succeed();
    sniffer.wait_until("three packets", |s| s.stdout().iter().filter(|byte| **byte == b'\n').count() >= 3);
    assert!(!promiscuous(&pair), "nobody asked for it");
    sniffer.signal(Signal::SIGINT);
    let output = sniffer.wait(DEADLINE);
    assert_eq!(output.code(), Some(0), "{output}");
    let mut seen: Vec<_> = output
        .text()
        .lines()
        .map(|line| {
            let packet: serde_json::Value = serde_json::from_str(line).expect("an object");
            [&packet["interface"], &packet["direction"], &packet["udp"]["length"]]
                .map(|value| value.to_string())
                .join(" ")
        })
        .collect();
    seen.sort();
    // Once on lo, too.
    assert_eq!(seen, [r#""eth0" "recv" 2"#, r#""eth0" "send" 3"#, r#""lo" "recv" 5"#], "{output}");

    let mut sniffer = netkat(&pair.host, "--sniff -v -i eth0 --promiscuous").spawn();
    sniffer.wait_for_stderr("listening on eth0");
    assert!(promiscuous(&pair));
    sniffer.terminate();
    assert!(!promiscuous(&pair), "it goes with the sniffer");
}

/// A node looks into a pod's namespace: interface, filter and packets are those of the other
/// namespace.
#[test]
fn another_namespace_is_sniffed() {
    lab!("python3");
    let pair = Pair::new();
    let file = Capture::new("netns");
    pair.peer.ip("link add only-there type veth peer name its-end");
    let (there, to) = (pair.peer.name(), file.0.display());
    let listed = netkat(&pair.host, &format!("--sniff --netns {there} -D")).run();
    assert!(listed.success() && listed.text().contains("only-there"), "{listed}");
    let line = format!("--sniff -v --netns {there} -i eth0 --count 1 --pcap {to} udp and dst host 10.77.0.2");
    let mut sniffer = netkat(&pair.host, &line).spawn();
    sniffer.wait_for_stderr("listening on eth0");
    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'in', ('10.77.0.2', 9))";
    pair.host.command("python3").args(["-c", script]).succeed();
    let output = sniffer.wait(DEADLINE);
    assert_eq!(output.code(), Some(0), "{output}");
    // In the namespace of its start, the kernel would have sent the packet.
    assert_eq!(file.packets(Protocol::Udp), [(FrameDirection::Inbound, 2, false)], "{output}");
    let absent = netkat(&pair.host, "--sniff --netns absent -i eth0").run();
    assert!(
        absent.stderr.contains("cannot enter the network namespace /run/netns/absent: No such file"),
        "{absent}"
    );
}

fn promiscuous(pair: &Pair) -> bool {
    let shown = pair.host.run("ip -d link show dev eth0").text();
    assert!(shown.contains("promiscuity"), "{shown}");
    !shown.contains("promiscuity 0")
}
