//! The sandbox: what this process gives up for good, in stages, once everything that takes privileges is
//! done.
//!
//! 1. Capabilities that a later execve(2) could give back (the bounding set), then root's user and groups: the process
//!    goes on as the user who called sudo, or as nobody.
//! 2. All capabilities, except those that the teardown needs.
//! 3. Tracing and core dumps: other processes of the same user must not reach the packet socket by ptrace(2) or /proc.
//! 4. Privileges by execve(2) (no_new_privs), the file system (Landlock), and all system calls but a few (seccomp).
//!
//! Where the kernel, a container's runtime or the lack of a capability forbids a stage, a debug line says
//! so and the other stages follow: a diagnosis must run in a pod that is locked up already.
//!
//! Child processes inherit the sandbox. A run that may start some keeps system calls and the file system,
//! which ordinary programs need, and takes the invoking user's identity with all groups.
use super::{
    capability::{self, Capability, CapabilityError},
    identity::{self, IdentityError},
    seccomp::{self, SyscallSet},
};
use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use nix::sys::prctl;

/// The Landlock version to ask for (Linux 6.15); older kernels enforce what they know.
const LANDLOCK: ABI = ABI::V7;

/// The needs of the process inside the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// To relay between connections and open streams.
    Relay,
    /// To relay, and to connect the kernel's own sockets that are open.
    Dial,
    /// To relay, and to start processes.
    Processes,
    /// To move the packets of a command, and to hold its ports.
    Gateway,
    /// To show and record frames.
    Sniff,
    /// To show and record the frames of an open file.
    Replay,
}

/// The confinement of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The needs of the process.
    pub profile: Profile,
    /// The process gives up more than capabilities.
    pub enabled: bool,
}

/// The reason why capabilities or the identity cannot be given up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Capabilities could not be dropped.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The identity could not change.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Sandbox {
    /// Gives up everything that the profile does not need, and all capabilities but `keep`. Call it once
    /// everything is open that has to be opened by name.
    ///
    /// # Errors
    /// [`SandboxError`]: capabilities that could not be dropped, or an identity that processes must not
    /// inherit.
    pub fn enter(&self, keep: &[Capability]) -> Result<(), SandboxError> {
        if self.enabled {
            capability::drop_bounding();
        }
        match self.profile {
            Profile::Processes => identity::become_invoker()?,
            _ if self.enabled => identity::renounce_root()?,
            _ => {}
        }
        capability::drop_all(keep)?;
        if self.enabled {
            self.confine();
        }
        Ok(())
    }

    fn confine(&self) {
        if let Err(error) = prctl::set_dumpable(false) {
            log::debug!("sandbox: can be traced by processes of the same user: {error}");
        }
        if let Err(error) = prctl::set_no_new_privs() {
            log::debug!("sandbox: could gain privileges by execve(2): {error}");
        }
        let calls = match self.profile {
            Profile::Processes => return,
            Profile::Relay | Profile::Dial => SyscallSet::Relay,
            Profile::Gateway => SyscallSet::Gateway,
            Profile::Sniff => SyscallSet::Receive,
            Profile::Replay => SyscallSet::Files,
        };
        match close_file_system(self.profile) {
            Ok(RulesetStatus::FullyEnforced) => {}
            Ok(status) => log::debug!("sandbox: Landlock is {status:?}: this kernel lacks it, or part of it"),
            Err(error) => log::debug!("sandbox: no Landlock: {error}"),
        }
        if let Err(error) = seccomp::restrict(calls) {
            log::debug!("sandbox: all system calls stay allowed: {error}");
        }
    }
}

/// Forbids, from now on, to open, make or change a file by its name, to connect a kernel TCP socket unless that is the
/// profile's work, and to reach other processes by signals or abstract AF_UNIX names.
fn close_file_system(profile: Profile) -> Result<RulesetStatus, RulesetError> {
    // A command's ports are held by sockets that are bound.
    let network = match profile {
        Profile::Gateway => AccessNet::ConnectTcp.into(),
        Profile::Dial => AccessNet::BindTcp.into(),
        _ => AccessNet::from_all(LANDLOCK),
    };
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(network)?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io, thread};

    /// Landlock alone, which the filter would hide; it holds for the thread that asked for it.
    #[test]
    fn landlock_closes_the_file_system() {
        let opened =
            thread::spawn(|| (close_file_system(Profile::Relay), File::open("/proc/self/status").map(drop)));
        match opened.join().expect("a thread") {
            (Ok(RulesetStatus::NotEnforced), _) => eprintln!("SKIPPED: this kernel lacks Landlock"),
            (Ok(_), opened) => {
                assert_eq!(opened.map_err(|error| error.kind()), Err(io::ErrorKind::PermissionDenied));
            }
            (Err(error), _) => panic!("{error}"),
        }
    }
}
