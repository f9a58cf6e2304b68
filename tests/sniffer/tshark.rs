//! Compares the decoder with tshark.
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use netkat::sniffer::decode::{DecodedFrame, Ip, Network, Transport, decode};

use super::captures::{folder, frames, names};

/// The fields of each of tshark's lines, in order. Commas join the occurrences of a repeated field.
const FIELDS: [&str; 20] = [
    "frame.protocols",
    "ip.src",
    "ipv6.src",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.window_size_value",
    "tcp.options.mss_val",
    "tcp.options.wscale.shift",
    "tcp.options.timestamp.tsval",
    "tcp.options.timestamp.tsecr",
    "tcp.options.sack_le",
    "tcp.options.sack_re",
    "udp.srcport",
    "udp.dstport",
    "tcp.len",
    "vlan.id",
    "ieee8021ad.id",
];

/// Returns tshark's lines for a file, or `None` without tshark.
fn tshark(path: &Path) -> Option<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.args([
        "-n",
        "-T",
        "fields",
        "-E",
        "separator=|",
        "-E",
        "occurrence=a",
        "-o",
        "ip.defragment:FALSE",
    ]);
    // Linux's port of VXLAN, which tshark takes for OTV's.
    command.args(["-d", "udp.port==8472,vxlan"]);
    command
        .args(["-o", "ipv6.defragment:FALSE", "-o", "tcp.relative_sequence_numbers:FALSE", "-r"])
        .arg(path);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field])).stderr(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(_) => {
            crate::skipped::skipped("no tshark here to compare with");
            return None;
        }
    };
    assert!(output.status.success(), "tshark failed on {}", path.display());
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
}

/// Returns the same fields from our decoder, outermost packet first, empty if the frame lacks them.
fn ours(decoded: &DecodedFrame) -> Vec<String> {
    let mut fields = ours_of_one(decoded);
    if let Some(inner) = &decoded.inner {
        for (field, inner) in fields.iter_mut().zip(ours(&inner.packet)) {
            *field += if field.is_empty() || inner.is_empty() { "" } else { "," };
            *field += &inner;
        }
    }
    fields
}

/// Returns the fields of one packet without those in its tunnels.
fn ours_of_one(decoded: &DecodedFrame) -> Vec<String> {
    let mut fields = vec![String::new(); FIELDS.len()];
    for tag in &decoded.link.vlan {
        let field = &mut fields[if tag.tpid == 0x88a8 { 19 } else { 18 }];
        *field += if field.is_empty() { "" } else { "," };
        *field += &tag.id().to_string();
    }
    let Network::Ip(Ip { source, transport, .. }) = &decoded.network else { return fields };
    fields[if source.is_ipv4() { 1 } else { 2 }] = source.to_string();
    match transport {
        Transport::Tcp(tcp) => {
            fields[3] = tcp.source.to_string();
            fields[4] = tcp.destination.to_string();
            fields[5] = format!("0x{:04x}", tcp.flags);
            fields[6] = tcp.sequence.to_string();
            fields[7] = tcp.acknowledgement.to_string();
            fields[8] = tcp.window.to_string();
            let options = &tcp.options;
            fields[9] = options.mss.map(|mss| mss.to_string()).unwrap_or_default();
            fields[10] = options.window_scale.map(|shift| shift.to_string()).unwrap_or_default();
            if let Some((value, echo)) = options.timestamps {
                fields[11] = value.to_string();
                fields[12] = echo.to_string();
            }
            fields[13] = options.sack.iter().map(|block| block.0.to_string()).collect::<Vec<_>>().join(",");
            fields[14] = options.sack.iter().map(|block| block.1.to_string()).collect::<Vec<_>>().join(",");
            fields[17] = tcp.length.to_string();
        }
        Transport::Udp(udp) => {
            fields[15] = udp.source.to_string();
            fields[16] = udp.destination.to_string();
        }
        _ => {}
    }
    fields
}

/// Returns whether the decoder found no fault with a frame and the packets in its tunnels.
fn has_no_problem(decoded: &DecodedFrame) -> bool {
    let inner = decoded.inner.as_ref().is_none_or(|inner| has_no_problem(&inner.packet));
    decoded.problem.is_none() && inner
}

/// Compares every packet of a file. Returns the number of TCP segments, or `None` without tshark.
fn compare(path: &Path) -> Option<usize> {
    let theirs = tshark(path)?;
    let mut number = 0;
    let mut segments = 0;
    frames(path, |frame| {
        let decoded = decode(frame);
        let (ours, theirs) = (ours(&decoded), &theirs[number]);
        number += 1;
        segments += usize::from(!ours[3].is_empty());
        for (at, field) in FIELDS.iter().enumerate().skip(1) {
            // tshark also lists the fields of packets that ICMP errors quote, after those of the outer
            // one.
            let outer = if at == 13 || at == 14 || at >= 18 || !theirs[0].contains("icmp") {
                &theirs[at]
            } else if at > 2 {
                continue;
            } else {
                theirs[at].split(',').next().unwrap_or_default()
            };
            // tshark may guess on behind a problem or a cut.
            if has_no_problem(&decoded) || !(ours[at].is_empty() || outer.is_empty()) {
                assert_eq!(ours[at], outer, "{} packet {number} {field}: {decoded:?}", path.display());
            }
        }
    })
    .unwrap();
    assert_eq!(number, theirs.len(), "{}", path.display());
    Some(segments)
}

#[test]
fn captures_decode_as_in_tshark() {
    let mut segments = 0;
    // tshark follows headers that the decoder does not, and the other way round: ports alone,
    // source routes, pseudowires.
    for name in names().into_iter().filter(|name| name != "odd-tunnels.pcap") {
        let Some(found) = compare(&folder().join(name)) else { return };
        segments += found;
    }
    assert!(segments > 100, "only {segments} segments were compared");
}

/// Transfers random chunks over a lossy loopback in a network namespace of its own.
const LIVE: &str = r#"
set -e
ip link set lo up
tc qdisc add dev lo root netem loss 3% delay 1ms reorder 10% 2>/dev/null || true
tcpdump -Z root -U --immediate-mode -n -i lo -w "$1" tcp 2>"$1.log" &
watcher=$!
until grep -q listening "$1.log"; do sleep 0.05; done
python3 - <<'PYTHON'
import random, socket, threading, time
random.seed(4)
server = socket.create_server(("127.0.0.1", 0))
def serve():
    connection, _ = server.accept()
    while connection.recv(random.randrange(1, 20000)): pass
    connection.close()
thread = threading.Thread(target=serve)
thread.start()
client = socket.create_connection(server.getsockname())
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(60):
    client.sendall(random.randbytes(random.randrange(1, 30000)))
    time.sleep(0.002)
client.close()
thread.join()
PYTHON
sleep 0.3
kill $watcher
wait $watcher || true
"#;

#[test]
fn a_live_transfer_decodes_as_in_tshark() {
    let file = std::env::temp_dir().join(format!("netkat-live-{}.pcap", std::process::id()));
    let status = Command::new("unshare").args(["-n", "sh", "-c", LIVE, "sh"]).arg(&file).status();
    match status {
        Ok(status) if status.success() => {
            let segments = compare(&file);
            assert!(segments.is_none_or(|segments| segments > 50), "{segments:?} segments");
        }
        _ => crate::skipped::skipped("no network namespace with tcpdump to be had here (needs root)"),
    }
    let _ = fs::remove_file(file.with_extension("pcap.log"));
    let _ = fs::remove_file(file);
}
