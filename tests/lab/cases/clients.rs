//! Many clients: in turn, several at once, a process for each, and refused ones.
use crate::support::{
    namespace::Namespace,
    netkat::{PROGRAM, listening, netkat},
    payload::{MIB, Payload},
    peers::{Netcat, kernel_connects},
    process::{Command, DEADLINE, Input, Process},
    requirements::lab,
    topology::{Family, Pair, address},
};
use std::{net::IpAddr, time::Duration};

const PORT: u16 = 8080;

/// Clients of the kernel's TCP in one Python program: `row` in turn, `once` all at once. Each sends
/// the given text (`%d` is its number), ends its side, and reads to the end. Prints how many got
/// how much.
const CLIENTS: &str = r#"
import collections, socket, sys, threading
host, port, order, count, text, size = sys.argv[1:7]
count, size = int(count), int(size)
got = [0] * count
def connect():
    s = socket.create_connection((host, int(port)), timeout=60)
    return s
def converse(i, s):
    data = ((text % i) if '%' in text else text).encode().decode('unicode_escape').encode()
    data *= max(1, size // len(data))
    def send():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    sender = threading.Thread(target=send)
    sender.start()
    while piece := s.recv(1 << 16):
        got[i] += len(piece)
    sender.join()
    s.close()
if order == 'row':
    for i in range(count):
        converse(i, connect())
else:
    sockets = [connect() for i in range(count)]
    print('all connected', flush=True)
    threads = [threading.Thread(target=converse, args=each) for each in enumerate(sockets)]
    for t in threads: t.start()
    for t in threads: t.join()
print(sorted(collections.Counter(got).items()))
"#;

fn clients(from: &Namespace, to: IpAddr, order: &str, count: usize, text: &str, size: u64) -> Command {
    from.command("python3")
        .args(["-c", CLIENTS, &to.to_string(), &PORT.to_string()])
        .args([order, &count.to_string(), text, &size.to_string()])
        .deadline(Duration::from_secs(60))
}

/// Starts a client whose input stays open.
fn open_client(from: &Namespace, to: IpAddr) -> Process {
    Netcat::Socat.connect(from, to, PORT).input(Input::Open).spawn()
}

/// Returns the resident memory of a process, in KiB.
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("a folder").count()
}

fn lines(process: &Process) -> Vec<String> {
    let mut lines: Vec<String> =
        String::from_utf8_lossy(&process.stdout()).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn clients_are_served_one_after_the_other_and_none_is_lost() {
    lab!("nc.openbsd", "ncat", "socat");
    for family in Family::ALL {
        let pair = Pair::new();
        pair.host.run("iptables-nft -w -P INPUT DROP");
        pair.host.run("ip6tables-nft -w -A INPUT -p tcp -j DROP");
        let mut server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(Input::Null));
        let at = pair.host_address(family);
        let mut first = open_client(&pair.peer, at);
        first.write(b"first\n");
        server.wait_for_stdout("first\n");
        let waiting: Vec<Process> = (0..12)
            .map(|i| {
                let client = Netcat::ALL[i % 3].connect(&pair.peer, at, PORT);
                client.text(&format!("client {i:02}\n")).spawn()
            })
            .collect();
        first.write(b"still first\n");
        server.wait_for_stdout("still first\n");
        assert_eq!(server.stdout(), b"first\nstill first\n", "another client was served meanwhile");
        first.close_stdin();
        for client in waiting {
            let output = client.wait(DEADLINE);
            assert!(output.success(), "{output}");
        }
        server.wait_until("all lines", |server| server.stdout().len() == 18 + 12 * 10);
        let expected: Vec<String> = (0..12).map(|i| format!("client {i:02}")).collect();
        assert_eq!(lines(&server)[..12], expected);
        assert_eq!(server.terminate().signal(), Some(15));
    }
}

