//! Control groups of version 2: the folder of a process's group.
use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Maximum folders that are looked at for a number.
const MAX_FOLDERS: usize = 10_000;

/// Returns the folder of a process's control group, `process` being its folder in /proc; `None` where no
/// hierarchy of version 2 is mounted, as inside `ip netns exec`.
pub(crate) fn folder(process: &Path) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    locate(&mounts, &groups)
}

/// Returns the folder of the control group with this number, which is its inode's; `None` where no hierarchy of version 2
/// is mounted, or it has more folders than are looked at.
pub(crate) fn folder_of(number: u64) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut folders = VecDeque::from([locate(&mounts, "0::/\n").or_else(|| mount(&mounts))?]);
    let mut looked = 0;
    while let Some(folder) = folders.pop_front().filter(|_| looked < MAX_FOLDERS) {
        looked += 1;
        if fs::metadata(&folder).is_ok_and(|found| found.ino() == number) {
            return Some(folder);
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
    }
    None
}

/// Returns where a hierarchy of version 2 is mounted, of whatever group.
fn mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split_whitespace().next()? == "cgroup2").then_some(())?;
        Some(PathBuf::from(before.split_whitespace().nth(4)?))
    })
}

/// Reads /proc/PID/mountinfo (proc_pid_mountinfo(5)) and /proc/PID/cgroup (cgroups(7)).
fn locate(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split_whitespace().next()? == "cgroup2").then_some(())?;
        let mut fields = before.split_whitespace().skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(mount).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_folder_where_its_hierarchy_is_mounted() {
        let mounts = "24 1 0:5 / /proc rw - proc proc rw\n\
                      30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let folder = |groups| locate(mounts, groups);
        assert_eq!(folder("0::/kubepods/pod1\n"), Some("/sys/fs/cgroup/kubepods/pod1".into()));
        assert_eq!(folder("3:cpu:/a\n0::/\n"), Some("/sys/fs/cgroup/".into()));
        assert_eq!(folder("3:cpu:/a\n"), None);
    }
}
