//! Advice that netkat gives: a command in the advice works as it stands.
use crate::support::{
    namespace::Namespace,
    netkat::{PROGRAM, listening, netkat},
    payload::Payload,
    process::Output,
    requirements::lab,
    topology::{Family, Pair},
};
use std::path::PathBuf;

/// Returns the advice about a foreign flag, and checks that it is wrong usage.
fn advice(host: &Namespace, flag: &str) -> String {
    let output = netkat(host, &format!("{flag} 10.77.0.2 80")).run();
    assert_eq!(output.code(), Some(2), "{output}");
    output.stderr
}

/// Runs a command line of an advice, with the program and these words in the place of its own.
fn follow(host: &Namespace, command: &str, others: &[(&str, &str)]) -> Output {
    // The program first: the other words may be paths of a folder that is called netkat.
    let words = [("netkat", PROGRAM)];
    let words = words.iter().chain(others);
    let line = words.fold(command.to_owned(), |line, (from, to)| line.replace(from, to));
    host.command("bash").args(["-c", &line]).run()
}

/// Returns the part of an advice from one word to the end of the line.
fn from<'a>(advice: &'a str, word: &str) -> &'a str {
    advice[advice.find(word).unwrap_or_else(|| panic!("no {word}: {advice}"))..].trim_end()
}

#[test]
fn tls_through_netkat() {
    lab!("openssl", "socat", "bash");
    let pair = Pair::new();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let at = |name: &str| folder.join(name).display().to_string();
    let (key, certificate) = (at("key"), at("certificate"));
    let make = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=x"
    );
    pair.peer.words(&make).succeed();
    let mut server = pair
        .peer
        .words(&format!("openssl s_server -accept 8443 -key {key} -cert {certificate} -www -quiet"))
        .spawn();
    server.wait_listening(8443);
    for flag in ["--ssl", "--tls"] {
        let advice = advice(&pair.host, flag);
        let line = from(&advice, "socat TCP-LISTEN");
        let line = line.replacen(" & ", " & sleep 1; printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 ", 1);
        let words = [("HOST PORT", "10.77.0.2 8443")];
        let output = follow(&pair.host, &format!("{line} -quiet -ign_eof"), &words);
        assert!(output.text().contains("200"), "{advice}{output}");
    }
    std::fs::remove_dir_all(&folder).expect("the folder");
}

#[test]
fn hosts_from_a_file_ports_in_any_order_and_an_amount_of_data() {
    lab!("bash", "shuf", "paste");
    let pair = Pair::new();
    let list = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("hosts-{}", std::process::id()));
    std::fs::write(&list, "192.0.2.1\n10.77.0.2\n").expect("a file");
    let list = list.display().to_string();
    for flag in ["--allowfile", "--denyfile"] {
        let advice = advice(&pair.host, flag);
        let flags = from(&advice, if flag == "--allowfile" { "--allow " } else { "--deny " });
        let output = follow(&pair.host, &format!("netkat -l -w 0.1 {flags} 5000"), &[("FILE", &list)]);
        assert!(output.stderr.contains("no client connected"), "{advice}{output}");
    }
    let advice_r = advice(&pair.host, "-r");
    let line = format!("netkat {}", from(&advice_r, "-z HOST"));
    let output = follow(&pair.host, &line, &[("HOST", "10.77.0.2")]);
    assert_eq!(output.text().lines().count(), 101, "{advice_r}{output}");
    let advice_w = advice(&pair.host, "-W");
    assert!(advice_w.contains("| head") || advice_w.contains("head -c BYTES"), "{advice_w}");
    let output = follow(
        &pair.host,
        "netkat -l 5000 < /dev/null | head -c BYTES & sleep 0.5; printf abcdef | timeout 5 netkat 127.0.0.1 5000; wait",
        &[("BYTES", "3")],
    );
    assert_eq!(output.text(), "abc", "{output}");
    let _ = std::fs::remove_file(&list);
}

