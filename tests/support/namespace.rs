//! Builds network namespaces for all tests, and removes them however a test ends.
//!
//! Names carry the process id and a counter: "netkat-lab-PID-N-label". The first namespace of a run removes
//! those of dead runs (SIGKILL runs no destructors).
#![allow(dead_code, reason = "no test uses all of it")]

use crate::skipped::skipped;
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{SIGKILL, kill},
    unistd::{Pid, geteuid},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

const PREFIX: &str = "netkat-lab-";
const FOLDER: &str = "/run/netns";

/// A network namespace with its lo up. Dropping it kills the processes inside and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace; `label` is the end of its name.
    pub fn new(label: &str) -> Self {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        // Makes link-local addresses usable at once: the kernel asks no neighbour for them.
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0");
        namespace.ip("link set lo up");
        namespace
    }

    /// Makes a namespace, or says on stderr that the test is skipped and returns `None` if this process is not root.
    pub fn available(label: &str) -> Option<Self> {
        if geteuid().is_root() {
            return Some(Namespace::new(label));
        }
        skipped("needs root for network namespaces");
        None
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file that stands for the namespace.
    pub fn file(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs `ip` here and returns what it prints. The arguments hold no spaces; it has to succeed.
    pub fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Runs `ip` here where the kernel may lack the feature. Returns its stdout, or its stderr if it fails.
    pub fn try_ip(&self, arguments: &str) -> Result<String, String> {
        try_ip(&format!("-n {} {arguments}", self.name))
    }

    /// Joins this namespace with another by a veth pair whose ends have these names, both down.
    pub fn join(&self, name: &str, other: &Namespace, other_name: &str) {
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {}", other.name));
    }

    /// Writes a setting of this namespace, as "net.ipv4.ip_forward".
    pub fn sysctl(&self, name: &str, value: &str) {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        self.inside(|| fs::write(&file, value)).unwrap_or_else(|e| panic!("{name} = {value}: {e}"));
    }

    /// Runs `work` on a thread that is in this namespace. Sockets opened there stay there and can be used from
    /// anywhere.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.file()).expect("the namespace's file");
        let result = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work()
            });
            thread.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces of runs whose process is dead.
fn sweep() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

/// Removes a namespace. Ignores errors: a test that has failed already must show its own reason.
fn remove(name: &str) {
    let pids = try_ip(&format!("netns pids {name}")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        let _ = kill(Pid::from_raw(pid), SIGKILL);
    }
    let _ = try_ip(&format!("netns del {name}"));
}

fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"))
}

fn try_ip(arguments: &str) -> Result<String, String> {
    let run = Command::new("ip").args(arguments.split_whitespace()).output();
    let Output { status, stdout, stderr } = run.map_err(|error| error.to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
}
