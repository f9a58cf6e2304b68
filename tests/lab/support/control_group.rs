//! Control groups of version 2.
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A control group of version 2, removed on drop.
pub struct Group(PathBuf);

impl Group {
    /// Makes a group; `None` where no hierarchy of version 2 is mounted.
    pub fn new(name: &str) -> Option<Group> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
        let mount = mounts.lines().find(|line| line.contains(" cgroup2 "))?.split(' ').nth(1)?;
        let folder = PathBuf::from(mount).join(format!("netkat-lab-{}-{name}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        Some(Group(folder))
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
