//! `-z --until-open`, `--until-closed` and `--retry`: a scan that waits for ports.
use crate::support::{
    files::SystemFile,
    netkat::netkat,
    peers::Netcat,
    process::{DEADLINE, Input, Process},
    requirements::lab,
    scan::states,
    topology::{Family, Pair, address, at},
};

/// Returns the line of a port without its times: "80/tcp open after T s (refused N times)".
fn without_numbers(line: &str) -> String {
    let line = states(line);
    let words = line.split_whitespace().skip(1).map(|word| {
        let bare = word.trim_start_matches('(');
        if !word.contains('/') && bare.starts_with(|c: char| c.is_ascii_digit()) { "N" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Starts a server at the peer that stays.
fn serve(pair: &Pair, family: Family, udp: bool) -> Process {
    let (version, kind) = (if family == Family::V4 { "4" } else { "6" }, if udp { "UDP" } else { "TCP" });
    let mut server =
        pair.peer.words(&format!("socat {kind}{version}-LISTEN:5000,fork,reuseaddr EXEC:cat")).spawn();
    server.wait_listening(5000);
    server
}

#[test]
fn it_waits_until_all_ports_are_open() {
    lab!("socat", "nc.openbsd");
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.peer_address(family);
        let _other = Netcat::OpenBsd.listen(&pair.peer, at, 5001, |c| c.input(Input::Open));
        let mut scan = netkat(&pair.host, &format!("-z --json=- --until-open=30s {at} 5000,5001")).spawn();
        // The open port's object comes at once.
        scan.wait_for_stdout("\"port\":5001");
        let _server = serve(&pair, family, false);
        let done = scan.wait(DEADLINE);
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(done.text().contains("\"state\":\"open\""), "{done}");
        assert!(done.text().contains("\"before\":{\"refused\":"), "{done}");

        let open = netkat(&pair.host, &format!("-z --until-open=5s {at} 5000")).run();
        assert_eq!(
            (open.code(), without_numbers(&open.text())),
            (Some(0), "5000/tcp open after N s".to_owned())
        );
    }
}

#[test]
fn it_waits_until_a_port_is_closed() {
    lab!("socat");
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.peer_address(family);
        let server = serve(&pair, family, false);
        let mut scan = netkat(&pair.host, &format!("-z -v --until-closed {at} 5000")).spawn();
        scan.wait_for_stderr("5000/tcp is open, probing again");
        server.terminate();
        let done = scan.wait(DEADLINE);
        let line = "5000/tcp refused after N s (open N times)".to_owned();
        assert_eq!((done.code(), without_numbers(&done.text())), (Some(0), line), "{done}");
    }
}

/// The time bounds a silent port's wait, too, and the status is that of what came last.
#[test]
fn its_time_is_bounded() {
    lab!("iptables-nft");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    pair.peer.run("iptables-nft -w -A INPUT -p tcp --dport 5001 -j DROP");
    for (port, state, status) in [(5000, "refused", 4), (5001, "timed out", 3)] {
        let line = format!("-z -w 20 --exit-verdict --until-open=1200ms {at} {port}");
        let done = netkat(&pair.host, &line).deadline(std::time::Duration::from_secs(10)).run();
        assert_eq!(done.code(), Some(status), "{done}");
        assert!(
            without_numbers(&done.text()).starts_with(&format!("{port}/tcp {state} after N s (")),
            "{done}"
        );
    }
    let both = netkat(&pair.host, &format!("-z --until-open=1s {at} 5000,5001")).run();
    assert_eq!(both.code(), Some(1), "{both}");
    assert!(both.stderr.contains("2 of 2 ports are not open within the time"), "{both}");
}

#[test]
fn it_probes_again_a_number_of_times() {
    lab!();
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.peer_address(family);
        let done = netkat(&pair.host, &format!("-z --retry 2 --json=- {at} 5000")).run();
        assert_eq!(done.code(), Some(1), "{done}");
        assert!(done.text().contains("\"probes\":3,\"before\":{\"refused\":3}"), "{done}");
    }
}

#[test]
fn datagrams_wait_too() {
    lab!("socat");
    for family in Family::ALL {
        let pair = Pair::new();
        let at = pair.peer_address(family);
        let mut scan = netkat(&pair.host, &format!("-z -u -v -w 1 --until-open=30s {at} 5000")).spawn();
        scan.wait_for_stderr("5000/udp is closed, probing again");
        // An empty datagram is echoed by the kernel's own program.
        let _server = pair.peer.command("python3").args(["-c", ECHO, &at.to_string()]).spawn();
        let done = scan.wait(DEADLINE);
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(
            without_numbers(&done.text()).starts_with("5000/udp open after N s (refused N times"),
            "{done}"
        );
    }
}

/// The server's port is open at the name's second address, and refuses at the first.
#[test]
fn a_name_is_waited_for_at_all_its_addresses() {
    lab!("socat", "unshare");
    for family in Family::ALL {
        let pair = Pair::new();
        let first = pair.peer_address(family);
        let second = at(family, "10.77.0.9", "fd77::9");
        address(&pair.peer, "eth0", &format!("{second}/{}", if second.is_ipv4() { 24 } else { 64 }));
        let names = SystemFile::new("/etc/hosts", &format!("{first} both\n{second} both\n"));
        let mut scan = names.netkat(&pair.host, "-z -v --until-open=30s both 5000").spawn();
        scan.wait_for_stderr("5000/tcp is refused, probing again");
        let version = if family == Family::V4 { "4" } else { "6" };
        let bind = if family == Family::V4 { second.to_string() } else { format!("[{second}]") };
        let line = format!("socat TCP{version}-LISTEN:5000,bind={bind},fork,reuseaddr EXEC:cat");
        let mut server = pair.peer.words(&line).spawn();
        server.wait_listening(5000);
        let done = scan.wait(DEADLINE);
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(done.text().starts_with(&format!("{second} 5000/tcp open")), "{done}");

        let mut scan = names.netkat(&pair.host, "-z -v --until-closed=30s both 5000").spawn();
        scan.wait_for_stderr(&format!("{second} 5000/tcp is open, probing again"));
        server.terminate();
        let done = scan.wait(DEADLINE);
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(done.text().contains(" 5000/tcp refused"), "{done}");
        let retry = names.netkat(&pair.host, "-z --retry 1 --json=- both 5000").run();
        assert!(retry.text().contains("\"probes\":2,\"before\":{\"refused\":2}"), "{retry}");
    }
}

/// A host that is not there yet is no reason to give up, nor one among several.
#[test]
fn a_host_that_comes_later_is_waited_for() {
    lab!("socat");
    for family in Family::ALL {
        let pair = Pair::new();
        let late = at(family, "10.77.0.9", "fd77::9");
        let _server = serve(&pair, family, false);
        let hosts = format!("{},{late}", pair.peer_address(family));
        let mut scan = netkat(&pair.host, &format!("-z -v -w 500ms --until-open=30s {hosts} 5000")).spawn();
        scan.wait_for_stderr(&format!("{late} 5000/tcp is no neighbour, probing again"));
        address(&pair.peer, "eth0", &format!("{late}/{}", if late.is_ipv4() { 24 } else { 64 }));
        let done = scan.wait(DEADLINE);
        assert_eq!(done.code(), Some(0), "{done}");
        assert_eq!(done.text().matches(" 5000/tcp open").count(), 2, "{done}");
    }
}

const ECHO: &str = "import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 5000))
while True:
    data, peer = s.recvfrom(9)
    s.sendto(data, peer)";
