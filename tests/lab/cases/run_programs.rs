//! `--run` with engineers' programs: TLS, ssh, iperf3.
use crate::support::{
    namespace::Namespace,
    netkat::{PROGRAM, running},
    process::{DEADLINE, Process},
    requirements::lab,
    rules::Rule,
    topology::{Family, Pair},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn scratch(name: &str) -> PathBuf {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn curl_speaks_tls_with_a_servers_certificate() {
    lab!("curl", "openssl", "iptables-nft");
    let pair = Pair::new();
    let folder = scratch("tls");
    let key = folder.join("key.pem").to_string_lossy().into_owned();
    let certificate = folder.join("certificate.pem").to_string_lossy().into_owned();
    let names = "subjectAltName=IP:10.77.0.2,IP:fd77::2";
    pair.peer
        .command("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab"])
        .args(["-addext", names, "-keyout", &key, "-out", &certificate])
        .succeed();
    let serve = ["s_server", "-quiet", "-www", "-accept", "443", "-key", &key, "-cert", &certificate];
    let mut server = pair.peer.command("openssl").args(serve).deadline(DEADLINE * 4).spawn();
    server.wait_listening(443);
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "tcp");
        let url = format!("https://{}/", std::net::SocketAddr::new(pair.peer_address(family), 443));
        let words = ["curl", "-sS", "-g", "-m", "10", "--cacert", &certificate, &url];
        let run = running(&pair.host, "", words).succeed();
        assert!(run.text().contains("TLSv1.3"), "{run}");
    }
}

/// Starts sshd at the peer; returns it with the words of a client for it.
fn ssh(pair: &Pair, folder: &Path) -> (Process, Vec<String>) {
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for key in ["host", "user"] {
        pair.peer.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]).succeed();
    }
    fs::copy(file("user.pub"), file("authorized")).expect("a copy");
    fs::create_dir_all("/run/sshd").expect("sshd's folder");
    let configuration = format!(
        "Port 22\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n\
         Subsystem sftp internal-sftp\n",
        file("host"),
        file("authorized")
    );
    fs::write(file("sshd_config"), configuration).expect("a file");
    let mut server = pair
        .peer
        .command("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", &file("sshd_config")])
        .deadline(DEADLINE * 8)
        .spawn();
    server.wait_listening(22);
    let options =
        ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"];
    let mut words = vec!["-i".to_owned(), file("user"), "-F".to_owned(), "none".to_owned()];
    words.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
    (server, words)
}

#[test]
fn ssh_has_a_terminal_and_scp_copies_200_megabytes() {
    lab!("ssh", "scp", "ssh-keygen", "/usr/sbin/sshd", "script", "iptables-nft");
    let pair = Pair::new();
    let folder = scratch("ssh");
    let (_server, words) = ssh(&pair, &folder);
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "tcp");
        let at = pair.peer_address(family);
        let line =
            format!("{PROGRAM} --run -- ssh -tt {} root@{at} 'test -t 0 && echo terminal'", words.join(" "));
        let run = pair.host.command("script").args(["-qec", &line, "/dev/null"]).run();
        assert!(run.success() && run.text().contains("terminal"), "{run}");
    }
    let (from, to) = (folder.join("from"), folder.join("to"));
    let bytes: Vec<u8> = (0..200_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&from, &bytes).expect("a file");
    let target = format!("root@10.77.0.2:{}", to.display());
    let from_word = from.to_string_lossy().into_owned();
    let copy = ["scp".to_owned()].into_iter().chain(words).chain([from_word, target]);
    running(&pair.host, "", copy).deadline(DEADLINE * 6).succeed();
    assert!(fs::read(&to).is_ok_and(|copied| copied == bytes), "the copy differs");
    let _ = fs::remove_dir_all(&folder);
}

#[test]
fn raw_sockets_serve_where_they_are_asked_for() {
    lab!("traceroute", "tcpdump", "iptables-nft", "sh");
    let pair = Pair::new();
    for family in Family::ALL {
        Rule::Both.apply(&pair.host, family, "tcp");
        let at = pair.peer_address(family).to_string();
        let words = ["traceroute", "-T", "-p", "80", "-n", "-q", "1", "-w", "2", &at];
        assert!(!running(&pair.host, "", words).run().success());
        let run = running(&pair.host, "--raw", words).succeed();
        assert!(run.text().lines().nth(1).is_some_and(|line| line.contains(&at)), "{run}");
    }
    // As root, tcpdump wants to become another user.
    let script = "tcpdump -n -c 1 -i eth0 udp 2>&1 & sleep 1; echo | nc.openbsd -u -w 1 10.77.0.2 9; wait";
    let caller =
        pair.host.command("env").args(["SUDO_UID=1234", "SUDO_GID=4321", PROGRAM, "--raw", "--run", "--"]);
    let run = caller.args(["sh", "-c", script]).succeed();
    assert!(run.text().contains("> 10.77.0.2.9: UDP"), "{run}");
}

fn iperf_server(at: &Namespace) -> Process {
    let mut server = at.command("iperf3").args(["-s"]).deadline(DEADLINE * 8).spawn();
    server.wait_listening(5201);
    server
}

#[test]
fn iperf3_measures_both_ways_and_datagrams() {
    lab!("iperf3", "iptables-nft");
    let pair = Pair::new();
    let _server = iperf_server(&pair.peer);
    for family in Family::ALL {
        for protocol in ["tcp", "udp"] {
            Rule::Both.apply(&pair.host, family, protocol);
        }
        let at = pair.peer_address(family).to_string();
        for more in [&[][..], &["-R"], &["-u", "-l", "8k", "-b", "50M"], &["-u", "-b", "50M", "-R"]] {
            let words = ["iperf3", "-c", &at, "-t", "1", "-J"];
            let run = running(&pair.host, "", words.iter().chain(more)).succeed();
            let report: serde_json::Value = serde_json::from_str(&run.text()).expect("a report");
            let sum = if more.contains(&"-u") { "sum" } else { "sum_received" };
            assert!(report["end"][sum]["bytes"].as_f64() > Some(1e6), "{more:?}: {}", report["end"]);
            let lost = report["end"]["sum"]["lost_percent"].as_f64().unwrap_or(0.0);
            assert!(lost < 20.0, "{more:?}: {lost} % lost");
        }
    }
}
