//! Rules that translate a port, set by each tool and read back natively.
use crate::lab::{Lab, skipped};
use netkat::{
    host::rules::{self, LegacyTable},
    kernel,
    net::Protocol,
};
use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;

/// Returns the host's interfaces for incoming packets.
fn interfaces(lab: &Lab, names: &[&str]) -> Vec<(u32, String)> {
    names.iter().map(|name| (lab.index(name), (*name).to_owned())).collect()
}

/// Returns the obstacle for a listener at an address and port.
fn found(lab: &Lab, protocol: Protocol, at: &str) -> Option<String> {
    found_by(lab, protocol, at, &["eth0", "eth1"])
}

fn found_by(lab: &Lab, protocol: Protocol, at: &str, by: &[&str]) -> Option<String> {
    let at: SocketAddr = at.parse().expect("an address");
    let interfaces = interfaces(lab, by);
    lab.inside(|| rules::translation(protocol, &[at], &interfaces, &legacy()))
        .map(|(_, rule)| format!("{}{rule}", if rule.certain { "" } else { "maybe: " }))
}

fn legacy() -> Vec<LegacyTable> {
    kernel::legacy_nat_tables()
}

/// Runs a program in our namespace with a text for its standard input; false where the program is
/// missing.
fn feed(lab: &Lab, program: &str, arguments: &str, text: &str) -> bool {
    if !Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        skipped(&format!("needs {program}"));
        return false;
    }
    let output = lab.inside(|| {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(program);
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        child.wait_with_output().expect(program)
    });
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

fn nft(lab: &Lab, text: &str) -> bool {
    feed(lab, "nft", "-f -", text)
}

/// Both back ends of iptables: the rule is named by back end, chain and number, and only matching
/// ports are refused.
#[test]
fn rules_of_iptables_are_found_in_both_back_ends() {
    for back_end in ["nft", "legacy"] {
        let Some(lab) = Lab::new() else { return };
        let rules = "*nat\n\
            :PUBLISHED - [0:0]\n\
            -A PREROUTING -p tcp -d 10.0.0.1/32 -m tcp --dport 8001 -j DNAT --to-destination 10.1.0.2:80\n\
            -A PREROUTING -p tcp -m multiport --dports 8002,8010:8019 -j DNAT --to-destination 10.1.0.2\n\
            -A PREROUTING -p udp -m udp --dport 5000:5009 -j REDIRECT --to-ports 53\n\
            -A PREROUTING -p tcp -i eth1 -m tcp --dport 8003 -j DNAT --to-destination 10.1.0.2:80\n\
            -A PREROUTING -p tcp ! -i eth1 -m tcp --dport 8004 -j DNAT --to-destination 10.1.0.2:80\n\
            -A PREROUTING -m addrtype --dst-type LOCAL -j PUBLISHED\n\
            -A PREROUTING -p tcp -m tcp --dport 8007 -m conntrack --ctstate NEW -j DNAT --to-destination 10.1.0.2\n\
            -A PREROUTING -p tcp -s 10.0.0.2/32 -m tcp --dport 8008 -j DNAT --to-destination 10.1.0.2\n\
            -A PREROUTING -p tcp -m tcp --dport 8009 -j ACCEPT\n\
            -A PREROUTING -p tcp -m tcp --dport 8009 -j DNAT --to-destination 10.1.0.2\n\
            -A PREROUTING -p tcp -m iprange --dst-range 10.1.0.1-10.1.0.9 -m tcp ! --dport 8999 -j DNAT --to-destination 10.9.9.9\n\
            -A PREROUTING -p tcp -m tcp --dport 8998 -j REDIRECT --to-ports 8998\n\
            -A OUTPUT -p tcp -m tcp --dport 8005 -j DNAT --to-destination 10.1.0.2:80\n\
            -A PUBLISHED -p tcp -m comment --comment \"web\" -m tcp --dport 8006 -j DNAT --to-destination 10.1.0.2:80\n\
            COMMIT\n";
        if !feed(&lab, &format!("iptables-{back_end}-restore"), "", rules) {
            return;
        }
        let rule = |chain: &str, what: &str| {
            Some(format!("iptables ({back_end}), table nat, chain {chain}: {what}"))
        };
        for (protocol, at, wanted) in [
            (TCP, "10.0.0.1:8001", rule("PREROUTING, rule 1", "DNAT to 10.1.0.2:80")),
            (TCP, "10.1.0.1:8001", Some("10.9.9.9".into())),
            (UDP, "10.0.0.1:8001", None),
            (TCP, "[2001:db8::1]:8001", None),
            (TCP, "10.0.0.1:8002", rule("PREROUTING, rule 2", "DNAT to 10.1.0.2")),
            (TCP, "10.0.0.1:8010", rule("PREROUTING, rule 2", "DNAT to 10.1.0.2")),
            (TCP, "10.0.0.1:8019", rule("PREROUTING, rule 2", "DNAT to 10.1.0.2")),
            (TCP, "10.0.0.1:8020", None),
            (UDP, "10.0.0.1:5009", rule("PREROUTING, rule 3", "REDIRECT to port 53")),
            (UDP, "10.0.0.1:5010", None),
            (TCP, "10.0.0.1:8003", Some("maybe: iptables".into())),
            (TCP, "10.0.0.1:8004", Some("maybe: iptables".into())),
            (TCP, "10.0.0.1:8005", None),
            (TCP, "10.0.0.1:8006", rule("PUBLISHED, rule 1 \"web\"", "DNAT to 10.1.0.2:80")),
            (TCP, "10.0.0.1:8007", Some("maybe: iptables".into())),
            (TCP, "10.0.0.1:8008", Some("maybe: iptables".into())),
            (TCP, "10.0.0.1:8009", None),
            (TCP, "10.1.0.1:8998", Some("10.9.9.9".into())),
            (TCP, "10.0.0.1:8998", None),
            (TCP, "10.1.0.1:8999", None),
        ] {
            let found = found(&lab, protocol, at);
            let right = match (&found, &wanted) {
                (None, None) => true,
                (Some(found), Some(wanted)) => found.contains(wanted.as_str()),
                _ => false,
            };
            assert!(right, "{back_end}, {protocol} {at}: {found:?}, not {wanted:?}");
        }
        assert_eq!(found_by(&lab, TCP, "10.0.0.1:8003", &["eth0"]), None);
        assert!(
            found_by(&lab, TCP, "10.0.0.1:8003", &["eth1"]).is_some_and(|rule| rule.starts_with("iptables"))
        );
        assert_eq!(found_by(&lab, TCP, "10.0.0.1:8004", &["eth1"]), None);
        assert!(
            found_by(&lab, TCP, "10.0.0.1:8004", &["eth0"]).is_some_and(|rule| rule.starts_with("iptables"))
        );
    }
}

