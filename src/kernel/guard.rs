//! The guard on an interface: it drops the kernel's copy of our packets, so that the kernel answers nothing.
//!
//! The guard runs in front of all other programs, so that none of them can let our packets past it. Packets
//! that are not ours go on to those programs untouched. The guard of one connection runs at netfilter instead, in
//! front of all rules, if no foreign program is at tc: attaching there takes 0.1 ms, and 6 to 19 ms at tcx. The packet
//! socket's tap comes before all of them (__netif_receive_skb_core in net/core/dev.c), so netkat has seen what the
//! guard drops.

use super::{
    Programs,
    attachment::{self, Attachment, Backend},
    bpf::{self, TcHook},
    error::KernelError,
    program_list,
};
use std::os::fd::OwnedFd;

/// A guard on one interface; dropping it detaches it. A listener on several interfaces has one for each,
/// all of the same [`Programs`] or the same table of rules.
#[derive(Debug)]
pub struct Guard(Kind);

#[derive(Debug)]
enum Kind {
    Program(Attachment),
    /// A program at netfilter, which goes with the link.
    Netfilter {
        interface: u32,
        _link: OwnedFd,
    },
    /// A chain of rules at this interface, which goes with its table.
    Rules {
        interface: u32,
    },
}

impl Guard {
    /// Attaches the guard to the interface with this index, after removing what dead netkats left there.
    ///
    /// With clsact, the caller has to call [`Programs::beat`] from now on, as often as
    /// [`Programs::heartbeat_interval`] says, and dropping the guard needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// With [`Backend::Tcx`], [`KernelError::NoTcx`] and [`KernelError::TcxFull`];
    /// [`KernelError::Capability`] without CAP_NET_ADMIN; [`KernelError::Attach`] for anything else, as for
    /// an interface that is gone.
    pub fn attach(programs: &Programs, interface: u32, backend: Backend) -> Result<Guard, KernelError> {
        let program = programs.guard_fd();
        match programs.guards_at_netfilter() {
            (false, false) => Attachment::new(programs, program, interface, TcHook::Ingress, backend)
                .map(|attachment| Guard(Kind::Program(attachment))),
            (v4, _) => bpf::attach_netfilter(program, v4)
                .map(|link| Guard(Kind::Netfilter { interface, _link: link }))
                .map_err(|error| attachment::failed("netfilter PREROUTING", interface, error)),
        }
    }

    /// Returns the guard that a chain of rules at an interface is.
    pub(super) fn of_rules(interface: u32) -> Guard {
        Guard(Kind::Rules { interface })
    }

    /// Returns the back end in use, never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        match &self.0 {
            Kind::Program(attachment) => attachment.backend(),
            Kind::Netfilter { .. } => Backend::Netfilter,
            Kind::Rules { .. } => Backend::Nftables,
        }
    }

    /// Returns whether removing the guard, or changing its table of flows, takes CAP_NET_ADMIN.
    pub(crate) fn needs_privilege(&self) -> bool {
        !matches!(self.backend(), Backend::Tcx | Backend::Netfilter)
    }

    /// Returns the names of the programs that run before the guard on this interface, first to last: one of
    /// them may let our packets reach the kernel. Guards of other netkats are left out, since they pass on
    /// what is not theirs. The id stands for a name that takes CAP_SYS_ADMIN to read.
    ///
    /// # Errors
    /// [`KernelError::Query`].
    pub fn earlier_programs(&self) -> Result<Vec<String>, KernelError> {
        let mut names = match &self.0 {
            Kind::Program(attachment) => attachment.earlier_programs()?,
            // Netfilter's hooks come behind tc's.
            Kind::Netfilter { interface, .. } | Kind::Rules { interface } => {
                program_list::ingress_programs(*interface).iter().map(ToString::to_string).collect()
            }
        };
        names.retain(|name| !name.starts_with(program_list::GUARD));
        Ok(names)
    }
}