/// nc's -L and -R of some netcats: each client reaches another server.
#[test]
fn clients_are_forwarded() {
    lab!("nc", "socat", "bash");
    let pair = Pair::new();
    let out = Payload::short();
    let advice = advice(&pair.host, "-L");
    let command = from(&advice, "--sh-exec").replace("HOST PORT", "-N 10.77.0.2 7000");
    let mut echo = pair.peer.words("socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat").spawn();
    echo.wait_listening(7000);
    let (flag, line) = command.split_once(' ').expect("a value");
    let server = listening(&pair.host, "-k 5000", |c| c.arg(flag).arg(line.trim_matches('\'')));
    let client = netkat(&pair.peer, "10.77.0.1 5000").input(out.input()).expect(&out).run();
    client.check(&out);
    drop(server);
}

/// The message names the reason that forbids bpf(2) in a rootless container, for which no flag of
/// the container helps.
#[test]
fn a_user_namespace_is_named() {
    lab!("unshare");
    let host = Namespace::new("host");
    // A sniffer needs CAP_NET_RAW alone, which counts for the namespace's own interfaces.
    for arguments in ["127.0.0.1 80", "-u 127.0.0.1 80", "-z 127.0.0.1 80", "-l 5000", "-l -u 5000"] {
        let line = format!("ip link set lo up; exec {PROGRAM} --exit-verdict {arguments}");
        let output = host.command("unshare").args(["-r", "-n", "sh", "-c", &line]).run();
        assert_eq!(output.code(), Some(7), "{output}");
        let line = output.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with("netkat: ") && line.contains("user namespace"), "{output}");
        assert_eq!(line.matches("CAP_BPF").count(), 1, "{output}");
    }
}

#[test]
fn each_cause_is_said_once() {
    lab!("python3");
    let pair = Pair::new();
    // A seccomp filter that refuses bpf(2), as some containers have.
    let filter = "import ctypes, os, struct, sys
prog = [(0x20,0,0,0),(0x15,0,1,321),(0x06,0,0,0x00050000|1),(0x06,0,0,0x7fff0000)]
buf = b''.join(struct.pack('HBBI',*i) for i in prog); b = ctypes.create_string_buffer(buf)
class F(ctypes.Structure): _fields_=[('n',ctypes.c_ushort),('p',ctypes.c_void_p)]
f = F(len(prog), ctypes.addressof(b)); l = ctypes.CDLL(None, use_errno=True)
l.prctl(38,1,0,0,0); assert l.prctl(22,2,ctypes.byref(f),0,0)==0
os.execv(sys.argv[1], sys.argv[1:])";
    let line = ["-c", filter, PROGRAM, "--guard", "tcx", "--exit-verdict", "10.77.0.2", "80"];
    let output = pair.host.command("python3").args(line).run();
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    assert_eq!(output.code(), Some(7), "{output}");
    assert_eq!(
        output.stderr.matches("ermission denied").count() + output.stderr.matches("not permitted").count(),
        1,
        "{output}"
    );
    assert!(output.stderr.contains("seccomp") && !output.stderr.contains("5.11"), "{output}");
}

/// A listener reports refused clients, and a flood of attempts makes no flood of lines.
#[test]
fn who_may_not_connect_is_named_with_v() {
    lab!();
    let pair = Pair::new();
    for family in Family::ALL {
        let (at, peer) = (pair.host_address(family), pair.peer_address(family));
        for (more, probe) in [("--reject ", "-w 1 "), ("", "-w 300ms "), ("-u ", "-u -q 0 ")] {
            let mut server = listening(&pair.host, &format!("{more}-k --deny {peer} {at} 5000"), |c| c);
            for _ in 0..5 {
                netkat(&pair.peer, &format!("{probe}{at} 5000")).text("x").run();
            }
            server.wait_for_stderr("may not connect");
            let words = format!("{peer} may not connect");
            assert_eq!(server.stderr().matches(&words).count(), 1, "{}", server.stderr());
        }
    }
}
