//! `--run`: the reach of a command, its addresses and ports, and the reach of others.
use crate::support::{
    netkat::{netkat, running},
    payload::{MIB, Payload},
    process::{DEADLINE, Input},
    requirements::lab,
    rules::Rule,
    servers::{echo_server, name_server, sink, web_server},
    topology::{Family, Pair},
};
use std::{fs, path::PathBuf};

/// A folder with one file of random bytes, for a web server.
fn folder(name: &str, length: u64) -> (PathBuf, Payload) {
    let payload = Payload::new(77, length);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{name}"));
    fs::create_dir_all(&folder).expect("a folder");
    let Input::File(file) = payload.input() else { unreachable!() };
    fs::copy(file, folder.join("file")).expect("a copy");
    (folder, payload)
}

fn url(at: std::net::IpAddr, port: u16) -> String {
    format!("http://{}/file", std::net::SocketAddr::new(at, port))
}

#[test]
fn curl_passes_every_rule_that_stops_it() {
    lab!("curl", "python3", "iptables-nft", "iptables-legacy", "nft");
    let (folder, payload) = folder("rules", MIB);
    for rule in Rule::ALL {
        let pair = Pair::new();
        let _server = web_server(&pair.peer, &folder.to_string_lossy(), 80);
        for family in Family::ALL {
            rule.apply(&pair.host, family, "tcp");
            let curl = ["curl", "-sS", "-m", "20", "-g"].map(str::to_owned);
            let words: Vec<_> = curl.into_iter().chain([url(pair.peer_address(family), 80)]).collect();
            if rule != Rule::Nothing {
                let alone = pair.host.command("curl").args(["-s", "-m", "1", "-g"]).arg(&words[5]).run();
                assert!(!alone.success(), "{rule:?} {family:?} stops nothing: {alone}");
            }
            let run = running(&pair.host, "", &words).expect(&payload).run();
            assert_eq!((run.code(), run.stderr.as_str()), (Some(0), ""), "{rule:?} {family:?}: {run}");
            run.check(&payload);
        }
    }
}

#[test]
fn a_large_file_comes_and_goes_unchanged() {
    lab!("curl", "python3", "iptables-nft");
    let pair = Pair::new();
    let (folder, payload) = folder("large", 64 * MIB);
    let _server = web_server(&pair.peer, &folder.to_string_lossy(), 80);
    let mut sink = sink(&pair.peer);
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "tcp");
        let at = pair.peer_address(family);
        let words = ["curl", "-sS", "-g", &url(at, 80)];
        running(&pair.host, "", words).expect(&payload).deadline(DEADLINE * 4).succeed().check(&payload);
        let send = format!("exec nc.openbsd -N {at} 9 <{}", folder.join("file").display());
        running(&pair.host, "", ["sh", "-c", &send]).deadline(DEADLINE * 4).succeed();
    }
    let sum = pair.host.command("sha256sum").arg(folder.join("file")).succeed().text();
    let wanted = format!("fin {} {}", payload.length(), sum.split_whitespace().next().expect("a sum"));
    sink.wait_until("both files", |sink| {
        String::from_utf8_lossy(&sink.stdout()).matches(&wanted).count() == 2
    });
}

#[test]
fn names_are_asked_for_over_udp_and_tcp() {
    lab!("dig", "python3", "iptables-nft");
    let pair = Pair::new();
    let servers = [name_server(&pair.peer, "10.77.0.2"), name_server(&pair.peer, "fd77::2")];
    for family in Family::ALL {
        for protocol in ["udp", "tcp"] {
            Rule::Both.apply(&pair.host, family, protocol);
        }
        let server = format!("@{}", pair.peer_address(family));
        let question = |more: &[&str]| {
            let words = ["dig", "+short", "+tries=1", "+time=3", &server, "example.org"];
            words.iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>()
        };
        let alone = question(&["+time=1"]);
        assert!(!pair.host.command("dig").args(&alone[1..]).run().success(), "{family:?}");
        for more in [&["A"][..], &["+tcp", "A"]] {
            let run = running(&pair.host, "", question(more)).succeed();
            assert_eq!(run.text(), "10.77.0.2\n", "{family:?} {more:?}");
        }
    }
    drop(servers);
}

