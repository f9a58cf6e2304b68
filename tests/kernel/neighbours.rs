//! Programs of others, and objects attached to an interface.

use crate::namespace::run;
use libbpf_rs::libbpf_sys as sys;
use netkat::kernel::Backend;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub const FOREIGN: &str = "foreign";

/// A program that lets every packet go on to the next one (returns -1, TC_ACT_UNSPEC).
pub fn foreign_program() -> OwnedFd {
    let instructions = [
        // r0 = -1; exit
        sys::bpf_insn { code: 0xb7, imm: -1, ..Default::default() },
        sys::bpf_insn { code: 0x95, ..Default::default() },
    ];
    let name = c"foreign";
    // SAFETY: name, license and instructions outlive the call; no options are given.
    let fd = unsafe {
        sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_SCHED_CLS,
            name.as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as sys::size_t,
            std::ptr::null_mut(),
        )
    };
    owned(fd)
}

/// Attaches a program at tcx ingress, in front of others when `first`.
pub fn attach_tcx(program: &OwnedFd, interface: u32, first: bool) -> OwnedFd {
    let options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        flags: if first { sys::BPF_F_BEFORE } else { 0 },
        ..Default::default()
    };
    let target = interface.cast_signed();
    // SAFETY: the program's descriptor is open and `options` outlives the call.
    owned(unsafe { sys::bpf_link_create(program.as_raw_fd(), target, sys::BPF_TCX_INGRESS, &options) })
}

/// Returns the back ends of this kernel: before Linux 6.6 a test of tcx is skipped, loudly.
pub fn backends() -> &'static [Backend] {
    if has_tcx() { &[Backend::Tcx, Backend::Clsact] } else { &[Backend::Clsact] }
}

pub fn has_tcx() -> bool {
    let has = query_tcx(1).is_ok();
    if !has {
        crate::skipped::skipped("tcx: this kernel does not have it");
    }
    has
}

/// Returns the number of programs at tcx ingress; `None` where the kernel has no tcx.
pub fn count_tcx(interface: u32) -> u32 {
    query_tcx(interface).unwrap_or(0)
}

fn query_tcx(interface: u32) -> Result<u32, i32> {
    let mut count = 0;
    // SAFETY: no array is given, so the kernel writes the number only.
    let result = unsafe {
        sys::bpf_prog_query(
            interface.cast_signed(),
            sys::BPF_TCX_INGRESS,
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut count,
        )
    };
    if result == 0 { Ok(count) } else { Err(result) }
}

fn owned(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub fn has_clsact(interface: &str) -> bool {
    run(&format!("tc qdisc show dev {interface}")).contains("clsact")
}

/// Returns the clsact ingress filters, as tc(8) prints them.
pub fn filters(interface: &str) -> String {
    run(&format!("tc filter show dev {interface} ingress"))
}