#[test]
fn rules_of_ip6tables_are_found_in_both_back_ends() {
    for back_end in ["nft", "legacy"] {
        let Some(lab) = Lab::new() else { return };
        let rules = "*nat\n\
            -A PREROUTING -p tcp -d 2001:db8::/32 -m tcp --dport 8001 -j DNAT --to-destination [fd00::2]:80\n\
            -A PREROUTING -p udp ! -d 2001:db8::1/128 -j REDIRECT\n\
            -A PREROUTING -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353\n\
            -A PREROUTING -m addrtype --dst-type LOCAL -p tcp -m tcp --dport 8002 -j DNAT --to-destination fd00::2\n\
            COMMIT\n";
        if !feed(&lab, &format!("ip6tables-{back_end}-restore"), "", rules) {
            return;
        }
        let rule = |number: u8, what: &str| {
            Some(format!("ip6tables ({back_end}), table nat, chain PREROUTING, rule {number}: {what}"))
        };
        for (protocol, at, wanted) in [
            (TCP, "[2001:db8::1]:8001", rule(1, "DNAT to [fd00::2]:80")),
            (TCP, "[2001:db9::1]:8001", None),
            (TCP, "10.0.0.1:8001", None),
            (UDP, "[2001:db8::1]:53", rule(3, "REDIRECT to port 5353")),
            (UDP, "[2001:db8::1]:54", None),
            (TCP, "[2001:db8:1::1]:8002", rule(4, "DNAT to fd00::2")),
        ] {
            assert_eq!(found(&lab, protocol, at), wanted, "{back_end}, {protocol} {at}");
        }
    }
}