#[test]
fn ping_is_answered() {
    lab!("ping", "iptables-nft");
    let pair = Pair::new();
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, if family == Family::V4 { "icmp" } else { "ipv6-icmp" });
        let at = pair.peer_address(family).to_string();
        let ping = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", &at];
        assert!(!pair.host.command("ping").args(["-n", "-c", "1", "-W", "1", &at]).run().success());
        let run = running(&pair.host, "", ping).succeed();
        assert!(run.text().contains("3 received"), "{run}");
    }
}

#[test]
fn an_echo_of_more_than_the_mtu_is_answered() {
    lab!("ping");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family).to_string();
        let ping = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "-s", "8000", &at];
        let run = running(&pair.host, "", ping).succeed();
        assert!(run.text().contains("2 received"), "{run}");
    }
}

#[test]
fn routes_are_traced() {
    lab!("traceroute", "iptables-nft");
    let pair = Pair::new();
    for family in Family::ALL {
        let at = pair.peer_address(family).to_string();
        for protocol in ["udp", "icmp", "ipv6-icmp"] {
            if family == Family::V4 || protocol != "icmp" {
                pair.host.run(&format!(
                    "{}-nft -w -A OUTPUT -p {protocol} -j DROP",
                    if family == Family::V4 { "iptables" } else { "ip6tables" }
                ));
            }
        }
        // The rule stops requests only: neighbour discovery goes on.
        for way in ["-U", "-I"] {
            let words = ["traceroute", "-n", "-q", "1", "-w", "2", way, &at];
            let run = running(&pair.host, "", words).succeed();
            assert!(run.text().lines().nth(1).is_some_and(|line| line.contains(&at)), "{way}: {run}");
        }
    }
}

#[test]
fn two_thousand_connections_are_open_at_once() {
    lab!("python3", "iptables-nft");
    const BURST: &str = r#"
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
opened, gate = 0, None
async def one(number):
    global opened
    reader, writer = await asyncio.open_connection(sys.argv[1], 7)
    opened += 1
    if opened == 2000: gate.set()
    await gate.wait()
    writer.write(b'%06d\n' % number)
    assert int(await reader.readline()) == number
    writer.close()
async def main():
    global gate
    gate = asyncio.Event()
    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(2000))), 60)
    print(opened)
asyncio.run(main())
"#;
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "tcp");
        let at = pair.peer_address(family).to_string();
        let run = running(&pair.host, "-v", ["python3", "-c", BURST, &at]).deadline(DEADLINE * 4).succeed();
        assert_eq!(run.text(), "2000\n", "{run}");
        assert!(run.stderr.contains("2000 ports leased, 0 refused"), "{run}");
    }
}

#[test]
fn two_runs_to_one_server_have_ports_of_their_own() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    let at = pair.peer_address(Family::V4).to_string();
    let start = || running(&pair.host, "-v", ["nc.openbsd", &at, "7"]).input(Input::Open).spawn();
    let mut both = [start(), start(), start()];
    for (number, one) in both.iter_mut().enumerate() {
        one.write(format!("line {number}\n").as_bytes());
    }
    for (number, mut one) in both.into_iter().enumerate() {
        one.wait_for_stdout(&format!("line {number}"));
        one.close_stdin();
        one.signal(nix::sys::signal::SIGTERM);
        let output = one.wait(DEADLINE);
        assert_eq!(output.code(), Some(128 + 15), "{output}");
        assert!(output.stderr.contains("1 port leased, 0 refused"), "{output}");
    }
}

#[test]
fn a_source_port_of_the_hosts_is_refused_at_once() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    for family in Family::ALL {
        let (own, at) = (pair.host_address(family), pair.peer_address(family).to_string());
        let mut holder = pair.host.command("nc.openbsd").args(["-l", &own.to_string(), "4000"]).spawn();
        holder.wait_listening(4000);
        let words = |port| ["nc.openbsd", "-N", "-p", port, &at, "7"].map(str::to_owned);
        let run = running(&pair.host, "-v", words("4000")).run();
        assert_eq!(run.code(), Some(1), "{run}");
        assert!(run.elapsed.as_secs() < 5 && run.stderr.contains("tcp port 4000"), "{run}");
        let free = running(&pair.host, "", words("4001")).text("free\n").succeed();
        assert_eq!(free.text(), "free\n", "{free}");
    }
}

