//! `--run`: flows whose packets the kernel forwards once netkat has let the first ones pass.
use crate::support::{
    namespace::Namespace,
    netkat::{PROGRAM_GUARDS, running},
    payload::{MIB, Payload},
    process::{DEADLINE, Input, Process},
    programs::{self, Direction, TC_ACT_OK},
    requirements::lab,
    rules::Rule,
    servers::{datagram_echo_server, echo_server},
    topology::{Family, Pair, address, at},
    traces::settles,
    witness::Witness,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, net::IpAddr};

/// Sends 8 MiB to the echo server at an address and compares what comes back, once at the start and once for
/// each line of standard input. "reset" as a line resets the connection instead.
const PUMP: &str = r#"
import hashlib, random, socket, struct, sys, threading
peer = socket.create_connection((sys.argv[1], 7))
print('port %d;' % peer.getsockname()[1], flush=True)
round = 0
while True:
    round += 1
    blocks = [random.Random(round * 8 + n).randbytes(1 << 20) for n in range(8)]
    sender = threading.Thread(target=lambda: [peer.sendall(block) for block in blocks])
    sender.start()
    left, got, sent = 8 << 20, hashlib.sha256(), hashlib.sha256()
    while left:
        data = peer.recv(min(left, 1 << 18))
        if not data: sys.exit('closed early')
        got.update(data)
        left -= len(data)
    sender.join()
    [sent.update(block) for block in blocks]
    if got.digest() != sent.digest(): sys.exit('other bytes')
    print('round %d;' % round, flush=True)
    line = sys.stdin.readline()
    if not line: break
    if line == 'reset\n':
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        peer.close()
        sys.stdin.readline()
        break
"#;

/// Starts a pump and returns once its first round is over.
fn pump(host: &Namespace, flags: &str, to: IpAddr) -> Process {
    let to = to.to_string();
    let command = running(host, &format!("-vv {flags}"), ["python3", "-c", PUMP, &to]);
    let mut pump = command.input(Input::Open).deadline(DEADLINE * 2).spawn();
    pump.wait_for_stdout("round 1;");
    pump
}

fn goes_on(pump: &mut Process, round: u32) {
    pump.write(b"on\n");
    pump.wait_for_stdout(&format!("round {round};"));
}

/// Ends a pump and returns what netkat has said.
fn end(mut pump: Process) -> String {
    pump.close_stdin();
    let output = pump.wait(DEADLINE);
    assert_eq!(output.code(), Some(0), "{output}");
    output.stderr
}

