//! What netkat may do, and what it says when it may not.
use crate::{
    namespace::Namespace,
    netkat::PROGRAM,
    payload::Payload,
    peers::Netcat,
    process::{Command, DEADLINE},
    requirements::lab,
    topology::{Family, Pair},
};
use std::{fs, path::PathBuf};

const NEEDED: [&str; 3] = ["net_raw", "net_admin", "bpf"];
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// A copy of netkat where every user can run it, and where it may be given file capabilities.
struct Copy(PathBuf);

impl Copy {
    fn new(label: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netkat-lab-{}-{label}", std::process::id()));
        fs::copy(PROGRAM, &path).expect("copying netkat");
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs the copy as nobody with exactly these capabilities.
fn with_capabilities(at: &Namespace, copy: &Copy, capabilities: &[&str], arguments: &str) -> Command {
    let list: Vec<_> = capabilities.iter().map(|c| format!("+{c}")).collect();
    let mut setpriv = at.command("setpriv").args(NOBODY);
    if list.is_empty() {
        setpriv = setpriv.arg("--inh-caps=-all");
    } else {
        setpriv = setpriv.args([
            format!("--inh-caps=-all,{}", list.join(",")),
            format!("--ambient-caps=-all,{}", list.join(",")),
            format!("--bounding-set=-all,{}", list.join(",")),
        ]);
    }
    setpriv.arg(&copy.0).args(arguments.split_whitespace())
}

#[test]
fn three_capabilities_are_enough() {
    lab!("setpriv", "nc.openbsd");
    let (pair, copy) = (Pair::new(), Copy::new("enough"));
    let out = Payload::short();
    for guard in ["tcx", "clsact"] {
        for family in Family::ALL {
            let at = pair.peer_address(family);
            let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.expect(&out));
            let line = format!("--guard {guard} {at} 5000");
            let client = with_capabilities(&pair.host, &copy, &NEEDED, &line).input(out.input()).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{guard}: {client}");
            server.wait(DEADLINE).check(&out);
        }
    }
}

#[test]
fn each_missing_capability_is_named() {
    lab!("setpriv");
    let (pair, copy) = (Pair::new(), Copy::new("missing"));
    let (here, there) = (pair.host_address(Family::V4), pair.peer_address(Family::V4));
    for missing in NEEDED {
        let rest: Vec<_> = NEEDED.into_iter().filter(|c| *c != missing).collect();
        for line in [format!("{there} 5000"), format!("-l {here} 5000")] {
            let refused = with_capabilities(&pair.host, &copy, &rest, &line).run();
            assert_eq!(refused.code(), Some(1), "{refused}");
            let name = format!("CAP_{}", missing.to_uppercase());
            assert!(refused.stderr.contains(&format!("needs {name} to")), "{refused}");
            for other in rest.iter().map(|c| format!("needs CAP_{}", c.to_uppercase())) {
                assert!(!refused.stderr.contains(&other), "{refused}");
            }
        }
    }
}

#[test]
fn a_low_port_needs_its_capability() {
    lab!("setpriv");
    let (pair, copy) = (Pair::new(), Copy::new("low"));
    let line = format!("-l {} 80", pair.host_address(Family::V4));
    let refused = with_capabilities(&pair.host, &copy, &NEEDED, &line).run();
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("CAP_NET_BIND_SERVICE"), "{refused}");
    let all = ["net_raw", "net_admin", "bpf", "net_bind_service"];
    let mut server = with_capabilities(&pair.host, &copy, &all, &format!("-v {line}")).spawn();
    server.wait_for_stderr("listening on");
}

#[test]
fn file_capabilities_serve_an_ordinary_user() {
    lab!("setpriv", "setcap", "nc.openbsd");
    let (pair, copy) = (Pair::new(), Copy::new("file"));
    let path = copy.0.to_string_lossy().into_owned();
    Command::new("setcap").args(["cap_net_raw,cap_net_admin,cap_bpf+ep", &path]).succeed();
    let out = Payload::short();
    let at = pair.peer_address(Family::V4);
    let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.expect(&out));
    let client = pair
        .host
        .command("setpriv")
        .args(NOBODY)
        .args([&path, &at.to_string(), "5000"])
        .input(out.input())
        .run();
    assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{client}");
    server.wait(DEADLINE).check(&out);
}

/// Once the connection stands, a tcx run holds no capability at all, and a clsact run only what its clean-up needs.
#[test]
fn capabilities_are_dropped_once_everything_is_set_up() {
    lab!("nc.openbsd");
    for (guard, kept) in [("tcx", 0), ("clsact", 1 << 12)] {
        let pair = Pair::new();
        let at = pair.peer_address(Family::V4);
        let _server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.input(crate::process::Input::Open));
        let mut client = crate::netkat::netkat(&pair.host, &format!("-v --guard {guard} {at} 5000"))
            .input(crate::process::Input::Open)
            .spawn();
        client.wait_for_stderr("established");
        // Setting up ends a moment after the handshake.
        client.wait_until("dropped capabilities", |c| {
            let status = fs::read_to_string(format!("/proc/{}/status", c.id())).unwrap_or_default();
            ["CapPrm:", "CapEff:"].iter().all(|set| {
                let value = status.lines().find_map(|l| l.strip_prefix(set)).map(str::trim);
                value.and_then(|v| u64::from_str_radix(v, 16).ok()).is_some_and(|v| v & !kept == 0)
            })
        });
    }
}
