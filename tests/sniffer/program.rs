//! Tests `netkat --read` and `netkat --sniff` as processes.
use std::process::{Command, Output};

use super::{
    captures::{folder, names, text},
    files::Temporary,
    namespace::Namespace,
};

const NETKAT: &str = env!("CARGO_BIN_EXE_netkat");

fn read(name: &str, arguments: &[&str]) -> Output {
    Command::new(NETKAT)
        .arg("--read")
        .arg(folder().join(name))
        .args(arguments)
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

/// Returns the lines with a fixed process id.
fn lines(output: &Output) -> Vec<String> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let process = |line: &str| {
        let (prefix, rest) = line.split_once(" sniffer] ").unwrap();
        format!("{} 4711 sniffer] {rest}", prefix.rsplit_once(' ').unwrap().0)
    };
    text.lines().map(process).collect()
}

fn expected(name: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    text(name).lines().filter(|line| wanted(line)).map(str::to_owned).collect()
}

#[test]
fn files_are_read() {
    for name in names() {
        let output = read(&name, &[]);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        assert_eq!(lines(&output), expected(&name, |_| true), "{name}");
    }
}

#[test]
fn files_are_filtered_as_interfaces_are() {
    type Wanted = fn(&str) -> bool;
    let cases: [(&str, &[&str], Wanted); 11] = [
        ("lo.pcap", &["-4"], |line| line.contains("127.0.0.1")),
        ("lo.pcap", &["-6"], |line| line.contains("::1")),
        ("lo.pcap", &["::1", "80"], |line| line.contains("::1")),
        ("lo.pcap", &["::1", "81"], |_| false),
        ("arp.pcap", &["192.0.2.2"], |_| true),
        ("arp.pcap", &["--tcp"], |_| false),
        ("icmp-errors.pcap", &["-u"], |line| line.contains("] recv udp")),
        ("icmp-errors.pcap", &["-p", "40007"], |line| line.contains("] recv udp")),
        // Later fragments have no ports.
        ("fragments.pcap", &["-u", "2001:db8::1", "9"], |line| line.contains("] recv udp 2001:db8::1:40009")),
        ("fragments.pcap", &["-u", "2001:db8::1"], |line| line.contains("] recv udp 2001:db8::1")),
        ("vlan.pcap", &["2001:db8::1"], |_| true),
    ];
    for (name, arguments, wanted) in cases {
        let output = read(name, arguments);
        assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
        assert_eq!(lines(&output), expected(name, wanted), "{name} {arguments:?}");
    }
}

