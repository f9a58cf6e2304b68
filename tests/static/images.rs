//! The images of packaging/Dockerfile: built by buildah on a base of this machine's programs, run by podman with three
//! capabilities and a read-only root, as root and as a user.
use crate::{Lab, Running, binary, connects, listens, output, skipped::skipped, sniffs};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const PROFILE: &str = "packaging/kubernetes/netkat-run-seccomp.json";
/// Programs of the base that the Dockerfile runs, or that the image with a shell offers.
const PROGRAMS: [&str; 8] = ["bash", "cat", "chmod", "curl", "id", "ip", "setcap", "sleep"];

/// A storage of images and containers of this test's own.
struct Storage(PathBuf);

impl Storage {
    /// Returns `None` where the machine lacks the tools, and reports the skip.
    fn new() -> Option<Self> {
        for tool in ["buildah", "podman", "runc"] {
            if !Path::new("/usr/bin").join(tool).exists() && !Path::new("/usr/sbin").join(tool).exists() {
                skipped(&format!("needs {tool}: run scripts/setup"));
                return None;
            }
        }
        // podman takes no path of more than 50 characters.
        let folder = std::env::temp_dir().join(format!("netkat-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Some(Self(folder))
    }

    /// Prepares buildah or podman on this storage.
    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.arg("--root").arg(self.0.join("root")).arg("--runroot").arg(self.0.join("run"));
        command.args(["--storage-driver", "vfs"]);
        if name == "podman" {
            command
                .args(["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--tmpdir"])
                .arg(self.0.join("tmp"));
        }
        command
    }

    /// Makes the base in Alpine's place. Its apk installs nothing.
    fn make_base(&self) {
        let root = self.0.join("base");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "sbin", "usr/bin"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        for program in PROGRAMS {
            let path = output(Command::new("sh").args(["-c", &format!("command -v {program}")]));
            let libraries = output(Command::new("ldd").arg(path.trim()));
            let files = libraries.split_whitespace().filter(|word| word.starts_with('/'));
            for file in files.chain([path.trim()]) {
                let to = root.join(file.trim_start_matches('/'));
                fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
                fs::copy(file, to).expect("a copy");
            }
        }
        fs::copy("/bin/bash", root.join("bin/sh")).expect("a shell");
        std::os::unix::fs::symlink("/bin/sh", root.join("bin/ash")).expect("a shell");
        fs::copy("/bin/true", root.join("sbin/apk")).expect("a program");
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a file");
        fs::write(self.0.join("Basefile"), "FROM scratch\nCOPY base /\n").expect("a file");
        let build = ["build", "--isolation", "chroot", "-q", "-t", "localhost/base", "-f"];
        output(self.tool("buildah").args(build).arg(self.0.join("Basefile")).arg(&self.0));
    }

    /// Builds an image of the Dockerfile.
    fn build(&self, target: &str, context: &str) {
        let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
        let mut build = self.tool("buildah");
        build.args([
            "build",
            "--isolation",
            "chroot",
            "--platform",
            platform,
            "--target",
            target,
            "-t",
            target,
        ]);
        for argument in ["ALPINE=localhost/base", "VERSION=1.2.3", "REVISION=abc"] {
            build.args(["--build-arg", argument]);
        }
        output(build.args(["-f", &format!("{HERE}/packaging/Dockerfile"), context]));
    }

    /// Prepares podman run in the lab's host, with the flags that docs and Dockerfile name.
    fn run(&self, lab: &Lab, more: &[&str]) -> Command {
        let mut run = self.tool("podman");
        run.args(["run", "--rm", "-i", "--read-only", "--cap-drop", "all"]);
        // podman's default limits may be above this machine's.
        run.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network"]);
        run.arg(format!("ns:/run/netns/{}", lab.host_name())).args(more);
        run
    }

    fn spawn(&self, lab: &Lab, more: &[&str], arguments: &str) -> Running {
        let mut run = self.run(lab, more);
        run.args(arguments.split_whitespace());
        let child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running(child.unwrap_or_else(|e| panic!("{run:?}: {e}")))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = self.tool("podman").args(["rm", "--force", "--all", "--time", "0"]).output();
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn images_hold_licences_and_labels_and_work_as_root_and_as_a_user() {
    let Some(lab) = Lab::new("podman") else { return };
    let Some(storage) = Storage::new() else { return };
    let dist = storage.0.join("dist");
    let mut package = Command::new(format!("{HERE}/scripts/package"));
    package.arg("image").env("NETKAT_STATIC", binary().expect("a binary")).env("NETKAT_DIST", &dist);
    let context = output(&mut package);
    storage.make_base();
    for target in ["minimal", "shell"] {
        storage.build(target, context.trim());
        let image = output(storage.tool("buildah").args(["inspect", "--type", "image", target]));
        for label in [
            r#""org.opencontainers.image.licenses": "Apache-2.0""#,
            r#""org.opencontainers.image.version": "1.2.3""#,
            r#""org.opencontainers.image.revision": "abc""#,
        ] {
            assert!(image.contains(label), "{target} lacks {label}");
        }
    }
    let licences =
        ["shell", "cat", "/usr/share/licenses/netkat/LICENSE", "/usr/share/licenses/netkat/THIRD-PARTY"];
    let shown = storage.run(&lab, &licences).output().expect("podman");
    if !shown.status.success() {
        let said = String::from_utf8_lossy(&shown.stderr);
        return skipped(&format!(
            "podman runs no container here: {}",
            said.lines().last().unwrap_or_default()
        ));
    }
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("Apache License") && shown.contains("smoltcp"), "{shown}");

    let profile = format!("seccomp={HERE}/{PROFILE}");
    // Without BPF, and where the seccomp profile refuses bpf(2), rules of nftables guard.
    let denied = storage.0.join("denied.json");
    fs::write(&denied, DENIED).expect("a profile");
    let denied = format!("seccomp={}", denied.display());
    let rights = [
        ("NET_RAW,NET_ADMIN,BPF", &profile),
        ("NET_RAW,NET_ADMIN", &profile),
        ("NET_RAW,NET_ADMIN,BPF", &denied),
    ];
    for (capabilities, profile) in rights {
        for (user, image) in [("0", "minimal"), ("65532", "minimal"), ("1000", "shell")] {
            let mut more = vec!["--cap-add", capabilities, "--security-opt", profile];
            more.extend(["--user", user, "--entrypoint", "/usr/bin/netkat", image]);
            connects(&lab, |arguments| storage.spawn(&lab, &more, arguments));
            listens(&lab, |arguments| storage.spawn(&lab, &more, arguments));
            sniffs(&lab, |arguments| storage.spawn(&lab, &more, arguments));
        }
    }
    // A container that lacks a capability, and programs that are asked for where bpf(2) is refused: netkat runs and
    // says so.
    for user in ["0", "65532"] {
        for (flags, said) in [
            (["--cap-add", "NET_RAW,BPF", "--security-opt", &profile], "--cap-add NET_ADMIN"),
            (
                ["--cap-add", "NET_RAW,NET_ADMIN,BPF", "--security-opt", &denied],
                "--security-opt seccomp=FILE",
            ),
        ] {
            let mut run = storage.run(&lab, &flags);
            let refused = run
                .args(["--user", user, "minimal", "--guard", "tcx", "-w", "5", crate::PEER[0], "1"])
                .output()
                .expect("podman");
            let message = String::from_utf8_lossy(&refused.stderr);
            assert!(refused.status.code() == Some(1) && message.contains(said), "{run:?}: {message}");
        }
    }
}

/// Refuses bpf(2) as podman's default profile on Debian 12 does with these capabilities.
const DENIED: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;
