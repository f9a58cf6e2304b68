//! The program under test.
use super::{
    namespace::Namespace,
    process::{Command, Process},
};

/// Path of the program that cargo built.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_netkat");

/// The ways in which netkat keeps the kernel from its packets: values of --guard.
pub const GUARDS: [&str; 3] = ["tcx", "clsact", "nft"];
/// The ways by eBPF programs, which IPv4 over lo and commands need.
pub const PROGRAM_GUARDS: [&str; 2] = ["tcx", "clsact"];

/// Prepares netkat in a namespace, with arguments that hold no spaces.
pub fn netkat(namespace: &Namespace, arguments: &str) -> Command {
    namespace.command(PROGRAM).args(arguments.split_whitespace())
}

/// Starts a netkat that listens, and returns once it does. `arguments` follow `-l`.
pub fn listening(namespace: &Namespace, arguments: &str, with: impl FnOnce(Command) -> Command) -> Process {
    let mut process = with(netkat(namespace, &format!("-v -l {arguments}"))).spawn();
    process.wait_for_stderr("listening on");
    process
}

/// Prepares a command that netkat runs in a namespace; `flags` are netkat's and hold no spaces.
pub fn running<A: AsRef<std::ffi::OsStr>>(
    namespace: &Namespace,
    flags: &str,
    words: impl IntoIterator<Item = A>,
) -> Command {
    netkat(namespace, &format!("{flags} --run --")).args(words)
}
