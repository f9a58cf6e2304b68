//! The static binary of scripts/package-static: its properties, and its work where there is nothing
//! else.
//!
//! Tests the file that NETKAT_STATIC names (scripts/test builds one for this), else the one in target/dist; says so
//! loudly where there is none. The size is the release's: scripts/package-static itself refuses a larger one.
mod images;
#[path = "../support/namespace.rs"]
mod namespace;
mod release;
#[path = "../support/skipped.rs"]
mod skipped;

use caps::{CapSet, Capability};
use namespace::Namespace;
use nix::sched::{CloneFlags, unshare};
use skipped::skipped;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

const HOST: [&str; 2] = ["10.9.0.1", "fd00:9::1"];
const PEER: [&str; 2] = ["10.9.0.2", "fd00:9::2"];
const THREE: [Capability; 3] = [Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN, Capability::CAP_BPF];
const MIB: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// Returns the binary under test; without one, reports the skip.
fn binary() -> Option<PathBuf> {
    let built = || {
        let dist = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dist")).ok()?;
        dist.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("-linux-musl"))
    };
    let found = std::env::var_os("NETKAT_STATIC").map(PathBuf::from).or_else(built);
    if found.is_none() {
        skipped("there is no static binary: run scripts/package-static");
    }
    found
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn is_one_file_that_needs_no_library_and_no_interpreter() {
    let Some(binary) = binary() else { return };
    let kind = output(Command::new("file").arg("-b").arg(&binary));
    assert!(kind.contains("static-pie linked") && kind.contains("stripped"), "{kind}");
    let headers = output(Command::new("readelf").args(["-W", "-d", "-l"]).arg(&binary));
    assert!(!headers.contains("NEEDED") && !headers.contains("INTERP"), "{headers}");
}

/// Tables for landing pads: a build whose panics abort has next to none.
#[test]
fn its_panics_unwind() {
    let Some(binary) = binary() else { return };
    let sections = output(Command::new("readelf").args(["-W", "-S"]).arg(&binary));
    let table = sections.lines().find(|line| line.contains(".gcc_except_table")).expect("a table");
    let size = table.split_whitespace().rev().nth(5).and_then(|hex| usize::from_str_radix(hex, 16).ok());
    assert!(size.is_some_and(|size| size > 16 * 1024), "{table}");
}

#[test]
fn holds_no_path_of_the_machine_that_built_it() {
    let Some(binary) = binary() else { return };
    let bytes = fs::read(&binary).expect("the binary");
    let variable = |name| std::env::var(name).ok();
    let mut paths = vec![env!("CARGO_MANIFEST_DIR").to_owned()];
    paths.extend(["HOME", "CARGO_HOME", "RUSTUP_HOME"].into_iter().filter_map(variable));
    for path in paths.iter().map(|path| format!("{}/", path.trim_end_matches('/'))).filter(|p| p.len() > 1) {
        let at = bytes.windows(path.len()).position(|window| window == path.as_bytes());
        let context = at.map(|at| String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 100)]));
        assert_eq!(context, None, "{path} is in the binary");
    }
}

/// Two namespaces with a veth pair between them, and a folder that holds nothing but netkat.
struct Lab {
    host: Namespace,
    peer: Namespace,
    root: PathBuf,
}

impl Lab {
    /// Returns `None` where the machine lacks a requirement, and reports the skip.
    fn new(label: &str) -> Option<Self> {
        let binary = binary()?;
        if !nix::unistd::geteuid().is_root() {
            skipped("needs root");
            return None;
        }
        let lab = Self {
            host: Namespace::new("host"),
            peer: Namespace::new("peer"),
            root: Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{label}", std::process::id())),
        };
        fs::create_dir_all(&lab.root).expect("a folder");
        fs::copy(&binary, lab.root.join("netkat")).expect("a copy of the binary");
        lab.host.join("eth0", &lab.peer, "eth0");
        for (space, addresses) in [(&lab.host, HOST), (&lab.peer, PEER)] {
            space.ip("link set eth0 up");
            space.ip(&format!("address add {}/24 dev eth0", addresses[0]));
            space.ip(&format!("address add {}/64 dev eth0 nodad", addresses[1]));
        }
        Some(lab)
    }