/// Returns the bytes and packets of a line at the end of a run, which holds `words` behind them.
fn numbers(said: &str, words: &str) -> (u64, u64) {
    let before = said.split(words).next().expect("a beginning");
    assert!(before.len() < said.len(), "\"{words}\" is missing: {said}");
    let mut numbers = before.rsplit(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    let mut next = || numbers.next().and_then(|word| word.parse().ok()).expect("a number");
    let packets = next();
    (next(), packets)
}

fn fast(said: &str) -> (u64, u64) {
    numbers(said, " packets of both")
}

/// Returns bytes and packets that an interface has sent, and received, without Ethernet's headers.
fn counters(host: &Namespace) -> [(u64, u64); 2] {
    let text = host.run("ip -j -s link show dev eth0").text();
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    ["tx", "rx"].map(|side| {
        let of = &report[0]["stats64"][side];
        let number = |name: &str| of[name].as_u64().expect("a number");
        (number("bytes") - 14 * number("packets"), number("packets"))
    })
}

#[test]
fn the_kernel_forwards_both_ways_and_the_report_counts_it() {
    lab!("python3", "iptables-nft");
    for guard in PROGRAM_GUARDS {
        for family in Family::ALL {
            let pair = Pair::new();
            let _server = echo_server(&pair.peer);
            Rule::Both.apply(&pair.host, family, "tcp");
            let before = counters(&pair.host);
            let said = end(pump(&pair.host, &format!("--guard {guard}"), pair.peer_address(family)));
            let after = counters(&pair.host);
            let (sent, received) = (numbers(&said, " packets sent"), numbers(&said, " packets received"));
            for (told, (after, before)) in [sent, received].into_iter().zip(after.into_iter().zip(before)) {
                // Address resolution, and what the kernel says when a link comes up.
                let others = (after.1 - before.1).checked_sub(told.1).expect("no packet counted twice");
                assert!(others < 32, "{told:?} {before:?} {after:?}");
                let others = (after.0 - before.0).checked_sub(told.0).expect("no byte counted twice");
                assert!(others < 32 * 100, "{told:?} {before:?} {after:?}");
            }
            assert!(fast(&said).0 > 14 * MIB, "{guard} {family:?}: {said}");
        }
    }
}

#[test]
fn every_rule_is_passed() {
    lab!("python3", "iptables-nft", "iptables-legacy", "nft");
    for rule in Rule::ALL {
        let pair = Pair::new();
        let _server = echo_server(&pair.peer);
        for family in Family::ALL {
            rule.apply(&pair.host, family, "tcp");
            let said = end(pump(&pair.host, "", pair.peer_address(family)));
            assert!(fast(&said).0 > 14 * MIB, "{rule:?} {family:?}: {said}");
        }
    }
}

#[test]
fn chosen_ways_and_addresses_serve() {
    lab!("python3");
    let pair = Pair::with_two_links();
    let _server = echo_server(&pair.peer);
    for family in Family::ALL {
        let near = pair.peer_address(family);
        let far: IpAddr = at(family, "10.79.0.2", "fd79::2");
        let assumed = format!("--as {}", at(family, "10.77.0.200", "fd77::200"));
        let via = format!("--via {near}");
        for (flags, to) in [("-i eth0", near), ("", far), (assumed.as_str(), near), (via.as_str(), near)] {
            let said = end(pump(&pair.host, flags, to));
            assert!(fast(&said).0 > 14 * MIB, "{flags}: {said}");
        }
    }
}

#[test]
fn a_published_servers_clients_are_served() {
    lab!("curl", "python3", "iptables-nft");
    let pair = Pair::new();
    let payload = Payload::new(79, 8 * MIB);
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("run-fast-published");
    fs::create_dir_all(&folder).expect("a folder");
    let Input::File(file) = payload.input() else { unreachable!() };
    fs::copy(file, folder.join("file")).expect("a copy");
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "tcp");
        let root = folder.to_string_lossy().into_owned();
        let words = ["python3", "-m", "http.server", "--bind", "::", "-d", &root, "80"];
        let mut run = running(&pair.host, "-v --publish 80", words).deadline(DEADLINE * 2).spawn();
        run.wait_for_stderr("publishes tcp port 80");
        let url = format!("http://{}/file", std::net::SocketAddr::new(pair.host_address(family), 80));
        let curl = ["-sS", "-g", "--retry", "8", "--retry-connrefused", &url];
        pair.peer.command("curl").args(curl).expect(&payload).succeed().check(&payload);
        run.signal(Signal::SIGTERM);
        let said = run.wait(DEADLINE).stderr;
        assert!(fast(&said).0 > 7 * MIB, "{family:?}: {said}");
    }
}

#[test]
fn datagrams_are_forwarded_unchanged() {
    lab!("python3", "iptables-nft");
    const ASK: &str = r#"
import random, socket, sys
peer = socket.socket(socket.getaddrinfo(sys.argv[1], 7)[0][0], socket.SOCK_DGRAM)
peer.connect((sys.argv[1], 7))
peer.settimeout(5)
for number in range(400):
    # The largest are sent as fragments, which pass netkat.
    question = random.Random(number).randbytes((1, 100, 1400, 4000)[number % 4])
    peer.send(question)
    if peer.recv(65536) != question: sys.exit('another answer')
"#;
    let pair = Pair::new();
    let _server = datagram_echo_server(&pair.peer);
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "udp");
        let to = pair.peer_address(family).to_string();
        let said = running(&pair.host, "-v", ["python3", "-c", ASK, &to]).succeed().stderr;
        let packets = fast(&said).1;
        assert!((500..=600).contains(&packets), "{family:?}: {said}");
    }
}

