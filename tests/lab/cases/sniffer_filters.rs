//! The sniffer's filter on the wire: tags that the kernel takes off or leaves, names with several addresses, fragments.
use crate::support::{
    frames::{HOST_MAC, PEER_MAC, udp},
    netkat::netkat,
    packet_socket::{Mode, PacketSocket},
    process::{Command, DEADLINE},
    requirements::lab,
    topology::{Family, Pair},
};
use nix::sys::signal::Signal;
use std::{fs, net::IpAddr, path::PathBuf};

const MODE: Mode = Mode { vnet_header: false, promiscuous: false, qdisc_bypass: false, buffer: 1 << 20 };

/// Tags of a frame, outermost first: none, one, 802.1Q in 802.1ad, 802.1Q in 802.1Q, three.
const TAGS: [&[(u16, u16)]; 5] = [
    &[],
    &[(0x8100, 3)],
    &[(0x88a8, 10), (0x8100, 20)],
    &[(0x8100, 1), (0x8100, 2)],
    &[(0x88a8, 4), (0x88a8, 5), (0x8100, 6)],
];

/// Returns a frame with these tags.
fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let words = tags.iter().flat_map(|(kind, id)| [kind.to_be_bytes(), id.to_be_bytes()]);
    [&frame[..12], &words.collect::<Vec<_>>().concat(), &frame[12..]].concat()
}

/// Returns the VLANs of a packet in JSON, with its interface's direction.
fn vlans(line: &str) -> (String, Vec<(u64, u64)>) {
    let packet: serde_json::Value = serde_json::from_str(line).expect("an object");
    let number = |tag: &serde_json::Value, field: &str| tag[field].as_u64().expect("a number");
    let tags = packet["vlan"].as_array().cloned().unwrap_or_default();
    let tags = tags.iter().map(|tag| (number(tag, "tpid"), number(tag, "id"))).collect();
    (packet["direction"].as_str().expect("a direction").to_owned(), tags)
}

/// A filter by host, port and protocol sees through one tag and several, in both directions, live
/// and in the recording; lines, objects and recordings have all tags.
#[test]
fn tags_hide_no_packet() {
    lab!();
    let pair = Pair::new();
    for family in Family::ALL {
        let (host, peer) = (pair.host_address(family), pair.peer_address(family));
        let file = std::env::temp_dir().join(format!("netkat-lab-{}-tags.pcapng", std::process::id()));
        let count = 2 * TAGS.len();
        let filter = format!("-u {peer} 4711 --json");
        let recording = format!("--sniff -v -i eth0 --count {count} --pcap {} {filter}", file.display());
        let mut sniffer = netkat(&pair.host, &recording).spawn();
        sniffer.wait_for_stderr("listening on eth0");
        let theirs = pair.peer.inside(|| PacketSocket::open("eth0", MODE)).expect("a packet socket");
        let ours = pair.host.inside(|| PacketSocket::open("eth0", MODE)).expect("a packet socket");
        for tags in TAGS {
            for port in [4712, 4711] {
                let mark = [0x12, 0x67];
                theirs.send(&tagged(&udp(PEER_MAC, HOST_MAC, peer, host, port, &mark), tags)).expect("sent");
                ours.send(&tagged(&udp(HOST_MAC, PEER_MAC, host, peer, port, &mark), tags)).expect("sent");
            }
        }
        let live = sniffer.wait(DEADLINE);
        assert!(live.success(), "{live}");
        let mut expected = Vec::new();
        for tags in TAGS {
            let tags: Vec<_> = tags.iter().map(|(kind, id)| (u64::from(*kind), u64::from(*id))).collect();
            expected.extend([("recv".to_owned(), tags.clone()), ("send".to_owned(), tags)]);
        }
        expected.sort();
        for output in [live, netkat(&pair.host, &format!("--read {} {filter}", file.display())).succeed()] {
            let mut found: Vec<_> = output.text().lines().map(vlans).collect();
            found.sort();
            assert_eq!(found, expected, "{output}");
        }
        let lines = netkat(&pair.host, &format!("--read {}", file.display())).succeed();
        assert_eq!(lines.text().matches(" vlan:10 vlan:20").count(), 2, "{lines}");
        fs::remove_file(file).expect("a recording");
    }
}

