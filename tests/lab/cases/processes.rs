//! Processes of --exec: their maximum number, their ends, the meaning of their status, and orphans.
use crate::support::{
    fifo::Fifo,
    netkat::{PROGRAM, listening, netkat},
    peers::Netcat,
    process::{DEADLINE, Input, Output, Process, sleeps_in_poll},
    requirements::lab,
    topology::{Family, Pair},
};
use nix::sys::signal::Signal;
use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

const PORT: u16 = 5000;

/// Returns the state letters (proc_pid_stat(5)) of the processes whose parent is `parent`.
fn children(parent: u32) -> Vec<char> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
    let of_parent = |stat: String| {
        // "PID (NAME) STATE PPID …", and the name may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        (fields.next()? == parent.to_string()).then_some(state)
    };
    processes.flatten().filter_map(stat).filter_map(of_parent).collect()
}

/// Connects and resets in a loop, for `argv[2]` seconds; prints the number of established
/// connections.
const CONNECTS_AND_RESETS: &str = r#"
import socket, struct, sys, time
end, stood = time.time() + float(sys.argv[2]), 0
while time.time() < end:
    try:
        s = socket.create_connection((sys.argv[1], 5000), 1)
    except OSError:
        continue
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    time.sleep(0.01)
    s.close()
    stood += 1
print(stood)
"#;

/// A client that connects and resets cannot start more processes than there may be clients,
/// whatever the processes do with signals and their input: one ignores signals, one has a child
/// that does, one closes its streams.
#[test]
fn there_are_never_more_processes_than_clients_may_be() {
    lab!("python3");
    for (family, script) in [
        (Family::V4, "trap '' HUP TERM; exec sleep 60"),
        (Family::V6, "(trap '' HUP TERM; exec sleep 60) & wait"),
        (Family::V4, "trap '' TERM; exec <&- >&-; exec sleep 60"),
    ] {
        let pair = Pair::new();
        let at = pair.host_address(family);
        let mut server =
            netkat(&pair.host, &format!("-v -l -k --max-conns 2 {PORT} --sh-exec")).arg(script).spawn();
        server.wait_for_stderr("listening on");
        let attack = ["-c", CONNECTS_AND_RESETS, &at.to_string(), "4"];
        let mut attack = pair.peer.command("python3").args(attack).spawn();
        let mut most = 0;
        while attack.is_running() {
            let pids = pair.peer.command("ip").args(["netns", "pids", pair.host.name()]).succeed().text();
            // netkat itself counts; a shell that waits for its child counts with it.
            let processes = pids.lines().count() - 1;
            most = most.max(processes);
            sleep(Duration::from_millis(20));
        }
        let each = if script.contains('&') && script.contains("wait") { 2 } else { 1 };
        assert!((1..=2 * each).contains(&most), "{most} processes: {script}");
        // netkat killed them, so that others had their turn.
        let started = server.stderr().matches("started process").count();
        assert!(started > 2, "{started}: {}", server.stderr());
        assert_eq!(server.terminate().signal(), Some(15));
        let left = pair.peer.command("ip").args(["netns", "pids", pair.host.name()]).succeed().text();
        assert_eq!(left, "", "{script}");
    }
}

/// As the entry point of a container, netkat is the first process of a PID namespace.
fn as_init(pair: &Pair, arguments: &str, command: Option<&str>) -> (Process, u32) {
    let line = format!("unshare -pf --mount-proc {PROGRAM} {arguments}");
    let run = pair.host.words(&line);
    let mut run = command.into_iter().fold(run, |run, command| run.arg(command)).input(Input::Open).spawn();
    let mut init = None;
    run.wait_until("netkat", |run| {
        let path = format!("/proc/{0}/task/{0}/children", run.id());
        init = fs::read_to_string(path).ok().and_then(|pids| pids.trim().parse().ok());
        init.is_some()
    });
    (run, init.expect("a PID"))
}

#[test]
fn the_first_process_of_a_container_reaps_orphans() {
    lab!("nc.openbsd", "unshare");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let script = "(sleep 0.1 & sleep 0.1 & sleep 0.1 &); echo ok";
    let (mut server, init) = as_init(&pair, &format!("-v -l -k {PORT} --sh-exec"), Some(script));
    server.wait_for_stderr("listening on");
    for _ in 0..5 {
        let output = pair.peer.words(&format!("nc.openbsd -d {at} {PORT}")).run();
        assert_eq!(output.text(), "ok\n", "{output}");
    }
    server.wait_until("no child", |_| children(init).is_empty());
    // The status of each is known all the same.
    assert_eq!(server.stderr().matches("exited with status 0").count(), 5, "{}", server.stderr());
}

