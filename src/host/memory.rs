//! The memory limit of this process: the host's memory, or the tightest limit of its control groups.
use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// File system types of cgroup hierarchies with a memory controller, and the files that hold a group's
/// limits in bytes (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst). Above memory.high a
/// group is throttled, which is no better for its peers than being killed.
const HIERARCHIES: [(&str, &[&str]); 2] =
    [("cgroup2", &["memory.max", "memory.high"]), ("cgroup", &["memory.limit_in_bytes"])];

/// Limit where nothing can be read, in bytes.
const ASSUMED: u64 = 512 << 20;

/// Returns the smallest of the host's memory and the limits of this process's control groups and their
/// ancestors, in bytes.
pub(crate) fn limit() -> u64 {
    let total = nix::sys::sysinfo::sysinfo().map_or(ASSUMED, |info| info.ram_total());
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = groups(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    groups.iter().filter_map(Group::limit).fold(total, u64::min)
}

/// A control group of this process, as a folder.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    /// The mount point of its hierarchy.
    root: PathBuf,
    folder: PathBuf,
    files: &'static [&'static str],
}

impl Group {
    /// Returns the tightest limit from the group up to the visible root of its hierarchy.
    fn limit(&self) -> Option<u64> {
        let folders = self.folder.ancestors().take_while(|folder| folder.starts_with(&self.root));
        let files = folders.flat_map(|folder| self.files.iter().map(move |file| folder.join(file)));
        // "max" is no number. The root of version 2 has no such file.
        files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
    }
}

/// Returns the groups of a process, by its /proc/PID/mountinfo (proc_pid_mountinfo(5)) and /proc/PID/cgroup
/// (cgroups(7)).
fn groups(mounts: &str, memberships: &str) -> Vec<Group> {
    mounts.lines().filter_map(|mount| group(mount, memberships)).collect()
}

fn group(mount: &str, memberships: &str) -> Option<Group> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (visible, root) = (place.next()?, PathBuf::from(unescape(place.next()?)));
    let mut kind = kind.split(' ');
    let name = kind.next()?;
    let (_, files) = HIERARCHIES.into_iter().find(|(hierarchy, _)| *hierarchy == name)?;
    let controller = if name == "cgroup" { "memory" } else { "" };
    let has = |list: &str| list.split(',').any(|word| word == controller);
    if !controller.is_empty() && !has(kind.nth(1)?) {
        return None;
    }
    let path = memberships.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        has(controllers).then_some(path)
    })?;
    // A container's mount shows a part of the hierarchy, and the process's path may begin above it or lie
    // outside.
    let path = Path::new(path);
    let inside = path.strip_prefix(unescape(visible)).unwrap_or(Path::new(""));
    let outside = inside.components().any(|part| part == Component::ParentDir);
    let folder = if outside { root.clone() } else { root.join(inside) };
    Some(Group { root, folder, files })
}

/// Decodes a path of mountinfo, in which spaces, tabs, line ends and backslashes are octal numbers.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";

    fn folders(mounts: &str, memberships: &str) -> Vec<String> {
        groups(mounts, memberships).iter().map(|group| group.folder.display().to_string()).collect()
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        assert_eq!(folders(V2, "0::/user.slice/a\n"), ["/sys/fs/cgroup/user.slice/a"]);
        assert_eq!(
            folders(V1, "5:cpu:/x\n4:name=systemd,memory:/pod/a:b\n"),
            ["/sys/fs/cgroup/memory/pod/a:b"]
        );
        assert_eq!(folders(V1, "0::/a\n"), [""; 0]);
        assert_eq!(folders("nonsense\n1 2 - cgroup2\n", "0::/a\n:::\n"), [""; 0]);
    }

    #[test]
    fn a_container_sees_its_part() {
        let mount = "9 8 0:32 /kubepods/pod1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(folders(mount, "4:memory:/kubepods/pod1\n"), ["/sys/fs/cgroup/memory/"]);
        assert_eq!(folders(mount, "4:memory:/kubepods/pod1/child\n"), ["/sys/fs/cgroup/memory/child"]);
        assert_eq!(folders(mount, "4:memory:/elsewhere\n"), ["/sys/fs/cgroup/memory/"]);
        assert_eq!(folders(V2, "0::/../sibling\n"), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn the_tightest_of_the_groups_around_counts() {
        let root = std::env::temp_dir().join(format!("netkat-memory-{}", std::process::id()));
        let folder = root.join("pod/container");
        fs::create_dir_all(&folder).expect("a folder");
        let write = |at: &str, text: &str| fs::write(root.join(at), text).expect("a file");
        let group =
            |kind: usize| Group { root: root.clone(), folder: folder.clone(), files: HIERARCHIES[kind].1 };
        assert_eq!(group(0).limit(), None);
        write("pod/container/memory.max", "max\n");
        write("pod/memory.max", "134217728\n");
        write("pod/memory.high", "268435456\n");
        assert_eq!(group(0).limit(), Some(128 << 20));
        write("pod/container/memory.high", "67108864\n");
        assert_eq!(group(0).limit(), Some(64 << 20));
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(group(1).limit(), Some(9_223_372_036_854_771_712));
        fs::remove_dir_all(&root).expect("the folder is ours");
    }

    #[test]
    fn this_host_has_some() {
        assert!(limit() > 1 << 20);
    }
}
