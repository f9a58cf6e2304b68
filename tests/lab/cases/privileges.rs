//! Privileges: the ones that netkat needs, its errors without them, and the way it gives them up.
use crate::support::{
    files::ProgramCopy,
    namespace::Namespace,
    netkat::{GUARDS, PROGRAM, netkat},
    payload::Payload,
    peers::Netcat,
    process::{Command, DEADLINE, Input, Process},
    requirements::lab,
    rules::Rule,
    topology::{Family, Pair, at},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

const NEEDED: [&str; 3] = ["net_raw", "net_admin", "bpf"];
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// Runs the copy as user `nobody` with exactly these capabilities.
fn with_capabilities(at: &Namespace, copy: &ProgramCopy, capabilities: &[&str], arguments: &str) -> Command {
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
    let (pair, copy) = (Pair::new(), ProgramCopy::new("enough"));
    let out = Payload::short();
    for guard in GUARDS {
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
    let (pair, copy) = (Pair::new(), ProgramCopy::new("missing"));
    let (here, there) = (pair.host_address(Family::V4), pair.peer_address(Family::V4));
    for missing in NEEDED {
        let rest: Vec<_> = NEEDED.into_iter().filter(|c| *c != missing).collect();
        for line in [format!("{there} 5000"), format!("-l {here} 5000")] {
            // Without CAP_BPF only the programs fail, so the line demands them.
            let line = if missing == "bpf" { format!("--guard tcx {line}") } else { line };
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

/// Without CAP_BPF, rules of nftables do the programs' work.
#[test]
fn two_capabilities_are_enough_without_programs() {
    lab!("setpriv", "nc.openbsd", "nft");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("rules"));
    let rights = ["net_raw", "net_admin"];
    let run = |line: &str| with_capabilities(&pair.host, &copy, &rights, line);
    let out = Payload::short();
    for family in Family::ALL {
        let (here, there) = (pair.host_address(family), pair.peer_address(family));
        Rule::Both.apply(&pair.host, family, "tcp");
        let server = Netcat::OpenBsd.listen(&pair.peer, there, 5000, |c| c.expect(&out));
        let client = run(&format!("-v {there} 5000")).input(out.input()).run();
        assert_eq!(client.code(), Some(0), "{client}");
        assert!(client.stderr.contains("may load no eBPF program (needs CAP_BPF to "), "{client}");
        assert!(client.stderr.contains("guard attached: eth0 (Nftables)"), "{client}");
        server.wait(DEADLINE).check(&out);

        let mut listener = run(&format!("-l {here} 5001")).expect(&out).input(Input::Null).spawn();
        listener.wait_listening(5001);
        Netcat::OpenBsd.connect(&pair.peer, here, 5001).input(out.input()).run();
        listener.wait(DEADLINE).check(&out);
    }
    assert!(!pair.host.run("nft list tables").text().contains("netkat"));
}

#[test]
fn a_low_port_needs_its_capability() {
    lab!("setpriv");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("low"));
    let line = format!("-l {} 80", pair.host_address(Family::V4));
    let refused = with_capabilities(&pair.host, &copy, &NEEDED, &line).run();
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains("CAP_NET_BIND_SERVICE"), "{refused}");
    let all = ["net_raw", "net_admin", "bpf", "net_bind_service"];
    let mut server = with_capabilities(&pair.host, &copy, &all, &format!("-v {line}")).spawn();
    server.wait_for_stderr("listening on");
}

/// The starter of a container gives its capabilities, not sudo or setcap.
#[test]
fn a_pod_is_told_how_it_gets_a_capability() {
    lab!("setpriv", "env");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("pod"));
    let run = pair.host.command("env").arg("KUBERNETES_SERVICE_HOST=10.96.0.1").arg("setpriv").args(NOBODY);
    let run = run.arg("--inh-caps=-all").arg(&copy.0).args(["10.77.0.2", "80"]).run();
    let words = "(add them to the container: securityContext: {capabilities: {add: [NET_RAW, NET_ADMIN, BPF]}}, or \
                 kubectl debug --profile=netadmin)";
    assert!(run.stderr.contains(words) && !run.stderr.contains("sudo"), "{run}");
}

/// The kernel binds nothing at an assumed address, so netkat checks as bind(2) would: in both
/// families, for TCP and UDP, wherever a user can name our port.
#[test]
fn a_low_port_of_an_assumed_address_needs_its_capability() {
    lab!("setpriv");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("assumed"));
    let limit = |first: u32| {
        pair.host.run(&format!("sysctl -qw net.ipv4.ip_unprivileged_port_start={first}"));
    };
    let low = ["net_raw", "net_admin", "bpf", "net_bind_service"];
    for family in Family::ALL {
        let assumed = at(family, "10.77.0.77", "fd77::77");
        let there = pair.peer_address(family);
        let run = |capabilities: &[&str], line: &str| {
            with_capabilities(&pair.host, &copy, capabilities, &format!("-v -n --as {assumed} {line}"))
        };
        let lines = |port: u16| {
            [
                format!("-w 5 -l {port}"),
                format!("-w 5 -l -k -p {port}"),
                format!("-w 5 -u -l {port}"),
                format!("-w 5 -p {port} {there} 5000"),
                format!("-w 5 -u -p {port} {there} 5000"),
                format!("-w 5 -z -p {port} {there} 5000,5001"),
                format!("-w 5 -z -u -p {port} {there} 5000,5001"),
            ]
        };
        let needed = |capabilities: &[&str], port: u16| {
            for line in lines(port) {
                let refused = run(capabilities, &line).run();
                assert_eq!(refused.code(), Some(1), "{line}: {refused}");
                let said =
                    format!("needs CAP_NET_BIND_SERVICE to hold port {port} (no program here can have it");
                assert!(refused.stderr.contains(&said), "{line}: {refused}");
            }
        };
        let granted = |capabilities: &[&str], port: u16| {
            for line in lines(port) {
                run(capabilities, &line).input(Input::Open).spawn().wait_for_stderr("raw socket: ");
            }
        };
        needed(&NEEDED, 22);
        granted(&NEEDED, 1024);
        granted(&low, 22);
        limit(1);
        granted(&NEEDED, 22);
        limit(2000);
        needed(&NEEDED, 1999);
        // The kernel's refusal for an own address is understood, too.
        let own = format!("-l {} 1999", pair.host_address(family));
        let refused = with_capabilities(&pair.host, &copy, &NEEDED, &own).run();
        assert!(refused.stderr.contains("needs CAP_NET_BIND_SERVICE to "), "{refused}");
        limit(1024);
    }
}

