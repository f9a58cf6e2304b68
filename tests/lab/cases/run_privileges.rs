//! `--run`: privileges of the command, and those that netkat needs.
use crate::support::{
    files::ProgramCopy,
    netkat::{PROGRAM, running},
    process::{DEADLINE, Input},
    requirements::lab,
    rules::Rule,
    servers::echo_server,
    topology::{Family, Pair},
    witness::Witness,
};
use std::fs;

const ALL: &str = "net_raw,+net_admin,+bpf";

/// Returns the value of a line of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[test]
fn a_command_has_no_capability_and_gains_none() {
    lab!("setpriv", "cat");
    let pair = Pair::new();
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
    let as_root = running(&pair.host, "", ["cat", "/proc/self/status"]).succeed().text();
    let as_caller = pair.host.command("env").args(["SUDO_UID=1234", "SUDO_GID=4321", PROGRAM, "--run", "--"]);
    let as_caller = as_caller.args(["cat", "/proc/self/status"]).succeed().text();
    for status in [&as_root, &as_caller] {
        for set in sets {
            assert_eq!(u64::from_str_radix(field(status, set), 16), Ok(0), "{set}: {status}");
        }
        assert_eq!(field(status, "NoNewPrivs"), "1");
    }
    assert_eq!(field(&as_root, "Uid").split_whitespace().collect::<Vec<_>>(), ["0"; 4]);
    assert_eq!(field(&as_caller, "Uid").split_whitespace().collect::<Vec<_>>(), ["1234"; 4]);
    assert_eq!(field(&as_caller, "Gid").split_whitespace().collect::<Vec<_>>(), ["4321"; 4]);
    // A set-user-id program gains nothing, and a device of the namespace cannot be changed.
    for script in ["ip link set lo down", "ip link add x type dummy", "mount -t tmpfs none /mnt"] {
        assert!(!running(&pair.host, "", ["sh", "-c", script]).run().success(), "{script}");
    }
}

#[test]
fn netkat_gives_up_what_it_does_not_need() {
    lab!("sleep");
    let pair = Pair::new();
    let mut run = running(&pair.host, "-v", ["sleep", "20"]).spawn();
    run.wait_for_stderr("the command runs");
    let status = fs::read_to_string(format!("/proc/{}/status", run.id())).expect("a status");
    assert_eq!(field(&status, "Uid").split_whitespace().collect::<Vec<_>>(), ["65534"; 4]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(field(&status, set), 16), Ok(0), "{set}: {status}");
    }
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
    // The supervisor has none of the packet sockets and programs.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).expect("children");
    for child in children.split_whitespace() {
        let open = fs::read_dir(format!("/proc/{child}/fd")).expect("descriptors").flatten();
        let names: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        let of_kernel = names.iter().filter(|name| name.to_string_lossy().contains("bpf"));
        assert_eq!(of_kernel.count(), 0, "{names:?}");
    }
    run.signal(nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn three_capabilities_and_a_user_namespace_are_enough() {
    lab!("setpriv", "nc.openbsd", "python3");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("run-enough"));
    let _server = echo_server(&pair.peer);
    let users = [&["--reuid=65534", "--regid=65534", "--clear-groups"][..], &[]];
    for user in users {
        for family in Family::ALL {
            Rule::Both.apply(&pair.host, family, "tcp");
            let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all,+{ALL}"));
            let at = pair.peer_address(family).to_string();
            let netkat = pair.host.command("setpriv").args(user).args(sets).arg(&copy.0);
            let run = netkat.args(["--run", "--", "nc.openbsd", "-N", &at, "7"]).text("three\n").run();
            assert_eq!((run.code(), run.text().as_str()), (Some(0), "three\n"), "{user:?}: {run}");
        }
    }
}

/// Sends, by raw sockets, packets that the command may not send, and then a permitted one.
const FORGE: &str = r#"
import socket, struct
def packet(source, destination, protocol, body):
    return struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(destination)) + body
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
ack = struct.pack('>HHIIBBHHH', 61500, 4444, 1, 1, 0x50, 0x10, 1024, 0, 0)
datagram = lambda port: struct.pack('>HHHH', port, 4444, 8, 0)
raw.sendto(packet('10.77.0.66', '10.77.0.2', 17, datagram(61501)), ('10.77.0.2', 0))
raw.sendto(packet('10.77.0.1', '10.77.0.2', 6, ack), ('10.77.0.2', 0))
raw.sendto(packet('10.77.0.1', '10.77.0.2', 17, datagram(4000)), ('10.77.0.2', 0))
raw.sendto(packet('10.77.0.1', '10.77.0.2', 47, bytes(8)), ('10.77.0.2', 0))
raw.sendto(packet('10.77.0.1', '10.77.0.2', 1, bytes([5, 1, 0, 0, 10, 77, 0, 66])), ('10.77.0.2', 0))
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
frames.bind(('eth0', 0))
frames.send(b'\xff' * 6 + b'\2nk\0\0\1' + b'\x08\x06' + struct.pack('>HHBBH6s4s6s4s', 1, 0x800, 6, 4, 1,
            b'\2nk\0\0\1', socket.inet_aton('10.77.0.2'), bytes(6), socket.inet_aton('10.77.0.2')))