    /// Prepares netkat, alone in its folder, by way of programs that stay outside ("strace -f").
    fn netkat(&self, before: &str, arguments: &str) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.host.name()]).args(before.split_whitespace());
        command.arg("chroot").arg(&self.root).arg("/netkat").args(arguments.split_whitespace());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running(child.unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    fn host_name(&self) -> &str {
        self.host.name()
    }

    /// Runs `work` in the peer's namespace.
    fn at_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.peer.inside(work)
    }

    /// Runs the container image's files as a container would: as nobody, with three capabilities in the bounding set.
    fn in_image(&self, arguments: &str) -> Running {
        self.host.inside(|| {
            unshare(CloneFlags::CLONE_FS).expect("a root folder of this thread's own");
            nix::unistd::chroot(&self.root).and_then(|()| nix::unistd::chdir("/")).expect("the image's root");
            for capability in caps::runtime::thread_all_supported() {
                if !THREE.contains(&capability) {
                    caps::drop(None, CapSet::Bounding, capability).expect("a smaller bounding set");
                }
            }
            let mut command = Command::new("/usr/bin/netkat");
            command.args(arguments.split_whitespace()).uid(65532).gid(65532);
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            Running(child.unwrap_or_else(|e| panic!("{command:?}: {e}")))
        })
    }

    fn listener(&self, address: &str) -> (TcpListener, u16) {
        let listener = self.at_peer(|| TcpListener::bind((address, 0))).expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        (listener, port)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A netkat that is killed on drop.
struct Running(Child);

impl Running {
    fn write(&mut self, bytes: &[u8]) {
        self.0.stdin.take().expect("its input").write_all(bytes).expect("writing to netkat");
    }

    /// Reads the output until a line holds `word`; the rest stays readable.
    fn wait_for(&mut self, word: &str) -> BufReader<ChildStderr> {
        let mut errors = BufReader::new(self.0.stderr.take().expect("its errors"));
        let mut said = String::new();
        while !said.contains(word) {
            assert_ne!(errors.read_line(&mut said).expect("its errors"), 0, "netkat ended: {said}");
        }
        errors
    }

    fn read(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.stdout.take().expect("its output").read_to_end(&mut bytes).expect("netkat's output");
        bytes
    }

    fn succeed(mut self) {
        let status = self.0.wait().expect("its status");
        let mut errors = String::new();
        if let Some(mut pipe) = self.0.stderr.take() {
            let _ = pipe.read_to_string(&mut errors);
        }
        assert!(status.success(), "{status}: {errors}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn payload() -> Vec<u8> {
    (0..MIB).map(|n| ((n * n) >> 7) as u8).collect()
}

/// Accepts a client and returns its bytes, to their end.
fn receive(listener: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("a client");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("the client's bytes");
    got
}

#[test]
fn connects_from_an_empty_chroot() {
    let Some(lab) = Lab::new("connect") else { return };
    connects(&lab, |arguments| lab.netkat("", arguments));
}

#[test]
fn listens_in_an_empty_chroot() {
    let Some(lab) = Lab::new("listen") else { return };
    listens(&lab, |arguments| lab.netkat("", arguments));
}

#[test]
fn sniffs_in_an_empty_chroot() {
    let Some(lab) = Lab::new("sniff") else { return };
    sniffs(&lab, |arguments| lab.netkat("", arguments));
}

/// scripts/package makes the layer of the container image that packaging/Dockerfile describes.
#[test]
fn does_it_all_from_the_image_layer_as_nobody_with_three_capabilities() {
    let Some(lab) = Lab::new("image") else { return };
    let Some(binary) = binary() else { return };
    let dist = lab.root.with_extension("dist");
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package");
    let layer =
        output(Command::new(package).arg("layer").env("NETKAT_STATIC", binary).env("NETKAT_DIST", &dist));
    fs::remove_file(lab.root.join("netkat")).expect("an empty root");
    let unpack = ["--extract", "--xattrs", "--xattrs-include=security.capability", "--file", layer.trim()];
    output(Command::new("tar").args(unpack).arg("--directory").arg(&lab.root));
    fs::remove_dir_all(&dist).expect("removing the layer");
    connects(&lab, |arguments| lab.in_image(arguments));
    listens(&lab, |arguments| lab.in_image(arguments));
    sniffs(&lab, |arguments| lab.in_image(arguments));
}

fn connects(lab: &Lab, netkat: impl Fn(&str) -> Running) {
    for peer in PEER {
        let (listener, port) = lab.listener(peer);
        let mut netkat = netkat(&format!("-n -w 10 {peer} {port}"));
        netkat.write(&payload());
        assert!(receive(&listener) == payload(), "{peer}: other bytes arrived");
        netkat.succeed();
    }
}

fn listens(lab: &Lab, netkat: impl Fn(&str) -> Running) {
    for host in HOST {
        let mut netkat = netkat(&format!("-n -v -l {host} 5000"));
        let _errors = netkat.wait_for("listening on");
        let address = SocketAddr::new(host.parse::<IpAddr>().expect("an address"), 5000);
        let mut stream =
            lab.at_peer(|| TcpStream::connect_timeout(&address, DEADLINE)).expect("a connection");
        stream.write_all(&payload()).expect("sending");
        drop(stream);
        drop(netkat.0.stdin.take());
        assert!(netkat.read() == payload(), "{host}: other bytes arrived");
        netkat.succeed();
    }
}

fn sniffs(lab: &Lab, netkat: impl Fn(&str) -> Running) {
    for (host, peer) in HOST.into_iter().zip(PEER) {
        let mut netkat = netkat(&format!("-n --sniff -i eth0 {peer} 6000"));
        let mut lines = BufReader::new(netkat.0.stdout.take().expect("its output"));
        let socket = lab.at_peer(|| UdpSocket::bind((peer, 6000))).expect("a socket");
        let line = thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut line = String::new();
                lines.read_line(&mut line).map(|_| line)
            });
            while !reader.is_finished() {
                let _ = socket.send_to(b"seen?", (host, 6001));
                thread::sleep(Duration::from_millis(50));
            }
            reader.join().expect("the reader").expect("a line")
        });
        assert!(line.contains(peer) && line.contains(host), "{line:?}");
    }
}

