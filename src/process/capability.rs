//! Capabilities of this process: checks before an attempt, and the drop once they are no longer needed.
//!
//! Capabilities belong to a thread. netkat checks and drops them before it starts another one.

use std::{env, fmt, fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use caps::{CapSet, CapsHashSet, errors::CapsError};

use crate::host::{container, sysctl};

/// Default of net.ipv4.ip_unprivileged_port_start (PROT_SOCK in the kernel's include/net/sock.h).
const UNPRIVILEGED: u32 = 1024;

/// Inode number of the first user namespace.
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

/// The capabilities that netkat may need, capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Packet sockets.
    NetRaw,
    /// Programs at tc, filters on sockets, promiscuous mode, NTF_USE.
    NetAdmin,
    /// Loading programs. CAP_SYS_ADMIN includes it, and is the only choice before Linux 5.8.
    Bpf,
    /// Programs at the kernel's tracepoints, from Linux 5.8 on; before, CAP_SYS_ADMIN.
    Perfmon,
    /// Binding ports below net.ipv4.ip_unprivileged_port_start.
    NetBindService,
    /// Making a network namespace without a user namespace.
    SysAdmin,
}

impl Capability {
    /// Returns whether the calling thread has the capability in its effective set.
    ///
    /// # Errors
    /// [`CapabilityError::Unreadable`].
    pub fn effective(self) -> Result<bool, CapabilityError> {
        let set = caps::read(None, CapSet::Effective).map_err(CapabilityError::Unreadable)?;
        Ok(set.contains(&self.kernel())
            || matches!(self, Capability::Bpf | Capability::Perfmon)
                && set.contains(&caps::Capability::CAP_SYS_ADMIN))
    }

    const ALL: [Self; 6] =
        [Self::NetRaw, Self::NetAdmin, Self::Bpf, Self::Perfmon, Self::NetBindService, Self::SysAdmin];

    /// Returns the name without CAP_, as container engines have it.
    fn name(self) -> &'static str {
        match self {
            Capability::NetRaw => "NET_RAW",
            Capability::NetAdmin => "NET_ADMIN",
            Capability::Bpf => "BPF",
            Capability::NetBindService => "NET_BIND_SERVICE",
            Capability::SysAdmin => "SYS_ADMIN",
            Capability::Perfmon => "PERFMON",
        }
    }

    fn kernel(self) -> caps::Capability {
        match self {
            Capability::NetRaw => caps::Capability::CAP_NET_RAW,
            Capability::NetAdmin => caps::Capability::CAP_NET_ADMIN,
            Capability::Bpf => caps::Capability::CAP_BPF,
            Capability::Perfmon => caps::Capability::CAP_PERFMON,
            Capability::NetBindService => caps::Capability::CAP_NET_BIND_SERVICE,
            Capability::SysAdmin => caps::Capability::CAP_SYS_ADMIN,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kernel().fmt(f)
    }
}

/// The reason why a capability is missing or cannot be dropped.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The calling thread lacks a capability.
    #[error("needs {capability} to {purpose} ({})", remedy(*.capability))]
    Missing {
        /// The missing capability.
        capability: Capability,
        /// Its purpose, as a verb phrase.
        purpose: String,
    },
    /// The capability is one of a user namespace only.
    #[error(
        "needs {capability} to {purpose}, and has it only in a user namespace (as in a rootless container, or after \
         unshare -r), where the kernel does not take it for that; run as root outside of it, or in a container that has \
         the host's user namespace"
    )]
    UserNamespace {
        /// The capability.
        capability: Capability,
        /// Its purpose, as a verb phrase.
        purpose: String,
    },
    /// The kernel does not tell the capabilities.
    #[error("could not read this process's capabilities: {0}")]
    Unreadable(CapsError),
    /// The kernel refused to drop capabilities.
    #[error("could not give up capabilities ({set:?} set): {source}")]
    NotDropped {
        /// The set that stays as it is.
        set: CapSet,
        /// The kernel's refusal.
        source: CapsError,
    },
}

impl CapabilityError {
    /// Returns whether the error is the want of this capability.
    pub(crate) fn concerns(&self, wanted: Capability) -> bool {
        match self {
            CapabilityError::Missing { capability, .. }
            | CapabilityError::UserNamespace { capability, .. } => *capability == wanted,
            CapabilityError::Unreadable(_) | CapabilityError::NotDropped { .. } => false,
        }
    }
}

/// Returns what the user can do about a missing capability.
fn remedy(missing: Capability) -> String {
    let mut all = vec!["NET_RAW", "NET_ADMIN", "BPF"];
    if !all.contains(&missing.name()) {
        all.push(missing.name());
    }
    if let Some(words) = container::grant(missing.name(), &all) {
        return words;
    }
    let path = env::current_exe().unwrap_or_else(|_| PathBuf::from("netkat"));
    let more = if missing == Capability::NetBindService { ",cap_net_bind_service" } else { "" };
    format!(
        "run with sudo, or: setcap cap_net_raw,cap_net_admin,cap_bpf{more}+p {}, for all who can execute it",
        path.display()
    )
}