/// With `+p` netkat makes its capabilities effective itself; with `+ep` the kernel does.
#[test]
fn file_capabilities_serve_an_ordinary_user() {
    lab!("setpriv", "setcap", "nc.openbsd");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("file"));
    let path = copy.0.to_string_lossy().into_owned();
    let out = Payload::short();
    for family in Family::ALL {
        let at = pair.peer_address(family);
        for flags in ["ep", "p"] {
            Command::new("setcap")
                .arg(format!("cap_net_raw,cap_net_admin,cap_bpf+{flags}"))
                .arg(&path)
                .succeed();
            let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.expect(&out));
            let netkat = pair.host.command("setpriv").args(NOBODY).args([&path, &at.to_string(), "5000"]);
            let client = netkat.input(out.input()).run();
            assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""), "{flags}: {client}");
            server.wait(DEADLINE).check(&out);
        }
    }
}

/// A container that lacks one of the file's capabilities: with `+p` netkat starts, and names the
/// missing one and the place to add it.
#[test]
fn a_capability_outside_the_bounding_set_is_named_with_its_remedy() {
    lab!("setpriv", "setcap");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("bounded"));
    let at = pair.peer_address(Family::V4);
    Command::new("setcap").arg("cap_net_raw,cap_net_admin,cap_bpf+p").arg(&copy.0).succeed();
    for missing in ["net_raw", "net_admin"] {
        let rest: String =
            NEEDED.iter().filter(|one| **one != missing).map(|one| format!(",+{one}")).collect();
        let bounding = format!("--bounding-set=-all{rest}");
        let name = missing.to_uppercase();
        for user in [&NOBODY[..], &[]] {
            let container = pair.host.command("setpriv").args(user).arg(&bounding).arg(&copy.0);
            let refused = container.args([&at.to_string(), "5000"]).run();
            assert_eq!(refused.code(), Some(1), "{refused}");
            assert!(refused.stderr.contains(&format!("needs CAP_{name} to ")), "{refused}");
            assert!(refused.stderr.contains(&format!("--cap-add {name}")), "{refused}");
        }
    }
}