#[test]
fn a_silent_flow_leaves_the_fast_path_and_comes_back() {
    lab!("python3");
    let pair = Pair::new();
    let mut server = echo_server(&pair.peer);
    // The end of the detection changes routes, and flows leave the fast path for that.
    let is_detecting = || !pair.host.run("ip -6 address show dev eth0 tentative").text().is_empty();
    server.wait_until("no address is a duplicate", |_| !is_detecting());
    for family in Family::ALL {
        let mut pump = pump(&pair.host, "", pair.peer_address(family));
        pump.wait_for_stderr("leaves the fast path: silent");
        goes_on(&mut pump, 2);
        let said = end(pump);
        assert!(fast(&said).0 > 28 * MIB, "{said}");
    }
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    lab!("python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let _server = echo_server(&pair.peer);
        let mut pump = pump(&pair.host, "", pair.peer_address(family));
        pair.peer.ip("link set eth0 address 02:00:00:00:77:99");
        goes_on(&mut pump, 2);
        assert!(fast(&end(pump)).0 > 28 * MIB);
    }
}

#[test]
fn a_link_that_goes_down_and_up_interrupts_only() {
    lab!("python3");
    for family in Family::ALL {
        let pair = Pair::new();
        let _server = echo_server(&pair.peer);
        let mut pump = pump(&pair.host, "", pair.peer_address(family));
        pair.host.ip("link set eth0 down");
        pump.wait_for_stderr("leaves the fast path: routes");
        pair.host.ip("link set eth0 up");
        if family == Family::V6 {
            // The kernel drops global addresses of a link that goes down.
            address(&pair.host, "eth0", "fd77::1/64");
        }
        goes_on(&mut pump, 2);
        assert!(fast(&end(pump)).0 > 28 * MIB);
    }
}

#[test]
fn a_route_that_changes_leads_a_flow() {
    lab!("python3");
    for family in Family::ALL {
        let pair = Pair::with_two_links();
        let _server = echo_server(&pair.peer);
        let (far, other): (IpAddr, IpAddr) =
            (at(family, "10.80.0.1", "fd80::1"), at(family, "10.79.0.2", "fd79::2"));
        let v = if family == Family::V4 { "-4" } else { "-6" };
        pair.host.ip(&format!("{v} route add {far} via {}", pair.peer_address(family)));
        for interface in ["all", "default", "eth0", "eth1"] {
            pair.host.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0");
            pair.peer.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0");
        }
        let mut pump = pump(&pair.host, "", far);
        let before = counters(&pair.host)[0].0;
        pair.host.ip(&format!("{v} route replace {far} via {other}"));
        pump.wait_for_stderr("leaves the fast path: routes");
        goes_on(&mut pump, 2);
        let by_the_old_one = counters(&pair.host)[0].0 - before;
        assert!(by_the_old_one < MIB, "{by_the_old_one}");
        end(pump);
    }
}

#[test]
fn a_flow_that_ends_gives_its_port_back() {
    lab!("python3", "ss");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    let mut pumps = Family::ALL.map(|family| pump(&pair.host, "", pair.peer_address(family)));
    for pump in &mut pumps {
        let text = String::from_utf8_lossy(&pump.stdout()).into_owned();
        let port = text.split(['t', ';']).nth(1).expect("a port").trim().to_owned();
        let holds = || pair.host.run("ss -Htan").text().contains(&format!(":{port} "));
        assert!(holds(), "{}", pair.host.run("ss -Htan").text());
        pump.write(b"reset\n");
        pump.wait_until("the port is free", |_| !holds());
    }
    for pump in pumps {
        let said = end(pump);
        assert!(said.contains("1 flow;") && fast(&said).0 > 14 * MIB, "{said}");
    }
}

#[test]
fn a_program_ahead_of_the_guard_closes_the_fast_path() {
    lab!("python3");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    let mut pump = pump(&pair.host, "--guard tcx", pair.peer_address(Family::V4));
    let program = programs::classifier("lab_culprit", TC_ACT_OK);
    let link = programs::attach_tcx_first(&program, &pair.host, "eth0", Direction::Ingress);
    goes_on(&mut pump, 2);
    goes_on(&mut pump, 3);
    drop(link);
    let said = end(pump);
    assert!(said.contains("lets our packets reach the kernel"), "{said}");
    assert_eq!(said.matches("takes the fast path").count(), 1, "{said}");
}