/// Makes those of netkat's capabilities effective that are only permitted, as by setcap(8) with `+p`. A program
/// with `+ep` does not start where one of its capabilities is outside the bounding set; one with `+p` does, and
/// can name the missing one. Call it before the first other thread starts.
pub fn raise_permitted() {
    let raised = caps::read(None, CapSet::Permitted).and_then(|permitted| {
        let effective = caps::read(None, CapSet::Effective)?;
        let ours = Capability::ALL.map(Capability::kernel).into_iter().filter(|one| permitted.contains(one));
        let all: CapsHashSet = effective.iter().copied().chain(ours).collect();
        if all == effective { Ok(()) } else { caps::set(None, CapSet::Effective, &all) }
    });
    if let Err(error) = raised {
        log::debug!("could not make the permitted capabilities effective: {error}");
    }
}

/// Checks that the calling thread has `capability`; `purpose` completes the sentence "needs it to ...".
///
/// # Errors
/// [`CapabilityError::Missing`] names capability, purpose and remedy.
pub fn require(capability: Capability, purpose: &str) -> Result<(), CapabilityError> {
    match capability.effective()? {
        // bpf(2) takes it in the first user namespace only (bpf_capable() in include/linux/capability.h).
        true if capability == Capability::Bpf && in_user_namespace() => {
            Err(CapabilityError::UserNamespace { capability, purpose: purpose.to_owned() })
        }
        true => Ok(()),
        false => Err(CapabilityError::Missing { capability, purpose: purpose.to_owned() }),
    }
}

/// Returns whether this process is in a user namespace other than the first, whose inode number is fixed
/// (PROC_USER_INIT_INO in include/linux/proc_ns.h).
fn in_user_namespace() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() != FIRST_USER_NAMESPACE)
}

/// Returns the error that names a missing capability if `error` is a denied permission and the calling
/// thread lacks the capability.
pub(crate) fn denied(error: &io::Error, capability: Capability, purpose: &str) -> Option<CapabilityError> {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let missing = denied.then(|| require(capability, purpose).err()).flatten();
    missing.or_else(|| {
        (denied && in_user_namespace())
            .then(|| CapabilityError::UserNamespace { capability, purpose: purpose.to_owned() })
    })
}

/// Checks that the calling thread may bind `port`, as bind(2) does (__inet_bind in net/ipv4/af_inet.c): a
/// port below net.ipv4.ip_unprivileged_port_start, of either family and protocol, takes a capability; 0
/// takes none. For assumed addresses, at which the kernel binds nothing.
///
/// # Errors
/// [`CapabilityError::Missing`] names capability, port and remedy.
pub fn require_port(port: u16) -> Result<(), CapabilityError> {
    if port == 0 || Capability::NetBindService.effective()? {
        return Ok(());
    }
    let unprivileged = sysctl::ip_unprivileged_port_start().unwrap_or_else(|error| {
        log::debug!("{error}; assuming the kernel's default, {UNPRIVILEGED}");
        UNPRIVILEGED
    });
    if u32::from(port) >= unprivileged {
        return Ok(());
    }
    require(Capability::NetBindService, &format!("hold port {port}"))
}

/// Empties the bounding set, if this process may (CAP_SETPCAP), so that execve(2) gives no capability back,
/// even to root.
pub(crate) fn drop_bounding() {
    if let Err(error) = caps::clear(None, CapSet::Bounding) {
        log::debug!("sandbox: the bounding set stays: {error}");
    }
}

/// Passes these capabilities on to programs that this process becomes (the ambient set). They must be permitted.
///
/// # Errors
/// [`CapabilityError::NotDropped`], which says of which set.
pub(crate) fn pass_on(capabilities: &[Capability]) -> Result<(), CapabilityError> {
    let kernel: CapsHashSet = capabilities.iter().map(|capability| capability.kernel()).collect();
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &kernel).map_err(|source| CapabilityError::NotDropped { set, source })?;
    }
    Ok(())
}

/// Drops every capability but `keep`, for good, from the calling thread's effective, permitted, inheritable
/// and ambient sets. Gains nothing from `keep` that was not permitted.
///
/// # Errors
/// [`CapabilityError::Unreadable`] or [`CapabilityError::NotDropped`].
pub fn drop_all(keep: &[Capability]) -> Result<(), CapabilityError> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(CapabilityError::Unreadable)?;
    let kept: CapsHashSet = keep
        .iter()
        .map(|capability| capability.kernel())
        .filter(|kernel| permitted.contains(kernel))
        .collect();
    let none = CapsHashSet::new();
    // In this order each set stays a subset of the one that bounds it, as capset(2) demands.
    for (set, value) in [
        (CapSet::Ambient, &none),
        (CapSet::Inheritable, &none),
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &kept),
    ] {
        caps::set(None, set, value).map_err(|source| CapabilityError::NotDropped { set, source })?;
    }
    Ok(())
}
