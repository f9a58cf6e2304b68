//! Standard error and other outputs without a reader, or without room: netkat goes on, keeps its
//! exit status, and ends on a signal.
use crate::support::{
    fifo::Fifo,
    namespace::Namespace,
    netkat::{PROGRAM, netkat},
    payload::{MIB, Payload},
    peers::{Netcat, kernel_connects},
    process::{Command, DEADLINE, Input, Process, sleeps_in_poll},
    requirements::lab,
    topology::{Family, Pair, at},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::openpty,
    sys::{
        signal::Signal,
        termios::{FlowArg, tcflow},
    },
    unistd::{pipe, write},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// Maximum time from a signal to the end, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(3);

/// A full pipe, and its reader.
fn full_pipe() -> (OwnedFd, File) {
    let (from, to) = pipe().expect("a pipe");
    // netkat makes the pipe this large where it can.
    fcntl(&to, FcntlArg::F_SETPIPE_SZ(1 << 20)).expect("F_SETPIPE_SZ");
    fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("F_SETFL");
    for size in [4096, 1] {
        while write(&to, &vec![b'\n'; size]).is_ok() {}
    }
    fcntl(&to, FcntlArg::F_SETFL(OFlag::empty())).expect("F_SETFL");
    (from, to.into())
}

/// A terminal whose output is stopped, as by Ctrl-S, and its other side.
fn stopped_terminal() -> (OwnedFd, File) {
    let terminal = openpty(None, None).expect("a terminal");
    tcflow(&terminal.slave, FlowArg::TCOOFF).expect("a stop");
    (terminal.master, terminal.slave.into())
}

/// A socket whose peer takes nothing more, as a service manager's may be.
fn full_socket() -> (OwnedFd, File) {
    let (near, far) = UnixStream::pair().expect("sockets");
    near.set_nonblocking(true).expect("O_NONBLOCK");
    for size in [4096, 1] {
        while (&near).write(&vec![b'\n'; size]).is_ok() {}
    }
    near.set_nonblocking(false).expect("no O_NONBLOCK");
    (far.into(), OwnedFd::from(near).into())
}

/// Makes a pair of a blocked reader's end and a writer's end.
type Blocked = fn() -> (OwnedFd, File);

/// Outputs that block their writer.
const BLOCKED: [(&str, Blocked); 3] =
    [("full pipe", full_pipe), ("stopped terminal", stopped_terminal), ("full socket", full_socket)];

/// Waits until signals no longer end the program by themselves.
fn wait_until_caught(process: &mut Process) {
    process.wait_until("signals caught", |process| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        blocked & 1 << (Signal::SIGTERM as i32 - 1) != 0
    });
}

/// Ends the program by SIGTERM, in time.
fn terminate(process: Process, what: &str, expected: Option<i32>) {
    let start = Instant::now();
    process.signal(Signal::SIGTERM);
    let ended = process.wait(Duration::from_secs(10));
    assert_eq!(ended.signal(), expected, "{what}: {ended}");
    assert!(start.elapsed() < SOON, "{what}: {ended}");
}

/// A silent address behind the peer, which does not forward.
fn silent(pair: &Pair, family: Family) -> std::net::IpAddr {
    pair.peer.sysctl("net.ipv4.conf.all.forwarding", "0");
    pair.peer.sysctl("net.ipv6.conf.all.forwarding", "0");
    at(family, "192.0.2.1", "2001:db8::1")
}

#[test]
fn signals_end_every_mode_while_nobody_reads_standard_error() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    for (kind, blocked) in BLOCKED {
        for family in Family::ALL {
            let (host, peer) = (pair.host_address(family), pair.peer_address(family));
            let silent = silent(&pair, family);
            let _server = Netcat::OpenBsd.listen(&pair.peer, peer, 5000, |c| c.input(Input::Open));
            for (mode, signal) in [
                (format!("-d {peer} 5000"), Some(15)),
                (format!("-d -l {host} 5001"), Some(15)),
                (format!("-d -l -k --exec cat {host} 5001"), Some(15)),
                (format!("-d -u {peer} 5000"), Some(15)),
                (format!("-d -u -l {host} 5001"), Some(15)),
                (format!("-d -z -w 60 --via {peer} {silent} 1-300"), Some(15)),
                (format!("-d -w 60 --via {peer} {silent} 80"), Some(15)),
                ("--sniff -i eth0".to_owned(), None),
            ] {
                let (_reader, stderr) = blocked();
                let run = netkat(&pair.host, &format!("-vvv {mode}")).input(Input::Open).stderr(stderr);
                let mut run = run.spawn();
                wait_until_caught(&mut run);
                terminate(run, &format!("{kind}: {mode}"), signal);
            }
        }
    }
}