/// nftables' own forms: sets, intervals, verdict maps, maps of targets, chains.
#[test]
fn rules_of_nftables_are_found() {
    let Some(lab) = Lab::new() else { return };
    let rules = r#"
        table inet services {
            set ports { type inet_service; flags interval; elements = { 8001, 8010-8019 } }
            set own { type ipv4_addr; elements = { 10.0.0.1 } }
            set where { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/24 . 8030-8039 } }
            map jumps { type inet_proto . inet_service : verdict; elements = { tcp . 8002 : goto far, udp . 53 : jump far } }
            map targets { type inet_service : ipv4_addr . inet_service; elements = { 8004 : 10.9.9.9 . 80 } }
            map others { type ipv4_addr : verdict; elements = { 10.0.0.99 : accept, * : jump rest } }
            map ways { type ifname . inet_service : verdict; elements = { "eth0" . 8050 : goto far, "docker0" . 8051 : goto far } }
            chain far { meta l4proto { tcp, udp } dnat ip to 10.1.0.2:80; }
            chain rest { tcp dport 8040 redirect to :1; }
            chain done { accept; }
            chain pre {
                type nat hook prerouting priority dstnat; policy accept;
                tcp dport @ports dnat ip to 10.1.0.2
                ip daddr @own meta l4proto . th dport vmap @jumps
                dnat ip to tcp dport map @targets
                ip daddr . tcp dport @where dnat ip to 10.1.0.3
                ip daddr vmap @others
                iifname . tcp dport vmap @ways
                ip daddr 10.0.0.0/24 tcp dport != { 1-8099, 8200-65535 } redirect to :2
                meta nfproto ipv6 tcp dport 8060 dnat ip6 to [fd00::2]:80
                tcp dport 8070 jump done
                tcp dport 8070 redirect to :3
                ip saddr 10.0.0.2 tcp dport 8080 dnat ip to 10.1.0.2:8080
                numgen random mod 2 0 tcp dport 8081 dnat ip to 10.1.0.2:8080
                fib daddr type local tcp dport 8082 dnat ip to 10.1.0.2:8080
                fib daddr type multicast tcp dport 8083 dnat ip to 10.1.0.2:8080
                iifname "eth*" tcp dport 8084 dnat ip to 10.1.0.2:8080 comment "by name"
                tcp dport 8085 redirect
            }
            chain out { type nat hook output priority -100; tcp dport 8090 redirect to :4; }
        }
        table ip asleep {
            flags dormant
            chain pre { type nat hook prerouting priority dstnat; tcp dport 8091 redirect to :5; }
        }"#;
    if !nft(&lab, rules) {
        return;
    }
    for (protocol, at, wanted) in [
        (TCP, "10.0.0.1:8001", Some("chain pre, rule 1 (handle")),
        (TCP, "10.0.0.1:8010", Some("dnat to 10.1.0.2")),
        (TCP, "10.0.0.1:8019", Some("chain pre, rule 1 ")),
        (TCP, "10.0.0.1:8009", None),
        (TCP, "10.0.0.1:8020", None),
        (TCP, "10.0.0.1:8002", Some(", then chain far, rule 1 (")),
        (UDP, "10.0.0.1:53", Some("dnat to 10.1.0.2:80")),
        (TCP, "10.1.0.1:8002", None),
        (UDP, "10.0.0.1:8002", None),
        (TCP, "10.0.0.1:8004", Some("dnat to 10.9.9.9:80")),
        (TCP, "10.0.0.1:8003", None),
        (TCP, "10.0.0.1:8035", Some("dnat to 10.1.0.3")),
        (TCP, "10.0.1.1:8035", None),
        (TCP, "10.0.0.1:8029", None),
        (TCP, "10.0.0.1:8040", Some("chain rest, rule 1 ")),
        (TCP, "10.0.0.1:8050", Some("maybe: nftables, table inet services, chain pre, rule 6 ")),
        (TCP, "10.0.0.1:8051", None),
        (TCP, "10.0.0.1:8100", Some("redirect to port 2")),
        (TCP, "10.1.0.1:8100", None),
        (TCP, "[2001:db8::1]:8060", Some("dnat to [fd00::2]:80")),
        (TCP, "10.0.0.1:8060", None),
        (TCP, "10.0.0.1:8070", None),
        (TCP, "10.0.0.1:8080", Some("maybe: ")),
        (TCP, "10.0.0.1:8081", Some("maybe: ")),
        (TCP, "10.0.0.1:8082", Some("nftables, table inet services, chain pre, rule 13 ")),
        (TCP, "10.0.0.1:8083", None),
        (TCP, "10.0.0.1:8084", Some("\"by name\": dnat to")),
        (TCP, "10.0.0.1:8085", None),
        (TCP, "10.0.0.1:8090", None),
        (TCP, "10.0.0.1:8091", None),
    ] {
        let found = found(&lab, protocol, at);
        let right = match (&found, wanted) {
            (None, None) => true,
            (Some(found), Some(wanted)) => found.contains(wanted),
            _ => false,
        };
        assert!(right, "{protocol} {at}: {found:?}, not {wanted:?}");
    }
}

