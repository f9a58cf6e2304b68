//! The bpf(2) calls for which libbpf-rs has no safe form: links at tcx and netfilter, calls of the kernel's functions, and
//! queries about attached programs.
#![allow(unsafe_code)]

use libbpf_rs::{AsRawLibbpf, OpenProgramMut, libbpf_sys as sys};
use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// The side of an interface at which tc programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TcHook {
    Ingress,
    Egress,
}

/// A position among the programs at one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// In front of all other programs (BPF_F_BEFORE).
    First,
    /// Behind all other programs.
    Last,
}

/// A loaded program as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgramInfo {
    /// The kernel's id of the program.
    pub id: u32,
    /// The program's name, 15 bytes at most.
    pub name: String,
}

/// Attaches a program at an interface's tcx hook. Closing the descriptor detaches it, as does the end of
/// the process.
///
/// # Errors
/// EINVAL where the kernel has no tcx or no such position, ENODEV where it has no such interface, EPERM
/// without CAP_NET_ADMIN.
pub(super) fn attach_tcx(
    program: BorrowedFd,
    interface: u32,
    hook: TcHook,
    position: Position,
) -> io::Result<OwnedFd> {
    let options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        flags: match position {
            Position::First => sys::BPF_F_BEFORE,
            Position::Last => 0,
        },
        ..Default::default()
    };
    // SAFETY: the program's descriptor is open for as long as it is borrowed, and `options` outlives the
    // call.
    let fd =
        unsafe { sys::bpf_link_create(program.as_raw_fd(), index(interface)?, attach_type(hook), &options) };
    // SAFETY: a non-negative result is a descriptor that the kernel has just made for us alone.
    returned(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program at netfilter's PREROUTING hook of this network namespace, in front of all rules. Closing the
/// descriptor detaches it, as does the end of the process.
///
/// # Errors
/// EINVAL where the kernel has no such links (before Linux 6.4), EPERM without CAP_NET_ADMIN.
pub(super) fn attach_netfilter(program: BorrowedFd, v4: bool) -> io::Result<OwnedFd> {
    let pf = if v4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    loop {
        // One program has a priority for itself (nf_hook_grow() in net/netfilter/core.c). All drawn ones come before the
        // first that the kernel and rules use, -450; the very first is refused.
        let priority =
            libc::NF_IP_PRI_FIRST + 1 + (getrandom::u32().map_err(io::Error::other)? >> 2).cast_signed();
        match attach_at_priority(program, pf.cast_unsigned(), priority) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            result => return result,
        }
    }
}

fn attach_at_priority(program: BorrowedFd, pf: u32, priority: i32) -> io::Result<OwnedFd> {
    let mut options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        ..Default::default()
    };
    let hooknum = libc::NF_INET_PRE_ROUTING.cast_unsigned();
    options.__bindgen_anon_1.netfilter =
        sys::bpf_link_create_opts__bindgen_ty_1__bindgen_ty_5 { pf, hooknum, priority, flags: 0 };
    // SAFETY: the program's descriptor is open for as long as it is borrowed, and `options` outlives the
    // call.
    let fd = unsafe { sys::bpf_link_create(program.as_raw_fd(), 0, sys::BPF_NETFILTER, &options) };
    // SAFETY: a non-negative result is a descriptor that the kernel has just made for us alone.
    returned(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kernel's function that opens a packet for reading.
pub(super) const READING_FUNCTION: &str = "bpf_dynptr_from_skb";
/// The number of a helper that stands for this function in the object: DYNPTR_FROM_SKB in bpf/netkat.bpf.c.
const PLACEHOLDER: i32 = 0x6e6b;

/// Makes a program call [`READING_FUNCTION`], by its number in the kernel's BTF. Call it before the load.
///
/// # Errors
/// ENOMEM.
pub(super) fn call_function(program: &mut OpenProgramMut, number: u32) -> io::Result<()> {
    let mut instructions = program.insns().to_vec();
    let call = (sys::BPF_JMP | sys::BPF_CALL) as u8;
    for instruction in &mut instructions {
        if instruction.code == call && instruction.src_reg() == 0 && instruction.imm == PLACEHOLDER {
            instruction.set_src_reg(sys::BPF_PSEUDO_KFUNC_CALL as u8);
            instruction.imm = number.cast_signed();
        }
    }
    let program = program.as_libbpf_object().as_ptr();
    // SAFETY: the program is not loaded and borrowed by us alone; libbpf copies the instructions.
    let result = unsafe {
        sys::bpf_program__set_insns(program, instructions.as_mut_ptr(), instructions.len() as sys::size_t)
    };
    returned(result).map(drop)
}

/// Returns the ids of the programs at an interface's tcx hook, in the order in which they run.
///
/// # Errors
/// EINVAL where the kernel has no tcx, EPERM without CAP_NET_ADMIN.
pub(super) fn attached_tcx(interface: u32, hook: TcHook) -> io::Result<Vec<u32>> {
    // The kernel allows fewer programs at a hook (BPF_MPROG_MAX in include/linux/bpf_mprog.h).
    let mut ids = vec![0u32; 64];
    let mut count = ids.len() as u32;
    // SAFETY: `ids` has room for `count` numbers; the kernel writes no more, and says how many it wrote.
    let result = unsafe {
        sys::bpf_prog_query(
            index(interface)?,
            attach_type(hook),
            0,
            std::ptr::null_mut(),
            ids.as_mut_ptr(),
            &mut count,
        )
    };
    returned(result)?;
    ids.truncate(count as usize);
    Ok(ids)
}

/// The place of a control group at which programs judge its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum CgroupHook {
    Connect4,
    Connect6,
    Egress,
    Ingress,
}

