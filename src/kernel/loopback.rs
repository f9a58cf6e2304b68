//! The program at lo's egress that makes IPv4 over lo work without a sysctl: `netkat_loopback` in
//! bpf/netkat.bpf.c.

use super::{
    Programs,
    attachment::{Attachment, Backend},
    bpf::TcHook,
    error::KernelError,
};

/// The loopback program at lo's egress; dropping it detaches it. PACKET_QDISC_BYPASS would bypass the
/// program.
#[derive(Debug)]
pub struct Loopback {
    _attachment: Attachment,
}

impl Loopback {
    /// Attaches the program to lo, whose index is `interface`. Only a flow that uses IPv4 on lo needs it.
    ///
    /// # Errors
    /// As for [`Guard::attach`](super::Guard::attach).
    pub fn attach(programs: &Programs, interface: u32, backend: Backend) -> Result<Loopback, KernelError> {
        let program = programs.loopback_fd().ok_or(KernelError::NotLoaded("only IPv4 needs help on lo"))?;
        let attachment = Attachment::new(programs, program, interface, TcHook::Egress, backend)?;
        Ok(Loopback { _attachment: attachment })
    }
}