#[test]
fn a_transfer_goes_on_while_nobody_reads_standard_error() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let payload = Payload::new(31, 3 * MIB);
    for (kind, blocked) in BLOCKED {
        // The object is lost, as the status says; the bytes are not.
        for (family, flags, status) in [(Family::V4, "-vvv -d", 0), (Family::V6, "-vvv -d --json", 1)] {
            let at = pair.peer_address(family);
            let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.expect(&payload));
            let (_reader, stderr) = blocked();
            let line = format!("{flags} {at} 5000");
            let client = netkat(&pair.host, &line).input(payload.input()).stderr(stderr).run();
            assert_eq!(client.code(), Some(status), "{kind}: {client}");
            server.wait(DEADLINE).check(&payload);
        }
    }
}

/// A stranger's resets cost a line each, which must not stop a server.
#[test]
fn a_server_goes_on_and_says_how_many_lines_were_lost() {
    lab!("python3");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.host_address(family);
        let (reader, stderr) = full_pipe();
        let line = format!("-vvv -d -l -k --exec cat {at} 5000");
        let mut server = netkat(&pair.host, &line).stderr(stderr).spawn();
        server.wait_listening(5000);
        resets(&pair.peer, &at.to_string(), 400);
        let (told, tell) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut reader, mut text, mut buffer) = (File::from(reader), String::new(), [0; 65_536]);
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                text.push_str(&String::from_utf8_lossy(&buffer[..n]));
                let lost =
                    text.lines().find(|line| line.ends_with("lines lost: standard error took no more"));
                if let Some(lost) = lost {
                    let _ = told.send(lost.to_owned());
                }
            }
        });
        let lost = tell.recv_timeout(DEADLINE).expect("a line about the lost ones");
        assert!(lost.starts_with("netkat: "), "{lost}");
        // The server still works.
        assert!(kernel_connects(&pair.peer, at, 5000));
        assert_eq!(server.terminate().signal(), Some(15));
    }
}

/// Connects `count` times, gets an answer, and resets the connection.
fn resets(from: &Namespace, to: &str, count: usize) {
    let script = r#"
import socket, struct, sys
for _ in range(int(sys.argv[2])):
    s = socket.create_connection((sys.argv[1], 5000), 5)
    s.sendall(b"x")
    assert s.recv(1) == b"x"
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
"#;
    from.command("python3").args(["-c", script, to, &count.to_string()]).succeed();
}

#[test]
fn a_standard_error_that_cannot_be_written_changes_no_status() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    for family in Family::ALL {
        let peer = pair.peer_address(family);
        let gone = || {
            let (from, to) = pipe().expect("a pipe");
            drop(from);
            File::from(to)
        };
        let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
        for (arguments, status) in [("", 1), ("--exit-verdict", 4), ("-vvv -d --json --exit-verdict", 4)] {
            for stderr in [full(), gone()] {
                let run = netkat(&pair.host, &format!("{arguments} {peer} 7")).stderr(stderr).run();
                assert_eq!(run.code(), Some(status), "{arguments}: {run}");
            }
            let closed = pair.host.command("/bin/sh").args(["-c", "exec \"$@\" 2>&-", "sh", PROGRAM]);
            let run = closed.args(format!("{arguments} {peer} 7").split_whitespace()).run();
            assert_eq!((run.code(), run.stderr.as_str()), (Some(status), ""), "{arguments}: {run}");
        }
        // A successful connection is unharmed, too; a lost report is a failure.
        for (arguments, status) in [("-vvv -d", 0), ("--json", 1), ("-vvv -d --json", 1)] {
            for stderr in [full(), gone()] {
                let server = Netcat::OpenBsd.listen(&pair.peer, peer, 5000, |c| c);
                let client = netkat(&pair.host, &format!("{arguments} {peer} 5000")).text("x").stderr(stderr);
                let client = client.run();
                assert_eq!(client.code(), Some(status), "{arguments}: {client}");
                assert_eq!(server.wait(DEADLINE).text(), "x");
            }
        }
    }
}

