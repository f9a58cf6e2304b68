//! The guard on an interface: it keeps our packets from the kernel, so that the kernel answers nothing.
//!
//! It is attached in front of all other programs, so that none of them can let our packets past it. Packets
//! that are not ours go on to those programs untouched. The tap that feeds us comes before all of them
//! (net/core/dev.c, __netif_receive_skb_core), so what the guard drops we have already seen.

use super::{
    Programs,
    attachment::{Attachment, Backend},
    bpf::Direction,
    error::KernelError,
};

/// A guard on one interface; dropping it takes it away. A listener on several interfaces holds one for each,
/// all of the same [`Programs`].
#[derive(Debug)]
pub struct Guard(Attachment);

impl Guard {
    /// Attaches the guard to the interface with this index, and removes from it what dead netkats left.
    ///
    /// With clsact, [`Programs::beat`] has to be called from now on
    /// ([`Programs::heartbeat_interval`] says how often), and dropping the guard needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// [`KernelError::NoTcx`] when tcx is demanded of a kernel that lacks it, [`KernelError::TcxFull`] of one that has
    /// no room there, [`KernelError::Capability`] without CAP_NET_ADMIN, [`KernelError::Attach`] for anything else, as
    /// for an interface that is gone.
    pub fn attach(programs: &Programs, interface: u32, backend: Backend) -> Result<Guard, KernelError> {
        let program = programs.guard_fd().ok_or(KernelError::NotLoaded("a sniffer has no guard"))?;
        Attachment::new(programs, program, interface, Direction::Ingress, backend).map(Guard)
    }

    /// What the guard is attached with: [`Backend::Tcx`] or [`Backend::Clsact`].
    pub fn backend(&self) -> Backend {
        self.0.backend()
    }

    /// The names of the programs that run before the guard on this interface, first to last: one of them may
    /// let our packets reach the kernel. Other netkats are not named, since they pass on what is not theirs. A
    /// program whose name takes CAP_SYS_ADMIN to learn is named by its id.
    ///
    /// # Errors
    /// [`KernelError::Query`].
    pub fn ahead(&self) -> Result<Vec<String>, KernelError> {
        let mut names = self.0.ahead()?;
        names.retain(|name| !name.starts_with("netkat_guard"));
        Ok(names)
    }
}
