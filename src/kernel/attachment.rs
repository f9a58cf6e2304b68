//! One program at one interface: at tcx where the kernel has it and has room there, else at clsact.

use super::{
    Programs,
    bpf::{self, Direction, Place},
    clsact::{self, ClsactFilter},
    error::KernelError,
};
use crate::{
    host::features::Missing,
    process::capability::{self, Capability},
};
use log::debug;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// How programs are attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// tcx where the kernel has it and has room there, in front of the other programs if it lets us, else clsact.
    #[default]
    Auto,
    /// Linux 6.6 and later. The kernel undoes it when the process ends, however it ends.
    Tcx,
    /// Older kernels. Undone when the value is dropped; otherwise inert within
    /// [`HEARTBEAT_LIMIT`](super::HEARTBEAT_LIMIT), and removed by the next netkat on that interface.
    Clsact,
}

/// An attached program; dropping it detaches.
#[derive(Debug)]
pub(super) struct Attachment {
    interface: u32,
    direction: Direction,
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
    /// Attaches, as far as the kernel lets us in front of all other programs at the same hook, after removing what dead
    /// netkats left.
    pub(super) fn new(
        programs: &Programs,
        program: BorrowedFd,
        interface: u32,
        direction: Direction,
        backend: Backend,
    ) -> Result<Attachment, KernelError> {
        if let Err(error) = clsact::remove_leftovers(interface) {
            debug!("cannot look for leftovers on {}: {error}", interface_name(interface));
        }
        let info = bpf::program_info(program)
            .map_err(|source| KernelError::Query { interface: interface_name(interface), source })?;
        let undo = match backend {
            Backend::Tcx => Undo::tcx(program, interface, direction, programs.missing())?,
            Backend::Clsact => Undo::clsact(programs, program, &info.name, interface, direction)?,
            Backend::Auto => match Undo::tcx(program, interface, direction, programs.missing()) {
                Err(error @ (KernelError::NoTcx | KernelError::TcxFull(_))) => {
                    debug!("{error}");
                    Undo::clsact(programs, program, &info.name, interface, direction)?
                }
                result => result?,
            },
        };
        Ok(Attachment { interface, direction, program: info.id, undo })
    }

    /// What was used, never `Auto`.
    pub(super) fn backend(&self) -> Backend {
        match self.undo {
            Undo::Tcx(_) => Backend::Tcx,
            Undo::Clsact(_) => Backend::Clsact,
        }
    }

    /// The names of the programs that run before this one. tcx comes before clsact (net/core/dev.c,
    /// sch_handle_ingress).
    pub(super) fn ahead(&self) -> Result<Vec<String>, KernelError> {
        let failed = |source| KernelError::Query { interface: interface_name(self.interface), source };
        let mut ids = match bpf::attached_tcx(self.interface, self.direction) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Vec::new(),
            result => result.map_err(failed)?,
        };
        let ours = ids.iter().position(|&id| id == self.program).unwrap_or(ids.len());
        ids.truncate(ours);
        let mut names: Vec<_> = ids.into_iter().map(program_name).collect();
        if let Undo::Clsact(filter) = &self.undo {
            names.extend(filter.ahead().map_err(failed)?.into_iter().map(|f| f.name));
        }
        // A u32 classifier is listed once for each of its tables and rules.
        names.dedup();
        Ok(names)
    }
}

impl Undo {
    /// In front of all other programs; where the kernel has no such place, behind them.
    fn tcx(
        program: BorrowedFd,
        interface: u32,
        direction: Direction,
        missing: Missing,
    ) -> Result<Undo, KernelError> {
        for place in [Place::First, Place::Last] {
            let attached = match missing.tcx || missing.before && place == Place::First {
                true => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                false => bpf::attach_tcx(program, interface, direction, place),
            };
            match attached {
                Ok(link) => return Ok(Undo::Tcx(link)),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    debug!("no place at tcx of {}: {place:?}", interface_name(interface));
                }
                Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
                    return Err(KernelError::TcxFull(interface_name(interface)));
                }
                Err(error) => return Err(failed(Backend::Tcx, interface, direction, error)),
            }
        }
        Err(KernelError::NoTcx)
    }

    fn clsact(
        programs: &Programs,
        program: BorrowedFd,
        name: &str,
        interface: u32,
        direction: Direction,
    ) -> Result<Undo, KernelError> {
        let owner = programs.watch();
        owner
            .and_then(|owner| ClsactFilter::attach(program, name, owner, interface, direction))
            .map(Undo::Clsact)
            .map_err(|error| failed(Backend::Clsact, interface, direction, error))
    }
}

fn failed(backend: Backend, interface: u32, direction: Direction, source: io::Error) -> KernelError {
    let purpose = "attach its eBPF programs to an interface";
    if let Some(error) = capability::denied(&source, Capability::NetAdmin, purpose) {
        return error.into();
    }
    let hook = match (backend, direction) {
        (Backend::Clsact, Direction::Ingress) => "clsact ingress",
        (Backend::Clsact, Direction::Egress) => "clsact egress",
        (_, Direction::Ingress) => "tcx ingress",
        (_, Direction::Egress) => "tcx egress",
    };
    KernelError::Attach { hook, interface: interface_name(interface), source }
}

/// The interface's name, for messages; its index when it has none any more.
fn interface_name(index: u32) -> String {
    crate::host::interface::name(index).unwrap_or_else(|| format!("interface {index}"))
}

/// A program's name; its id where asking takes a privilege that we do not have (CAP_SYS_ADMIN).
fn program_name(id: u32) -> String {
    bpf::program_by_id(id)
        .and_then(|program| bpf::program_info(program.as_fd()))
        .ok()
        .map(|info| info.name)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("program {id}"))
}