raw.sendto(packet('10.77.0.1', '10.77.0.2', 17, datagram(61502)), ('10.77.0.2', 0))
"#;

#[test]
fn a_command_with_raw_sockets_cannot_forge() {
    lab!("python3", "tcpdump", "nc.openbsd");
    let pair = Pair::new();
    // A port that the host uses.
    let mut holder = pair.host.command("nc.openbsd").args(["-u", "-l", "4000"]).spawn();
    holder.wait_listening(4000);
    // The neighbours know each other, so no ARP comes from netkat or the kernel.
    pair.peer.run("ping -c 1 -W 2 10.77.0.1");
    let witness = Witness::incoming(&pair.peer, "eth0", "ip or arp");
    let run = running(&pair.host, "-v --raw", ["python3", "-c", FORGE]).succeed();
    assert!(run.stderr.contains("1 flow;"), "{run}");
    let seen = witness.finish();
    let sent: Vec<_> = seen.lines().filter(|line| !line.contains("ARP")).collect();
    assert!(sent.len() == 1 && sent[0].contains("10.77.0.1.61502 > 10.77.0.2.4444"), "{seen}");
    assert!(!seen.contains("02:6e:6b"), "{seen}");
    assert!(!running(&pair.host, "", ["python3", "-c", FORGE]).run().success());
}

/// Refuses unshare(2) by a seccomp filter, as a container's runtime does, and executes the other
/// arguments.
const REFUSE_UNSHARE: &str = r#"
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {'x86_64': 272, 'aarch64': 97, 'riscv64': 97}[platform.machine()]
code = b''.join(struct.pack('HBBI', *line) for line in [
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(code)
program = struct.pack('HxxxxxxQ', 4, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn an_error_names_what_refuses_a_namespace() {
    lab!("python3", "setpriv");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("run-refused"));
    let caps = format!("--bounding-set=-all,+{ALL}");
    let words = [caps.as_str(), &format!("--inh-caps=-all,+{ALL}"), &format!("--ambient-caps=-all,+{ALL}")];
    let refused = pair.host.command("setpriv").args(words).args(["/usr/bin/python3", "-c", REFUSE_UNSHARE]);
    let refused = refused.arg(&copy.0).args(["--run", "--", "true"]).run();
    assert_eq!(refused.code(), Some(125), "{refused}");
    let text = &refused.stderr;
    assert!(text.contains("cannot make a user namespace: EPERM"), "{refused}");
    assert!(
        text.contains("without a user namespace") && text.contains("CAP_SYS_ADMIN is missing"),
        "{refused}"
    );
    assert_eq!(text.matches("a seccomp filter").count(), 2, "{refused}");
}

#[test]
fn without_a_user_namespace_sys_admin_serves() {
    lab!("nc.openbsd", "python3", "unshare");
    let pair = Pair::new();
    let _server = echo_server(&pair.peer);
    // A chroot(2) refuses user namespaces (create_user_ns in kernel/user_namespace.c).
    let line =
        format!("mount --rbind / /mnt && exec chroot /mnt {PROGRAM} -v --run -- nc.openbsd -N 10.77.0.2 7");
    let run = pair.host.command("unshare").args(["-m", "sh", "-c", &line]).text("admin\n").run();
    assert_eq!((run.code(), run.text().as_str()), (Some(0), "admin\n"), "{run}");
    assert!(run.stderr.contains("without a user namespace"), "{run}");
}

#[test]
fn each_missing_capability_is_named() {
    lab!("setpriv");
    let (pair, copy) = (Pair::new(), ProgramCopy::new("run-missing"));
    for missing in ["net_raw", "net_admin", "bpf"] {
        let bounding = format!("--bounding-set=-{missing},-sys_admin");
        let refused = pair.host.command("setpriv").args([bounding.as_str(), "--inh-caps=-all"]).arg(&copy.0);
        let refused = refused.args(["--run", "--", "true"]).input(Input::Null).deadline(DEADLINE).run();
        assert_eq!(refused.code(), Some(125), "{refused}");
        assert!(refused.stderr.contains(&format!("needs CAP_{} to", missing.to_uppercase())), "{refused}");
    }
}
