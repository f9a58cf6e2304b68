//! Addresses of this host that are not lo's: the kernel answers by lo, a closed port at once.
use crate::support::{
    namespace::Namespace,
    netkat::netkat,
    payload::{MIB, Payload},
    peers::Netcat,
    process::{DEADLINE, Output},
    requirements::lab,
    topology::{Family, Pair, address},
};

/// The exit statuses of --exit-verdict.
const TIMED_OUT: Option<i32> = Some(3);
const REFUSED: Option<i32> = Some(4);
const REJECTED: Option<i32> = Some(5);

/// Own addresses of a family: on a link, on an interface that is down (such as kube-ipvs0, to which
/// IPVS binds its services' addresses), in a range that `ip route add local` makes own.
fn own(family: Family) -> [&'static str; 3] {
    match family {
        Family::V4 => ["10.77.0.1", "10.91.0.1", "10.99.3.4"],
        Family::V6 => ["fd77::1", "fd91::1", "fd99::5"],
    }
}

fn host() -> Pair {
    let pair = Pair::new();
    pair.host.ip("link add ipvs0 type bridge");
    address(&pair.host, "ipvs0", "10.91.0.1/32");
    address(&pair.host, "ipvs0", "fd91::1/128");
    pair.host.ip("route add local 10.99.0.0/16 dev lo");
    pair.host.ip("-6 route add local fd99::/64 dev lo");
    pair
}

fn probe(host: &Namespace, arguments: &str) -> Output {
    netkat(host, &format!("--exit-verdict -w 2 {arguments}")).text("?").run()
}

#[test]
fn a_closed_port_is_refused_at_once() {
    lab!();
    let pair = host();
    for (family, to) in Family::ALL.into_iter().flat_map(|family| own(family).map(|to| (family, to))) {
        let other = own(family)[1];
        for flags in ["--guard tcx", "--guard clsact", "-u", "-z", "-z -u", &format!("-s {other}"), "-i eth0"]
        {
            let output = probe(&pair.host, &format!("{flags} {to} 9005"));
            assert_eq!(output.code(), REFUSED, "{flags} {to}: {output}");
        }
        let scan = probe(&pair.host, &format!("-z {to} 9005-9007"));
        assert_eq!(scan.text().matches("refused").count(), 3, "{to}: {scan}");
    }
}

#[test]
fn a_server_of_this_host_answers() {
    lab!("socat");
    let pair = host();
    let (out, back) = (Payload::new(30, 8 * MIB), Payload::new(31, 8 * MIB));
    for (family, to) in Family::ALL.into_iter().flat_map(|family| own(family).map(|to| (family, to))) {
        // A server cannot bind to an address of a range.
        if to.starts_with("fd99") {
            continue;
        }
        let to = to.parse().expect("an address");
        let other = own(family)[1];
        for flags in ["--guard tcx", "--guard clsact", "--no-gso", &format!("-s {other}")] {
            let server = Netcat::Socat.listen(&pair.host, to, 5000, |c| c.input(back.input()).expect(&out));
            let client =
                netkat(&pair.host, &format!("{flags} {to} 5000")).input(out.input()).expect(&back).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{flags} {to}: {client}");
            client.check(&back);
            server.wait(DEADLINE).check(&out);
        }
    }
}

#[test]
fn an_own_link_local_address_is_out_of_reach() {
    lab!();
    let pair = Pair::new();
    address(&pair.host, "eth0", "fe80::77/64");
    for flags in ["", "-u", "-z"] {
        let output = probe(&pair.host, &format!("{flags} fe80::77%eth0 9005"));
        assert_eq!(output.code(), Some(1), "{output}");
        assert!(output.stderr.contains("fe80::77 is this host's own address"), "{output}");
    }
}

/// The host's rules hold for the kernel's own side of the connection, as for a neighbour's.
#[test]
fn rules_on_lo_decide() {
    lab!("iptables-nft", "ip6tables-nft");
    let pair = host();
    for (family, iptables) in [(Family::V4, "iptables-nft"), (Family::V6, "ip6tables-nft")] {
        let [to, ..] = own(family);
        pair.host.run(&format!("{iptables} -w -A INPUT -i lo -p tcp --dport 9005 -j DROP"));
        pair.host.run(&format!("{iptables} -w -A INPUT -i lo -p tcp --dport 9006 -j REJECT"));
        pair.host.run(&format!("{iptables} -w -A OUTPUT -p tcp --dport 9007 -j DROP"));
        for (port, verdict) in [(9005, TIMED_OUT), (9006, REJECTED), (9007, REFUSED)] {
            let output = probe(&pair.host, &format!("{to} {port}"));
            assert_eq!(output.code(), verdict, "{to} {port}: {output}");
        }
    }
}