#[test]
fn a_hundred_and_twenty_eight_clients_wait_in_the_backlog() {
    lab!("socat", "python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(Input::Null));
    let mut first = open_client(&pair.peer, at);
    first.write(b"first\n");
    server.wait_for_stdout("first\n");
    let mut waiting = clients(&pair.peer, at, "once", 128, "client %03d\\n", 0).spawn();
    waiting.wait_for_stdout("all connected");
    first.close_stdin();
    let output = waiting.wait(DEADLINE);
    assert!(output.text().contains("[(0, 128)]"), "{output}");
    server.wait_until("all lines", |server| server.stdout().len() == 6 + 128 * 11);
    let expected: Vec<String> = (0..128).map(|i| format!("client {i:03}")).collect();
    assert_eq!(lines(&server)[..128], expected);
}

#[test]
fn input_goes_to_the_client_that_is_there() {
    lab!("socat", "nc.openbsd");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(Input::Open));
    for word in ["one\n", "two\n"] {
        server.write(word.as_bytes());
        let mut client = open_client(&pair.peer, at);
        client.wait_for_stdout(word);
        assert_eq!(client.stdout(), word.as_bytes());
        client.close_stdin();
        let output = client.wait(DEADLINE);
        assert!(output.success(), "the client's end is the end of its turn: {output}");
    }
    server.close_stdin();
    for _ in 0..2 {
        // nc waits for the peer's end.
        let output = pair.peer.run(&format!("nc.openbsd -w 5 {at} {PORT}"));
        assert_eq!(output.text(), "");
    }
}

#[test]
fn a_file_reaches_a_client_that_only_listens_in_full() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let payload = Payload::new(21, 24 * MIB);
    let _server = listening(&pair.host, &format!("-k {PORT}"), |c| c.input(payload.input()));
    let client = Netcat::OpenBsd.connect(&pair.peer, pair.host_address(Family::V6), PORT);
    let output = client.input(Input::Null).expect(&payload).run();
    output.check(&payload);
}

#[test]
fn several_at_once_share_input_and_output() {
    lab!("socat");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = listening(&pair.host, &format!("-k --max-conns 2 {PORT}"), |c| c.input(Input::Open));
    let mut both = [open_client(&pair.peer, at), open_client(&pair.peer, at)];
    for (client, word) in both.iter_mut().zip(["left\n", "right\n"]) {
        client.write(word.as_bytes());
        server.wait_for_stdout(word);
    }
    let mut third = open_client(&pair.peer, at);
    third.write(b"third\n");
    server.write(b"to both\n");
    for client in &mut both {
        client.wait_for_stdout("to both\n");
    }
    assert!(!lines(&server).contains(&"third".to_owned()), "two at once were asked for");
    both[0].close_stdin();
    server.wait_for_stdout("third\n");
    server.write(b"to the rest\n");
    third.wait_for_stdout("to the rest\n");
    both[1].wait_for_stdout("to the rest\n");
    assert_eq!(third.stdout(), b"to the rest\n", "what was read before it came is not for it");
    assert_eq!(both[0].stdout(), b"to both\n");
}

#[test]
fn a_client_that_takes_nothing_does_not_stall_the_others_for_ever() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let payload = Payload::new(22, 32 * MIB);
    let arguments = format!("-k --max-conns 2 {PORT}");
    let mut server = listening(&pair.host, &arguments, |c| c.input(Input::Open));
    let sleeper =
        format!("import socket, time; s = socket.create_connection(('{at}', {PORT})); time.sleep(60)");
    let mut slow = pair.peer.command("python3").args(["-c", &sleeper]).spawn();
    server.wait_for_stderr("established");
    // With -d its own side stays open until ours has ended.
    let client = pair.peer.words(&format!("nc.openbsd -d {at} {PORT}")).expect(&payload);
    let client = client.deadline(Duration::from_secs(60)).spawn();
    server.wait_until("both", |server| server.stderr().matches("established").count() == 2);
    let Input::File(file) = payload.input() else { panic!("a payload is a file") };
    server.write(&std::fs::read(file).expect("a payload"));
    server.close_stdin();
    client.wait(Duration::from_secs(60)).check(&payload);
    assert!(server.stderr().contains("held up the other clients"), "{}", server.stderr());
    assert!(slow.is_running());
}

