//! Look-ups of names at a silent name server: they end with -w, and by a signal at once.
use crate::support::{
    files::SystemFile, netkat::netkat, process::DEADLINE, requirements::lab, rules::nft, topology::Pair,
};
use nix::sys::signal::Signal;
use std::time::Duration;

/// A pair whose name server, at the peer, drops every question, and the file that names the server.
fn silent_server() -> (Pair, SystemFile) {
    let pair = Pair::new();
    nft(&pair.peer, "table inet lab { chain c { type filter hook input priority 0; udp dport 53 drop; }; }");
    let file = SystemFile::new("/etc/resolv.conf", "nameserver 10.77.0.2\noptions timeout:20 attempts:1\n");
    (pair, file)
}

#[test]
fn the_wait_bounds_a_look_up() {
    lab!("nft", "unshare");
    let (pair, file) = silent_server();
    for arguments in [
        "no.such.example 80",
        "-u no.such.example 80",
        "-z no.such.example 80",
        "-l no.such.example 5000",
        "-l --allow no.such.example 5000",
        "-s no.such.example 10.77.0.2 80",
    ] {
        let output = file.netkat(&pair.host, &format!("-v -w 1 --json --exit-verdict {arguments}")).run();
        assert_eq!(output.code(), Some(9), "{output}");
        assert!(output.elapsed < Duration::from_secs(5), "{output}");
        let stderr = &output.stderr;
        assert!(stderr.contains("looking up no.such.example"), "{output}");
        assert!(stderr.contains("the name server did not answer within 1 s"), "{output}");
        assert!(stderr.contains("\"verdict\":\"name\""), "{output}");
    }
}

#[test]
fn a_signal_ends_a_look_up_at_once() {
    lab!("nft", "unshare");
    let (pair, file) = silent_server();
    for arguments in ["-v no.such.example 80", "-v -w 15 no.such.example 80"] {
        let mut client = file.netkat(&pair.host, arguments).spawn();
        client.wait_for_stderr("looking up");
        client.signal(Signal::SIGINT);
        let output = client.wait(DEADLINE);
        assert_eq!(output.signal(), Some(2), "{output}");
        assert!(output.elapsed < Duration::from_secs(5), "{output}");
    }
}

/// The look-up by a thread leaves the sandbox whole: the run drops everything for good afterwards.
#[test]
fn a_look_up_within_the_wait_goes_on_as_without() {
    lab!("ncat");
    let pair = Pair::new();
    let hosts = SystemFile::new("/etc/hosts", "10.77.0.2 peer\nfd77::2 peer\n");
    let output = hosts.netkat(&pair.host, "-w 5 peer 5000").run();
    assert!(output.stderr.contains("refused"), "{output}");
    let output = netkat(&pair.host, "-w 5 -n peer 5000").run();
    assert!(output.stderr.contains("not a numeric address"), "{output}");
}