/// Hosts that programs in a namespace know; ip-netns(8) puts the file in place of /etc/hosts.
struct Hosts(PathBuf);

impl Hosts {
    fn new(pair: &Pair, content: &str) -> Self {
        let folder = PathBuf::from("/etc/netns").join(pair.host.name());
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("hosts"), content).expect("a list of hosts");
        Self(folder)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Only if no other namespace has files.
        let _ = fs::remove_dir("/etc/netns");
    }
}

#[test]
fn a_name_stands_for_all_its_addresses() {
    lab!("ip");
    let pair = Pair::new();
    let hosts = "10.77.0.2 many.example\nfd77::2 many.example\n10.77.0.3 many.example\n";
    let _hosts = Hosts::new(&pair, hosts);
    let netkat = env!("CARGO_BIN_EXE_netkat");
    let inside = ["netns", "exec", pair.host.name(), netkat];
    let watch = ["--sniff", "-v", "-i", "eth0", "-u", "--count", "3", "many.example"];
    let mut sniffer = Command::new("ip").args(inside).args(watch).spawn();
    sniffer.wait_for_stderr("listening on eth0");
    let socket = pair.peer.inside(|| PacketSocket::open("eth0", MODE)).expect("a packet socket");
    for (from, to) in [
        ("10.77.0.9", "10.77.0.1"),
        ("10.77.0.2", "10.77.0.1"),
        ("fd77::9", "fd77::1"),
        ("fd77::2", "fd77::1"),
        ("10.77.0.1", "10.77.0.3"),
    ] {
        let [from, to] = [from, to].map(|address| address.parse::<IpAddr>().expect("an address"));
        socket.send(&udp(PEER_MAC, HOST_MAC, from, to, 9, b"mark")).expect("sent");
    }
    let output = sniffer.wait(DEADLINE);
    let text = output.text();
    let ends: Vec<_> =
        text.lines().filter_map(|line| line.split(" udp ").nth(1)?.split(" len:").next()).collect();
    let expected = ["10.77.0.2:9 -> 10.77.0.1:9", "fd77::2:9 -> fd77::1:9", "10.77.0.1:9 -> 10.77.0.3:9"];
    assert_eq!(ends, expected, "{output}");
}

/// A capture on standard output is complete while the sniffer runs, and its summary is on standard
/// error.
#[test]
fn a_live_capture_goes_down_a_pipe() {
    lab!("tcpdump");
    let pair = Pair::new();
    for family in Family::ALL {
        let (host, peer) = (pair.host_address(family), pair.peer_address(family));
        let mut sniffer = netkat(&pair.host, &format!("--sniff -v -i eth0 -u --pcap - {peer}")).spawn();
        sniffer.wait_for_stderr("listening on eth0");
        let socket = pair.peer.inside(|| PacketSocket::open("eth0", MODE)).expect("a packet socket");
        socket.send(&udp(PEER_MAC, HOST_MAC, peer, host, 9, b"through the pipe")).expect("sent");
        sniffer.wait_for_stdout("through the pipe");
        sniffer.signal(Signal::SIGINT);
        let output = sniffer.wait(DEADLINE);
        assert_eq!(output.code(), Some(0), "{output}");
        assert!(output.stderr.contains("1 packets captured"), "{output}");
        let file = std::env::temp_dir().join(format!("netkat-lab-{}-pipe.pcapng", std::process::id()));
        fs::write(&file, &output.stdout).expect("a file");
        let read = pair.host.command("tcpdump").args(["-n", "-r"]).arg(&file).succeed();
        assert_eq!(read.text().lines().count(), 1, "{read}");
        fs::remove_file(file).expect("removed");
    }
}
