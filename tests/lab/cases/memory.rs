//! Memory that strangers can make netkat use: netkat stays below the limit of the pods in
//! packaging/kubernetes and serves the next client.
use crate::support::{
    frames::{HOST_MAC, PEER_MAC},
    namespace::Namespace,
    netkat::PROGRAM,
    peers::Netcat,
    process::{Command, Input, Process},
    requirements::{self, lab},
    topology::{Family, Pair, at},
};
use netkat::net::MacAddr;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 5000;
/// The pods' limit, in bytes, and netkat's maximum share of it, in KiB.
const LIMIT: u64 = 128 << 20;
const PEAK: u64 = 80 << 10;

/// A control group with a memory limit, removed on drop.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes a group below the root of the version that has the memory controller; `None` where
    /// that is impossible.
    fn new(limit: u64) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        versions.into_iter().find_map(|(root, file)| {
            let group = Self(Path::new(root).join(format!("netkat-lab-{}-{number}", std::process::id())));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(file), limit.to_string()).ok()?;
            Some(group)
        })
    }

    /// Prepares netkat in the group.
    fn netkat(&self, namespace: &Namespace, arguments: &str) -> Command {
        let enter = format!("echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        namespace.command("sh").args(["-c", &enter, PROGRAM]).args(arguments.split_whitespace())
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The last process may still be exiting.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Starts a listener in a group of its own, with the pods' limit.
fn limited(
    group: &ControlGroup,
    host: &Namespace,
    arguments: &str,
    with: impl FnOnce(Command) -> Command,
) -> Process {
    let mut process = with(group.netkat(host, &format!("-v -l {PORT} {arguments}"))).spawn();
    process.wait_for_stderr("listening on");
    assert!(process.stderr().contains("of 128 MiB of memory"), "{}", process.stderr());
    process
}

/// Returns a size of /proc/PID/status, in KiB.
fn size(process: &Process, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a size");
    line.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a number")
}

/// `count` clients of the kernel's: each sends as much as the socket takes for `seconds`, or sends
/// and reads nothing. Prints how many connected.
const GREEDY: &str = r#"
import socket, sys, time
host, port, count, seconds, sends = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == 'send'
sockets = []
for i in range(count):
    try: s = socket.create_connection((host, port), timeout=1.5)
    except OSError: break
    s.setblocking(False)
    sockets.append(s)
piece, end = b'x' * 262144, time.time() + seconds
while time.time() < end:
    moved = False
    for s in sockets if sends else []:
        try:
            s.send(piece)
            moved = True
        except OSError: pass
    if not moved: time.sleep(0.05)
print(len(sockets), flush=True)
"#;

fn greedy(from: &Namespace, to: IpAddr, count: usize, what: &str) -> usize {
    let output = from
        .command("python3")
        .args(["-c", GREEDY, &to.to_string(), &PORT.to_string(), &count.to_string(), "3", what])
        .deadline(Duration::from_secs(60))
        .succeed();
    output.text().trim().parse().expect("a number of clients")
}

/// Connections by hand from an address that no host has: each sends `count` single bytes, `step`
/// apart, none of them in order. Prints how many connections were established.
const HOLES: &str = r#"
import random, socket, struct, sys, time
source, host, port, mac, connections, count, step = sys.argv[1:8]
port, connections, count, step = int(port), int(connections), int(count), int(step)
six = ':' in host
family = socket.AF_INET6 if six else socket.AF_INET
a, b = socket.inet_pton(family, source), socket.inet_pton(family, host)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd if six else 0x0800))
wire.bind(('eth0', 0x86dd if six else 0x0800))
wire.settimeout(3)
def total(data):
    data += b'\0' * (len(data) % 2)
    n = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
