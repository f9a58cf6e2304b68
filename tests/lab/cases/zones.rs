//! Zones: link-local addresses with their interface, as typed and as reported.
use crate::support::{
    netkat::{listening, netkat},
    process::{DEADLINE, Input},
    requirements::lab,
    scan::states,
    topology::{Pair, address},
};

const PORT: u16 = 5000;
const OURS: &str = "fe80::77:1";
const THEIRS: &str = "fe80::77:2";

/// Returns a pair whose ends have link-local addresses beside the others.
fn pair() -> Pair {
    let pair = Pair::new();
    address(&pair.host, "eth0", &format!("{OURS}/64"));
    address(&pair.peer, "eth0", &format!("{THEIRS}/64"));
    pair
}

fn index(pair: &Pair) -> String {
    let link = pair.host.words("ip -o link show eth0").succeed().text();
    link.split_once(':').expect("an index").0.to_owned()
}

#[test]
fn a_listener_takes_a_link_local_address_with_its_zone() {
    lab!("nc.openbsd");
    let pair = pair();
    let index = index(&pair);
    for arguments in [
        format!("{OURS}%eth0 {PORT}"),
        format!("{OURS}%{index} {PORT}"),
        format!("-s {OURS}%eth0 -p {PORT}"),
        format!("-i eth0 {OURS} {PORT}"),
        format!("-i eth0 {OURS}%eth0 {PORT}"),
        // Only one interface has the address.
        format!("{OURS} {PORT}"),
        format!("--as fe80::77:9%eth0 {PORT}"),
    ] {
        let at = if arguments.contains("77:9") { "fe80::77:9" } else { OURS };
        let server = listening(&pair.host, &format!("--json {arguments}"), |c| c.input(Input::Null));
        let client = pair.peer.words(&format!("nc.openbsd -N -w 5 -s {THEIRS}%eth0 {at}%eth0 {PORT}"));
        client.text("hello").succeed();
        let server = server.wait(DEADLINE);
        assert_eq!((server.code(), server.text().as_str()), (Some(0), "hello"), "{arguments}: {server}");
        let established = format!("established tcp [{at}%eth0]:{PORT} -> [{THEIRS}%eth0]:");
        assert!(server.stderr.contains(&established), "{arguments}: {server}");
        assert!(server.stderr.contains(&format!("\"remote\":\"[{THEIRS}%eth0]:")), "{arguments}: {server}");
        assert!(server.stderr.contains(&format!("\"addresses\":[\"{at}%eth0\"]")), "{arguments}: {server}");
    }
}

#[test]
fn a_udp_listener_takes_a_zone_and_reports_it() {
    lab!("nc.openbsd");
    let pair = pair();
    let arguments = format!("--json -u -w 10 -q 0 {OURS}%eth0 {PORT}");
    let server = listening(&pair.host, &arguments, |c| c.text("answer"));
    let client = pair.peer.words(&format!("nc.openbsd -u -w 2 -s {THEIRS}%eth0 {OURS}%eth0 {PORT}"));
    assert_eq!(client.text("question").run().text(), "answer");
    let server = server.wait(DEADLINE);
    assert_eq!(server.text(), "question", "{server}");
    let flow = format!("\"flow\":{{\"local\":\"[{OURS}%eth0]:{PORT}\",\"remote\":\"[{THEIRS}%eth0]:");
    assert!(server.stderr.contains(&flow), "{server}");
}

#[test]
fn a_next_hop_takes_its_zone_and_the_source_suits_the_destination() {
    lab!("python3");
    let pair = pair();
    address(&pair.peer, "lo", "fd96::10/128");
    pair.peer.sysctl("net.ipv6.conf.all.forwarding", "1");
    let script = format!(
        "import socket\n\
         s = socket.create_server(('fd96::10', {PORT}), family=socket.AF_INET6)\n\
         print('up', flush=True)\n\
         while True:\n\
         \x20   c, peer = s.accept()\n\
         \x20   c.sendall(peer[0].encode())\n\
         \x20   c.close()"
    );
    let mut server = pair.peer.command("python3").args(["-c", &script]).spawn();
    server.wait_for_stdout("up");
    for arguments in [
        format!("--via {THEIRS}%eth0 fd96::10"),
        format!("-i eth0 --via {THEIRS} fd96::10"),
        format!("--via {THEIRS}%eth0 -s fd77::1 fd96::10"),
    ] {
        let client = netkat(&pair.host, &format!("{arguments} {PORT}")).input(Input::Null).run();
        assert_eq!((client.code(), client.text().as_str()), (Some(0), "fd77::1"), "{arguments}: {client}");
    }
}