#[test]
fn opens_no_file_of_the_system_with_numeric_addresses() {
    let Some(lab) = Lab::new("strace") else { return };
    let log = lab.root.join("log");
    let trace = format!("strace -f -qq -e trace=%file -o {}", log.display());
    let (listener, port) = lab.listener(PEER[0]);
    let mut netkat = lab.netkat(&trace, &format!("-n {} {port}", PEER[0]));
    netkat.write(b"hello");
    assert_eq!(receive(&listener), b"hello");
    netkat.succeed();
    let calls = fs::read_to_string(&log).expect("strace's log");
    // Earlier calls are ip's, chroot's and the loader's.
    let (_, calls) = calls.split_once("execve(\"/netkat\"").expect("netkat's start");
    let foreign: Vec<_> = calls
        .lines()
        .skip(1)
        .filter_map(|line| line.split('"').nth(1).filter(|path| !path.is_empty()).map(|path| (path, line)))
        .filter(|(path, _)| !["/proc", "/sys"].iter().any(|tree| Path::new(path).starts_with(tree)))
        .collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
}

#[test]
fn resolves_names_with_a_resolv_conf_in_the_chroot() {
    let Some(lab) = Lab::new("names") else { return };
    fs::create_dir(lab.root.join("etc")).expect("a folder");
    fs::write(lab.root.join("etc/resolv.conf"), format!("nameserver {}\n", PEER[0])).expect("resolv.conf");
    let server = lab.at_peer(|| UdpSocket::bind((PEER[0], 53))).expect("port 53");
    // Detached: it ends with the test program.
    thread::spawn(move || answer_queries(&server));
    let (listener, port) = lab.listener(PEER[0]);
    let mut netkat = lab.netkat("", &format!("-w 10 peer.example {port}"));
    netkat.write(b"hello");
    assert_eq!(receive(&listener), b"hello");
    netkat.succeed();
}

/// Starts a name server by which every name has the peer's IPv4 address, and nothing else (RFC
/// 1035, section 4).
fn answer_queries(server: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((len, client)) = server.recv_from(&mut query) {
        let mut reply = query[..len].to_vec();
        // A response, with recursion; one question, no other records than the answer's.
        reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        if reply.ends_with(&[0, 1, 0, 1]) {
            reply[7] = 1;
            // The name by reference, type A, class IN, one minute to live, four bytes.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 9, 0, 2]);
        }
        let _ = server.send_to(&reply, client);
    }
}