/// A process's privileges, as /proc/PID/status shows them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Privileges {
    /// Real, effective, saved and file system user; and group.
    users: Vec<u32>,
    groups: Vec<u32>,
    supplementary: Vec<u32>,
    /// Inheritable, permitted, effective and ambient set; then the bounding set, from which
    /// execve(2) could restore.
    capabilities: [u64; 4],
    bounding: u64,
    no_new_privileges: bool,
    /// Mode of seccomp; 2 for a filter.
    seccomp: u32,
}

impl Privileges {
    fn of(process: &Process) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        Self::parse(&status)
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let numbers = |name| field(name).split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap_or(u64::MAX);
        Self {
            users: numbers("Uid"),
            groups: numbers("Gid"),
            supplementary: numbers("Groups"),
            capabilities: ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(set),
            bounding: set("CapBnd"),
            no_new_privileges: field("NoNewPrivs") == "1",
            seccomp: field("Seccomp").parse().unwrap_or_default(),
        }
    }

    /// Returns no privileges but `kept`, as this user and group.
    fn given_up(user: u32, group: u32, kept: u64) -> Self {
        Self {
            users: vec![user; 4],
            groups: vec![group; 4],
            supplementary: Vec::new(),
            capabilities: [0, kept, kept, 0],
            bounding: 0,
            no_new_privileges: true,
            seccomp: 2,
        }
    }
}

/// Waits until a process has exactly these privileges.
fn settles_at(process: &mut Process, expected: &Privileges) {
    let deadline = Instant::now() + DEADLINE;
    while Privileges::of(process) != *expected {
        assert!(process.is_running(), "ended early: {}", process.stderr());
        assert!(Instant::now() < deadline, "{:?} instead of {expected:?}", Privileges::of(process));
        thread::sleep(Duration::from_millis(5));
    }
}

const NET_ADMIN: u64 = 1 << 12;
const NOBODY_ID: u32 = 65_534;

/// Once everything is open, a run has user `nobody` and no capability; with clsact and nftables,
/// CAP_NET_ADMIN.
#[test]
fn every_mode_gives_up_what_it_does_not_need() {
    lab!("nc.openbsd");
    for (guard, kept) in [("tcx", 0), ("clsact", NET_ADMIN), ("nft", NET_ADMIN)] {
        let pair = Pair::new();
        let (here, at) = (pair.host_address(Family::V4), pair.peer_address(Family::V4));
        // A peer that never answers.
        pair.peer.ip("route add blackhole 10.77.1.0/24");
        pair.host.ip("route add 10.77.1.0/24 via 10.77.0.2");
        let _server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.input(Input::Open));
        for line in [
            format!("{at} 5000"),
            "-w 30 10.77.1.1 5000".to_owned(),
            format!("-l {here} 5001"),
            "-l -k 5002".to_owned(),
            format!("-u {at} 5003"),
            "-u -l 5004".to_owned(),
            "-z -w 30 10.77.1.1 80,81".to_owned(),
        ] {
            let line = format!("-v --guard {guard} {line}");
            let mut run = netkat(&pair.host, &line).input(Input::Open).spawn();
            settles_at(&mut run, &Privileges::given_up(NOBODY_ID, NOBODY_ID, kept));
            let output = run.terminate();
            assert_eq!(output.signal(), Some(15), "{output}");
            assert!(!output.stderr.contains("cannot remove"), "{output}");
        }
        assert!(!pair.host.run("tc qdisc show dev eth0").text().contains("clsact"), "clsact is left");
    }
    let pair = Pair::new();
    let mut sniffer = netkat(&pair.host, "--sniff -i eth0").spawn();
    settles_at(&mut sniffer, &Privileges::given_up(NOBODY_ID, NOBODY_ID, 0));
}

