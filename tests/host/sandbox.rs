//! Powers of a process in the sandbox, by trying: this test's program, started once more, enters
//! the sandbox.
use netkat::{
    host::interface,
    process::sandbox::{Profile, Sandbox},
};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, SockFlag, SockType, socket},
    },
    unistd::{Pid, geteuid, getppid, setuid},
};
use std::{
    env,
    fs::{self, File},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crate::lab::skipped;

const TASK: &str = "NETKAT_TEST_TASK";
const FILE: &str = "NETKAT_TEST_FILE";

/// Runs [`inside`] in a process of its own.
fn inside_with(task: &str, refusal: &str) -> process::Output {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file = env::temp_dir().join(format!("netkat-sandbox-{}-{number}", process::id()));
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "sandbox::inside", "--ignored", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .env(FILE, &file)
        .env("NETKAT_SECCOMP", refusal)
        .stdin(Stdio::null())
        .output()
        .expect("started");
    // The test removes the rest.
    let _ = fs::remove_file(file);
    output
}

#[test]
#[ignore = "is run by the others, in processes of their own"]
fn inside() {
    let task = match env::var(TASK).as_deref() {
        Ok("relay") => Profile::Relay,
        Ok("sniff") => Profile::Sniff,
        Ok("replay") => Profile::Replay,
        _ => Profile::Processes,
    };
    let path = PathBuf::from(env::var_os(FILE).expect("a path"));
    let mut open = File::create(&path).expect("a file");
    let parent = getppid();
    Sandbox { profile: task, enabled: true }.enter(&[]).expect("entered");

    let socket = |family| socket(family, SockType::Datagram, SockFlag::empty(), None).is_ok();
    let tries = [
        ("open file written", open.write_all(b"x").is_ok()),
        ("memory", vec![1u8; 64 << 20].iter().all(|byte| *byte == 1)),
        ("netlink", interface::by_name("lo").is_ok()),
        ("file read", File::open("/etc/passwd").is_ok()),
        ("file made", File::create("/etc/netkat-sandbox").is_ok()),
        ("own file removed", fs::remove_file(&path).is_ok()),
        ("folder listed", fs::read_dir("/").is_ok()),
        ("program run", Command::new("/bin/true").status().is_ok()),
        ("thread", thread::Builder::new().spawn(|| ()).is_ok()),
        ("UDP socket", socket(AddressFamily::Inet)),
        ("local socket", socket(AddressFamily::Unix)),
        ("packet socket", socket(AddressFamily::Packet)),
        ("root again", setuid(0.into()).is_ok()),
        ("parent signalled", kill(parent, Signal::SIGCONT).is_ok()),
        ("init signalled", kill(Pid::from_raw(1), None).is_ok()),
    ];
    let did: Vec<&str> = tries.iter().filter(|(_, done)| *done).map(|(what, _)| *what).collect();
    println!("\ndid: {}", did.join(", "));
}

/// The attempts that succeeded in the sandbox.
fn did(task: &str) -> String {
    let output = inside_with(task, "refuse");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{task}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().find_map(|line| line.strip_prefix("did: ")).expect("a report").to_owned()
}

#[test]
fn a_run_can_use_what_is_open_and_nothing_else() {
    if !geteuid().is_root() {
        return skipped("needs root to give up");
    }
    assert_eq!(did("relay"), "open file written, memory, netlink");
    assert_eq!(did("sniff"), "open file written, memory, netlink");
    assert_eq!(did("replay"), "open file written, memory");
}

/// Without the filter and Landlock, the rights of user `nobody` remain, or here those of the user
/// who called sudo.
#[test]
fn processes_may_be_run_where_they_are_the_task() {
    if !geteuid().is_root() {
        return skipped("needs root to give up");
    }
    let did = did("processes");
    for possible in ["file read", "program run", "thread", "UDP socket", "local socket"] {
        assert!(did.contains(possible), "{possible} is not among: {did}");
    }
    assert!(!did.contains("packet socket"), "{did}");
}

/// Finds the system call that a list lacks.
#[test]
fn a_refused_call_is_deadly_where_that_is_asked_for() {
    if !geteuid().is_root() {
        return skipped("needs root to give up");
    }
    let output = inside_with("relay", "kill");
    assert_eq!(output.status.signal(), Some(Signal::SIGSYS as i32), "{output:?}");
}
