//! The attachment of one program to one interface: at tcx where the kernel has it and has room there, else
//! at clsact.

use super::{
    Programs,
    bpf::{self, Position, TcHook},
    clsact::{self, ClsactFilter},
    error::KernelError,
};
use crate::{
    host::features::FeatureOverrides,
    process::capability::{self, Capability},
};
use log::debug;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The way in which programs are attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// netfilter for one connection, if no foreign program is at tc ingress. Else tcx where the kernel has it
    /// and has room there, else clsact; in front of the other programs where possible. nftables where no
    /// program may be loaded.
    #[default]
    Auto,
    /// Linux 6.6 and later. The kernel undoes it when the process ends, however it ends.
    Tcx,
    /// Any kernel. Undone when the value is dropped; if the process is killed, inert within
    /// [`HEARTBEAT_LIMIT`](super::HEARTBEAT_LIMIT), and removed by the next netkat on that interface.
    Clsact,
    /// Linux 6.4 and later, for the guard of one connection: netfilter's PREROUTING hook of this network
    /// namespace, behind the programs at tc ingress. Attaching waits for no grace period. The kernel undoes it
    /// when the process ends, however it ends.
    Netfilter,
    /// Rules of nftables instead of programs. The kernel removes them when the process ends, however it ends;
    /// before Linux 5.12 as with [`Backend::Clsact`].
    Nftables,
}

/// An attached program; dropping it detaches.
#[derive(Debug)]
pub(super) struct Attachment {
    interface: u32,
    hook: TcHook,
    program: u32,
    undo: Undo,
}

#[derive(Debug)]
enum Undo {
    /// A bpf link: the program goes with its last descriptor.
    Tcx(#[allow(dead_code, reason = "kept open")] OwnedFd),
    Clsact(ClsactFilter),
}

impl Attachment {
    /// Attaches a program, in front of all others at the same hook as far as the kernel allows it, after
    /// removing what dead netkats left there.
    ///
    /// # Errors
    /// [`KernelError::Query`], [`KernelError::Attach`] and [`KernelError::Capability`]; with
    /// [`Backend::Tcx`] also [`KernelError::NoTcx`] and [`KernelError::TcxFull`].
    pub(super) fn new(
        programs: &Programs,
        program: BorrowedFd,
        interface: u32,
        hook: TcHook,
        backend: Backend,
    ) -> Result<Attachment, KernelError> {
        if let Err(error) = clsact::remove_leftovers(interface) {
            debug!("cannot look for leftovers on {}: {error}", interface_name(interface));
        }
        let info = bpf::program_info(program)
            .map_err(|source| KernelError::Query { interface: interface_name(interface), source })?;
        let undo = match backend {
            Backend::Tcx => Undo::tcx(program, interface, hook, programs.overrides())?,
            Backend::Clsact => Undo::clsact(programs, program, &info.name, interface, hook)?,
            Backend::Netfilter | Backend::Nftables => {
                return Err(KernelError::NotLoaded("the guard is none of an interface"));
            }
            Backend::Auto => match Undo::tcx(program, interface, hook, programs.overrides()) {
                Err(error @ (KernelError::NoTcx | KernelError::TcxFull(_))) => {
                    debug!("{error}");
                    Undo::clsact(programs, program, &info.name, interface, hook)?
                }
                result => result?,
            },
        };
        Ok(Attachment { interface, hook, program: info.id, undo })
    }

    /// Returns the back end in use, never `Auto`.
    pub(super) fn backend(&self) -> Backend {
        match self.undo {
            Undo::Tcx(_) => Backend::Tcx,
            Undo::Clsact(_) => Backend::Clsact,
        }
    }

    /// Returns the names of the programs that run before this one. tcx comes before clsact
    /// (sch_handle_ingress in net/core/dev.c).
    ///
    /// # Errors
    /// [`KernelError::Query`].
    pub(super) fn earlier_programs(&self) -> Result<Vec<String>, KernelError> {
        let failed = |source| KernelError::Query { interface: interface_name(self.interface), source };
        let mut ids = match bpf::attached_tcx(self.interface, self.hook) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Vec::new(),
            result => result.map_err(failed)?,
        };
        let ours = ids.iter().position(|&id| id == self.program).unwrap_or(ids.len());
        ids.truncate(ours);
        let mut names: Vec<_> = ids.into_iter().map(program_name).collect();
        if let Undo::Clsact(filter) = &self.undo {
            names.extend(filter.earlier_programs().map_err(failed)?.into_iter().map(|f| f.name));
        }
        // A u32 classifier is listed once for each of its tables and rules.
        names.dedup();
        Ok(names)
    }
}

impl Undo {
    /// Attaches in front of all other programs; where the kernel has no such position, behind them.
    fn tcx(
        program: BorrowedFd,
        interface: u32,
        hook: TcHook,
        overrides: FeatureOverrides,
    ) -> Result<Undo, KernelError> {
        let name = match hook {
            TcHook::Ingress => "tcx ingress",
            TcHook::Egress => "tcx egress",
        };
        for place in [Position::First, Position::Last] {
            let attached = match overrides.no_tcx || overrides.no_before && place == Position::First {
                true => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                false => bpf::attach_tcx(program, interface, hook, place),
            };
            match attached {
                Ok(link) => return Ok(Undo::Tcx(link)),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    debug!("no position at tcx of {}: {place:?}", interface_name(interface));
                }
                Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
                    return Err(KernelError::TcxFull(interface_name(interface)));
                }
                Err(error) => return Err(failed(name, interface, error)),
            }
        }
        Err(KernelError::NoTcx)
    }

    fn clsact(
        programs: &Programs,
        program: BorrowedFd,
        name: &str,
        interface: u32,
        hook: TcHook,
    ) -> Result<Undo, KernelError> {
        let place = match hook {
            TcHook::Ingress => "clsact ingress",
            TcHook::Egress => "clsact egress",
        };
        let owner = programs.start_heartbeat();
        owner
            .and_then(|owner| ClsactFilter::attach(program, name, owner, interface, hook))
            .map(Undo::Clsact)
            .map_err(|error| failed(place, interface, error))
    }
}

/// Explains why a program cannot be attached to `hook`.
pub(super) fn failed(hook: &'static str, interface: u32, source: io::Error) -> KernelError {
    let purpose = "attach its eBPF programs to an interface";
    if let Some(error) = capability::denied(&source, Capability::NetAdmin, purpose) {
        return error.into();
    }
    KernelError::Attach { hook, interface: interface_name(interface), source }
}

/// Returns the interface's name, for messages; its index if it is gone.
fn interface_name(index: u32) -> String {
    crate::host::interface::name(index).unwrap_or_else(|| format!("interface {index}"))
}

/// Returns a program's name; its id where reading the name takes CAP_SYS_ADMIN and we lack it.
fn program_name(id: u32) -> String {
    bpf::program_by_id(id)
        .and_then(|program| bpf::program_info(program.as_fd()))
        .ok()
        .map(|info| info.name)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("program {id}"))
}