#[test]
fn with_sudo_a_run_becomes_its_callers() {
    lab!();
    let pair = Pair::new();
    let line = format!("env SUDO_UID=54321 SUDO_GID=54322 {PROGRAM} -l 5000");
    let mut server = pair.host.words(&line).input(Input::Open).spawn();
    settles_at(&mut server, &Privileges::given_up(54_321, 54_322, 0));
}

/// No run goes on as root because of a variable that holds no id, or the id that the kernel takes
/// for "unchanged".
#[test]
fn what_is_no_id_in_sudos_variables_ends_a_run() {
    lab!();
    let pair = Pair::new();
    let there = pair.peer_address(Family::V4);
    let modes = ["-l -k 5000", "-u -l 5000", "-l 5000 --sh-exec id", "--sniff -i eth0", "-z -w 1"];
    for (values, named) in [
        ("SUDO_UID=4294967295 SUDO_GID=4294967295", "SUDO_UID is \"4294967295\""),
        ("SUDO_UID=-1 SUDO_GID=-1", "SUDO_UID is \"-1\""),
        ("SUDO_UID=54321 SUDO_GID=4294967295", "SUDO_GID is \"4294967295\""),
        ("SUDO_UID=4294967296 SUDO_GID=54322", "SUDO_UID is \"4294967296\""),
        ("SUDO_UID=nobody SUDO_GID=nogroup", "SUDO_UID is \"nobody\""),
        ("SUDO_UID= SUDO_GID=", "SUDO_UID is \"\""),
        ("SUDO_UID=54321", "SUDO_UID is set and SUDO_GID is not"),
    ] {
        for mode in modes {
            let target = if mode.starts_with("-z") { format!("{there} 5000") } else { String::new() };
            let caller = format!("env -u SUDO_UID -u SUDO_GID {values} {PROGRAM} -n {mode} {target}");
            let refused = pair.host.words(&caller).run();
            assert_eq!(refused.code(), Some(1), "{values}, {mode}: {refused}");
            assert!(refused.stderr.contains(named), "{values}, {mode}: {refused}");
        }
    }
}

/// The variables come from a user who may not become another.
#[test]
fn who_runs_a_set_user_id_file_stays_that_user() {
    lab!("setpriv", "nc.openbsd");
    let pair = Pair::new();
    let copy = ProgramCopy::new("setuid");
    fs::set_permissions(&copy.0, fs::Permissions::from_mode(0o4755)).expect("a mode");
    let arguments = |sudo: &str, rest: &str| {
        let user = "setpriv --reuid=54321 --regid=54322 --clear-groups";
        format!("{user} env SUDO_UID={sudo} SUDO_GID={sudo} {} {rest}", copy.0.display())
    };
    for sudo in ["0", "54324"] {
        let mut server = pair.host.words(&arguments(sudo, "-l 5000")).input(Input::Open).spawn();
        settles_at(&mut server, &Privileges::given_up(54_321, 54_322, 0));
        drop(server);
        let line = arguments(sudo, "-v -l 5000 --sh-exec");
        let mut server = pair.host.words(&line).arg("cat /proc/self/status").spawn();
        server.wait_for_stderr("listening on");
        let at = pair.host_address(Family::V4);
        let told = Privileges::parse(&pair.peer.run(&format!("nc.openbsd {at} 5000")).text());
        assert_eq!((told.users, told.groups), (vec![54_321; 4], vec![54_322; 4]), "SUDO_UID={sudo}");
        assert_eq!((told.supplementary, told.capabilities), (vec![54_322], [0; 4]), "SUDO_UID={sudo}");
    }
}