def send(ours, seq, ack, flags, options=b'', data=b''):
    tcp = struct.pack('!HHIIBBHHH', ours, port, seq & 0xffffffff, ack & 0xffffffff, (5 + len(options) // 4) << 4, flags, 65535, 0, 0)
    tcp += options + data
    tcp = tcp[:16] + struct.pack('!H', total(a + b + struct.pack('!IBBBB', len(tcp), 0, 0, 0, 6) + tcp)) + tcp[18:]
    if six:
        ip = struct.pack('!IHBB', 6 << 28, len(tcp), 6, 64) + a + b
    else:
        ip = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + a + b
        ip = ip[:10] + struct.pack('!H', total(ip)) + ip[12:]
    wire.send(bytes.fromhex(mac) + bytes.fromhex('020077000002') + (b'\x86\xdd' if six else b'\x08\0') + ip + tcp)
made, start = 0, random.randrange(10000, 30000)
for ours in range(start, start + connections):
    send(ours, 1000, 0, 2, bytes([2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1]))
    until = time.time() + 3
    answer = None
    while answer is None and time.time() < until:
        try: frame = wire.recv(65536)
        except TimeoutError: break
        tcp = frame[14 + (40 if six else 20):]
        if frame[14 + (6 if six else 9)] == 6 and struct.unpack('!HH', tcp[:4]) == (port, ours) and tcp[13] == 18:
            answer = struct.unpack('!I', tcp[4:8])[0] + 1
    if answer is None: break
    made += 1
    send(ours, 1001, answer, 16)
    for n in range(count):
        send(ours, 1001 + (n + 1) * step, answer, 16, data=b'x')
        if n % 32 == 31: time.sleep(0.0005)
print(made, flush=True)
"#;

/// The source of connections that no kernel keeps.
fn forged(family: Family) -> IpAddr {
    at(family, "10.77.0.99", "fd77::99")
}

fn holes(
    from: &Namespace,
    family: Family,
    to: IpAddr,
    connections: usize,
    count: usize,
    step: usize,
) -> usize {
    let source = forged(family);
    let mac: String = HOST_MAC.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers = [connections, count, step].map(|number| number.to_string());
    let output = from
        .command("python3")
        .args(["-c", HOLES, &source.to_string(), &to.to_string(), &PORT.to_string(), &mac])
        .args(numbers)
        .deadline(Duration::from_secs(120))
        .succeed();
    output.text().trim().parse().expect("a number of connections")
}

/// Checks that the limit holds and that the next client is served.
fn check(server: &mut Process, what: &str) {
    assert!(server.is_running(), "{what}: it was ended: {}", server.stderr());
    let peak = size(server, "VmHWM:");
    println!("{what}: at most {peak} KiB");
    assert!(peak < PEAK, "{what}: {peak} KiB");
}

macro_rules! group {
    ($test:expr) => {{
        let Some(group) = ControlGroup::new(LIMIT) else {
            return requirements::lacking($test, "no control group with a memory limit can be made");
        };
        group
    }};
}

/// One client is served and silent; the others wait, and send as much as they may.
#[test]
fn a_backlog_of_senders_stays_within_a_pods_memory() {
    lab!("python3");
    for family in Family::ALL {
        let group = group!("a_backlog_of_senders_stays_within_a_pods_memory");
        let pair = Pair::new();
        let mut server = limited(&group, &pair.host, "-k", |c| c.input(Input::Open));
        let came = greedy(&pair.peer, pair.host_address(family), 400, "send");
        assert!(came >= 257, "{came} clients");
        check(&mut server, "400 clients that send");
        let kept = size(&server, "RssAnon:");
        // The waiting clients have gone: each is accepted and read to its end, and its memory is
        // freed.
        server.wait_until("memory to be given back", |server| size(server, "RssAnon:") < kept.min(12 << 10));
    }
}

/// The served client makes progress while 256 others wait with full windows.
#[test]
fn a_served_client_is_fast_while_others_wait() {
    lab!("python3", "socat");
    let group = group!("a_served_client_is_fast_while_others_wait");
    let pair = Pair::new();
    let mut server = limited(&group, &pair.host, "-k", |c| c.input(Input::Open));
    let at = pair.host_address(Family::V4);
    let mut served = Netcat::Socat.connect(&pair.peer, at, PORT).input(Input::Open).spawn();
    served.write(b"first");
    server.wait_until("the first client", |server| server.received() == 5);
    let (mut time, mut waiting) = (Duration::ZERO, 0);
    let piece = vec![7; 64 << 20];
    thread::scope(|scope| {
        let others = scope.spawn(|| greedy(&pair.peer, at, 256, "send"));
        thread::sleep(Duration::from_secs(2));
        let start = Instant::now();
        served.write(&piece);
        server.wait_until("its data", |server| server.received() == 5 + piece.len() as u64);
        time = start.elapsed();
        waiting = others.join().expect("clients");
    });
    assert_eq!(waiting, 256);
    println!("64 MiB in {time:?} while others wait");
    // 100 ms suffice on an idle machine.
    assert!(time < Duration::from_secs(10), "{time:?}");
    check(&mut server, "clients that wait");
}

/// All clients are served, but standard output blocks.
#[test]
fn a_blocked_output_stays_within_a_pods_memory() {
    lab!("python3");
    for family in Family::ALL {
        let group = group!("a_blocked_output_stays_within_a_pods_memory");
        let pair = Pair::new();
        // A pipe that is open and not read.
        let (unread, pipe) = nix::unistd::pipe().expect("a pipe");
        let mut server =
            limited(&group, &pair.host, "-k --max-conns 1000", |c| c.input(Input::Open).stdout(pipe.into()));
        let came = greedy(&pair.peer, pair.host_address(family), 400, "send");
        assert!(came >= 100, "{came} clients");
        check(&mut server, "clients that send to a blocked output");
        drop(unread);
    }
}

/// All clients receive data that none of them reads.
#[test]
fn clients_that_do_not_read_stay_within_a_pods_memory() {
    lab!("python3");
    for family in Family::ALL {
        let group = group!("clients_that_do_not_read_stay_within_a_pods_memory");
        let pair = Pair::new();
        let zeros = Input::File("/dev/zero".into());
        let mut server = limited(&group, &pair.host, "-k --max-conns 200", |c| c.input(zeros));
        let came = greedy(&pair.peer, pair.host_address(family), 200, "wait");
        assert!(came >= 50, "{came} clients");
        check(&mut server, "clients that do not read");
    }
}

/// Single bytes with holes between them, adjacent and far apart, in waiting connections and in a
/// served one.
#[test]
fn holes_stay_within_a_pods_memory() {
    lab!("python3");
    for family in Family::ALL {
        let group = group!("holes_stay_within_a_pods_memory");
        let pair = Pair::new();
        let mut server = limited(&group, &pair.host, "-k", |c| c.input(Input::Open));
        let idle = size(&server, "VmHWM:");
        let at = pair.host_address(family);
        // A return route of the forged source leads to the peer, which ignores packets for others.
        pair.host.ip(&format!(
            "neigh replace {} lladdr {} dev eth0 nud permanent",
            forged(family),
            MacAddr(PEER_MAC)
        ));
        for (connections, count, step) in [(100, 20, 3200), (100, 400, 2)] {
            let made = holes(&pair.peer, family, at, connections, count, step);
            assert_eq!(made, connections);
        }
        check(&mut server, "holes");
        let grown = size(&server, "VmHWM:") - idle;
        assert!(grown < 12 << 10, "it grew by {grown} KiB");
    }
}