/// Rules of real kube-proxies: the NodePort and the load balancer's address are taken, others are
/// not.
#[test]
fn a_node_port_of_kube_proxy_is_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kube-proxy");
    let files = fs::read_dir(&folder).expect("testdata").map(|entry| entry.expect("an entry").path());
    // The lab cluster's further Services stand in files of their own, which tests/cluster.rs reads.
    let own = |path: &PathBuf| {
        let name = path.to_string_lossy();
        !name.ends_with("/node.rules") && !name.ends_with("-services.rules")
    };
    let mut files: Vec<PathBuf> = files.filter(own).collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).expect("rules");
        let text = text.replace("@LBIP@", "10.0.0.1").replace("@NODE@", "172.18.0.2");
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".nft") || name.starts_with("nft") {
            let Some(lab) = Lab::new() else { return };
            if !nft(&lab, &text) {
                return;
            }
            let rule = found(&lab, TCP, "172.18.0.2:31513").expect("a NodePort");
            assert!(
                rule.contains("chain services, rule 3 ") && rule.contains("dnat to 10.244.2.2:8080"),
                "{rule}"
            );
            assert_eq!(found(&lab, TCP, "172.18.0.2:31514"), None);
            assert_eq!(found(&lab, UDP, "172.18.0.2:31513"), None);
            continue;
        }
        // Of kube-proxy 1.36, and of the older ones.
        let (port, other, target) = match name.starts_with("ipt136") {
            true => (31513, 31514, "10.244.2.2:8080"),
            false => (30080, 30081, "10.244.2.2:80"),
        };
        for back_end in ["nft", "legacy"] {
            let Some(lab) = Lab::new() else { return };
            let program = format!("iptables-{back_end}-restore");
            let node = fs::read_to_string(folder.join("node.rules")).expect("rules");
            if !feed(&lab, &program, "", &node) {
                return;
            }
            feed(&lab, &program, "--noflush", &text);
            for at in [format!("10.0.0.1:{port}"), format!("10.1.0.1:{port}"), "10.0.0.1:80".into()] {
                let rule = found(&lab, TCP, &at).unwrap_or_else(|| panic!("{}: {at}", file.display()));
                assert!(rule.contains(&format!("iptables ({back_end}), table nat, chain KUBE-")), "{rule}");
                assert!(rule.ends_with(&format!("DNAT to {target}")), "{rule}");
            }
            for (protocol, at) in [
                (TCP, format!("10.0.0.1:{other}")),
                (UDP, format!("10.0.0.1:{port}")),
                (TCP, "10.1.0.1:80".into()),
            ] {
                assert_eq!(found(&lab, protocol, &at), None, "{}: {at}", file.display());
            }
        }
    }
}

/// Names by others can be long and hold anything.
#[test]
fn names_of_others_are_short_and_harmless() {
    let Some(lab) = Lab::new() else { return };
    let rules = format!(
        "*nat\n-A PREROUTING -p tcp -m tcp --dport 8001 -m comment --comment \"\x1b]0;x\x07{}\" -j REDIRECT --to-ports 1\nCOMMIT\n",
        "y".repeat(200)
    );
    for back_end in ["nft", "legacy"] {
        if !feed(&lab, &format!("iptables-{back_end}-restore"), "", &rules) {
            return;
        }
        let rule = found(&lab, TCP, "10.0.0.1:8001").expect("a rule");
        assert!(!rule.contains(char::is_control) && rule.len() < 200, "{rule:?}");
    }
}

/// A node with 10,000 rules and 5,000 services does not delay a start.
#[test]
fn many_rules_are_read_in_no_time() {
    let services = |number: usize| format!("10.96.{}.{}", number / 250, number % 250 + 1);
    let mut text = String::from("*nat\n");
    for number in 0..5000 {
        text += &format!(":KUBE-SVC-{number} - [0:0]\n:KUBE-SEP-{number} - [0:0]\n");
    }
    text += ":KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n";
    for number in 0..5000 {
        let ip = services(number);
        text += &format!(
            "-A KUBE-SERVICES -d {ip}/32 -p tcp -m comment --comment \"default/s{number}\" -m tcp --dport 80 -j KUBE-SVC-{number}\n\
             -A KUBE-SVC-{number} -j KUBE-SEP-{number}\n\
             -A KUBE-SEP-{number} -p tcp -m tcp -j DNAT --to-destination 10.244.0.1:80\n"
        );
    }
    for number in 0..10_000 {
        text += &format!(
            "-A PREROUTING -p tcp -d 10.2.0.0/16 -m tcp --dport {} -j DNAT --to-destination 10.9.9.9\n",
            number + 1
        );
    }
    text += "-A PREROUTING -p tcp -m tcp --dport 8001 -j DNAT --to-destination 10.9.9.9\nCOMMIT\n";
    for back_end in ["nft", "legacy"] {
        let Some(lab) = Lab::new() else { return };
        if !feed(&lab, &format!("iptables-{back_end}-restore"), "", &text) {
            return;
        }
        for (port, taken) in [(8001, true), (8002, false)] {
            let times = (0..5).map(|_| {
                let start = Instant::now();
                let found = found(&lab, TCP, &format!("10.0.0.1:{port}"));
                assert_eq!(found.is_some(), taken, "{back_end}: {found:?}");
                start.elapsed()
            });
            let best = times.min().expect("five");
            println!("{back_end}, port {port}: {best:?}");
            // Far above the measured time, since builds without optimization and busy machines run
            // this, too.
            assert!(best < Duration::from_secs(1), "{back_end}: {best:?}");
        }
    }
}