/// A pod without CAP_SETUID, CAP_SETGID and CAP_SETPCAP: netkat gives up the rest.
#[test]
fn where_root_may_not_become_nobody_the_rest_is_given_up() {
    lab!("setpriv", "nc.openbsd");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let sets = NEEDED.iter().map(|c| format!(",+{c}")).collect::<String>();
    for guard in GUARDS {
        let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c);
        let mut client = pair
            .host
            .command("setpriv")
            .args([format!("--bounding-set=-all{sets}"), format!("--inh-caps=-all{sets}")])
            .arg(PROGRAM)
            .args(format!("-vv --guard {guard} {at} 5000").split_whitespace())
            .input(Input::Open)
            .spawn();
        client.wait_for_stderr("established");
        let kept = if guard == "tcx" { 0 } else { NET_ADMIN };
        client.wait_until("the rest given up", |client| {
            let left = Privileges::of(client);
            left.users == [0; 4]
                && left.capabilities == [0, kept, kept, 0]
                && left.no_new_privileges
                && left.seccomp == 2
        });
        assert!(client.stderr().contains("cannot set the group to become user 65534"), "{}", client.stderr());
        client.write(b"in spite of it");
        client.close_stdin();
        let client = client.wait(DEADLINE);
        assert_eq!(client.code(), Some(0), "{client}");
        assert_eq!(server.wait(DEADLINE).text(), "in spite of it");
    }
}

#[test]
fn without_the_sandbox_capabilities_are_given_up_all_the_same() {
    lab!();
    let pair = Pair::new();
    let mut server = netkat(&pair.host, "--no-sandbox -l 5000").input(Input::Open).spawn();
    server.wait_until("no capabilities", |server| Privileges::of(server).capabilities == [0; 4]);
    let left = Privileges::of(&server);
    assert_eq!((left.users, left.no_new_privileges, left.seccomp), (vec![0; 4], false, 0));
}