#[test]
fn signals_end_the_first_process_of_a_container() {
    lab!("nc.openbsd", "unshare");
    let pair = Pair::new();
    let peer = pair.peer_address(Family::V4);
    let fifo = Fifo::new("init");
    for (arguments, said) in [
        (format!("-v {peer} 5000"), Some("established")),
        (format!("-v -l -k {PORT}"), Some("listening on")),
        // Before anything is set up: a FIFO without a reader.
        (format!("--json={} -l 5001", fifo.0.display()), None),
    ] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let _server = Netcat::OpenBsd.listen(&pair.peer, peer, 5000, |c| c.input(Input::Open));
            let (mut run, init) = as_init(&pair, &arguments, None);
            match said {
                Some(said) => run.wait_for_stderr(said),
                None => run.wait_until("a wait", |_| sleeps_in_poll(init)),
            }
            let start = Instant::now();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(init as i32), signal).expect("a signal");
            let ended = run.wait(DEADLINE);
            assert_eq!(ended.code(), Some(128 + signal as i32), "{arguments}: {ended}");
            assert!(start.elapsed() < Duration::from_secs(3), "{ended}");
        }
    }
}

fn report(output: &Output) -> serde_json::Value {
    let line = output.stderr.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// The only process's status is netkat's, with --exit-verdict as well, whichever side connects.
#[test]
fn a_single_process_decides_the_status() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    for family in Family::ALL {
        let (host, peer) = (pair.host_address(family), pair.peer_address(family));
        for (script, status, words) in [
            ("exit 0", 0, "exited with status 0"),
            ("exit 3", 3, "exited with status 3"),
            ("/nowhere/such", 127, "exited with status 127"),
            ("kill -KILL $$", 137, "was ended by SIGKILL"),
        ] {
            for flags in ["-v --json", "-v --json --exit-verdict"] {
                let _server = Netcat::OpenBsd.listen(&pair.peer, peer, PORT, |c| c);
                let line = format!("{flags} {peer} {PORT} --sh-exec");
                let client = netkat(&pair.host, &line).arg(script).run();
                assert_eq!(client.code(), Some(status), "{client}");
                assert!(client.stderr.contains(words), "{client}");
                assert_eq!(report(&client)["exec_status"], status, "{client}");
                let line = format!("{flags} -l {host} {PORT} --sh-exec");
                let mut server = netkat(&pair.host, &line).arg(script).spawn();
                server.wait_for_stderr("listening on");
                pair.peer.words(&format!("nc.openbsd -d {host} {PORT}")).run();
                let server = server.wait(DEADLINE);
                assert_eq!(server.code(), Some(status), "{server}");
                assert_eq!(report(&server)["exec_status"], status, "{server}");
            }
        }
        for (program, status) in [("/nowhere/such", 127), ("/etc/passwd", 126)] {
            let _server = Netcat::OpenBsd.listen(&pair.peer, peer, PORT, |c| c);
            let client = netkat(&pair.host, &format!("--exit-verdict --exec {program} {peer} {PORT}")).run();
            assert_eq!(client.code(), Some(status), "{client}");
            assert!(client.stderr.contains(&format!("cannot run \"{program}\"")), "{client}");
        }
        // No process was started, so the verdict is the connection's.
        let refused = netkat(&pair.host, &format!("--exit-verdict --exec false {peer} 7")).run();
        assert_eq!(refused.code(), Some(4), "{refused}");
    }
}

/// A process that netkat killed after a broken connection decides nothing.
#[test]
fn a_broken_connection_decides_the_status() {
    lab!("python3");
    let pair = Pair::new();
    let at = pair.host_address(Family::V6);
    let mut server =
        netkat(&pair.host, &format!("-v --json -l {at} {PORT} --sh-exec")).arg("exec sleep 60").spawn();
    server.wait_for_stderr("listening on");
    let attack = ["-c", CONNECTS_AND_RESETS, &at.to_string(), "0.2"];
    pair.peer.command("python3").args(attack).succeed();
    let ended = server.wait(DEADLINE);
    assert_eq!(ended.code(), Some(1), "{ended}");
    let object = report(&ended);
    assert_eq!((&object["verdict"], &object["exec_status"]), (&"failed".into(), &143.into()), "{object}");
    assert!(ended.stderr.contains("connection reset by peer"), "{ended}");
}

/// With -k, each client's object has the status of its process, and netkat's own status is
/// independent.
#[test]
fn the_status_of_each_clients_process_is_reported() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.host_address(Family::V4);
    let arguments = format!("-k --json -w 1 {PORT} --sh-exec");
    let server = listening(&pair.host, &arguments, |c| c.arg("read n; exit $n"));
    for status in [0, 5] {
        pair.peer.words(&format!("nc.openbsd {at} {PORT}")).text(&format!("{status}\n")).run();
    }
    let ended = server.wait(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{ended}");
    let objects = ended.stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
    let reports = objects.filter(|object: &serde_json::Value| object["schema"] != "netkat.log/1");
    let statuses: Vec<_> = reports.map(|report| report["exec_status"].as_u64()).collect();
    assert_eq!(statuses, [Some(0), Some(5), None], "{ended}");
}