#[test]
fn a_count_ends_the_reading() {
    let output = read("lo.pcap", &["--count", "3"]);
    assert_eq!(lines(&output), expected("lo.pcap", |_| true)[..3]);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let script = r#""$0" --read "$1" --payload | head -n 1; exit ${PIPESTATUS[0]}"#;
    let output =
        Command::new("bash").args(["-c", script, NETKAT]).arg(folder().join("lo.pcap")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_damaged_file_is_an_error_behind_its_packets() {
    let path = std::env::temp_dir().join(format!("netkat-damaged-{}.pcap", std::process::id()));
    let bytes = std::fs::read(folder().join("udp.pcap")).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let output = Command::new(NETKAT).arg("--read").arg(&path).env("TZ", "UTC").output().unwrap();
    let _ = std::fs::remove_file(path);
    assert_eq!(lines(&output), expected("udp.pcap", |_| true)[..2]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ends within a packet"), "{output:?}");
}

#[test]
fn flags_that_cannot_be_honoured_are_refused() {
    for arguments in
        [&["--count", "1", "192.0.2.1", "80"][..], &["--sniff", "--promiscuous"], &["--sniff", "-l", "1"]]
    {
        let output = Command::new(NETKAT).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

/// Sends two datagrams over lo, only the second to the filter's port, and SIGINT after its line.
const LIVE: &str = r#"
set -e
ip link set lo up
log=$(mktemp)
trap 'rm -f "$log"' EXIT
TZ=UTC "$0" --sniff -i lo -v -u 127.0.0.1 7 >"$1" 2>"$log" &
sniffer=$!
until grep -q "listening on lo" "$log"; do sleep 0.05; done
printf two >/dev/udp/127.0.0.1/8
printf one >/dev/udp/127.0.0.1/7
until [ -s "$1" ]; do sleep 0.05; done
kill -INT $sniffer
wait $sniffer
cat "$log" >&2
"#;

/// Runs a shell script in a network namespace of its own, with netkat as `$0` and a temporary file
/// as `$1`. Returns its output and the file's content, or `None` without a namespace.
fn run_in_namespace(script: &str, name: &str) -> Option<(Output, String)> {
    let namespace = Namespace::available("sniffer")?;
    let file = Temporary::new(name);
    let output = Command::new("ip")
        .args(["netns", "exec", namespace.name(), "bash", "-c", script, NETKAT])
        .arg(&file.0)
        .output()
        .unwrap();
    let left = std::fs::read_to_string(&file.0).unwrap_or_default();
    Some((output, left))
}

#[test]
fn an_interface_is_captured_until_interrupted() {
    let Some((output, shown)) = run_in_namespace(LIVE, "sniff") else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?} {said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains("recv udp 127.0.0.1:") && shown.contains("-> 127.0.0.1:7 len:3"), "{shown}");
    assert!(said.contains("\n1 packets captured\n"), "{said}");
    assert!(said.contains("packets received by filter\n0 packets dropped by kernel\n"), "{said}");
}

/// Sends ten datagrams per second over lo until the sniffer exits.
const UNTIL_EXIT: &str = r#"
ip link set lo up
(while sleep 0.1; do printf x >/dev/udp/127.0.0.1/7; done) 2>/dev/null &
talker=$!
"#;

#[test]
fn a_count_ends_the_capture() {
    let script =
        format!("{UNTIL_EXIT} \"$0\" --sniff -i lo -u --count 3; status=$?; kill $talker; exit $status");
    let Some((output, _)) = run_in_namespace(&script, "count") else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(lines(&output).len(), 3, "{output:?}");
    assert!(said.starts_with("3 packets captured\n"), "{said}");
}

#[test]
fn a_reader_that_exits_ends_the_capture_quietly() {
    let script = format!(
        "{UNTIL_EXIT} \"$0\" --sniff -i lo -u | head -n 2; status=${{PIPESTATUS[0]}}; kill $talker; exit $status"
    );
    let Some((output, _)) = run_in_namespace(&script, "head") else { return };
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((lines(&output).len(), output.stderr.as_slice()), (2, &b""[..]), "{output:?}");
}

/// Sends two datagrams through a TUN device that are marked for IP fragmentation
/// (VIRTIO_NET_HDR_GSO_UDP), which the virtio-net header of a packet socket cannot describe, and an
/// ordinary one.
const UNDESCRIBED: &str = r#"
set -e
cat >"$1" <<'PYTHON'
import fcntl, os, signal, struct, subprocess, sys, time
tun = os.open("/dev/net/tun", os.O_RDWR)
# TUNSETIFF: IFF_TUN, IFF_NO_PI, IFF_VNET_HDR
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", b"tun0", 0x1 | 0x1000 | 0x4000))
subprocess.run(["ip", "link", "set", "tun0", "up"], check=True)
sniffer = subprocess.Popen([sys.argv[1], "--sniff", "-i", "tun0", "-v", "-u"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
while b"listening on" not in sniffer.stderr.readline():
    pass
def send(kind, payload):
    udp = struct.pack("!HHHH", 5, 9, 8 + payload, 0) + b"x" * payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    header = struct.pack("=BBHHHH", 1, kind, 28, 1000, 20, 6) if kind else bytes(10)
    os.write(tun, header + ip + udp)
send(3, 3000)
send(3, 4000)
send(0, 30)
for _ in range(2):
    sys.stdout.buffer.write(sniffer.stdout.readline())
sniffer.send_signal(signal.SIGINT)
_, said = sniffer.communicate(timeout=20)
sys.stderr.buffer.write(said)
PYTHON
python3 "$1" "$0"
"#;

#[test]
fn indescribable_frames_are_counted_then_shown() {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return crate::skipped::skipped("no TUN devices here");
    }
    let Some((output, _)) = run_in_namespace(UNDESCRIBED, "undescribed") else { return };
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}{said}");
    let lengths: Vec<_> =
        shown.lines().filter_map(|line| line.split(" len:").nth(1)?.split(' ').next()).collect();
    assert_eq!(lengths, ["4000", "30"], "{shown}{said}");
    assert!(said.contains("a coalesced frame that it could not describe"), "{said}");
    assert!(
        said.contains("2 packets captured\n3 packets received by filter\n1 packets dropped by kernel\n"),
        "{said}"
    );
}