/// Files are opened before the sandbox; the report and the records are written after.
#[test]
fn what_was_opened_by_root_is_written_by_nobody() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let at = pair.peer_address(Family::V4);
    let folder = std::env::temp_dir().join(format!("netkat-lab-{}-records", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("a mode");
    let server = Netcat::OpenBsd.listen(&pair.peer, at, 5000, |c| c.text("answer"));
    let name = |file: &str| folder.join(file).display().to_string();
    let client = netkat(&pair.host, &format!("{at} 5000"))
        .args([format!("--json={}", name("json")), format!("--pcap={}", name("pcap"))])
        .args([format!("--output={}", name("output")), format!("--hex-dump={}", name("dump"))])
        .text("question")
        .run();
    assert_eq!((client.code(), client.text().as_str()), (Some(0), "answer"), "{client}");
    server.wait(DEADLINE);
    let read = |file: &str| fs::read(name(file)).expect(file);
    assert!(String::from_utf8_lossy(&read("json")).contains("\"verdict\":\"done\""));
    assert_eq!(read("output").len(), "questionanswer".len());
    assert!(read("dump").starts_with(b"> 00000000") || read("dump").starts_with(b"< 00000000"));
    assert!(read("pcap").len() > 500);
    fs::remove_dir_all(&folder).expect("removed");
}

/// Whatever the umask, and whichever mode makes the file, other accounts of this host cannot read
/// it.
#[test]
fn new_files_are_their_owners_alone_and_old_ones_keep_their_mode() {
    lab!("nc.openbsd");
    let pair = Pair::new();
    let folder = std::env::temp_dir().join(format!("netkat-lab-{}-modes", std::process::id()));
    let name = |file: &str| folder.join(file).display().to_string();
    let mode = |file: &str| fs::metadata(name(file)).expect(file).permissions().mode() & 0o7777;
    let start = |files: &[(&str, &str)], rest: &str| {
        let files: Vec<_> = files.iter().map(|(option, file)| format!("{option}{}", name(file))).collect();
        let line = format!("umask 0; exec {PROGRAM} -n {} {rest}", files.join(" "));
        pair.host.command("sh").args(["-c", &line]).text("question")
    };
    let run = |files: &[(&str, &str)], rest: &str| start(files, rest).run();
    let all = [("--output=", "output"), ("--hex-dump=", "dump"), ("--pcap=", "pcap"), ("--json=", "json")];
    for family in Family::ALL {
        let (here, there) = (pair.host_address(family), pair.peer_address(family));
        for old in [None, Some(0o644), Some(0o640)] {
            for more in ["", "--append-output"] {
                fs::create_dir_all(&folder).expect("a folder");
                if let Some(old) = old {
                    for (_, file) in all {
                        fs::write(name(file), "old").expect(file);
                        fs::set_permissions(name(file), fs::Permissions::from_mode(old)).expect("a mode");
                    }
                }
                let server = Netcat::OpenBsd.listen(&pair.peer, there, 5000, |c| c.text("answer"));
                let client = run(&all, &format!("{more} {there} 5000"));
                assert_eq!(client.code(), Some(0), "{client}");
                server.wait(DEADLINE);
                let modes = all.map(|(_, file)| mode(file));
                assert_eq!(modes, [old.unwrap_or(0o600); 4], "{old:?} {more}");
                fs::remove_dir_all(&folder).expect("removed");
            }
        }
        fs::create_dir_all(&folder).expect("a folder");
        let recorded = [("--pcap=", "pcap"), ("--json=", "json")];
        let mut sniffer = start(&[("--pcap=", "watched")], "-v -i eth0 --sniff").spawn();
        sniffer.wait_for_stderr("listening on eth0");
        sniffer.terminate();
        assert_eq!(mode("watched"), 0o600);
        run(&[("--pcap=", "copy")], &format!("--read {}", name("watched")));
        assert_eq!(mode("copy"), 0o600);
        for rest in [
            format!("-u {there} 5000"),
            format!("-z -w 1 {there} 5000"),
            format!("-z -u -w 1 {there} 5000"),
            format!("-w 100ms -l {here} 5000"),
            format!("-w 100ms -u -l {here} 5000"),
        ] {
            run(&recorded, &rest);
            assert_eq!(recorded.map(|(_, file)| mode(file)), [0o600; 2], "{rest}");
            for (_, file) in recorded {
                fs::remove_file(name(file)).expect(file);
            }
        }
        fs::remove_dir_all(&folder).expect("removed");
    }
}

/// A script for --exec: prints its own privileges from /proc, and tries to read those of netkat,
/// its parent, which has the same user.
const LOOK_AROUND: &str = "cat /proc/self/status; readlink /proc/$PPID/fd/* && echo descriptors; \
    (read -r line </proc/$PPID/environ) 2>/dev/null && echo environment; id -u; \
    echo made >$HOME/netkat-file && cat $HOME/netkat-file";

/// Ordinary programs work, as the caller's, without any means to gain privileges.
#[test]
fn processes_are_their_callers_and_cannot_get_at_netkat() {
    lab!("nc.openbsd");
    for (guard, sudo) in [("tcx", true), ("clsact", true), ("tcx", false), ("clsact", false)] {
        let pair = Pair::new();
        let at = pair.host_address(Family::V4);
        let home =
            std::env::temp_dir().join(format!("netkat-lab-{}-home-{guard}-{sudo}", std::process::id()));
        fs::create_dir_all(&home).expect("a folder");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).expect("a mode");
        let caller = if sudo { "SUDO_UID=54321 SUDO_GID=54322" } else { "A=B" };
        let line =
            format!("env {caller} HOME={} {PROGRAM} -v --guard {guard} -l -k 5000 --sh-exec", home.display());
        let mut server = pair.host.words(&line).arg(LOOK_AROUND).spawn();
        server.wait_for_stderr("listening on");
        let text = pair.peer.run(&format!("nc.openbsd {at} 5000")).text();
        fs::remove_dir_all(&home).expect("removed");
        let (user, group) = if sudo { (54_321, 54_322) } else { (0, 0) };
        let mut expected = Privileges::given_up(user, group, 0);
        expected.seccomp = 0;
        let mut privileges = Privileges::parse(&text);
        if sudo {
            assert_eq!(std::mem::take(&mut privileges.supplementary), [54_322]);
        } else {
            privileges.supplementary.clear();
        }
        assert_eq!(privileges, expected, "{guard}: {text}");
        assert!(!text.contains("descriptors") && !text.contains("environment"), "{guard}: {text}");
        assert!(text.ends_with(&format!("\n{user}\nmade\n")), "{guard}: {text}");
    }
}