#[test]
fn each_client_has_a_process_of_its_own() {
    lab!("nc.openbsd", "ncat", "socat");
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.host_address(family);
        let mut server = listening(&pair.host, &format!("-k --exec cat {PORT}"), |c| c);
        let payload = Payload::new(23, 5 * MIB);
        let echoes: Vec<Process> = Netcat::ALL
            .iter()
            .map(|netcat| {
                netcat.connect(&pair.peer, at, PORT).input(payload.input()).expect(&payload).spawn()
            })
            .collect();
        for echo in echoes {
            echo.wait(DEADLINE).check(&payload);
        }
        server.wait_until("no child left", |server| server.stderr().matches("exited with").count() == 3);
    }
}

/// Sends until the socket takes no more, reads nothing, and resets.
const BREAKS_OFF: &str = r#"
import socket, struct, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.settimeout(0.5)
try:
    while True:
        s.sendall(bytes(1 << 16))
except TimeoutError:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
"#;

#[test]
fn a_process_that_waits_for_a_client_which_breaks_off_is_let_go() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V6);
    let mut server = listening(&pair.host, &format!("-k --exec cat {PORT}"), |c| c);
    let client = pair.peer.command("python3").args(["-c", BREAKS_OFF, &at.to_string(), &PORT.to_string()]);
    client.succeed();
    server.wait_until("the process's end", |server| server.stderr().contains("was ended by"));
    assert!(server.stderr().contains("connection reset by peer"), "{}", server.stderr());
}

#[test]
fn a_process_ends_its_connection_and_knows_its_peer() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = netkat(&pair.host, &format!("-v -l -k {PORT} --sh-exec"))
        .arg("echo $NETKAT_PROTO $NETKAT_REMOTE_ADDR $NETKAT_LOCAL_ADDR $NETKAT_LOCAL_PORT; ps -o stat --ppid $PPID")
        .spawn();
    server.wait_for_stderr("listening on");
    for served in 1..=2 {
        // With -d its own side stays open: only the end of the process ends it.
        let output = pair.peer.words(&format!("nc.openbsd -d {at} {PORT}")).run();
        assert!(output.success(), "{output}");
        let expected = format!("TCP {} {at} {PORT}\nSTAT\n", pair.peer_address(Family::V4));
        assert!(output.text().starts_with(&expected), "{output}");
        assert!(!output.text().contains('Z'), "a child was not waited for: {output}");
        server.wait_until("an exit", |s| s.stderr().matches("exited with").count() == served);
    }
}

#[test]
fn the_one_who_connects_can_bring_a_process() {
    lab!("socat");
    let pair = Pair::new();
    let payload = Payload::new(24, 3 * MIB);
    let at = pair.peer_address(Family::V6);
    let server = Netcat::Socat.listen(&pair.peer, at, PORT, |c| c.input(payload.input()).expect(&payload));
    let output = netkat(&pair.host, &format!("--exec cat {at} {PORT}")).run();
    assert_eq!(output.code(), Some(0), "{output}");
    server.wait(DEADLINE).check(&payload);
}

#[test]
fn processes_do_not_outlive_netkat() {
    lab!("ncat");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = netkat(&pair.host, &format!("-v -l -k {PORT} --sh-exec"))
        .arg("trap '' HUP TERM; echo ready; sleep 1000 | cat")
        .spawn();
    server.wait_for_stderr("listening on");
    let mut client = Netcat::Ncat.connect(&pair.peer, at, PORT).input(Input::Open).spawn();
    client.wait_for_stdout("ready");
    let ended = server.terminate();
    assert_eq!(ended.signal(), Some(15), "{ended}");
    let left = pair.peer.command("ip").args(["netns", "pids", pair.host.name()]).succeed().text();
    assert_eq!(left, "");
    // A reset, since the process had more to say.
    let output = client.wait(DEADLINE);
    assert!(output.to_string().contains("reset by peer"), "{output}");
}