/// Sends `count` datagrams of 1000 bytes to a port without a listener.
fn datagrams(from: &Namespace, to: &str, count: usize) {
    let script = r#"
import socket, sys
s = socket.socket(socket.getaddrinfo(sys.argv[1], 9)[0][0], socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    s.sendto(bytes(1000), (sys.argv[1], 9))
"#;
    from.command("python3").args(["-c", script, to, &count.to_string()]).succeed();
}

/// Data waits for its reader without a limit, but a signal ends the wait.
#[test]
fn signals_end_a_run_whose_output_nobody_reads() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let payload = Payload::new(33, 3 * MIB);
    let capture = std::env::temp_dir().join(format!("netkat-lab-{}-unread.pcap", std::process::id()));
    for family in Family::ALL {
        let (peer, silent) = (pair.peer_address(family), silent(&pair, family));
        // Sniffing and scanning into a full pipe; recording into FIFOs, with and without a reader.
        let fifo = Fifo::new("unread");
        let path = fifo.0.display().to_string();
        for (mode, with_reader, caught) in [
            ("--sniff -i eth0".to_owned(), false, true),
            (format!("-z -w 1 {peer} 1-3000"), false, true),
            (format!("--sniff -i eth0 --pcap {path}"), false, true),
            (format!("--sniff -i eth0 --pcap {path}"), true, true),
            (format!("-d --pcap {path} -w 60 --via {peer} {silent} 80"), false, true),
            (format!("-w 60 -o {path} --via {peer} {silent} 80"), false, false),
            (format!("-w 60 --json={path} --via {peer} {silent} 80"), false, false),
            (format!("-o {path} {peer} 5000"), true, true),
            (format!("-x {path} {peer} 5000"), true, true),
            (format!("--recv-only {peer} 5000"), false, true),
        ] {
            let reader = with_reader.then(|| fifo.reader());
            let (_stdout_reader, stdout) = full_pipe();
            let _server = Netcat::OpenBsd.listen(&pair.peer, peer, 5000, |c| c.input(payload.input()));
            let mut run = netkat(&pair.host, &mode).input(payload.input()).stdout(stdout).spawn();
            if caught {
                wait_until_caught(&mut run);
            }
            // More packets than the FIFO holds.
            datagrams(&pair.host, &peer.to_string(), 2000);
            terminate(run, &mode, Some(15));
            drop(reader);
        }
    }
    // Reading a file into a full pipe.
    let record = netkat(&pair.host, &format!("--sniff -i eth0 --count 2000 --pcap {}", capture.display()));
    let mut record = record.spawn();
    wait_until_caught(&mut record);
    datagrams(&pair.host, "10.77.0.2", 2000);
    assert_eq!(record.wait(DEADLINE).code(), Some(0));
    let (_reader, stdout) = full_pipe();
    let mut replay = Command::new(PROGRAM).args(["-vvv", "--read"]).arg(&capture).stdout(stdout).spawn();
    replay.wait_until("a blocked write", |replay| sleeps_in_poll(replay.id()));
    terminate(replay, "--read", Some(15));
    let _ = fs::remove_file(&capture);
}

/// A record is complete, however slow the reader of the FIFO is.
#[test]
fn a_slow_reader_of_a_record_gets_all_of_it() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let payload = Payload::new(32, 3 * MIB);
    let peer = pair.peer_address(Family::V6);
    let server = Netcat::OpenBsd.listen(&pair.peer, peer, 5000, |c| c.expect(&payload));
    let fifo = Fifo::new("slow");
    let client = netkat(&pair.host, &format!("-o {} {peer} 5000", fifo.0.display())).input(payload.input());
    let client = client.spawn();
    // The recording waits for its reader.
    let record = Command::new("cat").arg(&fifo.0).expect(&payload).spawn();
    assert_eq!(client.wait(DEADLINE).code(), Some(0));
    record.wait(DEADLINE).check(&payload);
    server.wait(DEADLINE).check(&payload);
}
