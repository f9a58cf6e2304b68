//! Reports about links that carry nothing, and interfaces by their other names.
use crate::support::{
    namespace::Namespace,
    netkat::netkat,
    requirements::lab,
    topology::{Family, Pair},
};

#[test]
fn an_interface_that_is_down_is_named() {
    lab!();
    let host = Namespace::new("host");
    host.ip("link set lo down");
    for to in ["127.0.0.1", "::1", "127.1.2.3"] {
        for mode in ["", "-u ", "-z "] {
            let output = netkat(&host, &format!("--exit-verdict -w 1 {mode}{to} 80")).text("x").run();
            assert_eq!(output.code(), Some(6), "{output}");
            assert!(output.stderr.contains("lo: it is down; try: ip link set lo up"), "{output}");
        }
        let output = netkat(&host, &format!("-l -w 1 {to} 8000")).run();
        assert!(output.stderr.contains("interface lo is down; try: ip link set lo up"), "{output}");
    }
    // The advice works.
    host.run("ip link set lo up");
    assert!(netkat(&host, "-w 1 127.0.0.1 80").run().stderr.contains("refused"));

    let pair = Pair::new();
    pair.host.ip("link set eth0 down");
    for more in ["", "-i eth0 "] {
        let output = netkat(&pair.host, &format!("-w 1 {more}10.77.0.2 80")).run();
        assert!(output.stderr.contains("eth0: it is down; try: ip link set eth0 up"), "{output}");
    }
    let output = netkat(&pair.host, "-w 1 -i eth0 fd77::2 80").run();
    assert!(output.stderr.contains("eth0: it is down"), "{output}");
}

#[test]
fn a_link_without_carrier_is_named() {
    lab!();
    let pair = Pair::new();
    pair.peer.ip("link set eth0 down");
    for family in Family::ALL {
        let at = pair.peer_address(family);
        for mode in ["", "-u ", "-z "] {
            let output =
                netkat(&pair.host, &format!("--exit-verdict -w 1500ms {mode}{at} 80")).text("x").run();
            assert_eq!(output.code(), Some(6), "{output}");
            assert!(output.stderr.contains("eth0 has no carrier"), "{output}");
        }
    }
    for arguments in ["-l -i eth0 -w 100ms 5000", "-l -u -i eth0 -w 100ms 5000"] {
        let output = netkat(&pair.host, arguments).run();
        assert!(output.stderr.contains("eth0 has no carrier"), "{output}");
    }
    let mut sniffer = netkat(&pair.host, "--sniff -i eth0").spawn();
    sniffer.wait_for_stderr("eth0 has no carrier");
    sniffer.terminate();
    // A permanent neighbour entry needs no answer.
    pair.host.ip("neigh replace 10.77.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent");
    let output = netkat(&pair.host, "-w 500ms 10.77.0.2 80").run();
    assert!(output.stderr.contains("eth0 has no carrier"), "{output}");
}

#[test]
fn an_interface_has_its_alternative_names_too() {
    lab!();
    let pair = Pair::new();
    for name in ["short", "a-name-that-is-longer-than-any-other-name"] {
        if pair.host.try_ip(&format!("link property add dev eth0 altname {name}")).is_err() {
            // Linux before 5.5 has no alternative names.
            return;
        }
        for family in Family::ALL {
            let at = pair.peer_address(family);
            for mode in ["", "-z "] {
                let output = netkat(&pair.host, &format!("{mode}-i {name} {at} 5000")).run();
                assert!((output.stderr.clone() + &output.text()).contains("refused"), "{output}");
            }
        }
        let mut sniffer = netkat(&pair.host, &format!("--sniff -i {name} --count 1")).spawn();
        sniffer.wait_until("a packet", |sniffer| {
            let _ = netkat(&pair.host, "10.77.0.2 5000").run();
            !sniffer.is_running()
        });
        let output = netkat(&pair.host, &format!("-l -w 100ms -i {name} 5000")).run();
        assert!(output.stderr.contains("no client connected"), "{output}");
        let zone = format!("fe80::1%{name}");
        let output = netkat(&pair.host, &format!("-w 200ms {zone} 5000")).run();
        assert!(!output.stderr.contains("no interface"), "{output}");
    }
}
