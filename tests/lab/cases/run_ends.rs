//! `--run`: the end of a run, which leaves nothing.
use crate::support::{
    netkat::{netkat, running},
    payload::MIB,
    process::{DEADLINE, Input},
    requirements::lab,
    servers::{echo_server, sink},
    topology::{Family, Pair},
    traces::traces,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    time::{Duration, Instant},
};

#[test]
fn the_status_is_the_commands() {
    lab!("sh");
    let pair = Pair::new();
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let run = running(&pair.host, "", ["sh", "-c", script]).run();
        assert_eq!((run.code(), run.stderr.as_str()), (Some(status), ""), "{script}: {run}");
    }
    for (program, status) in [("/nowhere/program", 127), ("/etc/passwd", 126)] {
        let run = running(&pair.host, "", [program]).run();
        assert_eq!(run.code(), Some(status), "{run}");
        assert!(run.stderr.starts_with(&format!("netkat: cannot run \"{program}\": ")), "{run}");
    }
    let unknown = netkat(&pair.host, "-i eth7 --run -- true").run();
    assert_eq!(unknown.code(), Some(125), "{unknown}");
}

#[test]
fn standard_streams_are_the_commands_own() {
    lab!("sh");
    let pair = Pair::new();
    let run = running(&pair.host, "", ["sh", "-c", "cat; echo errors >&2"]).text("input\n").succeed();
    assert_eq!((run.text().as_str(), run.stderr.as_str()), ("input\n", "errors\n"));
}

#[test]
fn a_terminal_is_the_commands_own() {
    lab!("script", "stty");
    let pair = Pair::new();
    let line =
        format!("{} --run -- sh -c 'test -t 0 && stty size && exit 3'", crate::support::netkat::PROGRAM);
    let run = pair.host.command("script").args(["-qec", &line, "/dev/null"]).run();
    assert_eq!(run.code(), Some(3), "{run}");
}

#[test]
fn signals_reach_the_command() {
    lab!("sh");
    let pair = Pair::new();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1] {
        let script = "trap 'exit 9' TERM HUP INT USR1; echo ready; while :; do sleep 0.05; done";
        let mut run = running(&pair.host, "", ["sh", "-c", script]).spawn();
        run.wait_for_stdout("ready");
        run.signal(signal);
        let run = run.wait(DEADLINE);
        assert_eq!(run.code(), Some(9), "{signal}: {run}");
    }
}

#[test]
fn what_was_sent_is_delivered_after_the_commands_end() {
    lab!("python3", "iptables-nft");
    const SEND: &str = r#"
import socket, sys
connection = socket.create_connection((sys.argv[1], 9))
connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
connection.sendall(bytes(8 << 20))
"#;
    let pair = Pair::over("--both delay=20ms,rate=200mbit");
    let mut sink = sink(&pair.peer);
    for (count, family) in Family::ALL.into_iter().enumerate() {
        let at = pair.peer_address(family).to_string();
        running(&pair.host, "", ["python3", "-c", SEND, &at]).deadline(DEADLINE * 2).succeed();
        sink.wait_until("all of it", |sink| {
            let lines = String::from_utf8_lossy(&sink.stdout()).into_owned();
            lines.matches(&format!("fin {}", 8 * MIB)).count() == count + 1
        });
    }
}

#[test]
fn waiting_for_acknowledgments_takes_no_cpu_time() {
    lab!("python3", "socat");
    const SEND: &str = "import socket; c = socket.create_connection(('10.77.0.2', 7)); c.setblocking(False); c.send(bytes(1 << 20))";
    let pair = Pair::new();
    // The peer reads nothing, so that the command's kernel has something left to send.
    let mut peer =
        pair.peer.command("socat").args(["-u", "TCP-LISTEN:7,rcvbuf=4096", "EXEC:sleep 60"]).spawn();
    peer.wait_listening(7);
    let mut run = netkat(&pair.host, "-v --run -- python3 -c").arg(SEND).spawn();
    run.wait_for_stderr("the command runs");
    std::thread::sleep(Duration::from_secs(3));
    let stat = fs::read_to_string(format!("/proc/{}/stat", run.id())).expect("netkat waits");
    let times: Vec<u64> = stat.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    // A tick is 10 ms.
    assert!(times.iter().sum::<u64>() < 60, "{stat}");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait(DEADLINE).code(), Some(0));
}

#[test]
fn a_killed_commands_peers_hear_a_reset() {
    lab!("python3");
    // Data that was received and not read makes the kernel reset the connection (RFC 9293, section 3.10.4).
    const UNREAD: &str = r#"
import os, signal, socket, sys
connection = socket.create_connection((sys.argv[1], 7))
connection.sendall(b'x' * 1000)
other = socket.create_connection((sys.argv[1], 9))
connection.recv(1)
other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
os.kill(os.getpid(), signal.SIGKILL)
"#;
    let pair = Pair::new();
    let (_echo, mut sink) = (echo_server(&pair.peer), sink(&pair.peer));
    let at = pair.peer_address(Family::V4).to_string();
    let run = running(&pair.host, "", ["python3", "-c", UNREAD, &at]).run();
    assert_eq!(run.code(), Some(137), "{run}");
    sink.wait_for_stdout("reset 0");
}

#[test]
fn an_idle_connection_does_not_keep_a_run() {
    lab!("python3");
    const IDLE: &str = "import socket, sys; c = socket.create_connection((sys.argv[1], 7)); c.close()";
    let pair = Pair::new();
    // The peer keeps its side open, so that the command's stays in FIN-WAIT-2.
    let mut peer = pair.peer.command("socat").args(["TCP-LISTEN:7", "EXEC:sleep 60,nofork"]).spawn();
    peer.wait_listening(7);
    let start = Instant::now();
    running(&pair.host, "", ["python3", "-c", IDLE, "10.77.0.2"]).succeed();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn processes_that_are_left_keep_the_network() {
    lab!("sh", "python3");
    let pair = Pair::new();
    let mut sink = sink(&pair.peer);
    let script = "(sleep 1; echo late | nc.openbsd -N 10.77.0.2 9) >/dev/null 2>&1 & exit 5";
    let run = running(&pair.host, "", ["sh", "-c", script]).run();
    assert_eq!(run.code(), Some(5), "{run}");
    sink.wait_for_stdout("fin 5 ");
}

/// Returns the processes whose command line holds the text.
fn processes(text: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

#[test]
fn nothing_is_left_however_a_run_ends() {
    lab!("sh", "python3", "tc");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    let before = traces(&pair.host);
    for round in 0..12 {
        let marker = format!("40{round:02}00{}", std::process::id());
        let script =
            format!("sleep {marker} & nc.openbsd -w {marker} 10.77.0.2 7 & echo ready; wait; exec sleep 100");
        let mut run = running(&pair.host, "--publish 8099", ["sh", "-c", &script]).input(Input::Open).spawn();
        // Some die while they start.
        if round % 3 > 0 {
            run.wait_for_stdout("ready");
        }
        std::thread::sleep(Duration::from_millis(round * 7 % 40));
        match round % 4 {
            0 | 2 => run.signal(Signal::SIGKILL),
            1 => run.signal(Signal::SIGTERM),
            // All but netkat.
            _ => processes(&marker).into_iter().filter(|pid| *pid != run.id() as i32).for_each(|pid| {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }),
        }
        run.wait(DEADLINE);
        let deadline = Instant::now() + DEADLINE;
        while !processes(&marker).is_empty() || traces(&pair.host) != before {
            let left = processes(&marker);
            assert!(Instant::now() < deadline, "round {round}: {left:?} {}", traces(&pair.host));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
