//! Requirements of a test on the machine, and the line on stderr when they are not met.
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Finds a program in the folders that an ordinary user's PATH lacks, then in PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A version manager's shim in front of /usr/bin/python3 costs a fifth of a second at each start.
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Returns whether the test can run here: as root, and with all these programs. Otherwise says why
/// not, past libtest's capture, so that a run without tests does not look like a success.
pub fn met(test: &str, programs: &[&str]) -> bool {
    let mut lacking = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        lacking.push("root".to_owned());
    }
    if !Path::new("/proc/self/ns/net").exists() {
        lacking.push("network namespaces".to_owned());
    }
    lacking.extend(
        ["ip", "nsenter"].iter().chain(programs).filter(|p| program(p).is_none()).map(|p| p.to_string()),
    );
    lacking.is_empty() || skipped(test, &format!("needs {}", lacking.join(", ")))
}

/// Says that a test did not run because this kernel lacks its subject, which no set-up can cure.
pub fn lacking(test: &str, what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {what}");
}

/// Says that a test did not run; fails instead where the environment demands the lab.
fn skipped(test: &str, why: &str) -> bool {
    let demanded = std::env::var_os("NETKAT_LAB").is_some_and(|v| v == "required");
    assert!(!demanded, "{test}: {why} (NETKAT_LAB=required)");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    false
}

/// Returns from the test, loudly, unless the machine has root and the programs named.
macro_rules! lab {
    ($($program:expr),* $(,)?) => {{
        fn here() {}
        let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
        if !$crate::support::requirements::met(test, &[$($program),*]) {
            return;
        }
    }};
}
pub(crate) use lab;
