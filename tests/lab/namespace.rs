//! Network namespaces that a test makes, and that go with it whatever happens.
//!
//! Names carry the process id and a counter: "netkat-lab-PID-N-label". The first one made sweeps up what dead
//! runs left behind (SIGKILL runs no destructors).
use crate::process::{Command, Output};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

const PREFIX: &str = "netkat-lab-";
const FOLDER: &str = "/run/netns";

/// A network namespace with its lo up. Dropping it kills what still runs inside and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new(label: &str) -> Self {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        Command::new("ip").args(["netns", "add", &name]).succeed();
        let namespace = Self { name };
        // Link-local addresses that are usable at once: no neighbour is asked for before.
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0");
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn file(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// A program that will run in this namespace.
    pub fn command(&self, program: &str) -> Command {
        Command::inside(&self.file(), program)
    }

    /// Runs a program with arguments that hold no spaces; it has to succeed.
    pub fn run(&self, line: &str) -> Output {
        self.words(line).succeed()
    }

    /// Runs `ip` here.
    pub fn ip(&self, arguments: &str) -> Output {
        Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()).succeed()
    }

    /// The same as [`Namespace::run`], not yet run.
    pub fn words(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        self.command(words.next().expect("a program")).args(words)
    }

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

/// Removes the namespaces of lab runs whose process is dead.
fn sweep() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).run();
    for pid in pids.text().lines().filter_map(|l| l.trim().parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
    }
    Command::new("ip").args(["netns", "del", name]).run();
}
