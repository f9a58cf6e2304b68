//! A change of identity where the kernel's answers are not true: this test's program, started once
//! more, enters the sandbox under a filter that pretends system calls.
use netkat::process::sandbox::{Profile, Sandbox};
use nix::unistd::{Gid, geteuid, setgroups};
use seccompiler::{SeccompAction, SeccompFilter};
use std::{
    collections::BTreeMap,
    env,
    process::{Command, Output},
};

use crate::lab::skipped;

const PRETENDED: &str = "NETKAT_TEST_PRETENDED";
const TASK: &str = "NETKAT_TEST_TASK";

/// System calls that change an identity, by name and number.
fn call(name: &str) -> i64 {
    match name {
        "setgroups" => libc::SYS_setgroups,
        "setresgid" => libc::SYS_setresgid,
        "setresuid" => libc::SYS_setresuid,
        other => panic!("{other} changes no identity"),
    }
}

#[test]
#[ignore = "is run by the others, in processes of their own"]
fn inside() {
    let pretended = env::var(PRETENDED).expect("a system call");
    // One capability to lose.
    setgroups(&[Gid::from_raw(54_323)]).expect("a supplementary group");
    let rules = BTreeMap::from([(call(&pretended), Vec::new())]);
    // A pretended success: the call returns 0 and has done nothing.
    let (rest, pretend) = (SeccompAction::Allow, SeccompAction::Errno(0));
    let arch = env::consts::ARCH.try_into().expect("an architecture with filters");
    let filter: seccompiler::BpfProgram =
        SeccompFilter::new(rules, rest, pretend, arch).and_then(TryInto::try_into).expect("a filter");
    seccompiler::apply_filter(&filter).expect("applied");
    let task = if env::var(TASK).as_deref() == Ok("processes") { Profile::Processes } else { Profile::Relay };
    match (Sandbox { profile: task, enabled: true }.enter(&[])) {
        Ok(()) => println!("\nresult: entered"),
        Err(error) => println!("\nresult: {error}"),
    }
}

fn with(pretended: &str, task: &str) -> String {
    let Output { status, stdout, stderr } = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "identity::inside", "--ignored", "--nocapture", "--test-threads=1"])
        .envs([(PRETENDED, pretended), (TASK, task), ("SUDO_UID", "54321"), ("SUDO_GID", "54322")])
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let result = text.lines().find_map(|line| line.strip_prefix("result: ")).map(str::to_owned);
    result.unwrap_or_else(|| panic!("{status}: {text}{}", String::from_utf8_lossy(&stderr)))
}

/// Rootless image builders use such filters, so that package managers see root.
#[test]
fn an_identity_that_was_only_pretended_is_noticed() {
    if !geteuid().is_root() {
        return skipped("needs root to give up");
    }
    for task in ["relay", "processes"] {
        for (call, what) in
            [("setgroups", "the list of groups"), ("setresgid", "the group"), ("setresuid", "the user")]
        {
            let result = with(call, task);
            let expected = format!("cannot become user 54321: the kernel reported success, but {what} is ");
            assert!(result.starts_with(&expected), "{task}, {call}: {result}");
        }
    }
}
