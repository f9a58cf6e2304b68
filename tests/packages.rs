//! Users who can run an installed netkat, by the packages' maintainer scripts, in a folder that is
//! their root, and by scripts/install.
//!
//! Needs root; without it the tests say so loudly and pass.
#[path = "support/skipped.rs"]
mod skipped;

use skipped::skipped;
use std::{
    fmt, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const THREE: &str = "cap_net_raw,cap_net_admin,cap_bpf";
/// Users of the scratch root: one in no group, and one who is put into netkat's.
const STRANGER: u32 = 54_321;
const MEMBER: u32 = 54_322;

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns a file of this machine, wherever PATH has it.
fn find(program: &str) -> PathBuf {
    let folders = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"].map(Path::new);
    let found = folders.into_iter().map(|folder| folder.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is not installed"))
}

/// Owner, mode and capabilities of the installed program.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rights {
    mode: u32,
    /// Whether the file belongs to group netkat, else to root's.
    group: bool,
    capable: bool,
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group { "netkat" } else { "root" };
        write!(f, "root:{group} {:04o}, capabilities: {}", self.mode, self.capable)
    }
}

const ROOT_ALONE: Rights = Rights { mode: 0o755, group: false, capable: false };
const GROUP: Rights = Rights { mode: 0o750, group: true, capable: true };
const EVERYBODY: Rights = Rights { mode: 0o755, group: false, capable: true };

/// A folder to be the root of a small system with netkat in it.
struct Root(PathBuf);

