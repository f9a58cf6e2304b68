//! Files of one run's own: system files as a container has them (/etc/hosts, /etc/resolv.conf), and copies of netkat.
use super::{namespace::Namespace, netkat::PROGRAM, process::Command};
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// A text that stands for a file of the system.
pub struct SystemFile {
    path: PathBuf,
    stands_for: &'static str,
}

impl SystemFile {
    pub fn new(stands_for: &'static str, text: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("system-file-{}-{number}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).expect("the cache folder");
        fs::write(&path, text).expect("a file");
        Self { path, stands_for }
    }

    /// Prepares netkat with this file, in a mount namespace of its own.
    pub fn netkat(&self, namespace: &Namespace, arguments: &str) -> Command {
        self.program(namespace).arg(PROGRAM).args(arguments.split_whitespace())
    }

    /// Prepares netkat with this file and the variable by which kubelet tells a container where the API server is.
    pub fn netkat_in_pod(&self, namespace: &Namespace, arguments: &str) -> Command {
        let program = self.program(namespace).args(["env", "KUBERNETES_SERVICE_HOST=10.96.0.1", PROGRAM]);
        program.args(arguments.split_whitespace())
    }

    fn program(&self, namespace: &Namespace) -> Command {
        let script = format!("mount --bind \"$0\" {} && exec \"$@\"", self.stands_for);
        namespace.command("unshare").args(["-m", "--", "sh", "-c", &script]).arg(&self.path)
    }
}

impl Drop for SystemFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A copy of netkat that every user can run, and that may be given file capabilities.
pub struct ProgramCopy(pub PathBuf);

impl ProgramCopy {
    pub fn new(label: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netkat-lab-{}-{label}", std::process::id()));
        // Another process copies: a child of another test could still hold a file that this process had
        // open for writing, and exec would fail (ETXTBSY).
        Command::new("cp").arg(PROGRAM).arg(&path).succeed();
        Self(path)
    }
}

impl Drop for ProgramCopy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