#[test]
fn a_published_port_is_reached_and_no_other() {
    lab!("curl", "python3", "iptables-nft");
    let pair = Pair::new();
    let (folder, payload) = folder("published", MIB);
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "tcp");
    }
    let root = folder.to_string_lossy().into_owned();
    let server = ["python3", "-m", "http.server", "--bind", "::", "-d", &root, "80"];
    let mut published = running(&pair.host, "-v --publish 80", server).deadline(DEADLINE * 2).spawn();
    published.wait_for_stderr("publishes tcp port 80");
    let fetch = |at| {
        pair.peer.command("curl").args(["-sS", "-g", "--retry", "8", "--retry-connrefused", &url(at, 80)])
    };
    for family in Family::ALL {
        fetch(pair.host_address(family)).expect(&payload).succeed().check(&payload);
    }
    let taken = running(&pair.host, "--publish 80", ["true"]).run();
    assert_eq!(taken.code(), Some(125), "{taken}");
    assert!(taken.stderr.contains("cannot publish tcp port 80: "), "{taken}");
    published.signal(nix::sys::signal::SIGTERM);
    published.wait(DEADLINE);
    let hidden = running(&pair.host, "-v", ["python3", "-m", "http.server", "--bind", "::", "8080"]);
    let mut hidden = hidden.deadline(DEADLINE).spawn();
    hidden.wait_for_stderr("the command runs");
    assert!(!pair.peer.command("curl").args(["-s", "-m", "2", "http://10.77.0.1:8080/"]).run().success());
    hidden.signal(nix::sys::signal::SIGTERM);
}

#[test]
fn a_published_datagram_port_answers() {
    lab!("nc.openbsd", "socat", "iptables-nft");
    let pair = Pair::new();
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "udp");
        let listen = if family == Family::V4 { "UDP4-LISTEN:5353" } else { "UDP6-LISTEN:5353" };
        let mut server = running(&pair.host, "-v --publish 5353/udp", ["socat", listen, "EXEC:cat"]).spawn();
        server.wait_for_stderr("the command runs");
        let at = pair.host_address(family).to_string();
        // The server may not listen yet, and then an ICMP error ends the client.
        let ask =
            || pair.peer.command("nc.openbsd").args(["-u", "-w", "1", &at, "5353"]).text("question\n").run();
        let answer = (0..20).map(|_| ask().text()).find(|answer| !answer.is_empty());
        assert_eq!(answer.as_deref(), Some("question\n"), "{family:?}");
        server.signal(nix::sys::signal::SIGTERM);
        server.wait(DEADLINE);
    }
}

#[test]
fn the_hosts_own_services_are_out_of_reach_unless_asked_for() {
    lab!("nc.openbsd", "socat");
    let pair = Pair::new();
    let serve = |at: &str| {
        let words =
            ["-u", &format!("TCP4-LISTEN:4040,bind={at},fork,reuseaddr"), "EXEC:true"].map(str::to_owned);
        let mut server = pair.host.command("socat").args(&words[1..2]).arg("SYSTEM:echo hello").spawn();
        server.wait_listening(4040);
        server
    };
    let _server = serve("0.0.0.0");
    for at in ["127.0.0.1", "10.77.0.1"] {
        let inside = running(&pair.host, "", ["nc.openbsd", "-d", at, "4040"]).run();
        assert_eq!((inside.code(), inside.text().as_str()), (Some(1), ""), "{at}: {inside}");
    }
    let asked =
        running(&pair.host, "--host-loopback 4040", ["nc.openbsd", "-d", "127.0.0.1", "4040"]).succeed();
    assert_eq!(asked.text(), "hello\n", "{asked}");
}

#[test]
fn a_report_names_each_flow() {
    lab!("nc.openbsd", "python3");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    let run = netkat(&pair.host, "--json --run -- nc.openbsd -N 10.77.0.2 7").text("eight by").succeed();
    assert_eq!(run.text(), "eight by");
    let report: serde_json::Value = serde_json::from_str(&run.stderr).expect("one object");
    assert_eq!(report["exec_status"], 0, "{report}");
    let flow = &report["command"]["flows"][0];
    assert_eq!(
        (flow["protocol"].as_str(), flow["remote"].as_str()),
        (Some("tcp"), Some("10.77.0.2:7")),
        "{flow}"
    );
    // At least four headers without options, and the data.
    assert!(flow["sent_bytes"].as_u64() > Some(4 * 40 + 8) && flow["local"] == "10.77.0.1", "{flow}");
}