#[test]
fn zones_that_contradict_or_do_not_exist_are_errors() {
    lab!();
    let pair = pair();
    for (arguments, message) in [
        (format!("-i lo {THEIRS}%eth0"), "-i lo and fe80::77:2%eth0 name two interfaces; name one"),
        (format!("--via {THEIRS}%eth0 -i lo fd96::10"), "-i lo and fe80::77:2%eth0 name two interfaces"),
        (format!("-s fe80::5%lo {THEIRS}%eth0"), "fe80::77:2%eth0 and fe80::5%lo name two interfaces"),
        (format!("--as fe80::5%lo {THEIRS}%eth0"), "fe80::77:2%eth0 and fe80::5%lo name two interfaces"),
        (format!("-l -i lo {OURS}%eth0"), "-i lo and fe80::77:1%eth0 name two interfaces"),
        (format!("{THEIRS}%nosuch"), "there is no interface \"nosuch\" here; there are: lo, eth0"),
        (format!("-l {OURS}%nosuch"), "there is no interface \"nosuch\" here; there are: lo, eth0"),
        (format!("--via {THEIRS}%nosuch fd96::10"), "there is no interface \"nosuch\" here"),
        (
            "fd77::2%eth0".to_owned(),
            "only link-local addresses (fe80::/10) and groups (ff00::/8) have a zone",
        ),
        ("--via ff02::1%eth0 fd96::10".to_owned(), "next hop ff02::1%eth0 is the address of several hosts"),
        ("--via 10.77.0.255 10.9.9.9".to_owned(), "next hop 10.77.0.255 is the address of several hosts"),
        (THEIRS.to_owned(), "fe80::77:2 is link-local: say on which interface"),
        ("-l fe80::1234%eth0".to_owned(), "fe80::1234%eth0 is not an address of this host"),
        ("-l --deny fe80::%nosuch/64".to_owned(), "there is no interface \"nosuch\" here"),
    ] {
        let output = netkat(&pair.host, &format!("-w 2 {arguments} {PORT}")).input(Input::Null).run();
        assert!(output.stderr.contains(message), "{arguments}: {output}");
        assert!(matches!(output.code(), Some(1 | 2)), "{arguments}: {output}");
    }
}

#[test]
fn reports_name_the_zone() {
    lab!("nc.openbsd");
    let pair = pair();
    let mut server = pair.peer.words(&format!("nc.openbsd -6 -lk {PORT}")).spawn();
    server.wait_listening(PORT);
    let scan = netkat(&pair.host, &format!("-z -w 2 --json {THEIRS}%eth0 {PORT},5001")).run();
    assert_eq!(
        states(&scan.text()),
        format!("{THEIRS}%eth0 {PORT}/tcp open\n{THEIRS}%eth0 5001/tcp refused\n"),
        "{scan}"
    );
    for text in [
        format!("\"remote\":\"[{THEIRS}%eth0]:{PORT}\""),
        format!("\"next_hop\":\"{THEIRS}%eth0\""),
        format!("\"ports\":[{{\"address\":\"{THEIRS}%eth0\","),
        format!("{THEIRS}%eth0]:5001: refused"),
    ] {
        assert!(scan.stderr.contains(&text), "{text}: {scan}");
    }
    for (arguments, text) in [
        (
            format!("{THEIRS}%eth0 5001"),
            format!("[{THEIRS}%eth0]:5001: refused: the peer answered with a reset"),
        ),
        (format!("-i eth0 {THEIRS} 5001"), format!("[{THEIRS}%eth0]:5001: refused")),
        (
            format!("-u {THEIRS}%eth0 5001"),
            format!("refused: {THEIRS}%eth0 says that the port is unreachable"),
        ),
        ("fe80::dead%eth0 5001".to_owned(), "no neighbour: fe80::dead%eth0 did not answer".to_owned()),
        (
            "--as fe80::9%eth0 fe80::dead%eth0 5001".to_owned(),
            "no neighbour: fe80::dead%eth0 answered".to_owned(),
        ),
        (format!("--as {THEIRS}%eth0 fd77::2 5001"), format!("{THEIRS}%eth0 is in use by")),
    ] {
        let output = netkat(&pair.host, &format!("-w 1 {arguments}")).text("x").run();
        assert!(output.code() == Some(1) && output.stderr.contains(&text), "{arguments}: {output}");
    }
}

#[test]
fn a_process_learns_the_zone_and_access_can_depend_on_it() {
    lab!("nc.openbsd");
    let pair = pair();
    let knock = || {
        let client = pair.peer.words(&format!("nc.openbsd -N -w 2 -s {THEIRS}%eth0 {OURS}%eth0 {PORT}"));
        client.input(Input::Null).run().text()
    };
    for (access, served) in [
        ("", true),
        ("--allow fe80::77:2%eth0", true),
        ("--allow fe80::%eth0/64", true),
        ("--allow fe80::/10", true),
        ("--allow fe80::%lo/64", false),
        ("--deny fe80::/10", false),
        ("--deny fe80::%eth0/10", false),
        ("--deny fe80::%lo/10", true),
    ] {
        let server = listening(&pair.host, &format!("{access} --exec env {PORT}"), |c| c.input(Input::Null));
        let answer = knock();
        let learned = answer.contains(&format!("NETKAT_REMOTE_ADDR={THEIRS}%eth0\n"))
            && answer.contains(&format!("NETKAT_LOCAL_ADDR={OURS}%eth0\n"));
        assert_eq!(learned, served, "{access}: {answer}");
        drop(server);
    }
}

#[test]
fn a_sniffer_keeps_to_the_zone_of_its_host() {
    lab!();
    let pair = pair();
    let mut sniffer =
        netkat(&pair.host, &format!("-v --sniff --json --count 1 {THEIRS}%eth0 {PORT}")).spawn();
    sniffer.wait_for_stderr("listening on eth0");
    netkat(&pair.host, &format!("-z -w 1 {THEIRS}%eth0 {PORT}")).run();
    let sniffer = sniffer.wait(DEADLINE);
    assert!(sniffer.text().contains("\"interface\":\"eth0\""), "{sniffer}");
    let refused = netkat(&pair.host, &format!("--sniff -i lo {THEIRS}%eth0")).run();
    assert!(refused.stderr.contains("name two interfaces"), "{refused}");
}
