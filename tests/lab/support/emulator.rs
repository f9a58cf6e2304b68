//! The link emulator as the lab starts it: a namespace between two others.
use super::{
    namespace::Namespace,
    process::{Command, DEADLINE, Input, Process},
    topology::veth,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::SystemTime,
};

/// Two namespaces' eth0, joined by an impaired path, until the value is dropped.
pub struct Emulator {
    process: Process,
    _middle: Namespace,
}

impl Emulator {
    /// Joins `a` and `b` by a path with the emulator's arguments ("--both loss=1% --seed 7").
    pub fn join(a: &Namespace, b: &Namespace, arguments: &str) -> Self {
        let middle = Namespace::new("path");
        for (end, name) in [(a, "left"), (b, "right")] {
            veth(end, "eth0", &middle, name);
            // The emulator's ends only carry frames: no IPv6 messages of their own.
            middle.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1");
        }
        let program = program().to_string_lossy().into_owned();
        let mut process = middle
            .command(&program)
            .args(["left", "right"])
            .args(arguments.split_whitespace())
            .input(Input::Open)
            .spawn();
        process.wait_for_stdout("ready");
        Self { process, _middle: middle }
    }

    /// Stops the emulator. Returns the counters of both directions, first `a`'s to `b`.
    pub fn finish(mut self) -> String {
        self.process.close_stdin();
        self.process.wait(DEADLINE).text()
    }
}

/// Path of the emulator's program. `cargo test` builds examples; `cargo test --test lab` alone does
/// not, so an absent or old one is built here.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("this program's path");
        // target/PROFILE/deps/lab-HASH
        let profile = test.ancestors().nth(2).expect("cargo's layout");
        let program = profile.join("examples/link-emulator");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/emulator");
        let newest = fs::read_dir(sources).expect("the emulator's sources").flatten();
        let newest = newest.filter_map(|e| e.metadata().ok()?.modified().ok()).max();
        let built = fs::metadata(&program).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if newest.is_some_and(|n| n > built) {
            let profile = profile.file_name().and_then(|n| n.to_str()).expect("a profile");
            let profile = if profile == "debug" { "dev" } else { profile };
            Command::new(std::env::var("CARGO").unwrap_or("cargo".to_owned()))
                .args(["build", "--quiet", "--example", "link-emulator", "--profile", profile])
                .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
                .deadline(std::time::Duration::from_secs(300))
                .succeed();
        }
        program
    })
}