impl Root {
    fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            skipped("needs root");
            return None;
        }
        let name = format!("packages-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let root = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        for folder in ["etc/default", "dev", "tmp", "usr/bin", "var/lib/dpkg"] {
            fs::create_dir_all(root.0.join(folder)).expect("a folder");
        }
        // As good as the device.
        root.write("dev/null", "");
        root.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        root.write("etc/group", "root:x:0:\nusers:x:100:\n");
        root.write("etc/login.defs", "SYS_GID_MIN 100\nSYS_GID_MAX 999\n");
        for program in ["sh", "setcap", "chown", "chmod", "getent", "groupadd", "groupdel", "cat", "mv"] {
            root.install(&find(program));
        }
        root.install(Path::new(env!("CARGO_BIN_EXE_netkat")));
        root.unpack();
        Some(root)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.0.join(path), text).expect(path);
    }

    /// Copies a program of this machine and its libraries to their places.
    fn install(&self, program: &Path) {
        let libraries = succeed(Command::new("ldd").arg(program));
        let paths = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        for path in paths.chain([program.to_owned()]) {
            let to = self.0.join(path.strip_prefix("/").expect("absolute"));
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            fs::copy(path, to).expect("a copy");
        }
    }

    fn program(&self) -> PathBuf {
        self.0.join("usr/bin/netkat")
    }

    /// Replaces the installed file by another one, as dpkg and rpm do before they run a script.
    fn unpack(&self) {
        let new = self.0.join("usr/bin/netkat.new");
        fs::copy(env!("CARGO_BIN_EXE_netkat"), &new).expect("a copy");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::rename(new, self.program()).expect("renamed");
    }

    fn shell(&self, script: &str, arguments: &[&str]) -> Output {
        let mut shell = Command::new("chroot");
        shell.arg(&self.0).args(["/bin/sh", "-c", script, "script"]).args(arguments);
        output(shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
    }

    /// Writes the choice of users into /etc/default/netkat; `None` for no such file.
    fn choose(&self, choice: Option<&str>) {
        match choice {
            Some(choice) => self.write("etc/default/netkat", &format!("CAPABILITIES={choice}\n")),
            None => drop(fs::remove_file(self.0.join("etc/default/netkat"))),
        }
    }

    /// Runs the step after the unpacking. Returns its output.
    fn configure(&self, package: Package) -> String {
        let (script, arguments): (_, &[&str]) = match package {
            Package::Deb => ("deb/postinst", &["configure"]),
            Package::Rpm => ("rpm/post", &["1"]),
        };
        // As scripts/package joins them.
        let [functions, script] = ["capabilities.sh", script].map(packaging);
        let output = self.shell(&(functions + &script), arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn group(&self) -> Option<u32> {
        let groups = fs::read_to_string(self.0.join("etc/group")).expect("the groups");
        let line = groups.lines().find(|line| line.starts_with("netkat:"))?;
        line.split(':').nth(2)?.parse().ok()
    }

    fn rights(&self) -> Rights {
        let metadata = fs::metadata(self.program()).expect("installed");
        assert_eq!(metadata.uid(), 0);
        let group = metadata.gid() != 0;
        assert!(!group || Some(metadata.gid()) == self.group(), "another group");
        let capabilities = succeed(Command::new("getcap").arg(self.program()));
        let three = THREE.split(',').all(|one| capabilities.contains(one)) && capabilities.contains("=p");
        assert!(three || capabilities.is_empty(), "{capabilities}");
        Rights { mode: metadata.mode() & 0o7777, group, capable: three }
    }

    /// Returns whether a user can start the program at all, and whether it then connects, in a network namespace of its own.
    fn as_user(&self, user: u32, group: Option<u32>) -> (bool, bool) {
        let groups = group.map_or_else(String::new, |group| group.to_string());
        let run = |arguments: &str| {
            let script = format!(
                "ip link set lo up && exec chroot --userspec={user}:{user} --groups={groups} {} /usr/bin/netkat {arguments}",
                self.0.display(),
            );
            let output = output(Command::new("unshare").args(["--net", "sh", "-c", &script]));
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (starts, _) = run("--version");
        let (_, said) = run("-n -w 5 127.0.0.1 1");
        let connects = said.contains("refused: the peer answered with a reset");
        let expected = if starts { "needs CAP_NET_RAW" } else { "Permission denied" };
        assert!(connects || said.contains(expected), "{said}");
        (starts, connects)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Copy, Debug)]
enum Package {
    Deb,
    Rpm,
}

const PACKAGES: [Package; 2] = [Package::Deb, Package::Rpm];

fn packaging(file: &str) -> String {
    fs::read_to_string(Path::new(HERE).join("packaging").join(file)).expect(file)
}

#[test]
fn packages_give_nobody_capabilities_unless_the_administrator_says_so() {
    let Some(root) = Root::new() else { return };
    for package in PACKAGES {
        for choice in [None, Some("no")] {
            root.choose(choice);
            root.configure(package);
            assert_eq!(root.rights(), ROOT_ALONE, "{package:?}, {choice:?}");
            assert_eq!(root.group(), None, "{package:?}, {choice:?}");
        }
        assert_eq!(root.as_user(STRANGER, None), (true, false), "{package:?}");
        root.choose(Some("all"));
        root.configure(package);
        assert_eq!(root.as_user(STRANGER, None), (true, true), "{package:?}");
        root.choose(None);
        for _upgraded in [false, true] {
            root.configure(package);
            assert_eq!(root.as_user(STRANGER, None), (true, false), "{package:?}");
            root.unpack();
        }
    }
}

#[test]
fn only_members_of_the_group_can_run_a_capable_program() {
    for package in PACKAGES {
        let Some(root) = Root::new() else { return };
        root.choose(Some("group"));
        root.configure(package);
        assert_eq!(root.rights(), GROUP, "{package:?}");
        let group = root.group().expect("the group");
        assert!((100..=999).contains(&group), "{group} is not a system group's");
        assert_eq!(root.as_user(STRANGER, None), (false, false), "{package:?}");
        assert_eq!(root.as_user(STRANGER, Some(group + 1)), (false, false), "{package:?}");
        assert_eq!(root.as_user(MEMBER, Some(group)), (true, true), "{package:?}");
    }
}

/// From every choice to every other, by an upgrade, which brings a new file, and by
/// reconfiguration, which does not; and from old packages, which gave every user the capabilities.
#[test]
fn the_last_choice_alone_counts() {
    let Some(root) = Root::new() else { return };
    let choices = [
        (None, ROOT_ALONE),
        (Some("no"), ROOT_ALONE),
        (Some("group"), GROUP),
        (Some("yes"), GROUP),
        (Some("all"), EVERYBODY),
        (Some("nonsense"), ROOT_ALONE),
        (Some(""), ROOT_ALONE),
    ];
    for package in PACKAGES {
        for (before, _) in choices {
            for (after, expected) in choices {
                for upgrade in [false, true] {
                    root.choose(before);
                    root.configure(package);
                    if upgrade {
                        root.unpack();
                    }
                    root.choose(after);
                    let said = root.configure(package);
                    let case = format!("{package:?}, {before:?} to {after:?}, upgrade: {upgrade}: {said}");
                    assert_eq!(root.rights(), expected, "{case}");
                    let quiet = matches!(after, None | Some("no" | "group" | "all"));
                    assert_eq!(said.is_empty(), quiet, "{case}");
                }
            }
        }
        for (choice, expected) in choices {
            succeed(Command::new("setcap").arg(format!("{THREE}+ep")).arg(root.program()));
            root.choose(choice);
            root.configure(package);
            assert_eq!(root.rights(), expected, "{package:?}, {choice:?}, from everybody's");
        }
    }
}

/// A failing program in place of one that a script needs.
#[test]
fn what_cannot_be_done_leaves_no_capabilities() {
    for package in PACKAGES {
        for (failing, said) in [
            ("setcap", "could not set file capabilities"),
            ("groupadd", "could not give /usr/bin/netkat to group netkat"),
            ("getent", "could not give /usr/bin/netkat to group netkat"),
        ] {
            let Some(root) = Root::new() else { return };
            root.choose(Some("group"));
            let path = root.0.join(find(failing).strip_prefix("/").expect("absolute"));
            fs::write(&path, "#!/bin/sh\nexit 1\n").expect("a script");
            if failing == "getent" {
                // It does not see the existing group, so making the group fails as well.
                root.write("etc/group", "root:x:0:\nnetkat:x:999:\n");
            }
            let message = root.configure(package);
            assert!(
                message.contains(said) && message.contains("only root can use it"),
                "{failing}: {message}"
            );
            assert_eq!(root.rights(), ROOT_ALONE, "{failing}");
        }
    }
}

/// dpkg-statoverride(1): owner and mode are the administrator's.
#[test]
fn an_owner_and_mode_of_the_administrators_stay() {
    let Some(root) = Root::new() else { return };
    let Ok(path) = fs::canonicalize("/usr/bin/dpkg-statoverride") else {
        return skipped("needs dpkg-statoverride");
    };
    root.install(&path);
    root.write("var/lib/dpkg/statoverride", "root users 0710 /usr/bin/netkat\n");
    let users = nix::unistd::Gid::from_raw(100);
    nix::unistd::chown(&root.program(), None, Some(users)).expect("a group");
    fs::set_permissions(root.program(), fs::Permissions::from_mode(0o710)).expect("a mode");
    for (choice, capable) in [("no", false), ("all", true), ("group", false), ("all", true), ("no", false)] {
        root.choose(Some(choice));
        let said = root.configure(Package::Deb);
        assert_eq!(said.contains("dpkg-statoverride decides"), choice == "group", "{choice}: {said}");
        let metadata = fs::metadata(root.program()).expect("installed");
        assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (100, 0o710), "{choice}");
        let capabilities = succeed(Command::new("getcap").arg(root.program()));
        assert_eq!(!capabilities.is_empty(), capable, "{choice}");
    }
    assert_eq!(root.as_user(STRANGER, None), (false, false));
}

#[test]
fn purging_removes_the_group_unless_somebody_is_in_it() {
    let Some(root) = Root::new() else { return };
    let remove = |action| {
        let output = root.shell(&packaging("deb/postrm"), &[action]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // Without a group there is nothing to do.
    assert_eq!(remove("purge"), "");
    root.choose(Some("group"));
    for action in ["remove", "upgrade", "purge"] {
        root.configure(Package::Deb);
        assert_eq!(remove(action), "");
        assert_eq!(root.group().is_some(), action != "purge", "{action}");
    }
    root.write("etc/group", "root:x:0:\nnetkat:x:998:root\n");
    assert!(remove("purge").contains("has members"));
    assert_eq!(root.group(), Some(998));
}

/// scripts/install, with an /etc of its own, so that no group is made on this machine.
#[test]
fn scripts_install_lets_in_the_group_when_asked() {
    let Some(root) = Root::new() else { return };
    root.write("etc/nsswitch.conf", "passwd: files\ngroup: files\n");
    let install = |options: &str| {
        let script = format!(
            "mount --bind {etc} /etc && DESTDIR={to} exec {HERE}/scripts/install --prefix /usr {options}",
            etc = root.0.join("etc").display(),
            to = root.0.display(),
        );
        succeed(Command::new("unshare").args(["--mount", "sh", "-ec", &script]))
    };
    let binary = concat!("--binary ", env!("CARGO_BIN_EXE_netkat"));
    install(binary);
    assert_eq!((root.rights(), root.group()), (ROOT_ALONE, None));
    let said = install(&format!("{binary} --capabilities"));
    assert!(said.contains("usermod -aG netkat USER"), "{said}");
    assert_eq!(root.rights(), GROUP);
    let group = root.group();
    assert_eq!(root.as_user(STRANGER, None), (false, false));
    assert_eq!(root.as_user(MEMBER, group), (true, true));
    // By default it takes away the rights that an earlier installation gave, to the group or to
    // every user.
    install(binary);
    assert_eq!((root.rights(), root.group()), (ROOT_ALONE, group));
    succeed(Command::new("setcap").arg(format!("{THREE}+ep")).arg(root.program()));
    install(binary);
    assert_eq!(root.rights(), ROOT_ALONE);
    install(&format!("{binary} --capabilities"));
    assert!(install("--uninstall").contains("group netkat stays"));
    assert!(!root.program().exists());
}