#[test]
fn processes_are_the_invoking_users_and_hold_no_capability() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let script = "id -u; id -g; grep -E '^(Cap(Inh|Prm|Eff|Amb)|SigBlk|Groups)' /proc/self/status";
    let mut server = pair
        .host
        .words(&format!("env SUDO_UID=54321 SUDO_GID=54322 {PROGRAM} -v -l -k {PORT} --sh-exec"))
        .arg(script)
        .spawn();
    server.wait_for_stderr("listening on");
    let text = pair.peer.run(&format!("nc.openbsd {at} {PORT}")).text();
    let mut lines = text.lines();
    assert_eq!((lines.next(), lines.next()), (Some("54321"), Some("54322")), "{text}");
    let status: Vec<&str> = lines.collect();
    assert_eq!(status.len(), 6, "{text}");
    for line in status {
        let value = line.split_once(':').expect("a value").1.trim();
        assert!(value.trim_matches('0').is_empty() || value == "54322", "{line}");
    }
}

#[test]
fn who_may_not_come_gets_no_answer_or_a_reset() {
    lab!("nc.openbsd", "ncat");
    let pair = Pair::new();
    for (family, near, around, other) in [
        (Family::V4, "10.77.0.0/24", "10.77.0.0/16", "192.0.2.1,fd77::/64"),
        (Family::V6, "fd77::/64", "fd77::/16", "2001:db8::1,10.77.0.0/24"),
    ] {
        let (at, peer) = (pair.host_address(family), pair.peer_address(family));
        for (arguments, connects, error) in [
            (format!("--deny {near}"), false, "timeout"),
            (format!("--deny {near} --reject"), false, "refused"),
            (format!("--allow {other}"), false, "timeout"),
            (format!("--allow {other} --allow {peer}"), true, ""),
            (format!("--allow {peer} --deny {around}"), false, "timeout"),
        ] {
            let _server = listening(&pair.host, &format!("-k {arguments} {PORT}"), |c| c.input(Input::Null));
            assert_eq!(kernel_connects(&pair.peer, at, PORT), connects, "{arguments}");
            if !connects {
                let refused = pair.peer.words(&format!("ncat -w 1s {at} {PORT}")).input(Input::Null).run();
                assert!(refused.to_string().to_lowercase().contains(error), "{arguments}: {refused}");
            }
        }
    }
    let wrong = netkat(&pair.host, "-l --allow 10.0.0.0/33 8080").run();
    assert_eq!(wrong.code(), Some(2), "{wrong}");
}

#[test]
fn datagrams_of_who_may_not_come_are_dropped() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    for (family, second) in [(Family::V4, "10.77.0.3"), (Family::V6, "fd77::3")] {
        let bits = if family == Family::V4 { 24 } else { 64 };
        address(&pair.peer, "eth0", &format!("{second}/{bits}"));
        let (at, peer) = (pair.host_address(family), pair.peer_address(family));
        for flag in ["", "-k"] {
            for list in [format!("--deny {peer}"), format!("--allow {second}")] {
                let mut server =
                    listening(&pair.host, &format!("-u {flag} {list} {PORT}"), |c| c.input(Input::Open));
                for (source, word) in [(peer.to_string().as_str(), "stays out"), (second, "comes in")] {
                    pair.peer
                        .words(&format!("nc.openbsd -u -q 0 -w 1 -s {source} {at} {PORT}"))
                        .text(word)
                        .run();
                }
                server.wait_for_stdout("comes in");
                assert_eq!(server.stdout(), b"comes in", "{flag} {list}");
            }
        }
    }
}

#[test]
fn a_thousand_in_a_row_and_two_hundred_at_once_leave_memory_flat() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let mut server = listening(&pair.host, &format!("-k --max-conns 200 --exec cat {PORT}"), |c| c);
    let row = |count| clients(&pair.peer, at, "row", count, "0123456789", 1000).succeed().text();
    assert_eq!(row(100), "[(1000, 100)]\n");
    let (memory, files) = (resident(&server), descriptors(&server));
    assert_eq!(row(1000), "[(1000, 1000)]\n");
    let once = clients(&pair.peer, at, "once", 200, "0123456789", 300_000).succeed().text();
    assert_eq!(once, "all connected\n[(300000, 200)]\n");
    server.wait_until("all children", |server| server.stderr().matches("exited with").count() == 1300);
    let grown = resident(&server).saturating_sub(memory);
    assert!(grown < 8 << 10, "{memory} KiB have grown by {grown} KiB");
    assert_eq!(descriptors(&server), files);
}