/// Returns the ids of the programs that the sockets of a control group pass, those of its ancestors included.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN, EBADF where the folder is of no control group of version 2.
pub(super) fn attached_to_cgroup(group: BorrowedFd, hook: CgroupHook) -> io::Result<Vec<u32>> {
    let attach_type = match hook {
        CgroupHook::Connect4 => sys::BPF_CGROUP_INET4_CONNECT,
        CgroupHook::Connect6 => sys::BPF_CGROUP_INET6_CONNECT,
        CgroupHook::Egress => sys::BPF_CGROUP_INET_EGRESS,
        CgroupHook::Ingress => sys::BPF_CGROUP_INET_INGRESS,
    };
    let mut ids = vec![0u32; 64];
    let mut count = ids.len() as u32;
    // SAFETY: `ids` has room for `count` numbers; the kernel writes no more, and says how many it wrote. The
    // descriptor is open for as long as it is borrowed.
    let result = unsafe {
        sys::bpf_prog_query(
            group.as_raw_fd(),
            attach_type,
            sys::BPF_F_QUERY_EFFECTIVE,
            std::ptr::null_mut(),
            ids.as_mut_ptr(),
            &mut count,
        )
    };
    returned(result)?;
    ids.truncate(count as usize);
    Ok(ids)
}

/// Returns id and name of a loaded program.
///
/// # Errors
/// The kernel's.
pub(super) fn program_info(program: BorrowedFd) -> io::Result<ProgramInfo> {
    let mut info = sys::bpf_prog_info::default();
    let mut length = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is all zero, so it asks for no variable-length data; the kernel writes at most `length`
    // bytes into it.
    returned(unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length) })?;
    // The kernel ends the name with a zero; without one, it is no text.
    let name = info.name.map(|c| c as u8);
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    Ok(ProgramInfo { id: info.id, name: name.to_string_lossy().into_owned() })
}

/// Opens any loaded program by its id.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, ENOENT when it is gone.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = returned(unsafe { sys::bpf_prog_get_fd_by_id(id) })?;
    // SAFETY: a non-negative result is a descriptor that the kernel has just made for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach_type(hook: TcHook) -> sys::bpf_attach_type {
    match hook {
        TcHook::Ingress => sys::BPF_TCX_INGRESS,
        TcHook::Egress => sys::BPF_TCX_EGRESS,
    }
}

fn index(interface: u32) -> io::Result<i32> {
    i32::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

/// libbpf 1.x returns the negative error number (libbpf.h, libbpf_set_strict_mode).
fn returned(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(result.saturating_neg())) } else { Ok(result) }
}
