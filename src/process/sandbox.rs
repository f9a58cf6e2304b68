//! What a process gives up once everything that takes privileges is done: in stages, for good.
//!
//! 1. Capabilities that a later execve(2) could give back (the bounding set), then root's user and groups: the process
//!    becomes the user's who called sudo, or nobody's.
//! 2. All capabilities, but those that the clean-up needs.
//! 3. Being traced and dumped: whoever has the same user must not get at the packet socket by ptrace(2) or /proc.
//! 4. Privileges by execve(2) (no_new_privs), the file system (Landlock), and all system calls but a few (seccomp).
//!
//! Where the kernel, a container's runtime or the lack of a capability forbids a stage, the others are taken all
//! the same, and a debug line says so: a diagnosis must run in a pod that is locked up already.
//!
//! Processes of --exec inherit what is done here. So where there may be some, system calls and the file system
//! stay open, as ordinary programs need them, and the identity is the invoking user's with all groups.
use super::{
    capability::{self, Capability, CapabilityError},
    identity::{self, IdentityError},
    seccomp::{self, Calls},
};
use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use nix::sys::prctl;

/// The newest kernel interface of which everything is asked for; older kernels do what they can (Linux 6.15).
const LANDLOCK: ABI = ABI::V7;

/// What the process goes on to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Connections and their streams.
    Relay,
    /// Connections and a process for each.
    Processes,
    /// Showing and recording what arrives.
    Sniff,
    /// Showing and recording what a file holds.
    Replay,
}

/// How much to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub task: Task,
    /// Nothing but capabilities is given up where this is false.
    pub enabled: bool,
}

/// Why not even the least could be given up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Sandbox {
    /// Gives up what the task does not need; of the capabilities `keep` stays. Everything that has to be opened by
    /// name is open by now.
    ///
    /// # Errors
    /// Capabilities that could not be given up; the identity, where processes are to have it.
    pub fn enter(&self, keep: &[Capability]) -> Result<(), SandboxError> {
        if self.enabled {
            capability::drop_bounding();
        }
        match self.task {
            Task::Processes => identity::become_invoker()?,
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
        let calls = match self.task {
            Task::Processes => return,
            Task::Relay => Calls::Relay,
            Task::Sniff => Calls::Receive,
            Task::Replay => Calls::Files,
        };
        match close_file_system() {
            Ok(RulesetStatus::FullyEnforced) => {}
            Ok(status) => log::debug!("sandbox: Landlock is {status:?}: this kernel lacks it, or part of it"),
            Err(error) => log::debug!("sandbox: no Landlock: {error}"),
        }
        if let Err(error) = seccomp::restrict(calls) {
            log::debug!("sandbox: all system calls stay allowed: {error}");
        }
    }
}

/// From now on no file can be opened, made or changed by its name, no TCP socket of the kernel's connected, and nothing
/// signalled or reached by an abstract AF_UNIX name outside of this process.
fn close_file_system() -> Result<RulesetStatus, RulesetError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
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
        let opened = thread::spawn(|| (close_file_system(), File::open("/proc/self/status").map(drop)));
        match opened.join().expect("a thread") {
            (Ok(RulesetStatus::NotEnforced), _) => eprintln!("SKIPPED: this kernel lacks Landlock"),
            (Ok(_), opened) => {
                assert_eq!(opened.map_err(|error| error.kind()), Err(io::ErrorKind::PermissionDenied));
            }
            (Err(error), _) => panic!("{error}"),
        }
    }
}
