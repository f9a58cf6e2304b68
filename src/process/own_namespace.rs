//! A network namespace of this process's own: in a user namespace of its own where the host allows one, since
//! that takes no privilege, else by CAP_SYS_ADMIN.
//!
//! A user namespace maps every id to itself where the parent may write such a map (CAP_SETUID, CAP_SETGID and,
//! for root's id, CAP_SETFCAP), so that files keep their owners. Else it maps this user and group alone, and
//! all other owners look like nobody.
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::prctl,
    unistd::{Pid, getegid, geteuid},
};
use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// The reason why there is no network namespace.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {what}: {source} ({})", culprit(*.source))]
pub(crate) struct NamespaceError {
    what: &'static str,
    #[source]
    source: Errno,
}

/// Moves this process into a new network namespace, with `user` in a new user namespace, too, which has no
/// ids yet.
///
/// # Errors
/// [`NamespaceError`] says which of both was refused and what probably refused it.
pub(crate) fn enter(user: bool) -> Result<(), NamespaceError> {
    // A program with file capabilities is not dumpable, so its files in /proc are root's (proc(5)), the maps
    // of ids among them.
    if let Err(error) = prctl::set_dumpable(true) {
        log::debug!("cannot become dumpable: {error}");
    }
    let refused = |what| move |source| NamespaceError { what, source };
    if user {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused("a user namespace"))?;
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(refused(match user {
        true => "a network namespace in a user namespace",
        false => "a network namespace without a user namespace (CAP_SYS_ADMIN)",
    }))
}

/// Maps every id of this user namespace to itself in the new user namespace of `child`.
///
/// # Errors
/// EPERM without CAP_SETUID, CAP_SETGID or CAP_SETFCAP.
pub(crate) fn map_all_ids(child: Pid) -> io::Result<()> {
    for map in ["gid_map", "uid_map"] {
        let own = fs::read_to_string(Path::new("/proc/self").join(map))?;
        fs::write(PathBuf::from(format!("/proc/{child}")).join(map), identity_map(&own))?;
    }
    Ok(())
}

/// Returns the map of all ids that a namespace's own map has to themselves.
fn identity_map(own: &str) -> String {
    own.lines().fold(String::new(), |mut map, line| {
        let mut fields = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            let _ = writeln!(map, "{first} {first} {count}");
        }
        map
    })
}

/// The ids of this process in its parent's user namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnIds {
    user: u32,
    group: u32,
}

impl OwnIds {
    /// Reads the ids, which [`enter`] hides.
    pub(crate) fn read() -> OwnIds {
        OwnIds { user: geteuid().as_raw(), group: getegid().as_raw() }
    }

    /// Maps these ids to themselves in this process's new user namespace. Where root's id may not be mapped
    /// (no CAP_SETFCAP), it stays unmapped: this process keeps its rights, and looks like nobody to itself.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn map(self) -> io::Result<()> {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("{0} {0} 1\n", self.group))?;
        match fs::write("/proc/self/uid_map", format!("{0} {0} 1\n", self.user)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.user == 0 => Ok(()),
            result => result,
        }
    }

    /// Returns the range of groups that may ping without privilege (icmp(7), ping_group_range), if the
    /// namespace maps `all` ids, or only these.
    pub(crate) fn ping_groups(self, all: bool) -> String {
        if all { "0 2147483647".to_owned() } else { format!("{0} {0}", self.group) }
    }
}

/// Names what probably refuses namespaces.
fn culprit(errno: Errno) -> String {
    let setting = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let is = |name, value| setting(name).is_some_and(|text| text.trim() == value);
    if is("user/max_user_namespaces", "0") || is("user/max_net_namespaces", "0") {
        return "the sysctls user.max_user_namespaces and user.max_net_namespaces allow none".to_owned();
    }
    if errno == Errno::ENOSPC {
        return "the limit of user.max_user_namespaces or user.max_net_namespaces is reached".to_owned();
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return "the sysctl kernel.unprivileged_userns_clone is 0".to_owned();
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "AppArmor restricts user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1"
            .to_owned();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])) {
        return "a seccomp filter, as a container's runtime installs it, may forbid unshare(2); \
                packaging/kubernetes/netkat-run-seccomp.json allows it"
            .to_owned();
    }
    match errno {
        Errno::EPERM => "a capability is missing, or this process is in a chroot(2)".to_owned(),
        _ => "see unshare(2)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mapped_ids_are_mapped_to_themselves() {
        assert_eq!(identity_map("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity_map("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