#[test]
fn packets_that_netkat_shows_or_checks_pass_it() {
    lab!("python3");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    let record = std::env::temp_dir().join(format!("netkat-lab-{}-fast.pcapng", std::process::id()));
    for flags in ["--raw", "--without fast-path", &format!("--pcap {}", record.display())] {
        let pump = pump(&pair.host, flags, pair.peer_address(Family::V4));
        let links = pair.host.run("ip -br link").text();
        assert!(!links.contains("netkat"), "{flags}: {links}");
        assert!(!end(pump).contains("fast path"), "{flags}");
    }
    let _ = fs::remove_file(&record);
}

/// Sends datagrams to port 9 of an address for ever, in a process of its own, and counts them.
const FLOOD: &str = r#"
import os, socket, sys, time
if os.fork(): time.sleep(600)
peer = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
peer.connect((sys.argv[1], 9))
print('process %d;' % os.getpid(), flush=True)
number = 0
while True:
    try: peer.send(b'datagram')
    except OSError: pass
    number += 1
    print('sent %d;' % number, flush=True)
    time.sleep(0.001)
"#;

#[test]
fn processes_that_outlive_netkat_reach_nobody() {
    lab!("python3", "tcpdump", "iptables-nft");
    for family in Family::ALL {
        let pair = Pair::new();
        let iptables = if family == Family::V4 { "iptables-nft" } else { "ip6tables-nft" };
        pair.host.run(&format!("{iptables} -w -t raw -A PREROUTING -i netkat+ -p udp -j ACCEPT"));
        let to = pair.peer_address(family).to_string();
        let _sink = pair.peer.command("nc.openbsd").args(["-u", "-l", &to, "9"]).spawn();
        let mut run = running(&pair.host, "-vv", ["python3", "-c", FLOOD, &to]).deadline(DEADLINE).spawn();
        run.wait_for_stderr("takes the fast path");
        let netkat = run.id();
        let children =
            fs::read_to_string(format!("/proc/{netkat}/task/{netkat}/children")).expect("a process");
        let supervisor =
            children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child");
        let text = String::from_utf8_lossy(&run.stdout()).into_owned();
        let flood = text.split("process ").nth(1).and_then(|rest| rest.split(';').next()?.parse().ok());
        let flood = Pid::from_raw(flood.expect("a process"));
        // The command goes with its supervisor, and netkat ends; the command's child is left.
        kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("a supervisor");
        run.wait_until("netkat ends", |run| !run.is_running());
        let witness = Witness::incoming(&pair.peer, "eth0", "udp port 9");
        let sent = |run: &Process| String::from_utf8_lossy(&run.stdout()).matches("sent").count();
        let before = sent(&run);
        settles(|| sent(&run) > before + 300, || format!("{} datagrams", sent(&run) - before));
        witness.saw_nothing();
        let seen = pair.host.run(&format!("{iptables} -w -t raw -nvxL PREROUTING")).text();
        let rule = seen.lines().find(|line| line.contains("netkat+")).expect("the rule");
        assert_eq!(rule.split_whitespace().next(), Some("0"), "{seen}");
        kill(flood, Signal::SIGKILL).expect("a process");
        let links = || pair.host.run("ip -br link").text();
        settles(|| !links().contains("netkat"), links);
    }
}

#[test]
fn a_killed_run_leaves_no_device() {
    lab!("python3");
    let pair = Pair::new();
    let _echo = echo_server(&pair.peer);
    for family in Family::ALL {
        let run = pump(&pair.host, "", pair.peer_address(family));
        let links = || pair.host.run("ip -br link").text();
        assert!(links().contains("netkat"), "{}", links());
        run.signal(Signal::SIGKILL);
        run.wait(DEADLINE);
        settles(|| !links().contains("netkat"), links);
        let left = pair.host.run("tc filter show dev eth0 ingress").text();
        assert_eq!(left, "");
    }
}
